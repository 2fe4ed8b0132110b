"""For any input the response is 4xx with the common error body, or correct; never 5xx."""

import asyncio
import gzip
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
from service.store.events import Event

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
    ({"user_id": 7.0}, "user_id: Input should be a valid string; given 7.0"),
    ({"user_id": True}, "user_id: Input should be a valid string; given True"),
    ({"user_id": 10**512}, "user_id: Input should be a valid string; given a huge number"),
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
    ({"sequence": [1.0] * 1000}, "and 995 more problems"),
    ({"sequence": [1, True]}, "sequence.1: Input should be a valid string; given True"),
    ({"sequence": [1] * 1001}, "at most 1000 items"),
    ({"sequence": ["a"], "categories": {"deny": [1]}}, "categories.deny.0"),
    ({"sequence": ["a"], "colour": "red"}, "colour: Extra inputs are not permitted"),
    ({"sequence": ["a"], "c" * 5000: "red"}, "Extra inputs are not permitted"),
    ([], "body"),
    ("text", "body"),
    (None, "body"),
]

BAD_EVENTS: list[tuple[Any, str]] = [
    ({}, "user_id: Field required"),
    ({"user_id": "a"}, "item_id: Field required"),
    ({"user_id": "a", "item_id": 5.0}, "item_id"),
    ({"user_id": "a", "item_id": "b", "timestamp": "now"}, "ISO 8601 such as"),
    ({"user_id": "a", "item_id": "b", "timestamp": "1700000000"}, "ISO 8601 such as"),
    ({"user_id": "a", "item_id": "b", "timestamp": "2026-01-31"}, "ISO 8601 such as"),
    ({"user_id": "a", "item_id": "b", "timestamp": "2026-13-31T12:00"}, "ISO 8601 such as"),
    ({"user_id": "a", "item_id": "b", "timestamp": "1969-01-01T12:00Z"}, "greater than or equal"),
    (
        {"user_id": "a", "item_id": "b", "timestamp": 1.7e15},
        "neither Unix seconds nor milliseconds",
    ),
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


@pytest.mark.parametrize("path", ["/recommend", "/recommend/batch", "/events"])
async def test_a_body_that_is_too_long_is_rejected(serve: Serve, path: str) -> None:
    async with serve() as client:
        single = await client.post(path, content=b" " * (BODY_LIMIT_BYTES + 1))
        chunked = await client.post(path, content=chunks(5_000_000))

    for response in (single, chunked):
        assert "4,194,304 bytes" in check_error(response, 413, "body_too_large")
        assert response.headers["connection"] == "close"


async def stalling() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


async def test_a_body_that_stalls_times_out(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.http.body._BODY_TIMEOUT_S", 0.01)
    async with serve() as client:
        response = await client.post("/recommend", content=stalling())

    check_error(response, 408, "body_too_slow")
    assert response.headers["connection"] == "close"


async def test_a_body_at_the_limit_is_read(serve: Serve) -> None:
    body = b'{"sequence": ["item-1"]}'.ljust(BODY_LIMIT_BYTES)
    async with serve() as client:
        assert (await client.post("/recommend", content=body)).status_code == 200


@pytest.mark.parametrize("text", ["a" * 64, "b" * 512, "é" * 256])
async def test_lists_of_the_documented_length_are_answered(serve: Serve, text: str) -> None:
    event = {
        "user_id": text,
        "item_id": text,
        "timestamp": 1.5,
        "event": "x" * 64,
        "event_id": text,
    }
    ids = [f"{number:04}{text[4:]}" for number in range(1000)]
    async with serve() as client:
        body = {"user_id": text, "sequence": ids, "exclude": ids, "categories": {"deny": ids}}
        assert (await client.post("/recommend", json={**body, "k": 1000})).status_code == 200
        response = await client.post("/events", json=[event] * 1000)
        assert response.json() == {"accepted": 1, "duplicates": 999, "outdated": 0}


async def test_integers_are_ids(serve: Serve) -> None:
    big = 2**63 + 1
    async with serve() as client:
        events = [
            {"user_id": 7, "item_id": 12, "event_id": 1},
            {"user_id": "7", "item_id": "12", "event_id": "1"},
            {"user_id": "7", "item_id": big},
            {"user_id": 7, "item_id": -1},
        ]
        response = await client.post("/events", json=events)
        assert response.json() == {"accepted": 3, "duplicates": 1, "outdated": 0}
        assert (await client.get("/users/7/history")).json()["items"] == ["12", str(big), "-1"]
        body = {"user_id": 7, "sequence": [1, "item-1", 2], "exclude": [3], "k": 2}
        mixed = await client.post("/recommend", json=body)
        assert mixed.json()["unknown_items"] == 5
        batch = await client.post("/recommend/batch", json={"requests": [body, {"user_id": 8}]})
        assert [answer["unknown_items"] for answer in batch.json()["answers"]] == [5, 0]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (1_700_000_000, 1_700_000_000.0),
        (1_700_000_000.25, 1_700_000_000.25),
        (1_700_000_000_250, 1_700_000_000.25),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14t22:13:20.250z", 1_700_000_000.25),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000.0),
        ("2023-11-14 22:13:20", 1_700_000_000.0),
        (0, 0.0),
        (None, None),
    ],
)
def test_a_time_may_be_seconds_milliseconds_or_iso_8601(given: Any, seconds: float | None) -> None:
    text = json.dumps({"user_id": "a", "item_id": "b", "timestamp": given})
    assert Event.model_validate_json(text).timestamp == seconds
    assert Event(user_id="a", item_id="b", timestamp=given).timestamp == seconds


@pytest.mark.parametrize(
    "given", ["text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded",
              "multipart/form-data; boundary=x", "application/jsonp", "text/json",
              "application/json; charset=utf-16", "application/json, text/plain", ""],
)  # fmt: skip
async def test_a_body_of_another_type_is_refused(serve: Serve, given: str) -> None:
    """Pages of other origins may send such bodies without asking."""
    event = {"user_id": "a", "item_id": "item-1"}
    async with serve() as client:
        for path in ("/events", "/recommend", "/recommend/batch"):
            headers = {"content-type": given}
            response = await client.post(path, content=json.dumps(event), headers=headers)
            assert "application/json" in check_error(response, 415, "unsupported_type")
        assert (await client.get("/users/a/history")).json()["count"] == 0


@pytest.mark.parametrize(
    "given", ["application/json", "Application/JSON; charset=utf-8",
              'application/json;charset="UTF-8"', "application/json;",
              "application/vnd.shop.event+json; version=1"],
)  # fmt: skip
async def test_every_type_of_json_is_read(serve: Serve, given: str) -> None:
    async with serve() as client:
        response = await client.post(
            "/recommend", content=b'{"sequence": []}', headers={"content-type": given}
        )
    assert response.status_code == 200, response.text


async def test_only_programs_may_leave_the_type_out(serve: Serve) -> None:
    body = b'{"sequence": []}'
    async with serve(cors_origins="https://shop.example") as client:
        assert (await client.post("/recommend", content=body)).status_code == 200
        for origin in ("https://evil.example", "https://shop.example", "null"):
            response = await client.post("/recommend", content=body, headers={"origin": origin})
            check_error(response, 415, "unsupported_type")


async def test_a_body_may_be_compressed_with_gzip(serve: Serve) -> None:
    event = json.dumps({"user_id": "a", "item_id": "item-1"}).encode()
    whole = gzip.compress(event)
    async with serve() as client:

        async def send(content: bytes, encoding: str = "gzip") -> httpx.Response:
            headers = {"content-encoding": encoding}
            return await client.post("/events", content=content, headers=headers)

        for content, encoding in ((whole, "gzip"), (whole, "X-GZIP"), (event, "identity")):
            assert (await send(content, encoding)).json()["accepted"] == 1
        bomb = gzip.compress(b" " * 100_000_000)
        assert len(bomb) < 100_000
        check_error(await send(bomb), 413, "body_too_large")
        for content in (event, whole[:-3], whole + whole, b"", whole[:12] + b"\xff" + whole[12:]):
            assert "gzip" in check_error(await send(content), 422, "invalid_request")
        for encoding in ("br", "deflate", "zstd", "gzip, gzip"):
            response = await send(whole, encoding)
            check_error(response, 415, "unsupported_encoding")
            assert response.headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/items/item-1/similar?k=5&limit=3", "limit: unknown query parameter; allowed: k"),
        ("GET", "/items/item-1/similar?K=5", "K: unknown"),
        ("GET", "/items/item-1/similar?k=5&k=6", "k: given more than once"),
        ("GET", "/users/anna/history?limit=3", "limit: unknown"),
        ("DELETE", "/users/anna/history?dry_run", "dry_run: unknown"),
        ("POST", "/recommend?k=5", "k: unknown"),
        ("POST", "/events?user_id=anna", "user_id: unknown"),
        ("GET", "/release?x=1", "x: unknown"),
        ("GET", "/readyz?" + "x" * 500 + "=1", ": unknown query parameter; leave it out"),
    ],
)
async def test_an_unknown_query_parameter_is_refused(
    serve: Serve, method: str, path: str, message: str
) -> None:
    async with serve() as client:
        body = {"sequence": []} if method == "POST" else None
        response = await client.request(method, path, json=body)
    assert message in check_error(response, 422, "invalid_request")


@pytest.mark.parametrize(
    "path",
    ["/livez", "/readyz", "/metrics", "/release", "/users/a/history", "/items/item-1/similar",
     "/docs", "/openapi.json"],
)  # fmt: skip
async def test_head_is_answered_like_get(serve: Serve, path: str) -> None:
    async with serve() as client:
        head, get = await client.head(path), await client.get(path)
        assert (head.status_code, get.status_code) == (200, 200)
        assert head.headers["content-type"] == get.headers["content-type"]
        refused = await client.put(path, json={})
        if path == "/livez":
            check_error(refused, 405, "method_not_allowed")
            assert refused.headers["allow"] == "GET, HEAD"


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
