"""Changes of what is known of an item, and the fields in which they are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from index.retrieval.details import CATEGORIES, TITLE, Details

_ATTRIBUTE = "="


def details_in(fields: Mapping[str, Any]) -> Details:
    """From the fields that changes have set."""
    attributes = {
        name.removeprefix(_ATTRIBUTE): tuple(value) if isinstance(value, list) else value
        for name, value in fields.items()
        if name.startswith(_ATTRIBUTE)
    }
    return Details(fields.get(TITLE), fields.get(CATEGORIES), attributes)


@dataclass(frozen=True, slots=True)
class DetailsChange:
    """The fields to change: a value, or None to forget it.

    Their names: title, categories, and each attribute's after a `=`.
    """

    fields: Mapping[str, Any]

    @classmethod
    def of(cls, given: Mapping[str, Any], attributes: Mapping[str, Any] | None) -> "DetailsChange":
        """given: of title and categories, those to change."""
        named = {f"{_ATTRIBUTE}{name}": value for name, value in (attributes or {}).items()}
        return cls({**given, **named})
