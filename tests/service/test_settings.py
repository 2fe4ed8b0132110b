"""One table of settings drives the command line, the environment and the documentation."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from service import __main__ as program
from service.settings import Settings, table


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that the command line hands to the server, which is not started."""
    seen: list[Settings] = []
    monkeypatch.setattr("service.serving.server.serve", lambda settings, *_: seen.append(settings))
    return seen


def run(*arguments: str, **environment: str) -> tuple[int, str]:
    result = CliRunner().invoke(program.main, arguments, env=environment)
    return result.exit_code, result.output


def test_every_setting_has_a_flag_a_variable_and_a_meaning() -> None:
    lines = list(table())

    assert [line.name for line in lines] == list(Settings.model_fields)
    help_text = run("--help")[1]
    for line in lines:
        assert line.meaning
        assert line.flag in help_text
        assert line.variable in help_text


def test_every_setting_can_come_from_the_environment(served: list[Settings]) -> None:
    code, output = run(RE4_RELEASES="/some/where", RE4_PORT="9000", RE4_HISTORY_PAUSE_S="0.5")

    assert code == 0, output
    assert served[0].releases == Path("/some/where")
    assert served[0].port == 9000
    assert served[0].history_pause_s == 0.5


def test_the_command_line_wins_over_the_environment(served: list[Settings]) -> None:
    code, output = run("--port", "9001", "--releases", "here", RE4_PORT="9000")

    assert code == 0, output
    assert served[0].port == 9001


def test_nothing_but_the_root_is_needed(served: list[Settings]) -> None:
    assert run("--releases", "here")[0] == 0
    assert served[0] == Settings(releases=Path("here"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], ("--releases (RE4_RELEASES)", "not given")),
        (["--releases", "x", "--port", "eighty"], ("--port (RE4_PORT)", "integer", "'eighty'")),
        (["--releases", "x", "--port", "70000"], ("--port", "65535", "'70000'")),
        (["--releases", "x", "--queue-limit", "0"], ("--queue-limit", "greater")),
        (["--releases", "x", "--log-level", "loud"], ("--log-level", "'debug'", "'loud'")),
        (["--releases", "x", "--colour", "red"], ("--colour",)),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(
    served: list[Settings], arguments: list[str], told: tuple[str, ...]
) -> None:
    code, output = run(*arguments)

    assert code != 0
    assert not served
    for words in told:
        assert words in output


def test_a_secret_is_never_shown(served: list[Settings]) -> None:
    code, output = run("--releases", "x", "--history", "http://:hunter2@redis")

    assert code != 0
    assert "redis://, rediss://, unix://, redis+sentinel://" in output
    assert "hunter2" not in output
    run("--releases", "x", "--history", "redis://:hunter2@redis", "--admin-key", "hunter3")
    assert "hunter" not in repr(served[0])


def test_the_folder_of_releases_beside_current_stands_for_its_root(tmp_path: Path) -> None:
    (tmp_path / "releases").mkdir()
    assert Settings(releases=tmp_path / "releases").releases == tmp_path / "releases"
    (tmp_path / "current").write_text("some-release\n")
    assert Settings(releases=tmp_path / "releases").releases == tmp_path
    assert Settings(releases=tmp_path).releases == tmp_path


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "shop.example"])
def test_only_this_machine_is_served_without_keys(
    served: list[Settings], tmp_path: Path, host: str
) -> None:
    (tmp_path / "keys").write_text("read " + "0" * 64)
    code, output = run("--releases", "x", "--host", host)
    assert code != 0
    assert not served
    assert f"--host: {host} can be reached from other machines" in output
    assert "give --keys-file, or --open to serve whoever comes" in output
    assert run("--releases", "x", "--host", host, "--admin-key", "sesam")[0] != 0

    assert run("--releases", "x", "--host", host, "--open")[0] == 0
    assert run("--releases", "x", "--host", host, RE4_OPEN="true")[0] == 0
    assert run("--releases", "x", "--host", host, "--keys-file", str(tmp_path / "keys"))[0] == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_is_served_without_keys(served: list[Settings], host: str) -> None:
    assert run("--releases", "x", "--host", host)[0] == 0


def test_secrets_can_come_from_files(served: list[Settings], tmp_path: Path) -> None:
    key, url, empty = (tmp_path / name for name in ("key", "url", "empty"))
    key.write_text("sesam\n")
    url.write_text("redis://:hunter2@redis\n")
    empty.write_text("\n")
    code, output = run("--releases", "x", "--admin-key-file", str(key), RE4_HISTORY_FILE=str(url))

    assert code == 0, output
    assert served[0].admin_key
    assert served[0].admin_key.get_secret_value() == "sesam"
    assert served[0].history
    assert served[0].history.get_secret_value() == "redis://:hunter2@redis"
    for file, more, told in (
        (tmp_path / "nothing", [], "--admin-key-file: cannot be read"),
        (empty, [], "is empty; write the secret there"),
        (key, ["--admin-key", "other"], "--admin-key and --admin-key-file: both given; give one"),
    ):
        code, output = run("--releases", "x", "--admin-key-file", str(file), *more)
        assert code != 0
        assert told in " ".join(output.split())
        assert "sesam" not in output


@pytest.mark.parametrize(
    ("flag", "given", "told"),
    [
        ("--rate-limit", "fast", "a rate is like 1000/second"),
        ("--cors-origins", "shop.example", "each origin must be like https://shop.example"),
        ("--workers", "0", "greater than or equal to 1"),
    ],
)
def test_a_wrong_value_is_told(served: list[Settings], flag: str, given: str, told: str) -> None:
    code, output = run("--releases", "x", flag, given)
    assert code != 0
    assert told in " ".join(output.split())
