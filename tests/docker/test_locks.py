"""The images install the versions of the constraints, by hash, and from no named host."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "docker" / "locks"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    "server": ("cpu", "service", "tracing"),
    "server-milvus": ("cpu", "service", "tracing", "milvus"),
    "server-gpu": ("gpu", "service", "tracing"),
    "trainer": ("cpu", "service", "tracing", "client", "training"),
}
TRAINER_ONLY = {"matplotlib", "scikit-learn", "scipy", "pandas", "polars", "pillow", "fonttools"}


def locked(name: str) -> dict[str, Version]:
    text = (LOCKS / f"{name}.txt").read_text(encoding="utf-8")
    found = re.findall(
        r"^([\w.-]+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", text, re.M
    )
    assert sum(lines.count("\n") + 1 for _, _, lines in found) == text.count("\n")
    return {canonicalize_name(package): Version(version) for package, version, _ in found}


def constraints() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    return {canonicalize_name(n): Version(v) for n, v in (line.split("==") for line in lines)}


@pytest.mark.parametrize("name", EXTRAS)
def test_each_lock_has_the_requirements_of_its_extras(name: str) -> None:
    requirements = list(PROJECT["dependencies"])
    for extra in EXTRAS[name]:
        requirements += PROJECT["optional-dependencies"][extra]
    versions = locked(name)
    missing = [
        requirement.name
        for requirement in map(Requirement, requirements)
        if not requirement.specifier.contains(
            versions.get(canonicalize_name(requirement.name), Version("0"))
        )
    ]
    assert missing == [], "run: make stack-lock"


@pytest.mark.parametrize("name", [*EXTRAS, "build"])
def test_each_lock_has_the_versions_of_the_constraints(name: str) -> None:
    pinned = constraints()
    if name == "server-gpu":
        del pinned["torch"]  # faiss's CUDA build needs an older one
    differ = {
        package: (str(version), str(pinned[package]))
        for package, version in locked(name).items()
        if package in pinned and version.public != str(pinned[package])
    }
    assert differ == {}, "run: make stack-lock"


@pytest.mark.parametrize("name", [*EXTRAS, "build"])
def test_no_lock_names_a_host_or_a_path(name: str) -> None:
    assert not re.search(
        r"https?:|file:|--(extra-)?index|--find", (LOCKS / f"{name}.txt").read_text()
    )


def test_torch_is_the_build_without_cuda() -> None:
    for name in ("server", "server-milvus", "trainer"):
        assert locked(name)["torch"].local == "cpu"
        assert not [package for package in locked(name) if package.startswith(("nvidia", "triton"))]


def test_the_server_has_no_library_of_the_trainer() -> None:
    server, trainer = locked("server"), locked("trainer")
    assert TRAINER_ONLY & set(server) == set()
    # The trainer image builds on the server image, so shared libraries need the same version.
    assert {name: trainer.get(name) for name in server} == server
