"""Complete releases with each kind of index; small ones load in a few milliseconds."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from index.ann.build import build_index
from index.ann.spec import IndexMeasurement, IndexSpec
from index.encoders import ENCODERS, build_encoder
from index.release.atomic_io import replace_text
from index.release.canaries import answer_canaries
from index.release.manifest import (
    CURRENT,
    INDEX,
    RELEASES,
    Canary,
    DataWindow,
    EncoderSpec,
    Manifest,
    digest,
    write_manifest,
)
from index.release.writing import write_parts
from index.retrieval.catalog import Catalog
from index.retrieval.retriever import Retriever

DIM, INTERESTS, LENGTH, ITEMS, CATEGORIES = 16, 3, 8, 400, 5
SPECS = {
    "flat": IndexSpec(),
    "ivf": IndexSpec(kind="ivf", head=40, lists=12, margin=3.0, probes=6),
}


def write_release(
    root: Path,
    release_id: str,
    kind: str = "flat",
    seed: int = 0,
    items: int = ITEMS,
    dim: int = DIM,
    encoder_name: str = "re4",
    item_name: str = "item",
) -> Path:
    """Write <root>/releases/<id> with vectors and weights drawn with the seed.

    item_name: what the ids begin with.
    """
    folder = root / RELEASES / release_id
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((items + 1, dim), dtype=np.float32)
    vectors[0] = 0
    arguments: dict[str, bool | int | float | str] = {"dim": dim, **_more(encoder_name, items)}
    torch.manual_seed(seed)
    encoder = build_encoder(encoder_name, arguments).eval()
    catalog = _catalog(items, item_name)
    interests = generator.standard_normal((4, encoder.interests, dim), dtype=np.float32)
    files = dict(write_parts(folder, encoder, vectors, catalog, interests))
    index = build_index(vectors, SPECS[kind])
    index.write(folder / INDEX)
    files[INDEX] = digest(folder / INDEX)
    canaries = [Canary(history=tuple(history)) for history in histories(generator, 20, items)]
    answers = answer_canaries(Retriever(catalog, encoder, vectors, index, LENGTH), canaries)
    manifest = Manifest(
        id=release_id,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        code_version="evidence",
        encoder=EncoderSpec(name=encoder_name, arguments=arguments, history_length=LENGTH),
        data=DataWindow(interactions=9000, users=300, items=items, first=0.0, last=9.5),
        training={"seed": seed},
        metrics={"validation": {"recall@50": 0.2}},
        index=IndexMeasurement(spec=SPECS[kind], recall=1.0, k=50, queries=4, microseconds=5.0),
        canaries=tuple(
            canary.model_copy(update={"items": items})
            for canary, items in zip(canaries, answers, strict=True)
        ),
        files=files,
    )
    write_manifest(folder, manifest)
    return folder


def _more(encoder_name: str, items: int) -> dict[str, int]:
    """The arguments that it has beside its dimension."""
    fields = ENCODERS[encoder_name].Arguments.model_fields
    given = {"interests": INTERESTS, "items": items}
    return {name: value for name, value in given.items() if name in fields}


def point(root: Path, release_id: str) -> None:
    replace_text(root / CURRENT, f"{release_id}\n")


def histories(generator: np.random.Generator, count: int, items: int = ITEMS) -> list[list[str]]:
    """Item ids, oldest first, as clients post them."""
    lengths = generator.integers(1, LENGTH + 1, count)
    return [
        [f"item-{row}" for row in generator.integers(1, items + 1, length)] for length in lengths
    ]


def _catalog(items: int, name: str) -> Catalog:
    rows = range(1, items + 1)
    return Catalog(
        ids=[f"{name}-{row}" for row in rows],
        popularity=np.arange(items, 0, -1),
        categories=[f"category-{row % CATEGORIES}" for row in rows],
        titles=[f"Title of item {row}" for row in rows],
    )
