"""POST /events, and GET and DELETE /users/{user_id}/history, over HTTP."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import quote

import httpx
import pytest

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

UNREACHABLE = "redis://127.0.0.1:1"


def event(user: str, item: str, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, **more}


def path_of(user: str) -> str:
    """Dots are encoded too: clients take `..` for the parent folder."""
    return f"/users/{quote(user, safe='').replace('.', '%2E')}/history"


async def stored(client: httpx.AsyncClient, user: str) -> dict[str, Any]:
    response = await client.get(path_of(user))
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


async def test_events_make_a_history(serve: Serve) -> None:
    async with serve() as client:
        one = await client.post("/events", json=event("anna", "item-1"))
        two = await client.post(
            "/events", json=[event("anna", "item-2", event_id="e"), event("bert", "item-3")]
        )
        repeated = await client.post("/events", json=event("anna", "item-2", event_id="e"))

        assert one.json() == {"accepted": 1, "duplicates": 0, "outdated": 0}
        assert two.json() == {"accepted": 2, "duplicates": 0, "outdated": 0}
        assert repeated.json() == {"accepted": 0, "duplicates": 1, "outdated": 0}
        assert await stored(client, "anna") == {"items": ["item-1", "item-2"], "count": 2}
        assert await stored(client, "nobody") == {"items": [], "count": 0}


async def test_a_deleted_history_is_not_used(serve: Serve) -> None:
    body = {"user_id": "anna", "k": 3}
    async with serve() as client:
        await client.post("/events", json=[event("anna", "item-7"), event("anna", "item-9")])
        assert (await client.post("/recommend", json=body)).json()["source"] == "interests"
        deleted = await client.delete("/users/anna/history")

        assert (deleted.status_code, deleted.json()) == (200, {"forgotten": 2})
        assert (await client.delete("/users/anna/history")).json() == {"forgotten": 0}
        assert await stored(client, "anna") == {"items": [], "count": 0}
        assert (await client.post("/recommend", json=body)).json()["source"] == "popular"
        await client.post("/events", json=event("anna", "item-3"))
        assert (await stored(client, "anna"))["items"] == ["item-3"]


@pytest.mark.parametrize(
    "user",
    ["a/b", "a/history", "/", "käthe ☃", "100%", "a?b#c", "..", "{}", "}x{", "\n", "x" * 512],
)
async def test_any_id_goes_into_a_path(serve: Serve, user: str) -> None:
    path = path_of(user)
    async with serve() as client:
        await client.post("/events", json=event(user, "item-1"))

        assert (await stored(client, user))["items"] == ["item-1"]
        assert (await client.delete(path)).json() == {"forgotten": 1}


@pytest.mark.parametrize("user", ["", "x" * 513, "☃" * 171])
async def test_an_invalid_id_is_rejected(serve: Serve, user: str) -> None:
    async with serve() as client:
        for method in ("GET", "DELETE"):
            response = await client.request(method, path_of(user))
            assert response.status_code == 422, response.text
            assert response.json()["error"]["code"] == "invalid_request"


async def test_an_event_cannot_have_the_type_forget(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post("/events", json=event("anna", "item-1", event="forget"))

    assert response.status_code == 422
    assert "DELETE /users/{id}/history" in response.text


async def test_without_redis_histories_are_unavailable(serve: Serve) -> None:
    async with serve(redis_url=UNREACHABLE) as client:
        for method in ("GET", "DELETE"):
            response = await client.request(method, "/users/anna/history")
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "history_unavailable"
