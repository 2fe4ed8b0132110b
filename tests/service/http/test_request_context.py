"""What surrounds a request: its id, deadline, line in the log, headers, and other origins."""

import asyncio
import json
import logging
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest

from service.errors import InvalidRequestError, OverloadedError
from service.http.request_context import arrived
from service.http.schemas.common import ErrorBody
from service.serving.batching import Engine

pytestmark = pytest.mark.anyio
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

ASKED = {"user_id": "secret-user", "sequence": ["secret-item"]}


def request_id(*headers: tuple[bytes, bytes]) -> bytes:
    return arrived(headers).request_id


def test_a_sane_request_id_is_kept_and_any_other_replaced() -> None:
    assert request_id((b"x-request-id", b"Trace-1.2:a/b+c=d_e@f")) == b"Trace-1.2:a/b+c=d_e@f"
    for bad in (b"", b"a b", b"a\tb", b'"', b"{", b"x" * 129, "é".encode(), b"a\n"):
        assert re.fullmatch(rb"[0-9a-f]{12}-[0-9a-f]+", request_id((b"x-request-id", bad)))
    assert request_id() != request_id()


def test_a_wish_can_only_bring_the_deadline_forward() -> None:
    for wish, seconds in ((None, 0.25), (b"100", 0.1), (b"1", 0.001), (b"999999999", 0.25)):
        arrival = arrived([] if wish is None else [(b"x-deadline-ms", wish)])
        assert arrival.answer_within(0.25) == arrival.deadline == arrival.at + seconds


@pytest.mark.parametrize("wish", [b"", b"0", b"-5", b"1.5", b"soon", b"1e3", b"9" * 400, b"\xb2"])
def test_a_wish_that_is_no_number_is_refused(wish: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="X-Deadline-Ms: not a number of milliseconds"):
        arrived([(b"x-deadline-ms", wish)]).answer_within(0.25)


def test_after_the_deadline_there_is_no_answer() -> None:
    arrival = arrived([])
    arrival.check_deadline()
    arrival.answer_within(60)
    arrival.check_deadline()
    arrival.answer_within(-1)
    with pytest.raises(OverloadedError, match="missed by"):
        arrival.check_deadline()


async def test_every_answer_has_its_request_id(serve: Serve) -> None:
    async with serve() as client:
        for method, path in (("GET", "/livez"), ("GET", "/nothing"), ("POST", "/recommend")):
            given = await client.request(method, path, headers={"x-request-id": "mine-1"})
            assert given.headers["x-request-id"] == "mine-1"
            made = await client.request(method, path)
            assert made.headers["x-request-id"] != "mine-1"
            assert made.headers["x-content-type-options"] == "nosniff"


async def test_the_deadline_is_told_over_http(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = Engine.answer

    async def late(self: Engine, *asked: object) -> object:
        served = await really(self, *asked)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.3
        while loop.time() < end:
            await asyncio.sleep(0)
        return served

    async with serve() as client:
        wrong = await client.post("/recommend", json=ASKED, headers={"x-deadline-ms": "soon"})
        monkeypatch.setattr(Engine, "answer", late)
        missed = await client.post("/recommend", json=ASKED, headers={"x-deadline-ms": "250"})
        patient = await client.post("/recommend", json=ASKED)

    assert wrong.status_code == 422
    assert missed.status_code == 503
    assert missed.headers["retry-after"] == "1"
    assert ErrorBody.model_validate_json(missed.content).error.code == "overloaded"
    assert patient.status_code == 200


async def test_a_line_for_each_request_if_asked_for(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service")
    async with serve(access_log=True) as client:
        await client.post("/recommend", json=ASKED, headers={"x-request-id": "mine-2"})
        await client.get("/users/secret-user/history?secret=1")
        await client.get("/secret")
    lines = [record for record in caplog.records if record.message == "request"]
    told = [(line.method, line.route, line.status) for line in lines]  # type: ignore[attr-defined]

    assert told[0] == ("POST", "/recommend", 200)
    assert told[1] == ("GET", "/users/{user_id}/history", 200)
    assert told[2] == ("GET", "other", 404)
    assert lines[0].request_id == "mine-2"  # type: ignore[attr-defined]
    assert "secret" not in json.dumps([vars(line) for line in lines], default=str)


async def test_no_line_if_not(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service")
    async with serve() as client:
        await client.post("/recommend", json=ASKED)
    assert "request" not in caplog.messages


async def test_other_origins_may_not_call_unless_named(serve: Serve) -> None:
    asking = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    async with serve() as client:
        refused = await client.options("/recommend", headers=asking)
        answer = await client.post("/recommend", json=ASKED, headers=asking)
    assert refused.status_code == 405
    assert "access-control-allow-origin" not in {**refused.headers, **answer.headers}

    async with serve(cors_origins="https://shop.example,https://other.example") as client:
        allowed = await client.options("/recommend", headers=asking)
        answer = await client.post("/recommend", json=ASKED, headers=asking)
        stranger = await client.post("/recommend", json=ASKED, headers={"origin": "https://evil"})
    assert allowed.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in stranger.headers


async def test_the_page_may_load_nothing_but_what_it_names(serve: Serve) -> None:
    async with serve() as client:
        page = await client.get("/docs")
    policy = page.headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    script_source = policy.split("script-src ")[1].split(";")[0]
    assert "unsafe" not in script_source
    assert script_source.count("'sha256-") == page.text.count("<script>") == 1
    for source in re.findall(r'(?:src|href)="(http[^"]+)"', page.text):
        assert source.startswith("https://cdn.jsdelivr.net/")
    assert page.headers["x-frame-options"] == "DENY"


async def test_what_is_new_to_be_seen(serve: Serve) -> None:
    async with serve() as client:
        await client.post("/recommend", json={"sequence": ["item-1"]})
        told = (await client.get("/metrics")).text
    for name in (
        "re4_queue_requests 0.0",
        "re4_queue_age_seconds 0.0",
        "re4_redis_circuit_open 0.0",
        're4_history_sources_total{source="posted"} 1.0',
        "re4_release_created_timestamp_seconds 1.7",
    ):
        assert name in told
