"""For any input the response is 4xx with the common error body, or correct; never 5xx."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.http.schemas.common import BODY_LIMIT_BYTES, ErrorBody

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]
pytestmark = pytest.mark.anyio


def check_error(response: httpx.Response, status: int, code: str) -> str:
    """The message of an error response, which must have the common body and nothing else."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = ErrorBody.model_validate_json(response.content, strict=True, extra="forbid").error
    assert error.code == code
    assert error.message
    assert len(response.content) < 4000, "a response does not repeat the whole request"
    return error.message


BAD_RECOMMENDATIONS: list[tuple[Any, str]] = [
    ({}, "neither user_id nor sequence"),
    ({"user_id": None, "sequence": None}, "neither user_id nor sequence"),
    ({"k": 5}, "neither user_id nor sequence"),
    ({"user_id": "a", "k": 0}, "k: Input should be greater than or equal to 1; given 0"),
    ({"user_id": "a", "k": -1}, "given -1"),
    ({"user_id": "a", "k": 1001}, "less than or equal to 1000; given 1001"),
    ({"user_id": "a", "k": 10**400}, "given a huge number"),
    ({"user_id": "a", "k": 5.0}, "valid integer; given 5.0"),
    ({"user_id": "a", "k": "5"}, "valid integer; given '5'"),
    ({"user_id": "a", "k": True}, "valid integer; given True"),
    ({"user_id": "a", "k": None}, "valid integer; given None"),
    ({"user_id": "a", "k": []}, "valid integer; given a list"),
    ({"user_id": "a", "exclude_seen": 1}, "valid boolean; given 1"),
    ({"user_id": "a", "exclude_seen": "yes"}, "valid boolean; given 'yes'"),
    ({"user_id": 7}, "user_id: Input should be a valid string; given 7"),
    ({"user_id": ""}, "at least 1 character; given ''"),
    ({"user_id": "a" * 513}, "user_id"),
    ({"user_id": "é" * 300}, "600 bytes in UTF-8; at most 512"),
    ({"sequence": "item-1"}, "valid array; given 'item-1'"),
    ({"sequence": {"a": 1}}, "given an object"),
    ({"sequence": [["item-1"]]}, "sequence.0"),
    ({"sequence": ["item-1", None]}, "sequence.1"),
    ({"sequence": ["item-1", ""]}, "sequence.1"),
    ({"sequence": ["x" * 10_000]}, "sequence.0"),
    ({"sequence": ["a", "é" * 300]}, "sequence: Value error, an id of 600 bytes"),
    ({"sequence": ["a"] * 1001}, "at most 1000 items"),
    ({"sequence": [1] * 1000}, "and 995 more problems"),
    ({"sequence": ["a"], "colour": "red"}, "colour: Extra inputs are not permitted"),
    ({"sequence": ["a"], "c" * 5000: "red"}, "Extra inputs are not permitted"),
    ([], "body"),
    ("text", "body"),
    (None, "body"),
]

BAD_EVENTS: list[tuple[Any, str]] = [
    ({}, "user_id: Field required"),
    ({"user_id": "a"}, "item_id: Field required"),
    ({"user_id": "a", "item_id": 5}, "item_id"),
    ({"user_id": "a", "item_id": "b", "timestamp": "now"}, "timestamp"),
    ({"user_id": "a", "item_id": "b", "timestamp": -1}, "greater than or equal to 0; given -1"),
    ({"user_id": "a", "item_id": "b", "timestamp": True}, "timestamp"),
    ({"user_id": "a", "item_id": "b", "event": ""}, "event"),
    ({"user_id": "a", "item_id": "b", "event": "e" * 65}, "at most 64"),
    ({"user_id": "a", "item_id": "b", "event_id": "e" * 513}, "event_id"),
    ({"user_id": "a", "item_id": "b", "weight": 2}, "weight: Extra inputs"),
    ([], "at least 1 item"),
    ([{"user_id": "a", "item_id": "b"}] * 1001, "at most 1000 items"),
    ([{"user_id": "a", "item_id": "b"}, {"user_id": "a"}], "events.1.item_id: Field required"),
    ([[]], "0"),
    (5, "event: Input should be an object; given 5"),
]

BAD_JSON = [
    b"",
    b"{",
    b"[1,",
    b"\xff\xfe",
    b'{"user_id": "\xff"}',
    b'{"user_id": "\\ud800"}',
    b'{"user_id": "a", "k": NaN}',
    b'{"user_id": "a", "k": Infinity}',
    b'{"user_id": "a", "k": -Infinity}',
    b'{"user_id": "a", "k": 1e999}',
    b'{"user_id": "a", "item_id": "b", "timestamp": NaN}',
    b'{"user_id": "a", "item_id": "b", "timestamp": 1e999}',
    b"[" * 100_000,
    b'{"sequence": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    b'{"a":' * 20_000,
    b"\xef\xbb\xbf{}",
    b"user_id=a&k=5",
]


@pytest.mark.parametrize(
    ("path", "cases"), [("/recommend", BAD_RECOMMENDATIONS), ("/events", BAD_EVENTS)]
)
async def test_an_invalid_body_is_rejected(
    serve: Serve, path: str, cases: list[tuple[Any, str]]
) -> None:
    async with serve() as client:
        for body, message in cases:
            response = await client.post(path, content=json.dumps(body))
            assert message in check_error(response, 422, "invalid_request"), body


async def test_a_body_that_is_not_json_is_rejected(serve: Serve) -> None:
    async with serve() as client:
        for body in BAD_JSON:
            for path in ("/recommend", "/events"):
                check_error(await client.post(path, content=body), 422, "invalid_request")


async def chunks(total: int) -> AsyncIterator[bytes]:
    for _ in range(0, total, 10_000):
        yield b" " * 10_000


@pytest.mark.parametrize("path", ["/recommend", "/events"])
async def test_a_body_that_is_too_long_is_rejected(serve: Serve, path: str) -> None:
    async with serve() as client:
        single = await client.post(path, content=b" " * (BODY_LIMIT_BYTES + 1))
        chunked = await client.post(path, content=chunks(1_000_000))

    for response in (single, chunked):
        assert "262,144 bytes" in check_error(response, 413, "body_too_large")
        assert response.headers["connection"] == "close"


async def stalling() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


async def test_a_body_that_stalls_times_out(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.http.routing._BODY_TIMEOUT_S", 0.01)
    async with serve() as client:
        response = await client.post("/recommend", content=stalling())

    check_error(response, 408, "body_too_slow")
    assert response.headers["connection"] == "close"


async def test_a_body_at_the_limit_is_read(serve: Serve) -> None:
    body = b'{"sequence": ["item-1"]}'.ljust(BODY_LIMIT_BYTES)
    async with serve() as client:
        assert (await client.post("/recommend", content=body)).status_code == 200


async def test_the_largest_requests_are_answered(serve: Serve) -> None:
    event = {
        "user_id": "ü" * 256,
        "item_id": "b" * 512,
        "timestamp": 1.5,
        "event": "x" * 64,
        "event_id": "é" * 256,
    }
    async with serve() as client:
        body = {"user_id": "u" * 512, "sequence": ["ü" * 100] * 1000, "k": 1000}
        assert (await client.post("/recommend", json=body)).status_code == 200
        assert (await client.post("/events", json=[event] * 100)).status_code == 200
        small = {"user_id": "a", "item_id": "b"}
        assert (await client.post("/events", json=[small] * 1000)).status_code == 200


async def test_unknown_paths_and_methods_get_the_common_error_body(serve: Serve) -> None:
    async with serve() as client:
        check_error(await client.get("/nothing"), 404, "not_found")
        check_error(await client.post("/recommend/"), 404, "not_found")
        check_error(await client.post("/admin/reload"), 404, "not_found")
        response = await client.get("/recommend")
        check_error(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "POST"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    [
        *("user_id", "sequence", "k", "exclude_seen", "exclude", "categories", "diversity"),
        *("explain", "requests", "item_id", "timestamp", "event", "event_id"),
    ]
)
NEARLY_VALID = st.dictionaries(FIELDS, JSON | st.lists(st.text(), max_size=3), max_size=5)
BODIES = st.binary(max_size=50) | st.builds(
    lambda value: json.dumps(value).encode(),
    NEARLY_VALID | st.lists(NEARLY_VALID, max_size=3) | JSON,
)


async def test_no_body_causes_an_internal_error(serve: Serve) -> None:
    drawn: list[tuple[str, bytes]] = []

    @hypothesis_settings(max_examples=500, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(["/recommend", "/recommend/batch", "/events"]), BODIES)
    def draw(path: str, body: bytes) -> None:
        drawn.append((path, body))

    draw()
    async with serve() as client:
        for path, body in drawn:
            response = await client.post(path, content=body)
            assert response.status_code in (200, 422), (body, response.text)
            if response.status_code == 422:
                check_error(response, 422, "invalid_request")
