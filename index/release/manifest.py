"""The release contract: what a draft or release folder holds; to write, verify and open one.

    <root>/drafts/<id>/      made by training, completed by build; servers never look here
    <root>/releases/<id>/    immutable
        manifest.json        this module's Manifest, written last: no manifest, no release
        encoder.safetensors  weights
        item_vectors.npy     (N + 1, D) float32, row 0 zero
        catalog.parquet      ids in row order, popularity, category and title where known
        items.faiss          the index over item_vectors
    <root>/current           one id

No pickle anywhere. Whatever is amiss in a folder is a ReleaseError of one sentence.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    Field,
    ValidationError,
    field_validator,
)

from index.ann.spec import Count, IndexMeasurement, Record
from index.release.atomic_io import fsync, replace_text
from index.release.errors import ReleaseError

FORMAT = 1
RELEASES = "releases"
DRAFTS = "drafts"
CURRENT = "current"
MANIFEST = "manifest.json"
ENCODER = "encoder.safetensors"
VECTORS = "item_vectors.npy"
CATALOG = "catalog.parquet"
INDEX = "items.faiss"
INTERESTS = (
    "interests.npy"  # held-out users' interests (Q, K, D), in drafts only: build tunes on them
)


_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ReleaseId = Annotated[str, Field(pattern=_NAME)]
FileName = Annotated[str, Field(pattern=_NAME)]
Setting = bool | int | float | str | None | list[str]
_MANIFEST_LIMIT_BYTES = 1 << 24
_ENCODER_ARGUMENT_LIMIT = 1 << 16


class FileDigest(Record):
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class EncoderSpec(Record):
    """The encoder's registered name and what it is called with, switches included."""

    name: str
    arguments: dict[str, bool | int | float | str]
    history_length: int = Field(ge=1, le=_ENCODER_ARGUMENT_LIMIT)

    @field_validator("arguments")
    @classmethod
    def _sane(
        cls, arguments: dict[str, bool | int | float | str]
    ) -> dict[str, bool | int | float | str]:
        for name, value in arguments.items():
            if isinstance(value, int) and abs(value) > _ENCODER_ARGUMENT_LIMIT:
                raise ValueError(f"{name} is {value:,}, at most {_ENCODER_ARGUMENT_LIMIT:,} can be")
        return arguments


class DataWindow(Record):
    """The log that was trained on, after filtering.

    first, last: time of the first and last interaction; Unix seconds, or the unit of the log.
    """

    interactions: Count
    users: Count
    items: Count
    first: float
    last: float


class Canary(Record):
    """A history, and the best items the release gave for it when it was built."""

    history: tuple[str, ...]
    items: tuple[str, ...] = ()


class Manifest(Record):
    """All that is known of a draft or release. A draft has no index until it is built."""

    format: int = Field(FORMAT, ge=1)
    id: ReleaseId
    created: AwareDatetime
    parent: ReleaseId | None = None
    code_version: str
    encoder: EncoderSpec
    data: DataWindow
    training: dict[str, Setting]
    metrics: dict[str, dict[str, float]] = Field(
        description="split -> metric -> value, exact search"
    )
    index: IndexMeasurement | None = None
    canaries: tuple[Canary, ...] = ()
    files: dict[FileName, FileDigest] = Field(default_factory=dict)


def digest(path: Path) -> FileDigest:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(size_bytes=file.tell(), sha256=sha256)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make the folder a draft or release: all its files are there before its manifest appears."""
    for name in manifest.files:
        fsync(folder / name)
    document = json.loads(manifest.model_dump_json())
    sealed = {**document, _SEAL: _seal(document)}
    replace_text(folder / MANIFEST, json.dumps(sealed, indent=2) + "\n")


def is_release_id(text: str) -> bool:
    return re.fullmatch(_NAME, text) is not None


def read_manifest(folder: Path) -> Manifest:
    """Raises ReleaseError if there is none, it is damaged, or a newer program wrote it."""
    document = _read_document(folder)
    found = document.get("format")
    if isinstance(found, int) and found > FORMAT:
        raise ReleaseError(
            f"{folder.name}: format {found}, this program reads up to {FORMAT}; "
            "upgrade it or publish an older release"
        )
    if document.pop(_SEAL, None) != _seal(document):
        raise ReleaseError(
            f"{folder.name}: {MANIFEST} does not have the sha256 it states; publish it again"
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the top"
        raise ReleaseError(
            f"{folder.name}: {MANIFEST} is damaged at {where!r:.200}: {first['msg']:.200}"
        ) from error


def _read_document(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        size = path.stat().st_size
        if size > _MANIFEST_LIMIT_BYTES:
            raise ValueError(f"{size:,} bytes, at most {_MANIFEST_LIMIT_BYTES:,} can be")
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        raise ReleaseError(
            f"{folder}: no {MANIFEST}; name a folder made by `python -m training fit`, or, if "
            f"`{CURRENT}` names this one, roll back"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ReleaseError(
            f"{folder}: {MANIFEST} cannot be read ({error}); restore or rebuild it"
        ) from error
    return document


_SEAL = "sha256"


def _seal(document: Mapping[str, Any]) -> str:
    """Hash of all that a manifest says, whatever its white space and the order of its keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
