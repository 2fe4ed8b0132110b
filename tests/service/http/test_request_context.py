"""Request id, deadline, access log, response headers, and requests from other origins."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from service.auth.api_keys import key_line, new_key
from service.errors import InvalidRequestError, OverloadedError
from service.http.request_context import create_request_context
from service.http.schemas.common import ErrorBody
from service.serving.batching import Engine

pytestmark = pytest.mark.anyio
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

BODY = {"user_id": "secret-user", "sequence": ["secret-item"]}


def request_id(*headers: tuple[bytes, bytes]) -> bytes:
    return create_request_context(headers).request_id


def test_a_valid_request_id_is_kept_and_an_invalid_one_replaced() -> None:
    assert request_id((b"x-request-id", b"Trace-1.2:a/b+c=d_e@f")) == b"Trace-1.2:a/b+c=d_e@f"
    for bad in (b"", b"a b", b"a\tb", b'"', b"{", b"x" * 129, "é".encode(), b"a\n"):
        assert re.fullmatch(rb"[0-9a-f]{12}-[0-9a-f]+", request_id((b"x-request-id", bad)))
    assert request_id() != request_id()


def test_the_header_can_only_shorten_the_deadline() -> None:
    for header, seconds in ((None, 0.25), (b"100", 0.1), (b"1", 0.001), (b"999999999", 0.25)):
        headers = [] if header is None else [(b"x-deadline-ms", header)]
        context = create_request_context(headers)
        assert context.set_deadline(0.25) == context.deadline == context.received_at + seconds


@pytest.mark.parametrize("header", [b"", b"0", b"-5", b"1.5", b"soon", b"1e3", b"9" * 400, b"\xb2"])
def test_a_deadline_that_is_no_number_is_rejected(header: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="X-Deadline-Ms: not a number of milliseconds"):
        create_request_context([(b"x-deadline-ms", header)]).set_deadline(0.25)


def test_the_deadline_check_fails_after_the_deadline() -> None:
    context = create_request_context([])
    context.check_deadline()
    context.set_deadline(60)
    context.check_deadline()
    context.set_deadline(-1)
    with pytest.raises(OverloadedError, match="missed by"):
        context.check_deadline()


async def test_every_response_has_its_request_id(serve: Serve) -> None:
    async with serve() as client:
        for method, path in (("GET", "/livez"), ("GET", "/nothing"), ("POST", "/recommend")):
            kept = await client.request(method, path, headers={"x-request-id": "mine-1"})
            assert kept.headers["x-request-id"] == "mine-1"
            generated = await client.request(method, path)
            assert generated.headers["x-request-id"] != "mine-1"
            assert generated.headers["x-content-type-options"] == "nosniff"


async def test_the_deadline_holds_over_http(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Engine.answer

    async def slow(self: Engine, *args: object) -> object:
        result = await original(self, *args)  # type: ignore[arg-type]
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.3
        while loop.time() < end:
            await asyncio.sleep(0)
        return result

    async with serve() as client:
        invalid = await client.post("/recommend", json=BODY, headers={"x-deadline-ms": "soon"})
        monkeypatch.setattr(Engine, "answer", slow)
        missed = await client.post("/recommend", json=BODY, headers={"x-deadline-ms": "250"})
        patient = await client.post("/recommend", json=BODY)

    assert invalid.status_code == 422
    assert missed.status_code == 503
    assert missed.headers["retry-after"] == "1"
    assert ErrorBody.model_validate_json(missed.content).error.code == "overloaded"
    assert patient.status_code == 200


async def test_the_deadline_counts_from_the_whole_body(serve: Serve) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"user_id": "secret-user", '
        await asyncio.sleep(0.4)
        yield b'"sequence": ["item-1"]}'

    async with serve(deadline_ms=250) as client:
        await client.post("/recommend", json=BODY)  # the first has to load what it needs
        for headers in ({}, {"x-deadline-ms": "200"}):
            response = await client.post("/recommend", content=slowly(), headers=headers)
            assert response.status_code == 200, response.text


async def test_the_access_log_has_a_line_for_each_request(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service")
    async with serve(access_log=True) as client:
        await client.post("/recommend", json=BODY, headers={"x-request-id": "mine-2"})
        await client.get("/users/secret-user/history?secret=secret")
        await client.get("/secret")
    records = [record for record in caplog.records if record.message == "request"]
    logged = [(record.method, record.route, record.status) for record in records]  # type: ignore[attr-defined]

    assert logged[0] == ("POST", "/recommend", 200)
    assert logged[1] == ("GET", "/users/{user_id}/history", 422)
    assert logged[2] == ("GET", "other", 404)
    assert records[0].request_id == "mine-2"  # type: ignore[attr-defined]
    assert "secret" not in json.dumps([vars(record) for record in records], default=str)


async def test_there_is_no_access_log_by_default(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "service")
    async with serve() as client:
        await client.post("/recommend", json=BODY)
    assert "request" not in caplog.messages


async def test_only_configured_origins_may_call(serve: Serve) -> None:
    headers = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    async with serve() as client:
        rejected = await client.options("/recommend", headers=headers)
        response = await client.post("/recommend", json=BODY, headers=headers)
    assert rejected.status_code == 405
    assert "access-control-allow-origin" not in {**rejected.headers, **response.headers}

    async with serve(cors_origins="https://shop.example,https://other.example") as client:
        allowed = await client.options("/recommend", headers=headers)
        response = await client.post("/recommend", json=BODY, headers=headers)
        foreign = await client.post("/recommend", json=BODY, headers={"origin": "https://evil"})
    assert allowed.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in foreign.headers


async def test_pages_of_allowed_origins_may_read_refusals(serve: Serve, tmp_path: Path) -> None:
    key = new_key()
    (tmp_path / "keys").write_text(key_line(key, ["events"]))
    shop = {"origin": "https://shop.example", "content-type": "application/json"}
    keyed = {**shop, "authorization": f"Bearer {key}"}
    settings = {"cors_origins": shop["origin"], "keys_file": tmp_path / "keys"}
    async with serve(**settings, rate_limit="5/hour", allowed_hosts="api") as client:
        responses = [
            await client.post("/events", content=b"{}", headers=shop),
            await client.post("/recommend", content=b"{}", headers=keyed),
            await client.post("/events", content=b"{}", headers={**keyed, "content-type": "a/b"}),
            await client.post("/events", content=b"{", headers=keyed),
            await client.post("/events", content=b" " * 5_000_000, headers=keyed),
            await client.post("/nothing", content=b"{}", headers=keyed),
            await client.put("/events", content=b"{}", headers=keyed),
            await client.post("/events", content=b"{}", headers={**keyed, "host": "evil.example"}),
            await client.post("/events?x=1", content=b"{}", headers=keyed),
            await client.post("/events", content=b"{}", headers=keyed),
            await client.post("/events", content=b"{}", headers=keyed),
        ]
    statuses = [response.status_code for response in responses]
    assert statuses == [401, 403, 415, 422, 413, 404, 405, 421, 422, 422, 429]
    for response in responses:
        assert response.headers["access-control-allow-origin"] == shop["origin"]
        assert "retry-after" in response.headers["access-control-expose-headers"]


async def test_the_page_may_load_only_files_of_this_host(serve: Serve) -> None:
    async with serve() as client:
        page = await client.get("/docs")
    policy = page.headers["content-security-policy"]

    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    script_source = policy.split("script-src ")[1].split(";")[0]
    assert "unsafe" not in script_source
    assert script_source.count("'sha256-") == page.text.count("<script>") == 1
    assert {"'self'"} == {part for part in script_source.split() if "sha256" not in part}
    assert page.headers["x-frame-options"] == "DENY"


async def test_metrics_are_exposed(serve: Serve) -> None:
    async with serve() as client:
        await client.post("/recommend", json={"sequence": ["item-1"]})
        text = (await client.get("/metrics")).text
    for name in (
        "re4_queue_requests 0.0",
        "re4_queue_age_seconds 0.0",
        "re4_redis_circuit_open 0.0",
        're4_history_sources_total{source="posted"} 1.0',
        "re4_release_created_timestamp_seconds 1.7",
    ):
        assert name in text
