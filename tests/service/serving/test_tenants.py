"""Several shops in real processes: isolated whatever is asked, with workers, and under load."""

import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from service.__main__ import sentences
from service.http.tenants import TenantsState
from service.settings import Settings
from service.tenant_apps import create_tenants_app
from service.tenants import read_tenants
from tests.service.serving.test_server import Process
from tests.service.serving.test_workers import redis_servers
from tests.service.shops import SHOPS, write_shops
from tests.service.threaded import served_in_a_thread

HISTORY = {"sequence": ["item-1", "item-2"]}
_PATIENCE_S = 30


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A process that serves the shops, with an embedded Redis."""
    folder = tmp_path_factory.mktemp("s")
    process = Process("--tenants", str(write_shops(folder)))
    for _ in SHOPS:
        process.wait_for("release loaded")
    yield process.url
    process.kill()


class Step(NamedTuple):
    shop: str
    action: Literal["event", "forget", "withdraw", "announce"]
    user: int
    item: int


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(SHOPS),
        st.sampled_from(Step.__annotations__["action"].__args__),
        st.integers(0, 2),
        st.integers(1, 4),
    ),
    max_size=12,
)
_EXAMPLES = count()


@given(steps=STEPS)
@hypothesis_settings(max_examples=40, deadline=None)
def test_whatever_is_done_in_a_shop_is_seen_in_no_other(url: str, steps: list[Step]) -> None:
    """Against a model that holds each shop's histories and withdrawn items."""
    example = next(_EXAMPLES)
    histories: dict[tuple[str, str], list[str]] = {}
    withdrawn: dict[str, set[str]] = {shop: set() for shop in SHOPS}
    with httpx.Client(base_url=url, timeout=60) as client:
        for shop in SHOPS:
            reset = [{"item_id": f"item-{row}", "available": True} for row in range(1, 5)]
            client.put(f"/t/{shop}/items", json=reset).raise_for_status()
        for number, step in enumerate(steps):
            user, item = f"{example}-{step.user}", f"item-{step.item}"
            base = f"/t/{step.shop}"
            if step.action == "event":
                event = {"user_id": user, "item_id": item, "event_id": f"{example}-{number}"}
                client.post(f"{base}/events", json=event).raise_for_status()
                history = histories.setdefault((step.shop, user), [])
                if history[-1:] != [item]:  # repeats are folded
                    history.append(item)
            elif step.action == "forget":
                client.delete(f"{base}/users/{user}/history").raise_for_status()
                histories.pop((step.shop, user), None)
            else:
                available = step.action == "announce"
                client.put(f"{base}/items/{item}", json={"available": available}).raise_for_status()
                (withdrawn[step.shop].discard if available else withdrawn[step.shop].add)(item)
        for shop in SHOPS:
            page = client.get(f"/t/{shop}/items?available=false").json()
            assert set(page["items"]) == withdrawn[shop]
            for user in (f"{example}-{number}" for number in range(3)):
                history = client.get(f"/t/{shop}/users/{user}/history").json()["items"]
                assert history == histories.get((shop, user), [])
                wanted = {"user_id": user, "k": 40, "exclude_seen": False}
                answer = client.post(f"/t/{shop}/recommend", json=wanted).json()
                offered = {item["item_id"] for item in answer["items"]}
                assert answer["release"] == shop
                assert answer["source"] == ("interests" if history else "popular")
                assert offered == {f"item-{row}" for row in range(1, 41)} - withdrawn[shop]


def test_workers_share_the_shops_and_one_redis(tmp_path: Path, short_path: Path) -> None:
    file = write_shops(tmp_path)
    options = ("--workers", "2", "--embedded-redis-folder", str(short_path))
    process = Process("--tenants", str(file), *options)
    try:
        while len(process.listening) < 2 or len(loaded(process)) < 2 * len(SHOPS):
            process.wait_for("listening", "release loaded")
        for shop in SHOPS:
            event = {"user_id": "anna", "item_id": f"item-{len(shop)}"}
            httpx.post(f"{process.url}/t/{shop}/events", json=event, timeout=60).raise_for_status()
        for shop in SHOPS * 2:  # each on a connection of its own, which any worker may get
            answer = httpx.post(f"{process.url}/t/{shop}/recommend", json=HISTORY, timeout=60)
            assert answer.json()["release"] == shop
            history = httpx.get(f"{process.url}/t/{shop}/users/anna/history", timeout=60).json()
            assert history["items"] == [f"item-{len(shop)}"]
        assert counts_of_answers(process.url) == dict.fromkeys(SHOPS, 2)
        assert len(redis_servers(process.pid)) == 1
        process.send(signal.SIGTERM)
        assert process.end() == 0
    finally:
        process.kill()
    assert {line["tenant"] for line in loaded(process)} == set(SHOPS)
    assert all(line["tenant"] == line["release"] for line in loaded(process))
    assert not [line for line in process.lines if line["level"] == "error"]


def loaded(process: Process) -> list[dict[str, Any]]:
    """What was logged of loaded releases, by all workers so far."""
    return [line for line in process.lines if line["event"] == "release loaded"]


def counts_of_answers(url: str) -> dict[str, float]:
    """Once all workers have added up theirs, as they do each second."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        families = text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=60).text)
        found = {
            sample.labels["tenant"]: sample.value
            for family in families
            for sample in family.samples
            if sample.name == "re4_responses_total" and sample.value
        }
        if sum(found.values()) == 2 * len(SHOPS) or time.monotonic() > until:
            return found
        time.sleep(0.1)


def test_a_full_queue_refuses_one_shop(
    settings: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the parser, the second time by its bytes; the others go on, also on the connection."""
    common = settings(releases=None, tenants=write_shops(tmp_path / "shops"), port=0)
    app = create_tenants_app(common, read_tenants(common, sentences))
    state: TenantsState = app.state.service
    with served_in_a_thread(common, app) as server:
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:

            def status(shop: str) -> int:
                return client.post(f"/t/{shop}/recommend", json=HISTORY).status_code

            while client.get("/readyz").status_code != 200:
                time.sleep(0.05)
            assert [status(shop) for shop in SHOPS] == [200, 200, 200]
            engine = state.tenants["garden"].engine
            with monkeypatch.context() as patch:
                patch.setattr(engine, "is_full", lambda _: True)
                for _ in range(2):
                    assert [status(shop) for shop in SHOPS] == [503, 200, 200]
            assert [status(shop) for shop in SHOPS] == [200, 200, 200]
            shed = {
                shop: tenant.metrics.rejected_requests["shed"]._pending
                for shop, tenant in state.tenants.items()
            }
            assert shed == {"garden": 2, "fashion": 0, "books": 0}
    assert not [shop for shop, tenant in state.tenants.items() if tenant.tasks]
