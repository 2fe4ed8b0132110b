"""The repository in parts, and back."""

from pathlib import Path

import pytest

from tests.evidence import gpu_pack

ROOT = Path(__file__).parents[2]


def test_the_parts_joined_are_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_pack, "PART_BYTES", 500_000)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "some-1.whl").write_bytes(b"wheel")
    parts = gpu_pack.pack(ROOT, tmp_path / "parts", wheels)
    assert len(parts) > 1
    assert all(part.stat().st_size <= 500_000 for part in parts)
    gpu_pack.unpack(tmp_path / "parts", tmp_path / "there")
    for name in ("training/commands.py", "tests/GPU.md"):
        assert (tmp_path / "there" / name).read_bytes() == (ROOT / name).read_bytes()
    assert (tmp_path / "there" / "wheels" / "some-1.whl").read_bytes() == b"wheel"
