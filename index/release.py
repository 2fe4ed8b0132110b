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

import fcntl
import hashlib
import json
import os
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from index.ann import IndexSpec, read_index
from index.catalog import Catalog
from index.durable import fsync as fsync
from index.durable import replace_text as replace_text
from index.encoders import Encoder, build_encoder
from index.lock import open_to_lock
from index.refusal import ReleaseError as ReleaseError
from index.retriever import Query, Retriever

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
Count = Annotated[int, Field(ge=1, lt=1 << 63)]  # what is told as JSON can be no larger
Setting = bool | int | float | str | None | list[str]

_CURRENT_LIMIT_BYTES = 1 << 10
_MANIFEST_LIMIT_BYTES = 1 << 24
_ENCODER_ARGUMENT_LIMIT = 1 << 16


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileDigest(_Record):
    size_bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class EncoderSpec(_Record):
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


class DataWindow(_Record):
    """The log that was trained on, after filtering.

    first, last: time of the first and last interaction; Unix seconds, or the unit of the log.
    """

    interactions: Count
    users: Count
    items: Count
    first: float
    last: float


class Trial(_Record):
    """An index that was tried, as measured on the users that it was tuned on."""

    spec: IndexSpec
    recall: float
    microseconds: float


class Measured(_Record):
    """What building the index found out on held-out users' interests."""

    spec: IndexSpec
    recall: float = Field(
        description="share of exact search's merged top k that the index also returns"
    )
    k: Count
    queries: Count
    microseconds: float = Field(
        description="per request of K interests, one thread, on the building machine"
    )
    trials: tuple[Trial, ...] = Field((), description="what was tried, the cheapest first")


class Canary(_Record):
    """A history, and the best items the release gave for it when it was built."""

    history: tuple[str, ...]
    items: tuple[str, ...] = ()


class Manifest(_Record):
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
    index: Measured | None = None
    canaries: tuple[Canary, ...] = ()
    files: dict[FileName, FileDigest] = Field(default_factory=dict)


@dataclass(frozen=True)
class Release:
    """An opened release: everything needed to answer, of one piece.

    One that open_release made is safe from `prune` for as long as the object lives.
    """

    manifest: Manifest
    retriever: Retriever

    @property
    def id(self) -> str:
        return self.manifest.id


# --- writing ---


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


def write_parts(
    folder: Path,
    encoder: Encoder,
    vectors: NDArray[np.float32],
    catalog: Catalog,
    interests: NDArray[np.float32],
) -> Mapping[str, FileDigest]:
    """Write all that training makes into a new folder, and return its digests for the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / ENCODER, encoder.state_dict())
    _write_array(folder / VECTORS, vectors)
    _write_array(folder / INTERESTS, interests)
    catalog.write(folder / CATALOG)
    return {name: digest(folder / name) for name in (ENCODER, VECTORS, INTERESTS, CATALOG)}


def _write_array(path: Path, array: NDArray[np.float32]) -> None:
    try:
        np.save(path, array, allow_pickle=False)
    except OSError as error:  # which says how many bytes were written, and not of what
        raise OSError(
            f"{path}: cannot be written whole ({error}); free space on the disk"
        ) from error


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None
) -> None:
    """Raises OSError if the file cannot be written whole."""
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, about)
    except SafetensorError as error:
        path.unlink(missing_ok=True)
        raise OSError(f"{path.name}: {error}; free space on the disk, then try again") from error


# --- reading ---


def is_release_id(text: str) -> bool:
    return re.fullmatch(_NAME, text) is not None


def read_current(root: Path) -> str | None:
    """The id of the release to serve; None before the first is published.

    Raises ReleaseError if what `current` holds cannot be read or is no id.
    """
    try:
        with (root / CURRENT).open("rb") as file:
            text = file.read(_CURRENT_LIMIT_BYTES).decode("utf-8", "replace").removesuffix("\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReleaseError(f"{root / CURRENT}: cannot be read ({error})") from error
    if not is_release_id(text):
        raise ReleaseError(
            f"{root / CURRENT}: holds {text!r}, not a release's id; rollback --to one"
        )
    return text


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


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Raises ReleaseError unless every file has the size and hash of the manifest."""
    for name in {ENCODER, VECTORS, CATALOG} - manifest.files.keys():
        raise ReleaseError(f"{folder.name}: {MANIFEST} does not list {name}; train again")
    for name, expected in manifest.files.items():
        _verify_file(folder / name, expected)


def _verify_file(path: Path, expected: FileDigest) -> None:
    what = f"{path.parent.name}: {path.name}"
    try:
        if not path.is_file():
            raise ReleaseError(f"{what} is missing; publish the release again")
        size = path.stat().st_size
        if size != expected.size_bytes:
            raise ReleaseError(
                f"{what} has {size:,} bytes, the manifest says {expected.size_bytes:,}; "
                "publish it again"
            )
        if digest(path) != expected:
            raise ReleaseError(f"{what} does not have the manifest's sha256; publish it again")
    except OSError as error:
        raise ReleaseError(f"{what} cannot be read ({error})") from error


def read_parts(folder: Path, manifest: Manifest) -> tuple[Encoder, NDArray[np.float32], Catalog]:
    """Encoder, vectors and catalogue of a verified folder, agreeing in every dimension."""
    with _refusing(f"{folder.name}: {CATALOG} cannot be used"):
        catalog = Catalog.read(folder / CATALOG)
    vectors = _read_vectors(folder)
    encoder = _read_encoder(folder, manifest.encoder)
    if manifest.data.items != len(catalog):
        raise ReleaseError(
            f"{folder.name}: {CATALOG} has {len(catalog):,} items, "
            f"{MANIFEST} says {manifest.data.items:,}; train again"
        )
    if len(vectors) != len(catalog) + 1:
        raise ReleaseError(
            f"{folder.name}: {VECTORS} has {len(vectors) - 1:,} items, "
            f"{CATALOG} has {len(catalog):,}; train again"
        )
    if vectors.shape[1] != encoder.dim:
        raise ReleaseError(
            f"{folder.name}: {VECTORS} has dimension {vectors.shape[1]}, "
            f"the encoder {encoder.dim}; train again"
        )
    return encoder, vectors, catalog


def _read_vectors(folder: Path) -> NDArray[np.float32]:
    with _refusing(f"{folder.name}: {VECTORS} cannot be used"):
        vectors: NDArray[np.float32] = np.lib.format.open_memmap(folder / VECTORS, mode="r")
    if vectors.ndim != 2 or vectors.dtype != np.float32 or not vectors.flags.c_contiguous:
        raise ReleaseError(
            f"{folder.name}: {VECTORS} is {vectors.dtype} of shape {vectors.shape}; "
            "float32 (N + 1, D) in C order is needed"
        )
    if len(vectors) == 0 or vectors[0].any():
        raise ReleaseError(f"{folder.name}: {VECTORS} has no row 0 of zeros; train again")
    if not np.isfinite(vectors).all():
        raise ReleaseError(f"{folder.name}: {VECTORS} has values that are not finite; train again")
    return vectors


def _read_encoder(folder: Path, spec: EncoderSpec) -> Encoder:
    with _refusing(f"{folder.name}: {ENCODER} does not make the encoder of the manifest"):
        with torch.device("meta"), _Unset():  # shapes without memory, whatever the arguments
            encoder = build_encoder(spec.name, spec.arguments)
        # Cloned, as the file is mapped and its tensors lie unaligned.
        weights = {name: tensor.clone() for name, tensor in load_file(folder / ENCODER).items()}
        _check_shapes(encoder.state_dict(), weights)
        encoder.load_state_dict(weights, assign=True)
    if not all(tensor.isfinite().all() for tensor in weights.values()):
        raise ReleaseError(f"{folder.name}: {ENCODER} has weights that are not finite; train again")
    return encoder.eval().requires_grad_(False)


class _Unset(TorchFunctionMode):
    """Leave tensors as they are made.

    No number is drawn; and torch is spared the second it takes to learn drawing on `meta`.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if named.get("out") is not None:
            return named["out"]
        in_place = func.__name__.endswith("_") and not func.__name__.endswith("__")
        return (*args, named.get("tensor"))[0] if in_place else func(*args, **named)


def _check_shapes(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless both have the same tensors, in shape and type."""
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            raise ValueError(f"there is no {name}")
        if name not in wanted:
            raise ValueError(f"{name} is none of its weights")
        if found[name].shape != wanted[name].shape or found[name].dtype != wanted[name].dtype:
            raise ValueError(
                f"{name} is {found[name].dtype} {tuple(found[name].shape)}, "
                f"not {wanted[name].dtype} {tuple(wanted[name].shape)}"
            )


def open_release(folder: Path, device: str = "cpu") -> Release:
    """Verify, load and try a built draft or a release.

    device: what the index is searched on, "cpu" or "cuda:<number>".
    Raises ReleaseError for anything amiss, a canary query that is answered otherwise included.
    """
    manifest = read_manifest(folder)
    if manifest.index is None or INDEX not in manifest.files:
        raise ReleaseError(f"{folder.name}: has no index; run: python -m index build {folder}")
    if folder.parent.name == RELEASES and folder.name != manifest.id:
        raise ReleaseError(
            f"{folder.name}: is the release {manifest.id}; a release's folder has its id for a name"
        )
    with ExitStack() as stack:
        stack.callback(os.close, _hold(folder))
        with _stage("files"):
            verify_files(folder, manifest)
        with _stage("parts"):
            encoder, vectors, catalog = read_parts(folder, manifest)
        with _stage("index"), _refusing(f"{folder.name}: {INDEX} cannot be used"):
            index = read_index(folder / INDEX, vectors, manifest.index.spec, device)
        retriever = Retriever(catalog, encoder, vectors, index, manifest.encoder.history_length)
        with _stage("canaries"):
            _try_canaries(folder, retriever, manifest.canaries)
        release = Release(manifest, retriever)
        weakref.finalize(release, stack.pop_all().close)
    return release


@contextmanager
def _stage(name: str) -> Iterator[None]:
    try:
        yield
    except ReleaseError as error:
        error.stage = name
        raise


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Make a ReleaseError of whatever a library says about content it cannot use."""
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ReleaseError(f"{what} ({said:.300})") from error


CANARY_K = 20
_CANARY_OVERLAP = 0.9  # another processor may order near-ties otherwise


def _try_canaries(folder: Path, retriever: Retriever, canaries: Sequence[Canary]) -> None:
    with _refusing(f"{folder.name}: a canary query cannot be answered"):
        answers = answer_canaries(retriever, canaries)
    for canary, items in zip(canaries, answers, strict=True):
        shared = len(set(canary.items) & set(items))
        if shared < _CANARY_OVERLAP * len(canary.items):
            raise ReleaseError(
                f"{folder.name}: a canary query gives {shared} of the {len(canary.items)} items "
                "it gave when built; build it again"
            )


def answer_canaries(retriever: Retriever, canaries: Sequence[Canary]) -> list[tuple[str, ...]]:
    answers = retriever.recommend([Query(canary.history, CANARY_K) for canary in canaries])
    return [tuple(retriever.catalog.id(int(row)) for row in answer.rows) for answer in answers]


# --- holding: a release in use is not deleted ---


def _hold(folder: Path) -> int:
    """A descriptor that keeps the release from being deletable until it, or the process, ends."""
    try:
        descriptor = os.open(folder / MANIFEST, os.O_RDONLY)
    except OSError as error:
        raise ReleaseError(f"{folder.name}: {MANIFEST} cannot be opened ({error})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ReleaseError(f"{folder.name}: is being deleted; open another release") from None
    except OSError:
        pass  # a file system without locks: no publisher can lock its root there to delete either
    return descriptor


@contextmanager
def deletable(folder: Path) -> Iterator[bool]:
    """Whether no process has the release open; if so, none can open it inside this context."""
    descriptor = open_to_lock(folder / MANIFEST)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except OSError:
            # Held; or it cannot be locked at all, and so not told whether it is: then it stays, as
            # a release too many does no harm, and one too few takes a server's files away.
            free = False
        yield free
    finally:
        os.close(descriptor)
