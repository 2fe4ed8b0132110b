"""Bad inputs, by hand: what clients send by mistake or by design, and the status it deserves.

For a server that asks for keys; each is sent with one that may do everything, unless it says
otherwise.
"""

import json
from dataclasses import dataclass, field
from typing import Any

LONG = "a" * 513
WIDE = "é" * 300  # 300 characters, 600 bytes
DEEP = b"[" * 50_000
LONE = b'"\\ud800"'


@dataclass(frozen=True)
class Bad:
    """headers: beside those of every request; one of None is left out."""

    method: str
    path: str
    body: bytes | None = None
    status: int = 422
    headers: dict[str, str | None] = field(default_factory=dict)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


# --- a field of POST /recommend with a value that it does not take ---

_NO_TEXTS: list[Any] = ["", LONG, WIDE, 0, 7, 1.5, True, [], ["a"], {}, {"a": "b"}]
_NO_LISTS: list[Any] = [
    "item-1", 5, True, {}, {"0": "a"}, [""], [None], [1], [1.5], [True], [["a"]], [{}], [LONG],
    ["a", WIDE], ["a"] * 1001, ["a", 2], ["a", None],
]  # fmt: skip
_NO_FLAGS: list[Any] = [0, 1, "true", "yes", "", None, [], {}, 0.0]
_NO_COUNTS: list[Any] = [
    0, -1, 1001, 2**31, 2**63, 2**64, 10**400, -(10**400), 1.0, 5.5, "5", "", "ten", None, True,
    False, [], [5], {},
]  # fmt: skip
_NO_SHARES: list[Any] = [-0.1, 1.1, -1, 2, 10**400, "0.5", "", None, True, [], [0.5], {}]
_NO_CATEGORIES: list[Any] = [
    "a", 5, True, [], ["a"], {"allow": []}, {"allow": "a"}, {"allow": [1]}, {"allow": [""]},
    {"allow": [None]}, {"allow": [LONG]}, {"allow": ["a"] * 1001}, {"deny": "a"}, {"deny": [1]},
    {"deny": [""]}, {"deny": [WIDE]}, {"deny": {}}, {"allow": ["a"], "deny": 5}, {"only": ["a"]},
    {"allow": {"a": 1}},
]  # fmt: skip

_RECOMMEND = {
    "user_id": _NO_TEXTS,
    "sequence": _NO_LISTS,
    "exclude": _NO_LISTS,
    "exclude_seen": _NO_FLAGS,
    "explain": _NO_FLAGS,
    "k": _NO_COUNTS,
    "diversity": _NO_SHARES,
    "categories": _NO_CATEGORIES,
}
_WHOLE: list[Any] = [
    {}, {"k": 5}, {"user_id": None}, {"sequence": None}, {"user_id": None, "sequence": None},
    {"sequence": ["a"], "colour": "red"}, {"sequence": ["a"], "": 1}, {"sequence": ["a"], LONG: 1},
    {"Sequence": ["a"]}, {"SEQUENCE": ["a"]}, {"user": "a"}, {"userId": "a"},
    {"sequence": ["a"], "__proto__": {}}, {"sequence": ["a"], "k ": 5},
    [], [{}], [{"user_id": "a"}], "text", "", 5, 0, 1.5, True, False, None,
]  # fmt: skip

# --- events ---

_EVENT = {"user_id": "bad-events", "item_id": "item-1"}
_NO_TIMES: list[Any] = [-1, -0.5, 10**400, "now", "2026-01-01", "1.5", "", True, [], {}]
_EVENTS = {
    "user_id": [*_NO_TEXTS, None],
    "item_id": [*_NO_TEXTS, None],
    "timestamp": _NO_TIMES,
    "event": ["", "e" * 65, "forget", 5, True, [], {}],
    "event_id": _NO_TEXTS,
}
_WHOLE_EVENTS: list[Any] = [
    {}, [], [[]], [{}], [_EVENT, {}], [_EVENT, None], [_EVENT, [_EVENT]], [_EVENT] * 1001,
    {"user_id": "a"}, {"item_id": "a"}, {**_EVENT, "weight": 2}, {"events": [_EVENT]},
    [{**_EVENT, "timestamp": -1}], "text", 5, None, True,
]  # fmt: skip

# --- batches: only what spoils the whole; a bad request among good ones is answered ---

_BATCHES: list[Any] = [
    {}, [], None, 5, "text", {"requests": None}, {"requests": []}, {"requests": {}},
    {"requests": "a"}, {"requests": [{"user_id": "a"}] * 257}, {"requests": [], "k": 5},
    {"requests": [{"user_id": "a"}], "k": 5}, [{"user_id": "a"}], {"request": [{"user_id": "a"}]},
]  # fmt: skip

# --- what is not JSON at all ---

_NO_JSON: list[bytes] = [
    b"", b" ", b"\n", b"{", b"}", b"[1,", b'{"user_id"', b'{"user_id":', b'{"user_id": "a",}',
    b"{'user_id': 'a'}", b"{user_id: 1}", b"\xff\xfe", b"\x00", b"\xef\xbb\xbf{}",
    b'{"user_id": "\xff"}', b'{"user_id": "\xc3"}', b'{"user_id": ' + LONE + b"}",
    b'{"user_id": "a", "k": NaN}', b'{"user_id": "a", "k": Infinity}',
    b'{"user_id": "a", "k": -Infinity}', b'{"user_id": "a", "k": 1e999}',
    b'{"user_id": "a", "k": 05}', b'{"user_id": "a", "k": 0x5}', b'{"user_id": "a", "k": +5}',
    b'{"user_id": "a"} {"user_id": "b"}', b'{"user_id": "a"}x', b'{"user_id": "a\nb"}',
    b"{/* */}", DEEP, b'{"sequence": ' + DEEP + b"}", b'{"a":' * 20_000, b"user_id=a&k=5",
    b"<recommend/>", b"--x\r\n\r\n--x--", b"\x1f\x8b\x08\x00" + b"\x00" * 20,
]  # fmt: skip

_ITEM = {"available": False}
_AVAILABLE: list[Any] = [{}, {"available": None}, {"available": 0}, {"available": "no"},
    {"available": []}, {"available": True, "until": 5}, [], [True], True, None, "x"]  # fmt: skip

_PATHS: list[Bad] = [
    Bad("GET", "/", status=404),
    Bad("GET", "/nothing", status=404),
    Bad("POST", "/recommend/", b"{}", 404),
    Bad("POST", "//recommend", b"{}", 404),
    Bad("POST", "/recommend%00", b"{}", 404),
    Bad("POST", "/Recommend", b"{}", 404),
    Bad("GET", "/../../etc/passwd", status=404),
    Bad("GET", "/%2e%2e/%2e%2e/etc/passwd", status=404),
    Bad("GET", "/items", status=404),
    Bad("GET", "/users/a", status=404),
    Bad("GET", "/users//history", status=422),
    Bad("DELETE", "/users//history", status=422),
    Bad("GET", f"/users/{LONG}/history"),
    Bad("GET", "/users/" + "%C3%A9" * 300 + "/history"),
    Bad("DELETE", f"/users/{LONG}/history"),
    Bad("GET", "/users/" + "a" * 30_000 + "/history"),
    Bad("PUT", f"/items/{LONG}", _json(_ITEM)),
    Bad("PUT", "/items/", _json(_ITEM)),
    Bad("GET", "/items/no-such-item/similar", status=404),
    Bad("GET", "/items/%FF/similar", status=404),
    Bad("GET", "/items//similar"),
    Bad("GET", "/recommend", status=405),
    Bad("PUT", "/recommend", b"{}", 405),
    Bad("DELETE", "/recommend", status=405),
    Bad("PATCH", "/recommend", b"{}", 405),
    Bad("GET", "/events", status=405),
    Bad("GET", "/admin/reload", status=405),
    Bad("POST", "/livez", b"", 405),
    Bad("POST", "/metrics", b"", 405),
]

_QUERIES = ["k=0", "k=-1", "k=1001", "k=x", "k=", "k=1.5", "k=" + "9" * 400, "k=1e3", "k=0x5",
    "k=%00", "k=null", "k=[]"]  # fmt: skip

_GOOD = _json({"sequence": ["item-1"], "k": 1})
_DEADLINES = ["x", "-1", "1.5", "1e3", "", "0x5", "nan", "inf", "9" * 400, "5;", "5,5"]
_NO_KEYS: list[str | None] = [
    None, "", "Bearer", "Bearer x", "Bearer  x y", "Basic YTpi", "bearer re4_wrong",
    "re4_wrong", "Bearer " + "k" * 5000, "Bearer \xe9",
]  # fmt: skip


def _fields(path: str, good: dict[str, Any], wrong: dict[str, list[Any]]) -> list[Bad]:
    return [
        Bad("POST", path, _json({**good, name: value}))
        for name, values in wrong.items()
        for value in values
    ]


def _bodies(path: str, values: list[Any]) -> list[Bad]:
    return [Bad("POST", path, _json(value)) for value in values]


BAD_INPUTS: list[Bad] = [
    *_fields("/recommend", {"sequence": ["item-1"], "user_id": "a"}, _RECOMMEND),
    *_bodies("/recommend", _WHOLE),
    *_fields("/events", _EVENT, _EVENTS),
    *_bodies("/events", _WHOLE_EVENTS),
    *_bodies("/recommend/batch", _BATCHES),
    *(
        Bad("POST", path, body)
        for path in ("/recommend", "/events", "/recommend/batch")
        for body in _NO_JSON
    ),
    *(Bad("PUT", "/items/item-1", _json(body)) for body in _AVAILABLE),
    *_PATHS,
    *(Bad("GET", f"/items/item-1/similar?{query}") for query in _QUERIES),
    *(Bad("POST", "/recommend", _GOOD, headers={"x-deadline-ms": text}) for text in _DEADLINES),
    *(Bad("POST", "/recommend", _GOOD, 401, {"authorization": key}) for key in _NO_KEYS),
    *(Bad("POST", "/admin/reload", b"", 401, {"authorization": key}) for key in _NO_KEYS),
    Bad("POST", "/recommend", b" " * (256 * 1024 + 1), 413),
    Bad("POST", "/events", b" " * (256 * 1024 + 1), 413),
    Bad("POST", "/recommend/batch", b" " * (4 * 1024 * 1024 + 1), 413),
]
