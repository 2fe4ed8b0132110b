"""Each encoder is trained, released and served in the same way."""

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from index.encoders import ENCODERS
from index.release.build import build
from index.release.publish import publish
from index.release.reading import open_release
from index.retrieval.query import Query
from service.app import create_app
from service.settings import Settings
from training.config import read_config
from training.data.synthetic import write_synthetic
from training.fitting.fit import fit

TINY = {"dim": 8, "interests": 3, "hidden": 8, "negatives": 20, "epochs": 1, "pretrain_epochs": 0}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    write_synthetic(folder, users=200, items=100, seed=2)
    return folder / "interactions.parquet"


async def post_recommend(root: Path, body: dict[str, Any]) -> Any:
    """The response of a server of the root's live release."""
    with tempfile.TemporaryDirectory() as folder:  # a unix socket's path must be short
        app = create_app(Settings(releases=root, embedded_redis_folder=Path(folder)))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            await app.state.service.live.refresh()
            return (await client.post("/recommend", json=body)).json()


COSINES: dict[str, Any] = {"score_temperature": 0.2, "item_bias": True}
PARTITIONED = {"objective": "partitioned-max", **COSINES}
SERVED: dict[str, dict[str, Any]] = {
    **{encoder: {"encoder": encoder} for encoder in ENCODERS},
    "re4, gated": {"encoder": "re4", "objective": "gated-max"},
    "re4, partitioned": {"encoder": "re4", **PARTITIONED},
    "transformer, partitioned": {"encoder": "transformer", **PARTITIONED},
    "transformer, one facet": {
        "encoder": "transformer",
        "interests": 1,
        "single_readout": "facet",
        **COSINES,
    },
    "transformer, tokens": {
        "encoder": "transformer",
        "readout": "tokens",
        "objective": "set-matching",
        **COSINES,
    },
}


@pytest.mark.parametrize("name", SERVED)
def test_fit_build_publish_reload_and_serve(log: Path, tmp_path: Path, name: str) -> None:
    draft = fit(log, tmp_path, read_config(None, {**TINY, **SERVED[name]}))
    build(draft, 0.95, 20, lambda message: None)
    release = publish(draft, force=True)  # after one epoch it may be below popularity
    first, second = open_release(release), open_release(release)
    ids = first.retriever.catalog.ids
    sequence = [ids[5], ids[1], ids[8]]
    expected, repeated = (
        opened.retriever.recommend([Query(sequence, 10)])[0] for opened in (first, second)
    )
    assert expected.rows.tolist() == repeated.rows.tolist()
    assert expected.scores.tobytes() == repeated.scores.tobytes()
    response = asyncio.run(post_recommend(tmp_path, {"sequence": sequence, "k": 10}))
    assert response["source"] == "interests"
    assert [item["item_id"] for item in response["items"]] == [
        ids[row - 1] for row in expected.rows
    ]
    similar = first.retriever.similar(ids[5], 5)
    assert similar is not None
    assert similar[1].max() <= np.linalg.norm(first.retriever.vectors, axis=1).max() * 1.001
    if "partitioned" in name:
        (answer,) = first.retriever.recommend([Query(sequence, 10, measure_overlap=True)])
        assert answer.overlap is not None
        assert answer.overlap.distinct == answer.overlap.of  # no item is in two lists
