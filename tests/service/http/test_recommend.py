"""POST /recommend returns what the retriever returns, and where it comes from."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from index.ann.kernel_choice import find_kernel
from index.release.manifest import RELEASES, read_manifest, write_manifest
from index.release.reading import open_release
from index.retrieval.query import Query

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
pytestmark = pytest.mark.anyio

ITEMS = 40
REQUEST_STAGES = ["history", "total"]
BATCH_STAGES = ["queue", "encode", "search", "merge"]


async def recommend(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post("/recommend", json=body)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


async def post_events(client: httpx.AsyncClient, user: str, items: Sequence[str]) -> None:
    events = [{"user_id": user, "item_id": item} for item in items]
    response = await client.post("/events", json=events)
    assert response.json()["accepted"] == len(items)


def expected(root: Path, history: Sequence[str], **query: Any) -> list[dict[str, Any]]:
    retriever = open_release(root / RELEASES / "first").retriever
    [answer] = retriever.recommend([Query(history, **query)])
    return [
        {
            "item_id": retriever.catalog.id(int(row)),
            "score": pytest.approx(float(score)),
            "interest": int(interest),
        }
        for row, score, interest in zip(answer.rows, answer.scores, answer.interests, strict=True)
    ]


async def test_a_sequence_gets_the_retrievers_items(serve: Serve, root: Path) -> None:
    async with serve() as client:
        content = await recommend(client, sequence=["item-3", "item-9", "item-1"], k=7)

    assert content == {
        "items": expected(root, ["item-3", "item-9", "item-1"], k=7),
        "impression_id": content["impression_id"],
        "release": "first",
        "source": "interests",
        "degraded": False,
        "unknown_items": 0,
    }
    assert len(content["items"]) == 7


async def test_the_order_of_the_sequence_matters(serve: Serve) -> None:
    items = [f"item-{row}" for row in range(1, 11)]
    async with serve() as client:
        forward = await recommend(client, sequence=items, exclude_seen=False)
        backward = await recommend(client, sequence=items[::-1], exclude_seen=False)
        newest = await recommend(client, sequence=items[-5:], exclude_seen=False)

    assert forward["items"] != backward["items"]
    assert forward["items"] == newest["items"], "oldest first: the last five are encoded"


async def test_seen_items_are_excluded_by_default(serve: Serve) -> None:
    history = ["item-3", "item-9"]
    async with serve() as client:
        excluded = await recommend(client, sequence=history, k=1000)
        included = await recommend(client, sequence=history, k=1000, exclude_seen=False)

    assert len(excluded["items"]) == ITEMS - 2
    assert not {item["item_id"] for item in excluded["items"]} & set(history)
    assert len({item["item_id"] for item in included["items"]}) == ITEMS


async def test_seen_items_are_kept_by_default_if_the_release_was_evaluated_so(
    serve: Serve, publish: Callable[..., Path]
) -> None:
    folder = publish()
    manifest = read_manifest(folder)
    training = manifest.training | {"exclude_seen": False}
    write_manifest(folder, manifest.model_copy(update={"training": training}))
    history = ["item-3", "item-9"]
    async with serve() as client:
        kept = await recommend(client, sequence=history, k=1000)
        excluded = await recommend(client, sequence=history, k=1000, exclude_seen=True)

    assert len(kept["items"]) == ITEMS
    assert len(excluded["items"]) == ITEMS - 2


async def test_k_is_fifty_by_default(serve: Serve) -> None:
    async with serve() as client:
        assert len((await recommend(client, sequence=["item-1"]))["items"]) == ITEMS - 1


async def test_unknown_items_are_ignored_and_counted(serve: Serve, root: Path) -> None:
    async with serve() as client:
        content = await recommend(client, sequence=["?", "item-3", "x" * 512, "item-9"], k=5)

    assert content["items"] == expected(root, ["item-3", "item-9"], k=5)
    assert content["unknown_items"] == 2


@pytest.mark.parametrize("sequence", [[], ["nobody-knows-this"]])
async def test_popular_items_for_an_empty_or_unknown_sequence(
    serve: Serve, sequence: list[str]
) -> None:
    async with serve() as client:
        content = await recommend(client, sequence=sequence, k=3)

    assert [item["item_id"] for item in content["items"]] == ["item-1", "item-2", "item-3"]
    assert {item["interest"] for item in content["items"]} == {None}
    assert content["source"] == "popular"
    assert not content["degraded"]
    assert content["unknown_items"] == len(sequence)


async def test_popular_items_for_an_unknown_user(serve: Serve) -> None:
    async with serve() as client:
        content = await recommend(client, user_id="nobody", k=3)

    assert (content["source"], content["degraded"]) == ("popular", False)


async def test_a_stored_history_is_used_oldest_first(serve: Serve, root: Path) -> None:
    history = [f"item-{row}" for row in range(10, 20)]
    async with serve() as client:
        await post_events(client, "anna", history[:6])
        await post_events(client, "anna", history[6:])
        await post_events(client, "bert", ["item-1"])
        content = await recommend(client, user_id="anna", k=6)

    assert content["items"] == expected(root, history, k=6)


async def test_a_sequence_follows_the_stored_history(serve: Serve, root: Path) -> None:
    async with serve() as client:
        await post_events(client, "anna", ["item-1", "item-2", "item-3"])
        content = await recommend(
            client, user_id="anna", sequence=["item-7", "item-8", "item-9"], k=6
        )

    history = [f"item-{row}" for row in (1, 2, 3, 7, 8, 9)]
    assert content["items"] == expected(root, history, k=6)


async def test_the_duration_of_every_stage_is_in_server_timing(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post("/recommend", json={"sequence": ["item-1"]})

    stages = [stage.split(";dur=") for stage in response.headers["server-timing"].split(", ")]
    assert [name for name, _ in stages] == ["history", *BATCH_STAGES, "total"]
    durations = {name: float(duration) for name, duration in stages}
    assert all(duration >= 0 for duration in durations.values())
    assert durations["total"] >= durations["encode"] + durations["search"] + durations["merge"]


async def test_metrics_count_requests_without_ids(serve: Serve) -> None:
    async with serve() as client:
        await recommend(client, sequence=["item-1", "strange-item"])
        await recommend(client, user_id="strange-user")
        await client.post("/recommend", json={})
        await client.get("/strange-path")
        text = (await client.get("/metrics")).text

    assert 're4_requests_total{route="/recommend",status="200"} 2.0' in text
    assert 're4_requests_total{route="/recommend",status="422"} 1.0' in text
    assert 're4_requests_total{route="other",status="404"} 1.0' in text
    assert 're4_responses_total{source="interests"} 1.0' in text
    assert 're4_responses_total{source="popular"} 1.0' in text
    assert "re4_history_oov_items_total 1.0" in text
    assert 're4_release_info{release="first"} 1.0' in text
    assert f're4_kernel_info{{kernel="{find_kernel().name}"}} 1.0' in text
    assert "re4_redis_up 1.0" in text
    for stage in REQUEST_STAGES:
        assert f're4_request_seconds_count{{stage="{stage}"}} 2.0' in text
    for stage in BATCH_STAGES:
        assert f're4_batch_stage_seconds_count{{stage="{stage}"}} 2.0' in text
    assert "strange" not in text
