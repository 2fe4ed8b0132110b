"""Requests of users whose times are known, to a release that reads them."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.release.atomic_io import replace_text
from index.release.manifest import CURRENT, RELEASES
from index.release.reading import open_release
from index.retrieval.query import Query
from tests.service.conftest import write_release

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
Items = list[tuple[str, float]]

ITEMS = ["item-4", "item-9", "item-2"]
# Far from the border of a code, so that a slow test has the same.
AGES = [5e6, 1.5e5, 1.5 * 2**10]


@pytest.fixture
def release(root: Path) -> Path:
    """One whose encoder reads times."""
    folder = root / RELEASES / "first"
    write_release(folder, "first", "transformer", time_gaps=True, heads=2, history=5)
    replace_text(root / CURRENT, "first\n")
    return folder


@pytest.fixture
async def client(release: Path, serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    async with serve() as client:
        yield client


async def items(client: httpx.AsyncClient, **body: Any) -> Items:
    response = await client.post("/recommend", json={"k": 5, **body})
    assert response.status_code == 200, response.text
    return [(item["item_id"], item["score"]) for item in response.json()["items"]]


def expected(release: Path, history: list[str], ages: list[float] | None) -> Items:
    retriever = open_release(release).retriever
    [answer] = retriever.recommend([Query(history, 5, ages=ages)])
    ids = [retriever.catalog.id(row) for row in answer.rows]
    return [*zip(ids, answer.scores.tolist(), strict=True)]


def approximately(found: Items) -> list[Any]:
    return [(item, pytest.approx(score, abs=1e-4)) for item, score in found]


def moments(ages: list[float]) -> list[float]:
    now = time.time()
    return [now - age for age in ages]


async def test_posted_times_are_read_in_any_unit(client: httpx.AsyncClient, release: Path) -> None:
    right = expected(release, ITEMS, AGES)
    assert right != expected(release, ITEMS, None)
    for times in (
        moments(AGES),
        [round(moment * 1000) for moment in moments(AGES)],
        [datetime.fromtimestamp(moment, UTC).isoformat() for moment in moments(AGES)],
    ):
        found = await items(client, sequence=ITEMS, timestamps=times)
        assert found == approximately(right)


async def test_without_times_and_with_unknown_ones(
    client: httpx.AsyncClient, release: Path
) -> None:
    unknown = expected(release, ITEMS, None)
    assert await items(client, sequence=ITEMS) == approximately(unknown)
    assert await items(client, sequence=ITEMS, timestamps=[None] * 3) == approximately(unknown)
    some = [*moments(AGES)[:1], None, *moments(AGES)[2:]]
    found = await items(client, sequence=ITEMS, timestamps=some)
    assert found == approximately(expected(release, ITEMS, [AGES[0], float("nan"), AGES[2]]))


async def test_the_times_of_a_stored_history_are_read(
    client: httpx.AsyncClient, release: Path
) -> None:
    events = [
        {"user_id": "anna", "item_id": item, "timestamp": moment}
        for item, moment in zip(ITEMS, moments(AGES), strict=True)
    ]
    await client.post("/events", json=events)
    for exclude_seen in (True, {"kinds": ["purchase"]}):
        found = await items(client, user_id="anna", exclude_seen=exclude_seen, exclude=ITEMS)
        assert found == approximately(expected(release, ITEMS, AGES))
    more = {"sequence": ["item-7"], "timestamps": moments([40.0])}
    found = await items(client, user_id="anna", **more)
    assert found == approximately(expected(release, [*ITEMS, "item-7"], [*AGES, 40.0]))
    found = await items(client, user_id="anna", sequence=["item-7"])
    unknown = [*AGES, float("nan")]
    assert found == approximately(expected(release, [*ITEMS, "item-7"], unknown))


async def test_an_item_that_the_release_does_not_know_leaves_its_time_to_the_one_before(
    client: httpx.AsyncClient, release: Path
) -> None:
    sequence, ages = [ITEMS[0], "no-such", *ITEMS[1:]], [AGES[0], 1e6, *AGES[1:]]
    found = await items(client, sequence=sequence, timestamps=moments(ages))
    assert found == approximately(expected(release, ITEMS, AGES))


async def test_batches_have_times_too(client: httpx.AsyncClient, release: Path) -> None:
    requests = [{"sequence": ITEMS, "timestamps": moments(AGES), "k": 5}, {"sequence": ITEMS}]
    response = await client.post("/recommend/batch", json={"requests": requests})
    first, second = response.json()["answers"]
    found = [(item["item_id"], item["score"]) for item in first["items"]]
    assert found == approximately(expected(release, ITEMS, AGES))
    assert second["items"][0]["score"] != pytest.approx(found[0][1], abs=1e-4)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"sequence": ITEMS, "timestamps": [1.7e9]}, "timestamps: 1 for a sequence of 3 items"),
        ({"user_id": "anna", "timestamps": [1.7e9]}, "timestamps: 1 for a sequence of 0 items"),
        ({"sequence": ITEMS, "timestamps": [1, 2, "soon"]}, "not a time"),
        ({"sequence": ITEMS, "timestamps": [1, 2, -3]}, "timestamps"),
    ],
)
async def test_times_that_cannot_be_used_are_refused(
    client: httpx.AsyncClient, body: dict[str, Any], words: str
) -> None:
    response = await client.post("/recommend", json=body)
    assert response.status_code == 422
    assert words in response.json()["error"]["message"]


async def test_a_release_that_reads_no_times_ignores_them(serve: Serve) -> None:
    async with serve() as client:
        plain = await items(client, sequence=ITEMS)
        assert await items(client, sequence=ITEMS, timestamps=moments(AGES)) == plain
