"""Verification: whether the files of a folder have the sizes and hashes of its manifest."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from index.release.errors import ReleaseError, opening_stage
from index.release.manifest import (
    CATALOG,
    ENCODER,
    INDEX,
    MANIFEST,
    VECTORS,
    FileDigest,
    Manifest,
    digest,
)

_IN_ORDER_OF_USE = (CATALOG, ENCODER, INDEX)  # then the vectors and what only `build` reads


class Verification:
    """The verdicts on files that are being hashed in another thread, in the order of their use."""

    def __init__(self, folder: Path, manifest: Manifest, pool: ThreadPoolExecutor) -> None:
        files = manifest.files
        names = sorted(files, key=lambda name: name not in _IN_ORDER_OF_USE)
        self._verdicts: dict[str, Future[None]] = {
            name: pool.submit(_verify_hash, folder / name, files[name]) for name in names
        }

    def wait(self, *names: str) -> None:
        """Until these files, or all, are hashed. Raises ReleaseError for a damaged one."""
        with opening_stage("files"):
            for name in names or self._verdicts:
                self._verdicts[name].result()


@contextmanager
def verifying(folder: Path, manifest: Manifest) -> Iterator[Verification]:
    """Hash the files beside the block, which waits for each before it is parsed.

    Only the vectors may be read before: they are numbers, which do no harm. What the block made of
    a folder is trusted after it. A damaged file is raised in place of an error that came of it.
    Raises ReleaseError unless every file has the size and hash of the manifest.
    """
    with opening_stage("files"):
        for name in {ENCODER, VECTORS, CATALOG} - manifest.files.keys():
            raise ReleaseError(f"{folder.name}: {MANIFEST} does not list {name}; train again")
        for name, expected in manifest.files.items():
            _verify_size(folder / name, expected)
    with ThreadPoolExecutor(1, "hash") as pool:
        verification = Verification(folder, manifest, pool)
        try:
            yield verification
        finally:
            verification.wait()


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Raises ReleaseError unless every file has the size and hash of the manifest."""
    with verifying(folder, manifest):
        pass


def _verify_size(path: Path, expected: FileDigest) -> None:
    with _cannot_be_read(path):
        if not path.is_file():
            raise ReleaseError(f"{_name(path)} is missing; publish the release again")
        size = path.stat().st_size
    if size != expected.size_bytes:
        raise ReleaseError(
            f"{_name(path)} has {size:,} bytes, the manifest says {expected.size_bytes:,}; "
            "publish it again"
        )


def _verify_hash(path: Path, expected: FileDigest) -> None:
    with _cannot_be_read(path):
        if digest(path) != expected:
            raise ReleaseError(
                f"{_name(path)} does not have the manifest's sha256; publish it again"
            )


@contextmanager
def _cannot_be_read(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReleaseError(f"{_name(path)} cannot be read ({error})") from error


def _name(path: Path) -> str:
    return f"{path.parent.name}: {path.name}"
