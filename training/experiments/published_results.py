"""Numbers printed in papers, read from published_results.toml."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


def published_results(sweep: str, data_set: str) -> Mapping[str, Mapping[str, float]] | None:
    """Row label -> metric -> value; None if the paper has no such table for the data set."""
    table = _tables().get(sweep, {})
    if data_set not in table:
        return None
    return {
        label: dict(zip(table["metrics"], values, strict=True))
        for label, values in table[data_set].items()
    }


@cache
def _tables() -> dict[str, Any]:
    file = files("training.experiments") / "published_results.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))
