"""The README tells the truth: its commands, flags, tree, settings, formats and endpoints exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from index.__main__ import cli as index_cli
from service.__main__ import main as service_cli
from service.app import create_app
from service.settings import Settings, table
from training.__main__ import main as training_cli
from training.data.formats import FORMATS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS: dict[str, click.Command] = {
    "index": index_cli,
    "service": service_cli,
    "training": training_cli,
}


def section(title: str) -> str:
    return re.split(r"^## ", README.split(f"\n## {title}\n")[1], flags=re.MULTILINE)[0]


def shown_commands() -> list[list[str]]:
    lines = re.findall(r"python -m ((?:index|service|training)\b[^\n`#|]*)", README)
    return [shlex.split(line.split("&&")[0]) for line in lines]


@pytest.mark.parametrize("words", shown_commands(), ids=" ".join)
def test_commands_and_their_flags_exist(words):
    command = COMMANDS[words[0]]
    rest = words[1:]
    if isinstance(command, click.Group) and rest and not rest[0].startswith("--"):
        assert rest[0] in command.commands
        command = command.commands[rest[0]]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert {word.split("=")[0] for word in rest if word.startswith("--")} <= known


def test_the_two_commands_are_make_targets():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= shown <= targets


def test_every_setting_is_in_its_table():
    told = section("Settings of the service")
    for setting in table():
        row = f"| `{setting.flag}` | `{setting.variable}` | {setting.default} | {setting.meaning} |"
        assert row in told


def test_every_format_is_listed():
    told = set(re.findall(r"^\| `(\w[\w-]*)` \|", section("Logs it reads"), re.MULTILINE))
    assert told == set(FORMATS)


def test_every_endpoint_is_in_the_api_table(tmp_path):
    app = create_app(Settings(releases=tmp_path, admin_key="key"))
    served = {route.path_format for route in app.routes} - {"/openapi.json"}
    told = section("API")
    assert {path for path in served if f"{path}`" not in told} <= {
        "/docs/swagger-ui-bundle.js",
        "/docs/swagger-ui.css",
    }
