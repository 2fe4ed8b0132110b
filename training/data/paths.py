"""Paths of inputs: on this machine, or in an object store, through fsspec."""

from collections.abc import Callable
from pathlib import Path
from typing import IO, Annotated, Any, cast

from pydantic import PlainSerializer, WrapValidator

_MARK = "://"


def input_path(text: str | Path) -> Path:
    """The path of a file or folder; with a scheme, as s3://bucket/log, one of fsspec's.

    That one has the methods of a Path, but is none. Raises ValueError if the store cannot be used.
    """
    if isinstance(text, Path) or _MARK not in str(text):
        return Path(text)
    try:
        from upath import UPath
    except ImportError:
        raise ValueError(
            f"{text}: reading from an object store needs: pip install 're4[object-stores]'"
        ) from None
    try:
        path = UPath(text)
        assert path.fs is not None  # loads the library of the scheme
    except (ImportError, ValueError) as error:
        raise ValueError(f"{text}: {error}") from error
    return cast(Path, path)


def existing_input(text: str | Path) -> Path:
    """As input_path. Raises ValueError if nothing is there, or the store does not answer."""
    path = input_path(text)
    try:
        exists = path.exists()
    except Exception as error:  # each store has errors of its own
        raise ValueError(f"{text}: cannot be looked up ({error})") from error
    if not exists:
        raise ValueError(f"{text}: no such file or folder")
    return path


def to_open(path: Path) -> Path | IO[bytes]:
    """What libraries open: the path, or the open file of an object store."""
    return path if isinstance(path, Path) else path.open("rb")


def _validate(given: Any, validate: Callable[[Any], Path]) -> Path:
    return input_path(given) if isinstance(given, str) and _MARK in given else validate(given)


def _validate_existing(given: Any, validate: Callable[[Any], Path]) -> Path:
    return existing_input(given)


# Fields of models.
InputPath = Annotated[Path, WrapValidator(_validate), PlainSerializer(str, when_used="json")]
ExistingInput = Annotated[Path, WrapValidator(_validate_existing)]
