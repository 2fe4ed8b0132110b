"""Small complete drafts, as training and build make them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from index.ann.build import build_index
from index.ann.spec import IndexMeasurement, IndexSpec
from index.encoders import build_encoder
from index.release.canaries import answer_canaries
from index.release.manifest import (
    INDEX,
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

MakeDraft = Callable[..., Path]
_DIM, _INTERESTS, _LENGTH = 8, 3, 5
_FLAT = IndexSpec()


def _catalog(items: int) -> Catalog:
    return Catalog(
        ids=[f"item-{row}" for row in range(1, items + 1)],
        popularity=np.arange(items, 0, -1),
        categories=[None if row % 3 == 0 else f"category {row % 3}" for row in range(items)],
        titles=[f"Title {row}" for row in range(items)],
    )


@pytest.fixture
def make_draft(tmp_path: Path) -> MakeDraft:
    """A function that writes <root>/drafts/<id> with an index, and returns the folder.

    The seed is the number of the call; each draft is created a day after the one before.
    """
    made = 0

    def make(
        release_id: str = "first",
        root: Path = tmp_path,
        items: int = 40,
        spec: IndexSpec = _FLAT,
        **changes: Any,
    ) -> Path:
        nonlocal made
        made += 1
        folder = root / "drafts" / release_id
        generator = np.random.default_rng(made)
        vectors = generator.standard_normal((items + 1, _DIM), dtype=np.float32)
        vectors[0] = 0
        arguments: dict[str, bool | int | float | str] = {"dim": _DIM, "interests": _INTERESTS}
        with torch.random.fork_rng():
            torch.manual_seed(made)
            encoder = build_encoder("re4", arguments).eval()
        catalog = _catalog(items)
        interests = generator.standard_normal((4, _INTERESTS, _DIM), dtype=np.float32)
        files = dict(write_parts(folder, encoder, vectors, catalog, interests))
        index = build_index(vectors, spec)
        index.write(folder / INDEX)
        files[INDEX] = digest(folder / INDEX)
        canaries = [Canary(history=("item-1", "item-2")), Canary(history=("item-7",))]
        answers = answer_canaries(Retriever(catalog, encoder, vectors, index, _LENGTH), canaries)
        fields: dict[str, Any] = {
            "id": release_id,
            "created": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=made),
            "code_version": "test",
            "encoder": EncoderSpec(name="re4", arguments=arguments, history_length=_LENGTH),
            "data": DataWindow(interactions=900, users=30, items=items, first=0.0, last=9.5),
            "training": {"seed": made},
            "metrics": {"validation": {"recall@50": 0.2}},
            "index": IndexMeasurement(spec=spec, recall=1.0, k=50, queries=4, microseconds=5.0),
            "canaries": tuple(
                canary.model_copy(update={"items": items})
                for canary, items in zip(canaries, answers, strict=True)
            ),
            "files": files,
        }
        write_manifest(folder, Manifest(**{**fields, **changes}))
        return folder

    return make
