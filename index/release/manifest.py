"""The manifest, which states all that a draft or release folder holds.

    <root>/drafts/<id>/      made by training, completed by build; servers never look here
    <root>/releases/<id>/    immutable
        manifest.json        a Manifest, written last: a folder without one is no release
        encoder.safetensors  weights
        item_vectors.npy     (N + 1, D) float32, row 0 zero
        catalog.parquet      ids in row order, popularity, category and title where known
        attributes.parquet   attributes of the items, if they have any
        new_items.safetensors  vectors, from their words, of items that are not in the catalogue
        new_items.parquet    titles and categories of these, as in the catalogue
        new_item_attributes.parquet  attributes of these, if they have any
        text_model.safetensors  makes such vectors of others, if there were words to learn from
        items.faiss          the index over item_vectors, unless a collection of Milvus is it
    <root>/current           the id of the live release

No file is a pickle. Any fault in a folder is a ReleaseError of one sentence.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, ValidationError, field_validator

from index.ann.spec import Count, IndexMeasurement, Record
from index.release.atomic_io import fsync, replace_text
from index.release.errors import ReleaseError

FORMAT_WITH_FILES, FORMAT_WITH_COLLECTION = 1, 2  # by where the index is
FORMAT = FORMAT_WITH_COLLECTION  # the newest
RELEASES = "releases"
DRAFTS = "drafts"
CURRENT = "current"
MANIFEST = "manifest.json"
ENCODER = "encoder.safetensors"
VECTORS = "item_vectors.npy"
CATALOG = "catalog.parquet"
ATTRIBUTES = "attributes.parquet"
NEW_ITEMS = "new_items.safetensors"
NEW_ITEM_DETAILS = "new_items.parquet"
NEW_ITEM_ATTRIBUTES = "new_item_attributes.parquet"
TEXT_MODEL = "text_model.safetensors"
INDEX = "items.faiss"
INTERESTS = "interests.npy"  # held-out users' interests (Q, K, D), in drafts only, for `build`

_CHECKSUM = "sha256"  # the manifest's key for the hash of everything else in it
_MANIFEST_LIMIT_BYTES = 1 << 24
_ENCODER_ARGUMENT_LIMIT = 1 << 16

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
ReleaseId = Annotated[str, Field(pattern=_NAME)]
FileName = Annotated[str, Field(pattern=_NAME)]
Setting = bool | int | float | str | None | list[str]


class FileDigest(Record):
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class EncoderSpec(Record):
    """The encoder's registered name and all arguments of its constructor."""

    name: str
    arguments: dict[str, bool | int | float | str]
    history_length: int = Field(ge=1, le=_ENCODER_ARGUMENT_LIMIT)

    @field_validator("arguments")
    @classmethod
    def _within_limit(
        cls, arguments: dict[str, bool | int | float | str]
    ) -> dict[str, bool | int | float | str]:
        for name, value in arguments.items():
            if isinstance(value, int) and abs(value) > _ENCODER_ARGUMENT_LIMIT:
                raise ValueError(
                    f"{name} is {value:,}, at most {_ENCODER_ARGUMENT_LIMIT:,} is allowed"
                )
        return arguments


class DataWindow(Record):
    """The training log after filtering.

    first, last: time of the first and last interaction, in Unix seconds or the unit of the log.
    """

    interactions: Count
    users: Count
    items: Count
    first: float
    last: float


class Canary(Record):
    """A history, and the best items that the release gave for it when it was built."""

    history: tuple[str, ...]
    items: tuple[str, ...] = ()


class Manifest(Record):
    """Everything known about a draft or release. A draft has no index until it is built."""

    format: int = Field(FORMAT_WITH_FILES, ge=1)
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

    @property
    def exclude_seen(self) -> bool:
        """Whether items of the history are left out, in evaluation and in requests that do not say.

        Releases made before there was a choice leave them out.
        """
        return bool(self.training.get("exclude_seen", True))


def digest(path: Path) -> FileDigest:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(size_bytes=file.tell(), sha256=sha256)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Make the folder a draft or release: sync all its files, then write its manifest."""
    for name in manifest.files:
        fsync(folder / name)
    document = json.loads(manifest.model_dump_json())
    document[_CHECKSUM] = _checksum(document)
    replace_text(folder / MANIFEST, json.dumps(document, indent=2) + "\n")


def is_release_id(text: str) -> bool:
    return re.fullmatch(_NAME, text) is not None


def read_manifest(folder: Path) -> Manifest:
    """Raises ReleaseError if it is missing or damaged, or a newer program wrote it."""
    document = _read_document(folder)
    version = document.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise ReleaseError(
            f"{folder.name}: format {version}, this program reads up to {FORMAT}; "
            "upgrade it or publish an older release"
        )
    if document.pop(_CHECKSUM, None) != _checksum(document):
        raise ReleaseError(
            f"{folder.name}: {MANIFEST} does not have the sha256 it states; publish it again"
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        location = ".".join(map(str, first["loc"])) or "the top"
        raise ReleaseError(
            f"{folder.name}: {MANIFEST} is damaged at {location!r:.200}: {first['msg']:.200}"
        ) from error


def _read_document(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        size = path.stat().st_size
        if size > _MANIFEST_LIMIT_BYTES:
            raise ValueError(f"{size:,} bytes, at most {_MANIFEST_LIMIT_BYTES:,} are allowed")
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError:
        raise ReleaseError(
            f"{folder}: no {MANIFEST}; name a folder made by `python -m training fit`, or roll "
            f"back if `{CURRENT}` names this one"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ReleaseError(
            f"{folder}: {MANIFEST} cannot be read ({error}); restore or rebuild it"
        ) from error
    return document


def _checksum(document: Mapping[str, Any]) -> str:
    """Hash of a manifest's content; white space and the order of keys do not matter."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
