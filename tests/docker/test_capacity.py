"""docker/CAPACITY.md shows what tests/benchmarks/capacity.py computes, from what READMEs state."""

import argparse
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docker" / "CAPACITY.md").read_text(encoding="utf-8")


def load() -> ModuleType:
    path = ROOT / "tests" / "benchmarks" / "capacity.py"
    spec = importlib.util.spec_from_file_location("capacity", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


capacity = load()


def given(*words: str) -> argparse.Namespace:
    parsed: argparse.Namespace = capacity.parse(words)
    return parsed


def shown(name: str) -> str:
    [table] = re.findall(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", PAGE, re.DOTALL)
    return str(table)


def test_the_page_shows_what_the_script_prints() -> None:
    assert shown("capacity") == capacity.table(given())
    assert shown("assumptions") == capacity.assumptions()


def test_the_measured_figures_are_those_of_the_readmes() -> None:
    index = (ROOT / "index" / "README.md").read_text(encoding="utf-8")
    [row] = re.findall(r"^\| a request, merged, µs \|(.*)\|$", index, re.MULTILINE)
    assert [float(cell) for cell in row.split("|")] == [us for _, us in capacity.GROWTH_US]
    service = (ROOT / "service" / "README.md").read_text(encoding="utf-8")
    assert f"| HTTP floor, µs | {given().floor_us:.0f} |" in service
    assert f"encode, search, merge | 439: {given().encode_us:.0f}, 317, 28 |" in service


def test_the_service_alone_has_the_capacity_that_was_measured() -> None:
    """At 368,000 items one core answered 1,480 to 1,575 requests a second, of posted sequences."""
    one_full = given("--load", "1", "--stored-us", "0")
    cores = capacity.with_files(100_000, 368_000, one_full).cores
    assert 1_400 < 100_000 / cores < 1_750


def test_more_of_anything_never_takes_less() -> None:
    for way in (capacity.with_files, capacity.with_milvus):
        needs = [way(requests, 1e7, given()) for requests in (1e3, 1e4, 1e5)]
        needs += [way(1e5, items, given()) for items in (2e7, 1e8, 1e9)]
        costs = [need.cost(given()) for need in needs]
        assert costs == sorted(costs)


@pytest.mark.parametrize(
    ("words", "search"), [(("--milvus-us", "1e6"), "split in 10"), ((), "milvus")]
)
def test_an_assumption_changes_the_way(words: tuple[str, ...], search: str) -> None:
    assert capacity.cheapest(1e5, 1e8, given(*words)).search == search
