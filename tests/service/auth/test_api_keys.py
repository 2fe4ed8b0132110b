"""API keys: the file's format, the roles, and key rotation in a running service."""

import os
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from service.__main__ import main
from service.auth.api_keys import ROLES, KeyRing, Role, key_line, new_key
from service.errors import ForbiddenError, UnauthorizedError
from service.http.schemas.common import ErrorBody
from service.settings import Settings, SetupError
from tests.service.application import Clock
from tests.service.command_line import invoke
from tests.service.threaded import served_in_a_thread

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


def write(file: Path, *lines: str) -> None:
    """Replace the file: the inode changes, whatever the clock of the file system does."""
    temporary = file.with_suffix(".new")
    temporary.write_text("\n".join(lines), encoding="utf-8")
    temporary.replace(file)


def bearer(key: str) -> bytes:
    return f"Bearer {key}".encode()


def test_a_key_is_random_and_only_its_hash_is_kept() -> None:
    key, second = new_key(), new_key()

    assert key != second
    assert len(key) >= 40
    assert re.fullmatch(r"read,events [0-9a-f]{64}", key_line(key, ["read", "events", "read"]))
    assert key not in key_line(key, ["read"])


def test_the_command_makes_a_key_that_works(tmp_path: Path) -> None:
    code, output = invoke(main, "new-key", "--role", "read", "--role", "events")
    found = re.fullmatch(r"key   (\S+)\nline  (\S+ \S+)\n", output)
    assert (code, bool(found)) == (0, True), output
    file = tmp_path / "keys"
    write(file, "# of the shop", "", f"{found[2]}  # since November")
    ring = KeyRing(file, None)

    assert ring.caller("read", bearer(found[1])) == ring.caller("events", bearer(found[1]))
    assert found[1] not in str(ring.caller("read", bearer(found[1])))


@pytest.mark.parametrize(
    ("roles", "allowed"),
    [
        (["read"], {"read"}),
        (["events"], {"events"}),
        (["read", "events"], {"read", "events"}),
        (["catalog", "erase"], {"catalog", "erase"}),
        (["admin"], {"read", "events", "catalog", "erase", "admin"}),
    ],
)
def test_a_key_is_allowed_what_its_roles_say(
    tmp_path: Path, roles: list[Role], allowed: set[Role]
) -> None:
    key = new_key()
    write(tmp_path / "keys", key_line(new_key(), ["admin"]), key_line(key, roles))
    ring = KeyRing(tmp_path / "keys", None)

    assert ring.caller(None, bearer(key)), "any key will do"
    for role in ROLES:
        if role in allowed:
            assert ring.caller(role, bearer(key))
        else:
            with pytest.raises(ForbiddenError, match=f"lacks the role {role}"):
                ring.caller(role, bearer(key))


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic {}", "{}", "é"])
def test_an_invalid_key_is_refused(tmp_path: Path, header: str) -> None:
    key = new_key()
    write(tmp_path / "keys", key_line(key, ["admin"]))
    ring = KeyRing(tmp_path / "keys", None)
    with pytest.raises(UnauthorizedError) as refused:
        ring.caller("read", header.format(key).encode())

    assert key not in str(refused.value)


def test_keys_are_rotated_while_the_service_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "keys", Clock()
    old, new = new_key(), new_key()
    write(file, key_line(old, ["read"]))
    ring = KeyRing(file, None, clock=clock)

    def works(key: str) -> bool:
        clock.now += 2
        try:
            return ring.caller("read", bearer(key)) is not None
        except UnauthorizedError:
            return False

    assert (works(old), works(new)) == (True, False)
    write(file, key_line(old, ["read"]), key_line(new, ["read"]))
    assert (works(old), works(new)) == (True, True)
    write(file, key_line(new, ["read"]))
    assert (works(old), works(new)) == (False, True)
    for damage in ("read 12", "", f"read {old}"):
        write(file, damage)
        assert (works(old), works(new)) == (False, True), "a damaged file changes nothing"
    file.unlink()
    assert (works(old), works(new)) == (False, True)
    assert caplog.text.count("keys refused, the previous ones stay") == 4
    assert old not in caplog.text


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "no key"),
        (["# nothing"], "no key"),
        (["read"], "line 1"),
        (["# one", "write " + "0" * 64], "line 2"),
        (["read " + "0" * 63], "line 1"),
        (["read " + "x" * 64], "line 1"),
        (["read, " + "0" * 64 + " more"], "line 1"),
    ],
)
def test_an_invalid_file_is_refused_with_the_line(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    write(tmp_path / "keys", *lines)
    with pytest.raises(SetupError, match=message):
        KeyRing(tmp_path / "keys", None)
    with pytest.raises(SetupError, match="cannot be read"):
        KeyRing(tmp_path / "nothing", None)


def test_without_a_key_file_only_the_admin_role_needs_a_key() -> None:
    ring = KeyRing(None, None)
    assert ring.allows_anonymous
    assert ring.caller("read", b"") is None
    assert ring.caller("events", b"Bearer whatever") is None
    with pytest.raises(UnauthorizedError):
        ring.caller("admin", b"")


def test_the_admin_key_of_the_settings_works_beside_the_file(tmp_path: Path) -> None:
    write(tmp_path / "keys", key_line(new_key(), ["read"]))
    ring = KeyRing(tmp_path / "keys", "sesam")
    assert ring.caller("admin", b"Bearer sesam")
    assert ring.caller("read", b"bearer sesam")


# --- over HTTP ---


@pytest.mark.anyio
async def test_each_route_requires_its_role(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    roles: dict[str, list[Role]] = {role: [role] for role in ROLES}
    keys = {name: new_key() for name in roles}
    write(tmp_path / "keys", *(key_line(keys[name], given) for name, given in roles.items()))
    calls = [
        ("POST", "/recommend", {"sequence": ["item-1"]}, "read"),
        ("POST", "/events", {"user_id": "secret-user", "item_id": "item-1"}, "events"),
        ("GET", "/users/secret-user/history", None, "read"),
        ("DELETE", "/users/secret-user/history", None, "erase"),
        ("PUT", "/items/item-1", {"available": True}, "catalog"),
        ("POST", "/items", [{"item_id": "item-1", "title": "One"}], "catalog"),
        ("GET", "/items/item-1", None, "read"),
        ("GET", "/release", None, "read"),
        ("POST", "/admin/reload", None, "admin"),
    ]
    async with serve(keys_file=tmp_path / "keys") as client:
        for method, path, body, role in calls:
            statuses = {}
            for name, key in {**keys, "none": "", "wrong": new_key()}.items():
                headers = {"authorization": f"Bearer {key}"} if key else {}
                response = await client.request(method, path, json=body, headers=headers)
                statuses[name] = response.status_code
                if response.status_code != 200:
                    error = ErrorBody.model_validate_json(response.content).error
                    expected = {401: "unauthorized", 403: "forbidden"}
                    assert error.code == expected[response.status_code]
            refused = dict.fromkeys(keys, 403) | {"none": 401, "wrong": 401}
            assert statuses == refused | {role: 200, "admin": 200}, path
        for path in ("/livez", "/readyz", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/metrics")).status_code == 401
        headers = {"authorization": f"Bearer {keys['events']}"}
        assert (await client.get("/metrics", headers=headers)).status_code == 200
        bare = await client.post("/recommend", content=b"{")
        assert bare.status_code == 401, "without a permission, the body is not checked"

    assert not [key for key in keys.values() if key in caplog.text]


@pytest.mark.anyio
async def test_metrics_can_be_anonymous(serve: Serve, tmp_path: Path) -> None:
    write(tmp_path / "keys", key_line(new_key(), ["read"]))
    async with serve(keys_file=tmp_path / "keys", allow_anonymous_metrics=True) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/release")).status_code == 401


@pytest.mark.anyio
async def test_the_rate_limit_is_per_key(serve: Serve, tmp_path: Path) -> None:
    keys = [new_key(), new_key()]
    write(tmp_path / "keys", *(key_line(key, ["read"]) for key in keys))
    async with serve(keys_file=tmp_path / "keys", rate_limit="3/hour") as client:
        statuses = []
        for key in (keys[0], keys[0], keys[0], keys[0], keys[1]):
            headers = {"authorization": f"Bearer {key}"}
            response = await client.get("/release", headers=headers)
            statuses.append(response.status_code)
            if response.status_code == 429:
                error = ErrorBody.model_validate_json(response.content).error
                assert error.code == "rate_limited"
                assert 1 <= int(response.headers["retry-after"]) <= 3600
        assert statuses == [200, 200, 200, 429, 200]
        assert (await client.get("/livez")).status_code == 200


@pytest.mark.anyio
async def test_without_keys_the_rate_limit_is_per_address(serve: Serve) -> None:
    async with serve(rate_limit="2/hour") as client:
        statuses = [(await client.get("/release")).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("path", "entries", "body"),
    [
        ("/recommend/batch", 256, {"requests": [{"sequence": ["item-1"], "k": 1}] * 256}),
        ("/recommend/batch", 3, {"requests": [{"sequence": []}, {"k": 0}, 5]}),
        ("/events", 1000, [{"user_id": "anna", "item_id": "item-1", "event_id": "e"}] * 1000),
        ("/events", 1, [{"user_id": "anna", "item_id": "item-1"}]),
        ("/events", 1, {"user_id": "anna", "item_id": "item-1"}),
    ],
)
async def test_each_entry_of_a_batch_counts(
    serve: Serve, path: str, entries: int, body: object
) -> None:
    async with serve(rate_limit=f"{2 * entries + entries // 2}/hour") as client:
        responses = [await client.post(path, json=body) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert 1 <= int(responses[2].headers["retry-after"]) <= 3600

    async with serve(rate_limit=f"{max(1, entries - 1)}/hour") as client:
        response = await client.post(path, json=body)
    if entries > 1:
        assert response.status_code == 429, "it can never be answered"
        assert f"{entries} entries at once" in response.text
        assert f"send at most {entries - 1} at once" in response.text
    else:
        assert response.status_code == 200


@pytest.mark.anyio
async def test_refused_keys_are_limited_and_do_not_limit_others(
    serve: Serve, tmp_path: Path
) -> None:
    key, events = new_key(), new_key()
    write(tmp_path / "keys", key_line(key, ["read"]), key_line(events, ["events"]))
    async with serve(keys_file=tmp_path / "keys", rate_limit="3/hour") as client:

        async def status(key: str | None) -> int:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return (await client.get("/release", headers=headers)).status_code

        assert [await status(sent) for sent in (new_key(), None, events)] == [401, 401, 403]
        assert [await status(sent) for sent in (new_key(), None, events)] == [429, 429, 429]
        assert [await status(key) for _ in range(4)] == [200, 200, 200, 429]
    async with serve(admin_key="sesam", rate_limit="3/hour") as client:
        headers = {"authorization": "Bearer guess"}
        guesses = [await client.post("/admin/reload", headers=headers) for _ in range(4)]
    assert [guess.status_code for guess in guesses] == [401, 401, 401, 429]


async def statuses(serve: Serve, *forwarded: list[str], **settings: object) -> list[int]:
    """The status for each request with these X-Forwarded-For headers, all from 127.0.0.1."""
    async with serve(rate_limit="1/hour", **settings) as client:
        responses = [
            await client.get("/release", headers=[("x-forwarded-for", value) for value in values])
            for values in forwarded
        ]
    return [response.status_code for response in responses]


@pytest.mark.anyio
async def test_only_trusted_proxies_name_the_client(serve: Serve) -> None:
    invented = ["1.1.1.1"], ["2.2.2.2"], ["3.3.3.3"]
    assert await statuses(serve, *invented) == [200, 429, 429]
    assert await statuses(serve, *invented, trusted_proxies="10.0.0.0/8") == [200, 429, 429]
    trusted = "127.0.0.1, 10.0.0.0/8"
    assert await statuses(serve, *invented, trusted_proxies=trusted) == [200, 200, 200]
    one_client = ["1.1.1.1"], ["9.9.9.9, 1.1.1.1"], ["9.9.9.9", "1.1.1.1, 10.0.0.7"]
    assert await statuses(serve, *one_client, trusted_proxies=trusted) == [200, 429, 429]
    one_network = ["2001:db8::1"], ["2001:db8::2"], ["[2001:db8::3]:443"]
    assert await statuses(serve, *one_network, trusted_proxies=trusted) == [200, 429, 429]
    one_mapped = ["::ffff:1.1.1.1"], ["1.1.1.1"], ["1.1.1.1:80"]
    assert await statuses(serve, *one_mapped, trusted_proxies=trusted) == [200, 429, 429]


@pytest.mark.anyio
async def test_an_invented_address_is_not_believed_over_a_socket(
    settings: Callable[..., Settings], publish: Callable[..., object]
) -> None:
    publish()
    with served_in_a_thread(settings(port=0, rate_limit="1/hour")) as server:
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/release"
        statuses = [
            httpx.get(url, headers={"x-forwarded-for": f"1.1.1.{number}"}).status_code
            for number in range(3)
        ]
    assert statuses == [200, 429, 429]


def test_the_file_need_not_be_readable_by_others(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    write(file, key_line(new_key(), ["read"]))
    file.chmod(0o600)
    assert os.access(file, os.R_OK)
    assert not KeyRing(file, None).allows_anonymous
