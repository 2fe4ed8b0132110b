"""Without Redis the service is degraded, not down: requests without history work in full."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

UNREACHABLE = "redis://127.0.0.1:1"


async def test_a_sequence_gets_its_full_recommendations(serve: Serve) -> None:
    body = {"sequence": ["item-3", "item-9"], "k": 5}
    async with serve() as client:
        normal = (await client.post("/recommend", json=body)).json()
    async with serve(redis_url=UNREACHABLE) as client:
        degraded = (await client.post("/recommend", json=body)).json()

    assert degraded == {**normal, "impression_id": degraded["impression_id"]}
    assert not degraded["degraded"]


async def test_a_user_gets_popular_items(serve: Serve) -> None:
    async with serve(redis_url=UNREACHABLE) as client:
        for _ in range(10):
            response = await client.post("/recommend", json={"user_id": "anna", "k": 2})
            content = response.json()

            assert response.status_code == 200
            assert [item["item_id"] for item in content["items"]] == ["item-1", "item-2"]
            assert (content["source"], content["degraded"]) == ("popular", True)


async def test_a_user_with_a_sequence_gets_recommendations_for_the_sequence(serve: Serve) -> None:
    async with serve(redis_url=UNREACHABLE) as client:
        both = await client.post("/recommend", json={"user_id": "anna", "sequence": ["item-3"]})
        alone = await client.post("/recommend", json={"sequence": ["item-3"]})

    impression = both.json()["impression_id"]
    assert both.json() == {**alone.json(), "degraded": True, "impression_id": impression}


async def test_events_are_rejected(serve: Serve) -> None:
    async with serve(redis_url=UNREACHABLE) as client:
        response = await client.post("/events", json={"user_id": "a", "item_id": "b"})

    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["error"]["code"] == "history_unavailable"


async def test_the_process_is_ready_and_reports_degraded(serve: Serve) -> None:
    async with serve() as client:
        normal = await client.get("/readyz")
    async with serve(redis_url=UNREACHABLE) as client:
        degraded = await client.get("/readyz")
        metrics = (await client.get("/metrics")).text

    assert normal.json() == {"status": "ready", "release": "first", "history": "ok"}
    assert degraded.status_code == 200
    content = degraded.json()
    reasons = set(content.pop("failing").values())
    assert content == {"status": "ready", "release": "first", "history": "degraded"}
    assert reasons == {"refused: nothing listens at that port; check the port, and that Redis runs"}
    assert "re4_redis_up 0.0" in metrics
    assert "re4_redis_failures_total" in metrics
