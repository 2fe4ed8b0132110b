"""Cursors: which pages of an answer a client has."""

import secrets
from typing import NamedTuple

START = "start"
CURSOR = rf"{START}|[A-Za-z0-9_-]{{22}}\.[1-9][0-9]{{0,4}}"


class Cursor(NamedTuple):
    """page: the last that was shown; 0 before the first."""

    id: str
    page: int

    @classmethod
    def of(cls, text: str) -> "Cursor":
        """Of a text that matches CURSOR."""
        if text == START:
            return cls(secrets.token_urlsafe(16), 0)
        name, _, page = text.partition(".")
        return cls(name, int(page))

    def __str__(self) -> str:
        return f"{self.id}.{self.page}"
