"""A root with two releases that have titles and examples, and with a nightly run's report."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from index.release.atomic_io import replace_text
from index.release.catalog import read_catalog, write_catalog
from index.release.manifest import (
    CATALOG,
    CURRENT,
    RELEASES,
    Canary,
    digest,
    read_manifest,
    write_manifest,
)
from tests.service.conftest import write_release

TITLES = ["Green tea", "Oolong tea", "Cast-iron teapot", "Steam locomotive", None]
NIGHT = {
    "night": "2026-01-02-abc",
    "outcome": "refused",
    "sentence": "recall@50 is too low",
    "live": "first",
    "serves": "first",
    "begun": 1767312000.5,
    "seconds": {"window": 1.5, "fit": 20.0},
    "warnings": ["few users"],
    "steps": {
        "window": {},
        "judge": {
            "new": {"recall@50": 0.18, "ndcg@50": 0.09, "hit@50": 0.4},
            "live": {"recall@50": 0.2, "ndcg@50": 0.1, "hit@50": 0.5},
            "recent": {},
            "users": 512,
        },
    },
}


def write_titled_release(folder: Path, parent: str | None = None) -> None:
    """The release of tests with a title for every item but each fifth, and two examples."""
    write_release(folder, folder.name)
    catalog = read_catalog(folder / CATALOG)
    titles = [
        title and f"{title} {position // len(TITLES) + 1}"
        for position in range(len(catalog))
        for title in [TITLES[position % len(TITLES)]]
    ]
    write_catalog(folder / CATALOG, replace(catalog, titles=titles))
    manifest = read_manifest(folder)
    changes: dict[str, Any] = {
        "parent": parent,
        "canaries": (Canary(history=("item-1", "item-7")), Canary(history=("item-3",))),
        "files": {**manifest.files, CATALOG: digest(folder / CATALOG)},
    }
    write_manifest(folder, manifest.model_copy(update=changes))


def write_root(root: Path) -> None:
    write_titled_release(root / RELEASES / "first")
    write_titled_release(root / RELEASES / "second", parent="first")
    replace_text(root / CURRENT, "second\n")
    folder = root / "nightly" / str(NIGHT["night"])
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(NIGHT))


@pytest.fixture
def publish(root: Path) -> Callable[[], None]:
    """For `serve`, which is to publish: all is there already."""
    write_root(root)
    return lambda: None
