"""Several shops of one process: each has its own of everything, and nothing of another."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from service.__main__ import sentences
from service.auth.api_keys import key_line, new_key
from service.client import AsyncClient, RecommendRequest
from service.http.tenants import TenantsState
from service.settings import Settings
from service.tenant_apps import create_tenants_app
from service.tenants import read_tenants
from tests.evidence.redis_servers import RedisServer
from tests.service.conftest import client_of
from tests.service.shops import SHOPS, publish, write_shops

pytestmark = pytest.mark.anyio

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
HISTORY = {"sequence": ["item-1", "item-2"]}


@pytest.fixture
def serve_shops(settings: Callable[..., Settings], tmp_path: Path) -> Serve:
    """A function that serves the shops in this process. more: by shop, further TOML."""

    @asynccontextmanager
    async def serving(
        more: dict[str, str] | None = None, **changes: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        file = write_shops(tmp_path / "shops", more)
        given = settings(releases=None, tenants=file, **changes)
        app = create_tenants_app(given, read_tenants(given, sentences))
        async with client_of(app) as client:
            await app.state.service.load()
            yield client

    return serving


def app_behind(client: httpx.AsyncClient) -> FastAPI:
    app: FastAPI = client._transport.app  # type: ignore[attr-defined]
    return app


def state_behind(client: httpx.AsyncClient) -> TenantsState:
    state: TenantsState = app_behind(client).state.service
    return state


async def test_each_path_leads_to_its_shop(serve_shops: Serve) -> None:
    async with serve_shops() as client:
        for shop in SHOPS:
            answer = await client.post(f"/t/{shop}/recommend", json=HISTORY)
            assert (answer.status_code, answer.json()["release"]) == (200, shop)
            assert (await client.get(f"/t/{shop}/readyz")).json()["release"] == shop
            item = await client.get(f"/t/{shop}/items/t/garden/similar")
            assert item.json()["error"]["code"] == "unknown_item", "an id with slashes"
        assert (await client.get("/livez")).json() == {"status": "alive"}
        ready = {"status": "ready", "ready_tenants": 3, "tenants": 3}
        assert (await client.get("/readyz")).json() == ready


@pytest.mark.parametrize(
    "path", ["/t/none/recommend", "/t/", "/t/none", "/recommend", "/", "/docs"]
)
async def test_an_unknown_shop_is_told_apart_from_an_unknown_endpoint(
    serve_shops: Serve, path: str
) -> None:
    async with serve_shops() as client:
        answer = await client.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_tenant")
        assert "the path of a request is /t/NAME/ and an endpoint" in answer.text
        assert not [shop for shop in SHOPS if shop in answer.text], "who else is served"
        answer = await client.get("/t/garden/none")
        assert answer.json()["error"]["code"] == "not_found"


async def test_what_is_stored_is_of_one_shop(serve_shops: Serve, tcp: RedisServer) -> None:
    async with serve_shops(redis_url=tcp.url) as client:
        event = {"user_id": "anna", "item_id": "item-3", "event_id": "1"}
        await client.post("/t/garden/events", json=event)
        await client.put("/t/garden/items/item-5", json={"available": False})
        await client.put("/t/garden/items/new", json={"available": True})
        for shop in SHOPS:
            history = (await client.get(f"/t/{shop}/users/anna/history")).json()["items"]
            assert history == (["item-3"] if shop == "garden" else [])
            withdrawn = (await client.get(f"/t/{shop}/items?available=false")).json()["items"]
            assert withdrawn == (["item-5"] if shop == "garden" else [])
            answer = (await client.post(f"/t/{shop}/recommend", json={**HISTORY, "k": 40})).json()
            offered = {item["item_id"] for item in answer["items"]}
            assert ("item-5" in offered) == (shop != "garden")
            again = (await client.post(f"/t/{shop}/events", json=event)).json()
            assert again["duplicates"] == (shop == "garden")
            known = await client.put(f"/t/{shop}/items/new", json={"available": False})
            assert known.json()["known"] == (shop == "garden")
    names = {key.decode().split(":{")[0] for key in tcp.execute("KEYS", "*")}
    assert {
        name.rsplit(":", 1)[0] if name.endswith(("owner", "probe")) else name for name in names
    } == {f"re4:{shop}" for shop in SHOPS}


async def test_each_shop_follows_its_own_releases(serve_shops: Serve, tmp_path: Path) -> None:
    async with serve_shops({"garden": 'admin_key = "sesam"'}) as client:
        publish(tmp_path / "shops" / "garden", "second")
        headers = {"authorization": "Bearer sesam"}
        answer = await client.post("/t/garden/admin/reload", headers=headers)
        assert answer.json()["release"] == "second"
        assert (await client.post("/t/fashion/admin/reload", headers=headers)).status_code == 404
        for shop in SHOPS:
            expected = "second" if shop == "garden" else shop
            answer = await client.post(f"/t/{shop}/recommend", json=HISTORY)
            assert answer.json()["release"] == expected


async def test_a_shop_without_a_release_keeps_no_other_from_work(
    serve_shops: Serve, tmp_path: Path
) -> None:
    async with serve_shops() as client:
        state = state_behind(client).tenants["books"]
        state.live.release = None
        (tmp_path / "shops" / "books" / "current").write_text("none\n")
        assert (await client.get("/readyz")).status_code == 503, "it is neither loaded nor refused"
        await state.load()
        assert (await client.get("/readyz")).json()["ready_tenants"] == 2
        assert (await client.get("/t/books/readyz")).status_code == 503
        assert (await client.post("/t/garden/recommend", json=HISTORY)).status_code == 200


async def test_a_key_opens_one_shop(serve_shops: Serve, tmp_path: Path) -> None:
    keys = {name: new_key() for name in (*SHOPS, "*")}
    lines = [key_line(key, ["read"], name) for name, key in keys.items()]
    (tmp_path / "keys").write_text("\n".join(lines))
    async with serve_shops(keys_file=tmp_path / "keys") as client:

        async def status(shop: str, key: str, path: str = "/recommend") -> int:
            headers = {"authorization": f"Bearer {keys[key]}"}
            method = "POST" if path == "/recommend" else "GET"
            url = f"/t/{shop}{path}" if shop else path
            body = HISTORY if method == "POST" else None
            return (await client.request(method, url, json=body, headers=headers)).status_code

        for shop in SHOPS:
            for key in keys:
                allowed = 200 if key in (shop, "*") else 401
                assert await status(shop, key) == allowed
                assert await status(shop, key, "/metrics") == allowed
        assert [await status("", key, "/metrics") for key in ("garden", "*")] == [401, 200]


async def test_a_shop_may_have_a_file_of_keys(serve_shops: Serve, tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "keys").write_text(key_line(key, ["read"]))
    async with serve_shops({"garden": f'keys_file = "{tmp_path / "keys"}"'}) as client:
        headers = {"authorization": f"Bearer {key}"}
        url = "/t/garden/recommend"
        assert (await client.post(url, json=HISTORY)).status_code == 401
        assert (await client.post(url, json=HISTORY, headers=headers)).status_code == 200
        assert (await client.post("/t/books/recommend", json=HISTORY)).status_code == 200
        every = await client.get("/metrics", headers=headers)
        assert every.status_code == 401, "the metrics of all shops are nobody's"


async def test_a_rate_is_of_one_shop(serve_shops: Serve) -> None:
    async with serve_shops(rate_limit="2/hour") as client:
        for shop in ("garden", "books"):
            url = f"/t/{shop}/recommend"
            statuses = [(await client.post(url, json=HISTORY)).status_code for _ in range(3)]
            assert statuses == [200, 200, 429]


async def test_each_metric_names_the_shop(serve_shops: Serve) -> None:
    async with serve_shops() as client:
        for shop, count in zip(SHOPS, (1, 2, 3), strict=True):
            for _ in range(count):
                await client.post(f"/t/{shop}/recommend", json=HISTORY)
        await client.get("/t/none/recommend")
        every = samples((await client.get("/metrics")).text)
        for shop, count in zip(SHOPS, (1, 2, 3), strict=True):
            own = samples((await client.get(f"/t/{shop}/metrics")).text)
            assert {labels["tenant"] for _, labels, _ in own} == {shop}
            assert [
                (labels, value)
                for name, labels, value in own
                if name == "re4_responses_total" and value
            ] == [({"tenant": shop, "source": "interests"}, count)]
            [release] = [s for s in own if s[0] == "re4_release_info"]
            assert release == ("re4_release_info", {"tenant": shop, "release": shop}, 1)
            assert release in every
        of_nobody = [s for s in every if not s[1].get("tenant")]
        assert (
            "re4_requests_total",
            {"tenant": "", "route": "other", "status": "404"},
            1,
        ) in of_nobody
        assert {
            re.sub(r"_total$|_created$", "", name) for name, *_ in of_nobody if name[:4] == "re4_"
        } == {*("re4_requests", "re4_dropped_log_lines", "re4_exact_scans")}


def samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    """Raises ValueError for what Prometheus could not read."""
    families = [*text_string_to_metric_families(text)]
    assert len({family.name for family in families}) == len(families), "each family once"
    found = [(s.name, s.labels, s.value) for family in families for s in family.samples]
    assert len({(name, *sorted(labels.items())) for name, labels, _ in found}) == len(found)
    return found


@pytest.mark.parametrize("root_path", ["", "/candidates"])
async def test_pages_know_their_path(serve_shops: Serve, root_path: str) -> None:
    async with serve_shops(root_path=root_path) as client:
        for before in {"", root_path}:  # whether the proxy takes it off
            own = f"{before}/t/garden"
            for path in ("/", "/docs"):
                page = await client.get(own + path)
                assert page.status_code == 200
                links = re.findall(r'(?:src|href|url)(?:="|: \')(/[^"\']*)', page.text)
                assert links
                for link in links:
                    assert link.startswith(f"{root_path}/t/garden/")
                    found = await client.get(link)
                    assert found.status_code == 200, link
            document = (await client.get(f"{own}/openapi.json")).json()
            assert document["servers"] == [{"url": f"{root_path}/t/garden"}]


async def test_the_client_is_given_the_path_of_its_shop(serve_shops: Serve) -> None:
    async with serve_shops() as server:
        transport = httpx.ASGITransport(app_behind(server))
        for url in ("http://localhost/t/books", "http://localhost/t/books/"):
            async with AsyncClient(url, transport=transport) as client:
                answer = await client.recommend(RecommendRequest(sequence=["item-1"], k=1))
                assert answer.release == "books"
