"""Handwritten bad inputs: what clients send by mistake or on purpose, and the expected status.

For a server that requires keys. Each input is sent with a key for all roles, unless its headers say
otherwise.
"""

import gzip
import json
from dataclasses import dataclass, field
from typing import Any

LONG_ID = "a" * 513
WIDE_ID = "é" * 300  # 300 characters, 600 bytes
DEEP_JSON = b"[" * 50_000
LONE_SURROGATE = b'"\\ud800"'


@dataclass(frozen=True)
class BadRequest:
    """headers: added to those of every request; None removes a header."""

    method: str
    path: str
    body: bytes | None = None
    status: int = 422
    headers: dict[str, str | None] = field(default_factory=dict)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


# --- POST /recommend: a field with an invalid value ---

_INVALID_TEXTS: list[Any] = [
    "", LONG_ID, WIDE_ID, 10**512, 1.5, 7.0, True, [], ["a"], {}, {"a": "b"},
]  # fmt: skip
_INVALID_LISTS: list[Any] = [
    "item-1", 5, True, {}, {"0": "a"}, [""], [None], [10**512], [1.5], [True], [["a"]], [{}],
    [LONG_ID], ["a", WIDE_ID], ["a"] * 1001, [1] * 1001, ["a", 2.0], ["a", None],
]  # fmt: skip
_INVALID_FLAGS: list[Any] = [0, 1, "true", "yes", "", None, [], {}, 0.0]
_INVALID_COUNTS: list[Any] = [
    0, -1, 1001, 2**31, 2**63, 2**64, 10**400, -(10**400), 1.0, 5.5, "5", "", "ten", None, True,
    False, [], [5], {},
]  # fmt: skip
_INVALID_RATIOS: list[Any] = [-0.1, 1.1, -1, 2, 10**400, "0.5", "", None, True, [], [0.5], {}]
_INVALID_CATEGORIES: list[Any] = [
    "a", 5, True, [], ["a"], {"allow": []}, {"allow": "a"}, {"allow": [1]}, {"allow": [""]},
    {"allow": [None]}, {"allow": [LONG_ID]}, {"allow": ["a"] * 1001}, {"deny": "a"}, {"deny": [1]},
    {"deny": [""]}, {"deny": [WIDE_ID]}, {"deny": {}}, {"allow": ["a"], "deny": 5}, {"only": ["a"]},
    {"allow": {"a": 1}},
]  # fmt: skip
_INVALID_FILTERS: list[Any] = [
    "a", 5, True, [], {"any": []}, {"all": {}}, {"all": "a"}, {"all": [{}]}, {"all": ["a"]},
    {"all": [{"a": None}]}, {"all": [{"a": []}]}, {"all": [{"a": {}}]}, {"all": [{"": 5}]},
    {"all": [{"a": {"lte": "5"}}]}, {"all": [{"a": {"lte": True}}]}, {"all": [{"a": {"in": []}}]},
    {"all": [{"a": {"in": 5}}]}, {"all": [{"a": {"in": [None]}}]}, {"all": [{"a": {"eq": 5}}]},
    {"not": {"a": 5}}, {"not": [{"a": 5}] * 33}, {"none": [{"a": 5}]},
]  # fmt: skip
_INVALID_NAMES: list[Any] = ["a", 5, True, {}, [""], [5], [None], ["a"] * 65, [LONG_ID]]

_INVALID_RECOMMEND_FIELDS = {
    "user_id": _INVALID_TEXTS,
    "sequence": _INVALID_LISTS,
    "exclude": _INVALID_LISTS,
    "exclude_seen": _INVALID_FLAGS,
    "explain": _INVALID_FLAGS,
    "k": _INVALID_COUNTS,
    "diversity": _INVALID_RATIOS,
    "categories": _INVALID_CATEGORIES,
    "filter": _INVALID_FILTERS,
    "include": _INVALID_NAMES,
}
_INVALID_RECOMMEND_BODIES: list[Any] = [
    {}, {"k": 5}, {"user_id": None}, {"sequence": None}, {"user_id": None, "sequence": None},
    {"sequence": ["a"], "colour": "red"}, {"sequence": ["a"], "": 1},
    {"sequence": ["a"], LONG_ID: 1},
    {"Sequence": ["a"]}, {"SEQUENCE": ["a"]}, {"user": "a"}, {"userId": "a"},
    {"sequence": ["a"], "__proto__": {}}, {"sequence": ["a"], "k ": 5},
    [], [{}], [{"user_id": "a"}], "text", "", 5, 0, 1.5, True, False, None,
]  # fmt: skip

# --- events ---

_VALID_EVENT = {"user_id": "bad-events", "item_id": "item-1"}
_INVALID_TIMESTAMPS: list[Any] = [
    -1, -0.5, 10**400, 1.8e15, "now", "2026-01-01", "2026-02-30T12:00:00Z", "1969-01-01T00:00:00Z",
    "1.5", "", True, [], {},
]  # fmt: skip
_INVALID_EVENT_FIELDS = {
    "user_id": [*_INVALID_TEXTS, None],
    "item_id": [*_INVALID_TEXTS, None],
    "timestamp": _INVALID_TIMESTAMPS,
    "event": ["", "e" * 65, "forget", 5, True, [], {}],
    "event_id": _INVALID_TEXTS,
}
_INVALID_EVENTS_BODIES: list[Any] = [
    {}, [], [[]], [{}], [_VALID_EVENT, {}], [_VALID_EVENT, None], [_VALID_EVENT, [_VALID_EVENT]],
    [_VALID_EVENT] * 1001,
    {"user_id": "a"}, {"item_id": "a"}, {**_VALID_EVENT, "weight": 2}, {"events": [_VALID_EVENT]},
    [{**_VALID_EVENT, "timestamp": -1}], "text", 5, None, True,
]  # fmt: skip

# --- batches: only what makes the whole batch invalid ---

_INVALID_BATCHES: list[Any] = [
    {}, [], None, 5, "text", {"requests": None}, {"requests": []}, {"requests": {}},
    {"requests": "a"}, {"requests": [{"user_id": "a"}] * 257}, {"requests": [], "k": 5},
    {"requests": [{"user_id": "a"}], "k": 5}, [{"user_id": "a"}], {"request": [{"user_id": "a"}]},
]  # fmt: skip

# --- bodies that are not JSON ---

_INVALID_JSON: list[bytes] = [
    b"", b" ", b"\n", b"{", b"}", b"[1,", b'{"user_id"', b'{"user_id":', b'{"user_id": "a",}',
    b"{'user_id': 'a'}", b"{user_id: 1}", b"\xff\xfe", b"\x00", b"\xef\xbb\xbf{}",
    b'{"user_id": "\xff"}', b'{"user_id": "\xc3"}', b'{"user_id": ' + LONE_SURROGATE + b"}",
    b'{"user_id": "a", "k": NaN}', b'{"user_id": "a", "k": Infinity}',
    b'{"user_id": "a", "k": -Infinity}', b'{"user_id": "a", "k": 1e999}',
    b'{"user_id": "a", "k": 05}', b'{"user_id": "a", "k": 0x5}', b'{"user_id": "a", "k": +5}',
    b'{"user_id": "a"} {"user_id": "b"}', b'{"user_id": "a"}x', b'{"user_id": "a\nb"}',
    b"{/* */}", DEEP_JSON, b'{"sequence": ' + DEEP_JSON + b"}", b'{"a":' * 20_000, b"user_id=a&k=5",
    b"<recommend/>", b"--x\r\n\r\n--x--", b"\x1f\x8b\x08\x00" + b"\x00" * 20,
]  # fmt: skip

_VALID_ITEM = {"available": False}
_INVALID_AVAILABILITY: list[Any] = [{}, {"available": None}, {"available": 0}, {"available": "no"},
    {"available": []}, {"available": True, "until": 5}, [], [True], True, None, "x"]  # fmt: skip

_INVALID_PATHS: list[BadRequest] = [
    BadRequest("GET", "/", status=404),
    BadRequest("GET", "/nothing", status=404),
    BadRequest("POST", "/recommend/", b"{}", 404),
    BadRequest("POST", "//recommend", b"{}", 404),
    BadRequest("POST", "/recommend%00", b"{}", 404),
    BadRequest("POST", "/Recommend", b"{}", 404),
    BadRequest("GET", "/../../etc/passwd", status=404),
    BadRequest("GET", "/%2e%2e/%2e%2e/etc/passwd", status=404),
    BadRequest("GET", "/items"),
    BadRequest("GET", "/items?available=true"),
    BadRequest("GET", "/items?available=false&limit=0"),
    BadRequest("GET", "/users/a", status=404),
    BadRequest("GET", "/users//history", status=422),
    BadRequest("DELETE", "/users//history", status=422),
    BadRequest("GET", f"/users/{LONG_ID}/history"),
    BadRequest("GET", "/users/" + "%C3%A9" * 300 + "/history"),
    BadRequest("DELETE", f"/users/{LONG_ID}/history"),
    BadRequest("GET", "/users/" + "a" * 30_000 + "/history"),
    BadRequest("PUT", f"/items/{LONG_ID}", _json(_VALID_ITEM)),
    BadRequest("PUT", "/items/", _json(_VALID_ITEM)),
    BadRequest("GET", "/items/no-such-item/similar", status=404),
    BadRequest("GET", "/items/%FF/similar", status=404),
    BadRequest("GET", "/items//similar"),
    BadRequest("GET", "/recommend", status=405),
    BadRequest("PUT", "/recommend", b"{}", 405),
    BadRequest("DELETE", "/recommend", status=405),
    BadRequest("PATCH", "/recommend", b"{}", 405),
    BadRequest("GET", "/events", status=405),
    BadRequest("GET", "/admin/reload", status=405),
    BadRequest("POST", "/livez", b"", 405),
    BadRequest("POST", "/metrics", b"", 405),
]

_INVALID_QUERIES = ["k=0", "k=-1", "k=1001", "k=x", "k=", "k=1.5", "k=" + "9" * 400, "k=1e3",
    "k=0x5", "k=%00", "k=null", "k=[]", "k=5&k=5", "K=5", "k=5&limit=5", "x"]  # fmt: skip

_VALID = _json({"sequence": ["item-1"], "k": 1})
_INVALID_DEADLINES = ["x", "-1", "1.5", "1e3", "", "0x5", "nan", "inf", "9" * 400, "5;", "5,5"]
_GZIP: dict[str, str | None] = {"content-encoding": "gzip"}
_UNSUPPORTED: list[dict[str, str | None]] = [
    {"content-type": "text/plain"},
    {"content-type": "application/x-www-form-urlencoded"},
    {"content-type": "application/json; charset=utf-16"},
    {"content-type": None, "origin": "https://evil.example"},
    {"content-encoding": "br"},
    {"content-encoding": "gzip, gzip"},
]
_INVALID_KEYS: list[str | None] = [
    None, "", "Bearer", "Bearer x", "Bearer  x y", "Basic YTpi", "bearer re4_wrong",
    "re4_wrong", "Bearer " + "k" * 5000, "Bearer \xe9",
]  # fmt: skip


def _fields(path: str, valid: dict[str, Any], invalid: dict[str, list[Any]]) -> list[BadRequest]:
    return [
        BadRequest("POST", path, _json({**valid, name: value}))
        for name, values in invalid.items()
        for value in values
    ]


def _bodies(path: str, values: list[Any]) -> list[BadRequest]:
    return [BadRequest("POST", path, _json(value)) for value in values]


BAD_INPUTS: list[BadRequest] = [
    *_fields("/recommend", {"sequence": ["item-1"], "user_id": "a"}, _INVALID_RECOMMEND_FIELDS),
    *_bodies("/recommend", _INVALID_RECOMMEND_BODIES),
    *_fields("/events", _VALID_EVENT, _INVALID_EVENT_FIELDS),
    *_bodies("/events", _INVALID_EVENTS_BODIES),
    *_bodies("/recommend/batch", _INVALID_BATCHES),
    *(
        BadRequest("POST", path, body)
        for path in ("/recommend", "/events", "/recommend/batch")
        for body in _INVALID_JSON
    ),
    *(BadRequest("PUT", "/items/item-1", _json(body)) for body in _INVALID_AVAILABILITY),
    *_INVALID_PATHS,
    *(BadRequest("GET", f"/items/item-1/similar?{query}") for query in _INVALID_QUERIES),
    *(
        BadRequest("POST", "/recommend", _VALID, headers={"x-deadline-ms": text})
        for text in _INVALID_DEADLINES
    ),
    *(
        BadRequest("POST", "/recommend", _VALID, 401, {"authorization": key})
        for key in _INVALID_KEYS
    ),
    *(
        BadRequest("POST", "/admin/reload", b"", 401, {"authorization": key})
        for key in _INVALID_KEYS
    ),
    *(
        BadRequest("POST", path, b" " * (4 * 1024 * 1024 + 1), 413)
        for path in ("/recommend", "/events", "/recommend/batch")
    ),
    *(BadRequest("POST", "/recommend", _VALID, 415, headers) for headers in _UNSUPPORTED),
    BadRequest("POST", "/recommend", _VALID, 422, {"content-encoding": "gzip"}),
    BadRequest("POST", "/recommend", gzip.compress(b" " * 5_000_000), 413, _GZIP),
    BadRequest("POST", "/recommend", gzip.compress(_VALID)[:-1], 422, _GZIP),
]
