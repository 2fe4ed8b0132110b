"""Columns of an item file to attributes: text, number, boolean, or list of texts."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from index.retrieval.details import Value
from training.data.matching import warn

Attributes = Mapping[str, Value]

# With a leading 0, as in 01234, it is a code and no number.
_NUMBER = re.compile(r"[-+]?(0|[1-9]\d*)(\.\d*)?([eE][-+]?\d+)?")
_BOOLEANS = {"true": True, "false": False}


def parse_texts(records: Sequence[Mapping[str, str]], names: Iterable[str]) -> list[Attributes]:
    """The named columns of the records; without what is empty.

    A column is boolean if all its values are true or false, a number if all are, and a list if one
    has a |.
    """
    columns = {name: [record[name].strip() for record in records] for name in names if name}
    parsers = {name: _parser(set(texts) - {""}) for name, texts in columns.items()}
    return [
        {name: parse(columns[name][at]) for name, parse in parsers.items() if columns[name][at]}
        for at in range(len(records))
    ]


def _parser(texts: set[str]) -> Callable[[str], Value]:
    if all(text.lower() in _BOOLEANS for text in texts):
        return lambda text: _BOOLEANS[text.lower()]
    if all(_NUMBER.fullmatch(text) and math.isfinite(float(text)) for text in texts):
        return float
    if any("|" in text for text in texts):
        return lambda text: tuple(part.strip() for part in text.split("|") if part.strip())
    return str


def parse_columns(path: Path, table: pa.Table, names: Iterable[str]) -> list[Attributes]:
    """The named columns of a Parquet file by their types; others than the four become text.

    Warns of a column that cannot, and leaves it out.
    """
    columns: dict[str, Sequence[Value | None]] = {}
    for name in names:
        try:
            columns[name] = _values(table[name])
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            warn(
                f"{path}: column {name!r} of {table[name].type} is left out; an attribute is a "
                "text, a number, a boolean or a list of texts"
            )
    return [
        {name: value for name, values in columns.items() if (value := values[at]) is not None}
        for at in range(len(table))
    ]


def _values(column: pa.ChunkedArray) -> Sequence[Value | None]:
    kind = column.type
    if pa.types.is_boolean(kind):
        booleans: list[bool | None] = column.to_pylist()
        return booleans
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64()).to_pylist()
        return [None if n is None or not math.isfinite(n) else n for n in numbers]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lists = column.cast(pa.list_(pa.string())).to_pylist()
        return [None if texts is None else tuple(filter(None, texts)) for texts in lists]
    texts: list[str | None] = column.cast(pa.string()).to_pylist()
    return texts
