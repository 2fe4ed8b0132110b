"""What is installed in the images is what the constraints say, by hash, and from no named host."""

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
    "server-gpu": ("gpu", "service", "tracing"),
    "trainer": ("cpu", "service", "tracing", "client", "training"),
}
TRAINERS_OWN = {"matplotlib", "scikit-learn", "scipy", "pandas", "polars", "pillow", "fonttools"}


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
def test_each_has_what_its_extras_ask_for(name: str) -> None:
    wanted = list(PROJECT["dependencies"])
    for extra in EXTRAS[name]:
        wanted += PROJECT["optional-dependencies"][extra]
    have = locked(name)
    missing = [
        requirement.name
        for requirement in map(Requirement, wanted)
        if not requirement.specifier.contains(
            have.get(canonicalize_name(requirement.name), Version("0"))
        )
    ]
    assert missing == [], "run: make stack-lock"


@pytest.mark.parametrize("name", [*EXTRAS, "build"])
def test_each_has_the_versions_of_the_constraints(name: str) -> None:
    pinned = constraints()
    if name == "server-gpu":
        del pinned["torch"]  # what goes with faiss's CUDA is an older one
    differ = {
        package: (str(version), str(pinned[package]))
        for package, version in locked(name).items()
        if package in pinned and version.public != str(pinned[package])
    }
    assert differ == {}, "run: make stack-lock"


@pytest.mark.parametrize("name", [*EXTRAS, "build"])
def test_none_names_a_host_or_a_place(name: str) -> None:
    assert not re.search(
        r"https?:|file:|--(extra-)?index|--find", (LOCKS / f"{name}.txt").read_text()
    )


def test_torch_is_the_one_without_cuda() -> None:
    for name in ("server", "trainer"):
        assert locked(name)["torch"].local == "cpu"
        assert not [package for package in locked(name) if package.startswith(("nvidia", "triton"))]


def test_the_server_has_nothing_of_the_trainer() -> None:
    server, trainer = locked("server"), locked("trainer")
    assert TRAINERS_OWN & set(server) == set()
    # One image is made on top of the other, so what both have has to be the same.
    assert {name: trainer.get(name) for name in server} == server
