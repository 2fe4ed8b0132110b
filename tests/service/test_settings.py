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
    monkeypatch.setattr("service.server.serve", seen.append)
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
    assert "redis://, rediss:// or unix://" in output
    assert "hunter2" not in output
    run("--releases", "x", "--history", "redis://:hunter2@redis", "--admin-key", "hunter3")
    assert "hunter" not in repr(served[0])


def test_the_folder_of_releases_beside_current_stands_for_its_root(tmp_path: Path) -> None:
    (tmp_path / "releases").mkdir()
    assert Settings(releases=tmp_path / "releases").releases == tmp_path / "releases"
    (tmp_path / "current").write_text("some-release\n")
    assert Settings(releases=tmp_path / "releases").releases == tmp_path
    assert Settings(releases=tmp_path).releases == tmp_path
