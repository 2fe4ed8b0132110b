"""One class of settings drives command line, environment, files and documentation."""

import subprocess
import sys
from pathlib import Path

import pytest

from service import __main__ as program
from service.settings import Settings
from service.settings_sources import RENAMED_OPTIONS, option_of, variable_of
from tests.service.command_line import invoke


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that the command line hands to the server, which is not started."""
    seen: list[Settings] = []
    monkeypatch.setattr("service.serving.server.serve", lambda settings, *_: seen.append(settings))
    return seen


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    return invoke(program.main, *arguments, **environment)


def test_every_setting_has_an_option_a_variable_and_a_meaning() -> None:
    help_text = run("--help")[1]
    rows = program.settings_table().splitlines()[2:]

    assert len(rows) == len(Settings.model_fields)
    for row, (name, field) in zip(rows, Settings.model_fields.items(), strict=True):
        assert field.description
        assert option_of(name) in help_text
        assert variable_of(name) in help_text
        assert row.startswith(f"| `{option_of(name)}` | `{variable_of(name)}` | ")
        assert row.endswith(f" | {field.description} |")


def test_the_command_prints_the_table_of_settings() -> None:
    assert run("settings") == (0, program.settings_table() + "\n")


def test_every_setting_can_come_from_the_environment(served: list[Settings]) -> None:
    code, output = run(RE4_RELEASES="/some/where", RE4_PORT="9000", RE4_BREAKER_COOLDOWN_S="0.5")

    assert code == 0, output
    assert served[0].releases == Path("/some/where")
    assert served[0].port == 9000
    assert served[0].breaker_cooldown_s == 0.5


def test_the_command_line_wins_over_the_environment(served: list[Settings]) -> None:
    code, output = run("--port", "9001", "--releases", "here", RE4_PORT="9000")

    assert code == 0, output
    assert served[0].port == 9001


def test_settings_can_come_from_a_toml_file(served: list[Settings], tmp_path: Path) -> None:
    config = tmp_path / "service.toml"
    config.write_text('releases = "here"\nport = 9000\nworkers = 1\naccess_log = true\n')
    code, output = run("--config", str(config), RE4_PORT="9001")

    assert code == 0, output
    assert (served[0].releases, served[0].port) == (Path("here"), 9001), "environment over file"
    assert served[0].access_log is True
    for text, message in (
        ("colour = 1", "colour: unknown setting"),
        ("port = ", f"--config: {config}: cannot be read"),
        ("port = 0.5", "--port (RE4_PORT): "),
    ):
        config.write_text(text)
        code, output = run("--releases", "x", "--config", str(config))
        assert code == 2
        assert message in output
    code, output = run("--releases", "x", RE4_CONFIG=str(tmp_path / "none"))
    assert (code, "no such file" in output) == (2, True)


def test_only_the_root_is_required(served: list[Settings]) -> None:
    assert run("--releases", "here")[0] == 0
    assert served[0] == Settings(releases=Path("here"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], ("--releases (RE4_RELEASES)", "not given")),
        (["--releases", "x", "--port", "eighty"], ("--port (RE4_PORT)", "integer", "'eighty'")),
        (["--releases", "x", "--port", "70000"], ("--port", "65535", "'70000'")),
        (["--releases", "x", "--max-queue-size", "0"], ("--max-queue-size", "greater")),
        (["--releases", "x", "--log-level", "loud"], ("--log-level", "'debug'", "'loud'")),
        (["--releases", "x", "--colour", "red"], ("--colour",)),
    ],
)
def test_an_invalid_setting_is_refused_in_one_sentence(
    served: list[Settings], arguments: list[str], message: tuple[str, ...]
) -> None:
    code, output = run(*arguments)

    assert code == 2
    assert not served
    assert output.count("\n") == 1
    for words in message:
        assert words in output


def test_a_former_name_may_go_on_working(served: list[Settings], tmp_path: Path) -> None:
    config = tmp_path / "service.toml"
    config.write_text('redis_key_prefix = "file"\n')
    given = ("--releases", "x", "--config", str(config))
    for arguments, environment, expected in (
        ((), {}, "file"),
        ((), {"RE4_REDIS_KEY_PREFIX": "former"}, "former"),
        ((), {"RE4_REDIS_KEY_PREFIX": "former", "RE4_REDIS_PREFIX": "present"}, "present"),
        (("--redis-key-prefix", "option"), {"RE4_REDIS_PREFIX": "present"}, "option"),
        (("--redis-key-prefix=option",), {}, "option"),
    ):
        code, output = run(*given, *arguments, **environment)
        assert code == 0, output
        assert served.pop().redis_prefix == expected


def test_a_copy_with_other_values_has_no_unknown_ones() -> None:
    settings = Settings(releases=Path("here"))
    assert settings.replaced(port=9000).port == 9000
    with pytest.raises(TypeError, match="no such setting: history"):
        settings.replaced(port=9000, history="redis://")


@pytest.mark.parametrize(("former", "present"), RENAMED_OPTIONS.items())
def test_a_former_name_is_refused_with_the_present_one(
    served: list[Settings], former: str, present: str
) -> None:
    code, output = run("--releases", "x", f"{former}=hunter2")
    assert (code, output) == (2, f"Error: {former}: renamed; use {present}\n")

    variables = ["RE4_" + name[2:].replace("-", "_").upper() for name in (former, present)]
    code, output = run("--releases", "x", **{variables[0]: "hunter2"})
    assert (code, output) == (2, f"Error: {variables[0]}: renamed; use {variables[1]}\n")
    assert run("--releases", "x", **{variables[0]: ""})[0] == 0, "an empty one is none"
    assert present[2:].replace("-", "_") in Settings.model_fields
    assert len(served) == 1


def test_a_secret_is_never_shown(served: list[Settings]) -> None:
    code, output = run("--releases", "x", "--redis-url", "http://:hunter2@redis")

    assert code == 2
    assert "redis://, rediss://, unix://, redis+sentinel://" in output
    assert "hunter2" not in output
    code, output = run("--releases", "x", "--redis-urls", "redis://:hunter2@redis")
    assert code == 2
    assert "option" in output
    assert "--redis-urls" in output
    assert "hunter2" not in output
    assert not served
    run("--releases", "x", "--redis-url", "redis://:hunter2@redis", "--admin-key", "hunter3")
    assert "hunter" not in repr(served[0])


def test_the_releases_folder_beside_current_stands_for_its_root(tmp_path: Path) -> None:
    (tmp_path / "releases").mkdir()
    assert Settings(releases=tmp_path / "releases").releases == tmp_path / "releases"
    (tmp_path / "current").write_text("some-release\n")
    assert Settings(releases=tmp_path / "releases").releases == tmp_path
    assert Settings(releases=tmp_path).releases == tmp_path


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "shop.example"])
def test_anonymous_access_from_other_machines_has_to_be_allowed(
    served: list[Settings], tmp_path: Path, host: str
) -> None:
    (tmp_path / "keys").write_text("read " + "0" * 64)
    code, output = run("--releases", "x", "--host", host)
    assert code != 0
    assert not served
    assert f"--host: {host} can be reached from other machines" in output
    assert "give --keys-file, or --allow-anonymous to serve everyone" in output
    assert run("--releases", "x", "--host", host, "--admin-key", "sesam")[0] != 0

    assert run("--releases", "x", "--host", host, "--allow-anonymous")[0] == 0
    assert run("--releases", "x", "--host", host, RE4_ALLOW_ANONYMOUS="true")[0] == 0
    assert run("--releases", "x", "--host", host, "--keys-file", str(tmp_path / "keys"))[0] == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_loopback_address_is_served_without_keys(served: list[Settings], host: str) -> None:
    assert run("--releases", "x", "--host", host)[0] == 0


def test_secrets_can_come_from_a_folder(served: list[Settings], tmp_path: Path) -> None:
    (tmp_path / "re4_admin_key").write_text("sesam\n")
    code, output = run("--releases", "x", "--secrets-dir", str(tmp_path))
    assert code == 0, output
    assert served[0].admin_key
    assert served[0].admin_key.get_secret_value() == "sesam"
    code, output = run("--releases", "x", "--secrets-dir", str(tmp_path / "none"))
    assert (code, "no such folder" in output) == (2, True)


def test_secrets_can_come_from_files(served: list[Settings], tmp_path: Path) -> None:
    key, url, empty = (tmp_path / name for name in ("key", "url", "empty"))
    key.write_text("sesam\n")
    url.write_text("redis://:hunter2@redis\n")
    empty.write_text("\n")
    code, output = run("--releases", "x", "--admin-key-file", str(key), RE4_REDIS_URL_FILE=str(url))

    assert code == 0, output
    assert served[0].admin_key
    assert served[0].admin_key.get_secret_value() == "sesam"
    assert served[0].redis_url
    assert served[0].redis_url.get_secret_value() == "redis://:hunter2@redis"
    for file, more, message in (
        (tmp_path / "nothing", [], "--admin-key-file: cannot be read"),
        (empty, [], "is empty; write the secret there"),
        (key, ["--admin-key", "other"], "--admin-key and --admin-key-file: both given; give one"),
    ):
        code, output = run("--releases", "x", "--admin-key-file", str(file), *more)
        assert code != 0
        assert message in " ".join(output.split())
        assert "sesam" not in output


@pytest.mark.parametrize(
    ("origin", "suggested"),
    [
        ("https://a.example/", "https://a.example"),
        ("https://a.example/shop", "https://a.example"),
        ("https://A.example", "https://a.example"),
        ("https://a.example:443", "https://a.example"),
        ("http://a.example:80", "http://a.example"),
        ("https://user@a.example", "https://a.example"),
        ("https://a.example?x", "https://a.example"),
        ("https://käse.example", "https://xn--kse-qla.example"),
        ("https://*.a.example", None),
        ("https://", None),
        ("https://a.example:port", None),
        ("ftp://a.example", None),
        ("https://a.example,,", None),
        ("null", None),
        ("https://a b", None),
    ],
)
def test_an_origin_that_no_browser_sends_is_refused(
    served: list[Settings], origin: str, suggested: str | None
) -> None:
    code, output = run("--releases", "x", "--cors-origins", f"https://good.example,{origin}")
    assert (code, served) == (2, [])
    assert "each origin must be like https://shop.example, as browsers send it" in output
    assert (f"; {suggested} would be one" in output) == (suggested is not None)


def test_origins_hosts_and_proxies_that_can_match_are_taken(served: list[Settings]) -> None:
    values = {
        "--cors-origins": "https://a.example, http://localhost:3000,http://[::1]:81,https://b_c.d",
        "--allowed-hosts": "api, *.Shop.example",
        "--trusted-proxies": "10.0.0.0/8, ::1,127.0.0.1",
    }
    code, output = run("--releases", "x", *(word for pair in values.items() for word in pair))
    assert code == 0, output
    assert served[0].cors_origins == values["--cors-origins"].replace(" ", "")
    assert served[0].allowed_hosts == "api,*.shop.example"
    assert served[0].trusted_proxies == "10.0.0.0/8,::1,127.0.0.1"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--rate-limit", "fast", "a rate is like 1000/second"),
        ("--cors-origins", "shop.example", "each origin must be like https://shop.example"),
        ("--allowed-hosts", "https://shop.example", "each host must be a name like shop.example"),
        ("--allowed-hosts", "shop.example:8000", "without scheme, port or path"),
        ("--allowed-hosts", "shop.*", "each host must be a name"),
        ("--trusted-proxies", "proxy", "each proxy must be an address or a network"),
        ("--trusted-proxies", "10.0.0.1/8", "has host bits set"),
        ("--trusted-proxies", "*", "each proxy must be an address or a network"),
        ("--trusted-proxies", "0.0.0.0/0", "each client could name any"),
        ("--workers", "0", "greater than or equal to 1"),
    ],
)
def test_an_invalid_value_is_refused_with_an_example(
    served: list[Settings], option: str, value: str, message: str
) -> None:
    code, output = run("--releases", "x", option, value)
    assert code != 0
    assert message in " ".join(output.split())


def test_the_command_line_loads_torch_only_after_its_threads_are_limited() -> None:
    program_text = "import sys, service.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program_text], check=False).returncode == 0
