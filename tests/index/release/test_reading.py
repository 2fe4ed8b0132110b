"""A release is read as it was written; a damaged one is refused with one sentence."""

import copy
import errno
import fcntl
import gc
import hashlib
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from index.ann.spec import IndexSpec
from index.release.atomic_io import replace_text
from index.release.canaries import CANARY_K, answer_canaries
from index.release.errors import ReleaseError
from index.release.lock import deletion_lock
from index.release.manifest import (
    CATALOG,
    ENCODER,
    INDEX,
    MANIFEST,
    VECTORS,
    Canary,
    Manifest,
    digest,
    is_release_id,
    read_manifest,
    write_manifest,
)
from index.release.reading import open_release, read_current, read_parts
from index.release.verification import verify_files

MakeDraft = Callable[..., Path]
Damage = Callable[[Path], object]


@pytest.fixture
def folder(make_draft: MakeDraft) -> Path:
    return make_draft("first")


def refusal(folder: Path) -> str:
    """The error of open_release: one sentence that names the folder."""
    with pytest.raises(ReleaseError) as refused:
        open_release(folder)
    message = str(refused.value)
    assert "\n" not in message
    assert len(message) < 700
    assert folder.name in message
    return message


def reseal(folder: Path, **changes: Any) -> None:
    """Write a manifest with the digests of the files as they are now."""
    manifest = read_manifest(folder)
    files = {name: digest(folder / name) for name in manifest.files}
    write_manifest(folder, manifest.model_copy(update={"files": files, **changes}))


def document_of(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    del document["sha256"]
    return document


def write_document(folder: Path, document: dict[str, Any]) -> None:
    """Write a document as the manifest, with its own sha256."""
    seal = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps({**document, "sha256": seal}))


# --- reading what was written ---


def test_a_manifest_is_read_as_it_was_written(folder: Path) -> None:
    manifest = read_manifest(folder)
    write_manifest(folder, manifest)
    assert read_manifest(folder) == manifest


def test_an_opened_release_answers_as_when_it_was_built(folder: Path) -> None:
    release = open_release(folder)
    assert release.id == "first"
    canaries = release.manifest.canaries
    assert answer_canaries(release.retriever, canaries) == [canary.items for canary in canaries]
    assert all(len(canary.items) == CANARY_K for canary in canaries)


def test_weights_are_bit_identical_and_need_no_gradient(folder: Path) -> None:
    encoder = open_release(folder).retriever.encoder
    written = load_file(folder / ENCODER)
    assert encoder.state_dict().keys() == written.keys()
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, written[name])
        assert not tensor.requires_grad
    assert not encoder.training


def test_vectors_are_memory_mapped(folder: Path) -> None:
    vectors = open_release(folder).retriever.vectors
    assert isinstance(vectors, np.memmap)
    assert not vectors.flags.writeable


def test_opening_draws_no_global_random_numbers(folder: Path) -> None:
    before = torch.get_rng_state()
    open_release(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_opening_imports_no_more_of_torch(folder: Path) -> None:
    """More would take a second, and memory of the server."""
    program = (
        "import pathlib, sys; from index.release.reading import open_release; "
        "before = set(sys.modules); "
        "open_release(pathlib.Path(sys.argv[1])); "
        "print(sum(name.startswith('torch') for name in sys.modules.keys() - before))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, folder], capture_output=True, text=True, check=True
    )
    assert int(ended.stdout) < 10  # it would be more than 500


def test_a_manifest_refuses_values_without_a_json_form(folder: Path) -> None:
    fields = read_manifest(folder).model_dump()
    with pytest.raises(ValidationError, match="finite"):
        Manifest(**{**fields, "metrics": {"validation": {"recall@50": float("nan")}}})
    with pytest.raises(ValidationError, match="timezone"):
        Manifest(**{**fields, "created": datetime(2026, 1, 1)})


def test_write_manifest_needs_the_files_it_lists(folder: Path) -> None:
    manifest = read_manifest(folder)
    (folder / VECTORS).unlink()
    (folder / MANIFEST).unlink()
    with pytest.raises(FileNotFoundError):
        write_manifest(folder, manifest)
    assert not (folder / MANIFEST).exists()


# --- damage that the hashes detect ---


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


@pytest.mark.parametrize("name", [ENCODER, VECTORS, CATALOG, INDEX])
def test_a_flipped_byte_is_refused(folder: Path, name: str) -> None:
    intact = (folder / name).read_bytes()
    for part in range(8):
        (folder / name).write_bytes(flip(intact, part * (len(intact) - 1) // 7))
        assert f"{name} does not have the manifest's sha256" in refusal(folder)


def test_a_flipped_byte_anywhere_in_the_manifest_is_refused(folder: Path) -> None:
    reseal(folder, canaries=())  # they are most of its bytes, and none is special
    intact = (folder / MANIFEST).read_bytes()
    for at in range(len(intact) - 1):  # the last is the new line at the end
        (folder / MANIFEST).write_bytes(flip(intact, at))
        with pytest.raises(ReleaseError):
            read_manifest(folder)


@pytest.mark.parametrize("name", [ENCODER, VECTORS, CATALOG, INDEX, MANIFEST])
def test_a_truncated_or_zeroed_file_is_refused(folder: Path, name: str) -> None:
    intact = (folder / name).read_bytes()
    for part in range(8):
        (folder / name).write_bytes(intact[: part * (len(intact) - 2) // 7])
        assert name in refusal(folder)
    (folder / name).write_bytes(bytes(len(intact)))
    assert name in refusal(folder)
    (folder / name).write_bytes(intact + b"\0")
    assert name in refusal(folder)


@pytest.mark.parametrize("name", [ENCODER, VECTORS, CATALOG, INDEX, MANIFEST])
def test_a_missing_or_irregular_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in refusal(folder)
    (folder / name).mkdir()
    assert name in refusal(folder)
    (folder / name).rmdir()
    os.mkfifo(folder / name)
    if name != MANIFEST:  # to read a pipe would wait for a writer
        assert f"{name} is missing" in refusal(folder)


def test_a_missing_folder_is_refused(folder: Path) -> None:
    for path in (folder / "none", folder / VECTORS, folder / "a\0b"):
        with pytest.raises(ReleaseError):
            open_release(path)


# --- invalid manifests with a valid sha256 ---


def change(**changes: Any) -> Damage:
    return lambda folder: write_document(folder, {**document_of(folder), **changes})


def change_encoder(**changes: Any) -> Damage:
    def damage(folder: Path) -> None:
        document = document_of(folder)
        document["encoder"] = {**document["encoder"], **changes}
        write_document(folder, document)

    return damage


def change_files(edit: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        document = document_of(folder)
        edit(document["files"])
        write_document(folder, document)

    return damage


def raw(content: bytes) -> Damage:
    return lambda folder: (folder / MANIFEST).write_bytes(content)


DIGEST = {"size_bytes": 1, "sha256": "0" * 64}
BAD_MANIFESTS: dict[str, tuple[Damage, str]] = {
    "empty": (raw(b""), "cannot be read"),
    "garbage": (raw(b"\x93NUMPY"), "cannot be read"),
    "not UTF-8": (raw(b'{"id": "\xff"}'), "cannot be read"),
    "a list": (raw(b"[]"), "not a JSON object"),
    "no seal": (raw(b"{}"), "sha256 it states"),
    "deeply nested": (raw(b'{"a":' + b"[" * 200_000), "cannot be read"),
    "nested in place": (change(training=eval("[" * 90 + "]" * 90)), "training"),
    "a number of 5,000 digits": (raw(b'{"format": ' + b"9" * 5000 + b"}"), "cannot be read"),
    "huge": (raw(b" " * (1 << 24) + b"{}"), "at most 16,777,216 are allowed"),
    "a newer format": (change(format=3), "format 3, this program reads up to 2; upgrade"),
    "a format before the first": (change(format=0), "format"),
    "a format of no number": (change(format="new"), "format"),
    "an extra key": (change(colour="red"), "colour"),
    "an extra key inside": (change_encoder(weight=3), "encoder.weight"),
    "an id that climbs": (change(id="../../etc"), "'id'"),
    "a parent that climbs": (change(parent="../x"), "'parent'"),
    "no time zone": (change(created="2026-01-01T00:00:00"), "created"),
    "not a number": (change(metrics={"validation": {"recall@50": float("nan")}}), "metrics"),
    "an infinite recall": (change(index={"recall": float("inf")}), "index"),
    "more than JSON can tell": (
        lambda folder: change(data={**document_of(folder)["data"], "users": 1 << 63})(folder),
        "data.users",
    ),
    "not built": (change(index=None), "python -m index build"),
    "a history of no length": (change_encoder(history_length=0), "history_length"),
    "a history without end": (change_encoder(history_length=10**9), "history_length"),
    "a catalogue of other size": (
        lambda folder: change(data={**document_of(folder)["data"], "items": 41})(folder),
        "catalog.parquet has 40 items, manifest.json says 41",
    ),
    "a file that climbs": (change_files(lambda files: files.update({"../x": DIGEST})), "files"),
    "an absolute file": (change_files(lambda files: files.update({"/x": DIGEST})), "files"),
    "a parent folder": (change_files(lambda files: files.update({"..": DIGEST})), "files"),
    "a file of no name": (change_files(lambda files: files.update({"": DIGEST})), "files"),
    "a file with a NUL": (change_files(lambda files: files.update({"a\0": DIGEST})), "files"),
    "a file not there": (change_files(lambda files: files.update({"x": DIGEST})), "x is missing"),
    "a file not listed": (change_files(lambda files: files.pop(VECTORS)), "does not list"),
    "an index not listed": (change_files(lambda files: files.pop(INDEX)), "has no index"),
    "a negative size": (
        change_files(lambda files: files.update({VECTORS: {**DIGEST, "size_bytes": -1}})),
        "size_bytes",
    ),
    "a hash of other length": (
        change_files(lambda files: files.update({VECTORS: {**DIGEST, "sha256": "0" * 63}})),
        "sha256",
    ),
}


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_an_invalid_manifest_is_refused(folder: Path, case: str) -> None:
    damage, expected = BAD_MANIFESTS[case]
    damage(folder)
    assert expected in refusal(folder)


BAD_ENCODERS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"name": "re5"}, "no 're5'; choose one of re4"),
    "an unknown argument": ({"arguments": {"dim": 8, "colour": 3}}, "colour"),
    "other shapes": (
        {"arguments": {"dim": 8, "interests": 4}},
        "score.weight is torch.float32 (3,",
    ),
    "a head it has no weights for": (
        {"arguments": {"dim": 8, "interests": 3, "head": "tanh"}},
        "there is no head.0.bias",
    ),
    "terabytes": (
        {"name": "comirec-dr", "arguments": {"dim": 1024, "interests": 64, "history": 1000}},
        "project.weight is not one of its weights",
    ),
    "beyond the bounds": ({"arguments": {"dim": 65_536}}, "dim: Input should be less than"),
    "beyond the limit": (
        {"arguments": {"dim": 10**12}},
        "dim is 1,000,000,000,000, at most 65,536",
    ),
    "negative": ({"arguments": {"dim": -8}}, "dim: Input should be greater than"),
    "a word": ({"arguments": {"dim": "eight"}}, "encoder"),
    "half": ({"arguments": {"dim": 8.5}}, "encoder"),
    "a list": ({"arguments": {"dim": [8]}}, "encoder.arguments"),
}


@pytest.mark.parametrize("case", BAD_ENCODERS)
def test_an_invalid_encoder_is_refused(folder: Path, case: str) -> None:
    changes, expected = BAD_ENCODERS[case]
    change_encoder(**changes)(folder)
    assert expected in refusal(folder)


# --- invalid content with valid hashes ---


def edit_vectors(edit: Callable[[Any], Any]) -> Damage:
    def damage(folder: Path) -> None:
        vectors = np.load(folder / VECTORS)
        np.save(folder / VECTORS, edit(vectors))

    return damage


def put(row: int, value: float) -> Callable[[Any], Any]:
    def edit(vectors: Any) -> Any:
        vectors[row, 3] = value
        return vectors

    return edit


def edit_weights(edit: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(folder: Path) -> None:
        weights = copy.deepcopy(load_file(folder / ENCODER))
        edit(weights)
        save_file(weights, folder / ENCODER)

    return damage


def edit_catalog(edit: Callable[[pa.Table], pa.Table]) -> Damage:
    def damage(folder: Path) -> None:
        pq.write_table(edit(pq.read_table(folder / CATALOG)), folder / CATALOG)

    return damage


def with_ids(edit: Callable[[list[Any]], list[Any]]) -> Damage:
    return edit_catalog(
        lambda table: table.set_column(
            0, "item_id", pa.array(edit(table["item_id"].to_pylist()), pa.string())
        )
    )


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def pickled(folder: Path) -> None:
    np.save(folder / VECTORS, np.array([[{"a": 1}]], dtype=object), allow_pickle=True)


def zipped(folder: Path) -> None:
    with (folder / VECTORS).open("wb") as file:
        np.savez(file, vectors=np.zeros((41, 8), np.float32))


def claims_shape(shape: str) -> Damage:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return write(VECTORS, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)


BAD_CONTENT: dict[str, tuple[Damage, str]] = {
    "vectors: a NaN": (edit_vectors(put(7, np.nan)), "not finite"),
    "vectors: infinite": (edit_vectors(put(40, -np.inf)), "not finite"),
    "vectors: padding of a value": (edit_vectors(put(0, 1e-9)), "no row 0 of zeros"),
    "vectors: padding of NaN": (edit_vectors(put(0, np.nan)), "no row 0 of zeros"),
    "vectors: doubles": (edit_vectors(lambda v: v.astype(np.float64)), "float64"),
    "vectors: halves": (edit_vectors(lambda v: v.astype(np.float16)), "float16"),
    "vectors: integers": (edit_vectors(lambda v: v.astype(np.int32)), "int32"),
    "vectors: bytes swapped": (edit_vectors(lambda v: v.astype(">f4")), "float32 (N + 1, D)"),
    "vectors: columns first": (edit_vectors(np.asfortranarray), "C order"),
    "vectors: flat": (edit_vectors(np.ravel), "shape (328,)"),
    "vectors: three dimensions": (edit_vectors(lambda v: v[None]), "shape (1, 41, 8)"),
    "vectors: no rows": (edit_vectors(lambda v: v[:0]), "item_vectors.npy"),
    "vectors: one short": (edit_vectors(lambda v: v[:-1]), "has 39 items, catalog.parquet has 40"),
    "vectors: narrower": (
        edit_vectors(lambda v: np.ascontiguousarray(v[:, :-1])),
        "has dimension 7, the encoder 8",
    ),
    "vectors: pickled": (pickled, "item_vectors.npy cannot be used"),
    "vectors: zipped": (zipped, "item_vectors.npy cannot be used"),
    "vectors: a pickle": (write(VECTORS, b"\x80\x04N."), "item_vectors.npy cannot be used"),
    "vectors: nothing": (write(VECTORS, b""), "item_vectors.npy cannot be used"),
    "vectors: claimed rows": (
        claims_shape("(1000000000000, 8)"),
        "item_vectors.npy cannot be used",
    ),
    "vectors: claimed more": (claims_shape(f"({2**63}, 8)"), "item_vectors.npy cannot be used"),
    "vectors: claimed fewer than none": (claims_shape("(-41, 8)"), "item_vectors.npy cannot"),
    "vectors: not a shape": (claims_shape("41 8"), "item_vectors.npy cannot be used"),
    "encoder: a tensor missing": (edit_weights(lambda w: w.pop("value.weight")), "no value.weight"),
    "encoder: a tensor too many": (
        edit_weights(lambda w: w.update(extra=torch.zeros(1))),
        "extra is not one of its weights",
    ),
    "encoder: other shape": (
        edit_weights(lambda w: w.update({"value.weight": torch.zeros(8, 9)})),
        "value.weight is torch.float32 (8, 9), not torch.float32 (8, 8)",
    ),
    "encoder: other type": (
        edit_weights(lambda w: w.update({"value.weight": torch.zeros(8, 8).double()})),
        "value.weight is torch.float64",
    ),
    "encoder: a NaN": (
        edit_weights(lambda w: w["value.weight"].__setitem__((0, 0), torch.nan)),
        "not finite",
    ),
    "encoder: garbage": (write(ENCODER, b"garbage!" * 9), "encoder.safetensors does not fit"),
    "encoder: claimed header": (
        write(ENCODER, struct.pack("<Q", 2**62) + b"{}"),
        "encoder.safetensors does not fit",
    ),
    "catalogue: twice an id": (with_ids(lambda ids: [ids[1], *ids[1:]]), "appears twice"),
    "catalogue: no id": (with_ids(lambda ids: [None, *ids[1:]]), "lacks its id"),
    "catalogue: one short": (edit_catalog(lambda table: table.slice(1)), "has 39 items"),
    "catalogue: empty": (edit_catalog(lambda table: table.slice(40)), "no items"),
    "catalogue: no column": (edit_catalog(lambda table: table.drop(["title"])), "has columns"),
    "catalogue: garbage": (write(CATALOG, b"PAR1garbagePAR1"), "catalog.parquet cannot be used"),
    "index: garbage": (write(INDEX, b"garbage!" * 9), "items.faiss cannot be used"),
    "index: nothing": (write(INDEX, b""), "items.faiss cannot be used"),
}


@pytest.mark.parametrize("case", BAD_CONTENT)
def test_invalid_content_is_refused(folder: Path, case: str) -> None:
    damage, expected = BAD_CONTENT[case]
    damage(folder)
    reseal(folder)
    assert expected in refusal(folder)


SPECS = {
    "flat": IndexSpec(),
    "ivf": IndexSpec(kind="ivf", head=8, lists=4, margin=3.0, probes=4),
}


@pytest.mark.parametrize("kind", SPECS)
def test_each_kind_of_index_is_opened_as_it_was_built(make_draft: MakeDraft, kind: str) -> None:
    release = open_release(make_draft("first", spec=SPECS[kind]))
    canaries = release.manifest.canaries
    assert answer_canaries(release.retriever, canaries) == [canary.items for canary in canaries]


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("items", [39, 41])
def test_an_index_of_another_size_is_refused(make_draft: MakeDraft, kind: str, items: int) -> None:
    folder = make_draft("first", spec=SPECS[kind])
    other = make_draft("second", items=items, spec=SPECS[kind])
    (folder / INDEX).write_bytes((other / INDEX).read_bytes())
    reseal(folder, canaries=())
    assert "items.faiss cannot be used" in refusal(folder)


def test_an_index_of_another_kind_is_refused(make_draft: MakeDraft) -> None:
    flat, ivf = (make_draft(kind, spec=spec) for kind, spec in SPECS.items())
    content = (flat / INDEX).read_bytes()
    (flat / INDEX).write_bytes((ivf / INDEX).read_bytes())
    (ivf / INDEX).write_bytes(content)
    for folder in (flat, ivf):
        reseal(folder)
        assert "items.faiss cannot be used" in refusal(folder)


def test_a_missing_device_is_refused(folder: Path) -> None:
    with pytest.raises(ReleaseError, match=r"items\.faiss cannot be used .*device"):
        open_release(folder, device="cuda:99")


def mutations(content: bytes, count: int) -> Iterator[bytes]:
    """Copies of the content with a few bytes overwritten, mostly near the ends."""
    generator = np.random.default_rng(5)
    for _ in range(count):
        mutated = bytearray(content)
        for _ in range(int(generator.integers(1, 4))):
            near = int(generator.geometric(0.01)) % len(content)
            at = near if generator.random() < 0.5 else len(content) - 1 - near
            mutated[at] = int(generator.choice([0, 1, 0x7F, 0xFF, int(generator.integers(256))]))
        yield bytes(mutated)


@pytest.mark.parametrize("name", [ENCODER, VECTORS, CATALOG])
def test_content_damaged_before_it_was_hashed_is_refused_or_read(folder: Path, name: str) -> None:
    """A changed value may be valid; anything else is a ReleaseError."""
    manifest = read_manifest(folder)
    refused = 0
    for content in mutations((folder / name).read_bytes(), 200):
        (folder / name).write_bytes(content)
        try:
            read_parts(folder, manifest)
        except ReleaseError:
            refused += 1
    assert refused >= 50


# --- canaries ---


def test_a_different_answer_to_a_canary_is_refused(folder: Path) -> None:
    canary = read_manifest(folder).canaries[0]
    others = tuple(f"item-{row}" for row in range(1, 41) if f"item-{row}" not in canary.items)
    some = canary.model_copy(update={"items": canary.items[:17] + others[:3]})
    reseal(folder, canaries=(some,))
    assert "gives 17 of the 20 items" in refusal(folder)
    nearly = canary.model_copy(update={"items": canary.items[:18] + others[:2]})
    reseal(folder, canaries=(nearly,))
    open_release(folder)


def test_a_canary_with_a_strange_history_is_answered(folder: Path) -> None:
    strange = (Canary(history=()), Canary(history=("", "\0", "item-1" * 1000) * 1000))
    answers = answer_canaries(open_release(folder).retriever, strange)
    popular = tuple(f"item-{row}" for row in range(1, CANARY_K + 1))
    assert answers == [popular, popular]


# --- files are hashed once ---


def test_opening_hashes_each_file_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    intact = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        hashed.append(Path(file.name).name)
        return intact(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    open_release(folder)
    assert sorted(hashed) == sorted(read_manifest(folder).files)


@pytest.mark.parametrize("name", [VECTORS, CATALOG, INDEX])
def test_a_damaged_file_is_told_by_its_hash_whatever_came_of_it(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(bytes([0xFF]) * path.stat().st_size)  # vectors that are no numbers
    with pytest.raises(ReleaseError, match=f"{name} does not have the manifest's sha256") as error:
        open_release(folder)
    assert error.value.stage == "files"


# --- current ---


def test_current_is_none_before_the_first_publish(tmp_path: Path) -> None:
    assert read_current(tmp_path) is None


@pytest.mark.parametrize("text", ["first", "first\n", "2026-01-01T00.00_x", "a" * 64])
def test_current_is_an_id(tmp_path: Path, text: str) -> None:
    replace_text(tmp_path / "current", text)
    assert read_current(tmp_path) == text.strip()
    assert is_release_id(text.strip())


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"../first", b"/etc", b".first", b"first\n\n", b"a b", b"\xff\xfe", b"first\0",
     b"a" * 65, b"a" * 100_000, b"-first", "первый".encode()],
)  # fmt: skip
def test_an_invalid_id_in_current_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "current").write_bytes(content)
    with pytest.raises(ReleaseError, match="not a release id") as refused:
        read_current(tmp_path)
    assert len(str(refused.value)) < 2000


def test_a_folder_named_current_is_refused(tmp_path: Path) -> None:
    (tmp_path / "current").mkdir()
    with pytest.raises(ReleaseError, match="cannot be read"):
        read_current(tmp_path)


# --- a release in use ---


def test_an_open_release_cannot_be_deleted(folder: Path) -> None:
    release = open_release(folder)
    again = open_release(folder)
    with deletion_lock(folder) as is_free:
        assert not is_free
    del release
    with deletion_lock(folder) as is_free:
        assert not is_free
    del again
    gc.collect()
    with deletion_lock(folder) as is_free:
        assert is_free
        assert "is being deleted" in refusal(folder)
    open_release(folder)


@pytest.mark.parametrize("mode", [0o644, 0o444])
def test_a_release_that_cannot_be_locked_is_not_deleted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """NFS refuses an exclusive lock on a read-only descriptor; other systems have no locks."""
    (folder / MANIFEST).chmod(mode)
    lock, kinds = fcntl.flock, []

    def as_on_nfs(descriptor: int, kind: int) -> None:
        written = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        kinds.append(kind)
        if kind & fcntl.LOCK_EX and not written:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        lock(descriptor, kind)

    def without_locks(_descriptor: int, _kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    writable = os.access(folder / MANIFEST, os.W_OK)
    with deletion_lock(folder) as is_free:
        assert is_free == writable
    release = open_release(folder)
    with deletion_lock(folder) as is_free:
        assert not is_free
    assert {fcntl.LOCK_SH | fcntl.LOCK_NB, fcntl.LOCK_EX | fcntl.LOCK_NB} == set(kinds)
    del release
    gc.collect()
    monkeypatch.setattr(fcntl, "flock", without_locks)
    with deletion_lock(folder) as is_free:
        assert not is_free


def test_a_read_only_manifest_can_be_locked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_open = os.open

    def read_only(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", read_only)
    with deletion_lock(folder) as is_free:
        assert is_free


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_refused_release_is_not_locked(folder: Path) -> None:
    descriptors = open_descriptors()
    (folder / VECTORS).write_bytes(b"")
    refusal(folder)
    with deletion_lock(folder) as is_free:
        assert is_free
    assert open_descriptors() == descriptors


def test_an_open_release_answers_after_its_files_are_deleted(folder: Path) -> None:
    release = open_release(folder)
    for path in folder.iterdir():
        path.unlink()
    canaries = release.manifest.canaries
    assert answer_canaries(release.retriever, canaries) == [canary.items for canary in canaries]


# --- other files ---


def test_verify_files_ignores_files_outside_the_manifest(folder: Path) -> None:
    (folder / "history.jsonl").write_text("{}")
    verify_files(folder, read_manifest(folder))
