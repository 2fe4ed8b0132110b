"""The files of a log and the format of each: presets, and what the user says of columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from training.data.columns import ROLES, Columns, Format
from training.data.compression import head_lines, magic_bytes
from training.data.delimited import Delimited
from training.data.errors import LogError
from training.data.format_detection import SEPARATORS, detect_format, find_separator, split_fields
from training.data.formats import FORMATS, NATIVE
from training.data.json_lines import JsonLines
from training.data.log_options import LogSource
from training.data.parquet import Parquet

_PARQUET = ".parquet"


def open_files(path: Path, source: LogSource) -> Iterator[tuple[Path, Format]]:
    """Each file of the log, in order of its name, with its format.

    Raises LogError if there is no file, or if the format of one cannot be told or is not that of
    the others.
    """
    first: tuple[Path, str] | None = None
    for file in _files(path):
        name = _format_name(file, source)
        if first is None:
            first = file, name
        elif name != first[1]:
            raise LogError(
                f"{path}: {first[0].name} is {first[1]}, and {file.name} is {name}; a folder has "
                "files of one format"
            )
        yield file, _with_layout(file, name, source)


def _files(path: Path) -> list[Path]:
    """The file, or the files of data below a folder, such as date partitions.

    Names that begin with a dot or an underscore are skipped: they are unfinished, or no data.
    """
    if not path.is_dir():
        return [path]
    found = {file.relative_to(path).parts: file for file in path.rglob("*") if file.is_file()}
    names = sorted(parts for parts in found if not any(name[0] in "._" for name in parts))
    files = [found[parts] for parts in names if found[parts].stat().st_size]
    if not files:
        raise LogError(f"{path}: a folder without a file of data; name a file, or another folder")
    return files


def _format_name(path: Path, source: LogSource) -> str:
    given = source.columns or source.separator or source.column_names
    if source.format != "auto" or not given or magic_bytes(path).startswith(b"PAR1"):
        return detect_format(path, source.format)
    if path.suffix == _PARQUET:
        return "parquet"
    first = head_lines(path)[0]
    if first.startswith("{"):
        return detect_format(path)
    if source.column_names or source.separator:
        return "csv"
    headers = [split_fields(first, separator) for separator in SEPARATORS]
    if known := _known_format(path, headers, source.names_by_role):
        return known
    columns = NATIVE.renamed(source.names_by_role)
    return "csv" if any(not columns.missing(h) for h in headers) else detect_format(path)


def _known_format(
    path: Path, headers: Sequence[Sequence[str]], columns: Mapping[str, str]
) -> str | None:
    """The published format of the file, if it has the columns: it knows the unit of times."""
    try:
        name = detect_format(path)
    except LogError:
        return None
    format = FORMATS[name]
    names = format.names if isinstance(format, Delimited) else ()
    renamed = format.columns.renamed(columns)
    has_all = any(not renamed.missing(header) for header in ([names] if names else headers))
    return name if has_all and name not in ("csv", "tsv") else None


def _with_layout(path: Path, name: str, source: LogSource) -> Format:
    format = FORMATS[name]
    columns = _named(format.columns, source)
    if isinstance(format, Delimited):
        names = source.column_names or format.names
        separator = source.separator or format.separator
        if name == "csv" and source.separator is None:
            separator = _find_separator(path, columns, names)
        impressions = format.impressions and "item" not in source.names_by_role
        return Delimited(columns, separator, names, impressions)
    for option in ("separator", "column_names"):
        if getattr(source, option):
            raise LogError(
                f"{path}: {name} is not delimited; leave out --{option.replace('_', '-')}"
            )
    assert isinstance(format, JsonLines | Parquet)
    return replace(format, columns=columns)


def _named(columns: Columns, source: LogSource) -> Columns:
    """The columns by the names that are given. Roles are names too, where all names are given."""
    given = source.names_by_role
    if source.column_names:
        natives = dict(zip(ROLES, columns.names, strict=False))
        for role in ROLES:
            if role in source.column_names and natives[role] not in source.column_names:
                given.setdefault(role, role)
    return columns.renamed(given) if given else columns


def _find_separator(path: Path, columns: Columns, names: Sequence[str]) -> str:
    lines = head_lines(path)
    if not names:
        return find_separator(lines[0], lambda fields: not columns.missing(fields))
    return find_separator(lines[0], lambda fields: len(fields) == len(names))
