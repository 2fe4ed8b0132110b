"""Which hosts requests may name, so that no page can make its own name point here."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from service.auth.api_keys import key_line, new_key
from service.http.schemas.common import ErrorBody

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
pytestmark = pytest.mark.anyio

LOCAL = (
    *("localhost", "LOCALHOST:8000", "localhost.", "shop.localhost:8000", ""),
    *("127.0.0.1", "127.0.0.1:8000", "192.168.1.7", "[::1]", "[::1]:8000", "[fe80::1]:80"),
)
FOREIGN = (
    *("evil.example", "evil.example:8000", "localhost.evil.example", "notlocalhost", "api"),
    *("127.0.0.1.evil.example", "xn--lcalhost-n0a", "[evil.example]", "a:b:c", "localhost:1:2"),
)


async def refused(client: httpx.AsyncClient, *hosts: str) -> list[str]:
    """Those of the hosts that are refused, by every endpoint."""
    found = []
    for host in hosts:
        statuses = set()
        for method, path in (
            *(("GET", "/livez"), ("GET", "/metrics"), ("GET", "/docs"), ("GET", "/openapi.json")),
            *(("GET", "/nothing"), ("DELETE", "/users/anna/history"), ("POST", "/events")),
        ):
            response = await client.request(method, path, headers={"host": host})
            statuses.add(response.status_code == 421)
            if response.status_code == 421:
                error = ErrorBody.model_validate_json(response.content).error
                assert error.code == "misdirected"
                assert "--allowed-hosts" in error.message
                assert "x-request-id" in response.headers
        [is_refused] = statuses
        found += [host] if is_refused else []
    return found


async def test_an_open_server_answers_to_local_names_and_addresses_only(serve: Serve) -> None:
    async with serve() as client:
        assert await refused(client, *LOCAL, *FOREIGN) == [*FOREIGN]
        body = {"user_id": "anna", "item_id": "item-1"}
        await client.post("/events", json=body, headers={"host": "evil.example"})
        assert (await client.get("/users/anna/history")).json()["count"] == 0


async def test_further_hosts_can_be_allowed(serve: Serve) -> None:
    async with serve(allowed_hosts="api, Shop.example,*.internal") as client:
        allowed = ("api", "api:8000", "shop.example", "SHOP.example.", "a.b.internal:80", *LOCAL)
        assert await refused(client, *allowed) == []
        others = ("evil.example", "a.shop.example", "internal", "evilinternal")
        assert await refused(client, *others) == [*others]
    async with serve(allowed_hosts="*") as client:
        assert await refused(client, *LOCAL, *FOREIGN) == []


async def test_with_keys_or_for_everyone_all_hosts_are_allowed_unless_named(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(key_line(new_key(), ["read"]))
    for settings in ({"keys_file": tmp_path / "keys"}, {"host": "::", "allow_anonymous": True}):
        async with serve(**settings) as client:
            assert await refused(client, *LOCAL, *FOREIGN) == []
        async with serve(**settings, allowed_hosts="api") as client:
            assert await refused(client, "api", "evil.example") == ["evil.example"]
