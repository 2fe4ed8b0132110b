"""Keys: what the file may hold, who may do what, and how they change while the service runs."""

import os
import re
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from service.__main__ import main
from service.auth.api_keys import KeyRing, Role, line_of, new_key
from service.errors import ForbiddenError, UnauthorizedError
from service.http.schemas.common import ErrorBody
from service.settings import SetupError

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


class Clock:
    """Seconds that a test lets go by."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def write(file: Path, *lines: str) -> None:
    """Another file of that name: its inode tells, whatever the clock of the file system does."""
    aside = file.with_suffix(".new")
    aside.write_text("\n".join(lines), encoding="utf-8")
    aside.replace(file)


def bearer(key: str) -> bytes:
    return f"Bearer {key}".encode()


def test_a_key_is_random_and_only_its_hash_is_kept() -> None:
    key, other = new_key(), new_key()

    assert key != other
    assert len(key) >= 40
    assert re.fullmatch(r"read,events [0-9a-f]{64}", line_of(key, ["read", "events", "read"]))
    assert key not in line_of(key, ["read"])


def test_the_command_makes_a_key_that_works(tmp_path: Path) -> None:
    made = CliRunner().invoke(main, ["new-key", "--role", "read", "--role", "events"])
    found = re.fullmatch(r"key   (\S+)\nline  (\S+ \S+)\n", made.output)
    assert found, made.output
    file = tmp_path / "keys"
    write(file, "# of the shop", "", f"{found[2]}  # since November")
    ring = KeyRing(file, None)

    assert ring.caller("read", bearer(found[1])) == ring.caller("events", bearer(found[1]))
    assert found[1] not in str(ring.caller("read", bearer(found[1])))


@pytest.mark.parametrize(
    ("has", "may"),
    [
        (["read"], {"read"}),
        (["events"], {"events"}),
        (["read", "events"], {"read", "events"}),
        (["admin"], {"read", "events", "admin"}),
    ],
)
def test_a_key_may_do_what_its_roles_say(tmp_path: Path, has: list[Role], may: set[Role]) -> None:
    key = new_key()
    write(tmp_path / "keys", line_of(new_key(), ["admin"]), line_of(key, has))
    ring = KeyRing(tmp_path / "keys", None)
    roles: list[Role] = ["read", "events", "admin"]

    assert ring.caller(None, bearer(key)), "any key will do"
    for role in roles:
        if role in may:
            assert ring.caller(role, bearer(key))
        else:
            with pytest.raises(ForbiddenError, match=f"takes the role {role}"):
                ring.caller(role, bearer(key))


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", "Bearer wrong", "Basic {}", "{}", "é"])
def test_what_is_no_key_is_refused(tmp_path: Path, given: str) -> None:
    key = new_key()
    write(tmp_path / "keys", line_of(key, ["admin"]))
    ring = KeyRing(tmp_path / "keys", None)
    with pytest.raises(UnauthorizedError) as refused:
        ring.caller("read", given.format(key).encode())

    assert key not in str(refused.value)


def test_keys_are_rotated_while_the_service_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = tmp_path / "keys", Clock()
    old, new = new_key(), new_key()
    write(file, line_of(old, ["read"]))
    ring = KeyRing(file, None, clock)

    def works(key: str) -> bool:
        clock.now += 2
        try:
            return ring.caller("read", bearer(key)) is not None
        except UnauthorizedError:
            return False

    assert (works(old), works(new)) == (True, False)
    write(file, line_of(old, ["read"]), line_of(new, ["read"]))
    assert (works(old), works(new)) == (True, True)
    write(file, line_of(new, ["read"]))
    assert (works(old), works(new)) == (False, True)
    for damage in ("read 12", "", f"read {old}"):
        write(file, damage)
        assert (works(old), works(new)) == (False, True), "a damaged file changes nothing"
    file.unlink()
    assert (works(old), works(new)) == (False, True)
    assert caplog.text.count("keys refused, the old ones stay") == 4
    assert old not in caplog.text


@pytest.mark.parametrize(
    ("lines", "told"),
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
def test_a_useless_file_is_refused_with_the_line(
    tmp_path: Path, lines: list[str], told: str
) -> None:
    write(tmp_path / "keys", *lines)
    with pytest.raises(SetupError, match=told):
        KeyRing(tmp_path / "keys", None)
    with pytest.raises(SetupError, match="cannot be read"):
        KeyRing(tmp_path / "nothing", None)


def test_without_keys_all_is_open_but_administration() -> None:
    ring = KeyRing(None, None)
    assert ring.is_open
    assert ring.caller("read", b"") is None
    assert ring.caller("events", b"Bearer whatever") is None
    with pytest.raises(UnauthorizedError):
        ring.caller("admin", b"")


def test_the_admin_key_of_the_settings_stands_beside_the_file(tmp_path: Path) -> None:
    write(tmp_path / "keys", line_of(new_key(), ["read"]))
    ring = KeyRing(tmp_path / "keys", "sesam")
    assert ring.caller("admin", b"Bearer sesam")
    assert ring.caller("read", b"bearer sesam")


# --- over HTTP ---


@pytest.mark.anyio
async def test_each_route_asks_for_its_role(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    roles: dict[str, list[Role]] = {"read": ["read"], "events": ["events"], "admin": ["admin"]}
    keys = {name: new_key() for name in roles}
    write(tmp_path / "keys", *(line_of(keys[name], given) for name, given in roles.items()))
    asked = [
        ("POST", "/recommend", {"sequence": ["item-1"]}, "read"),
        ("POST", "/events", {"user_id": "secret-user", "item_id": "item-1"}, "events"),
        ("GET", "/users/secret-user/history", None, "read"),
        ("DELETE", "/users/secret-user/history", None, "events"),
        ("GET", "/release", None, "read"),
        ("POST", "/admin/reload", None, "admin"),
    ]
    async with serve(keys_file=tmp_path / "keys") as client:
        for method, path, body, role in asked:
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
        assert bare.status_code == 401, "who may not ask is not told what is wrong with the body"

    assert not [key for key in keys.values() if key in caplog.text]


@pytest.mark.anyio
async def test_metrics_can_be_open(serve: Serve, tmp_path: Path) -> None:
    write(tmp_path / "keys", line_of(new_key(), ["read"]))
    async with serve(keys_file=tmp_path / "keys", open_metrics=True) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/release")).status_code == 401


@pytest.mark.anyio
async def test_one_caller_cannot_take_all_there_is(serve: Serve, tmp_path: Path) -> None:
    keys = [new_key(), new_key()]
    write(tmp_path / "keys", *(line_of(key, ["read"]) for key in keys))
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
async def test_without_keys_the_rate_is_of_an_address(serve: Serve) -> None:
    async with serve(rate_limit="2/hour") as client:
        statuses = [(await client.get("/release")).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]


def test_the_file_need_not_be_readable_by_others(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    write(file, line_of(new_key(), ["read"]))
    file.chmod(0o600)
    assert os.access(file, os.R_OK)
    assert not KeyRing(file, None).is_open
