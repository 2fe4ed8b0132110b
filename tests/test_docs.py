"""The documents are true: their commands, options, links, files, tables and examples exist."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from index.encoders import ENCODERS
from service.app import create_app
from service.errors import ERROR_SPECS
from service.settings import Settings
from training.data.formats import FORMATS

ROOT = Path(__file__).parents[1]
DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "training/RESULTS.md")),
        *(
            ROOT / name / "README.md"
            for name in ("training", "index", "service", "docker", "tests")
        ),
    ]
}
README, TRAINING = DOCUMENTS["README.md"], DOCUMENTS["training/README.md"]
SERVICE, DOCKER = DOCUMENTS["service/README.md"], DOCUMENTS["docker/README.md"]
ALL = "\n".join(DOCUMENTS.values())

_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_INLINE_CODE = re.compile(r"`([^`\n]+)`")
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
# Options of other programs: Docker Compose, kubectl, pytest.
_FOREIGN_OPTIONS = {"--profile", "--rm", "--no-deps", "--build", "--from"}
_FOREIGN_OPTIONS |= {"--nproc-per-node", "--max-restarts"}  # torchrun's


def section(text: str, title: str) -> str:
    """The part of a document below a heading, with the headings below that."""
    level, rest = re.split(rf"^(#+) {re.escape(title)}$", text, flags=re.MULTILINE)[1:]
    return re.split(rf"^#{{1,{len(level)}}} ", rest, flags=re.MULTILINE)[0]


def first_column(table: str) -> set[str]:
    """All that stands in backticks in the first cells of the rows."""
    rows = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    return {code for row in rows for code in _INLINE_CODE.findall(row)}


# --- commands and options ---


def shown_commands() -> Iterator[tuple[str, str | None, tuple[str, ...]]]:
    """Package, command and options of each `python -m` in the documents."""
    joined = re.sub(r"\\\n\s*", " ", ALL)
    for package, rest in re.findall(r"python -m (index|service|training)\b([^\n`|]*)", joined):
        words = shlex.split(rest.split("&&")[0], comments=True)
        command = words[0] if words and re.fullmatch(r"[a-z][a-z-]+", words[0]) else None
        options = tuple(w.split("=")[0] for w in words if w.startswith("--"))
        yield package, command, options


PROGRAMS = ("index", "service", "training")
# The help of each command that is given as JSON, in one process: its modules are loaded once.
_HELP = """
import contextlib, io, json, runpy, sys
package, commands = sys.argv[1], json.loads(sys.argv[2])
for command in commands:
    sys.argv = [package, *([command] if command else []), "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            runpy.run_module(package, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            assert not ended.code, f"{package} {command}: no such command"
    print(json.dumps(shown.getvalue()))
"""


@cache
def known_options(package: str) -> dict[str | None, set[str]]:
    """The options in the help of each command that the documents show, None being the program."""
    commands = sorted({command or "" for name, command, _ in shown_commands() if name == package})
    ended = subprocess.run(
        [sys.executable, "-c", _HELP, package, json.dumps(commands)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "500"},
    )
    assert ended.returncode == 0, ended.stderr
    helps = map(json.loads, ended.stdout.splitlines())
    return {
        command or None: {*_OPTION.findall(text), "--help"}
        for command, text in zip(commands, helps, strict=True)
    }


@pytest.mark.parametrize("package", PROGRAMS)
def test_each_command_exists_with_its_options(package: str) -> None:
    known = known_options(package)
    for shown_package, command, options in shown_commands():
        if shown_package == package:
            assert set(options) <= known[command], command


def test_each_program_of_the_tests_exists_with_its_options() -> None:
    joined = re.sub(r"\\\n\s*", " ", ALL)
    programs = re.findall(r"python (tests/[\w/]+\.py)([^\n`|]*)", joined)
    assert programs
    for path, rest in programs:
        source = (ROOT / path).read_text(encoding="utf-8")
        missing = [option for option in _OPTION.findall(rest) if f'"{option}"' not in source]
        assert missing == [], path


def test_each_option_named_in_the_text_belongs_to_some_program() -> None:
    helps = [options for name in PROGRAMS for options in known_options(name).values()]
    known = _FOREIGN_OPTIONS.union(*helps)
    for folder in ("benchmarks", "evidence"):
        for path in (ROOT / "tests" / folder).glob("*.py"):
            known.update(re.findall(r'"(--[a-z-]+)"', path.read_text(encoding="utf-8")))
    for name, text in DOCUMENTS.items():
        spans = _INLINE_CODE.findall(_FENCED.sub("", text))
        named = {option for span in spans for option in _OPTION.findall(span)}
        assert named - known == set(), name


def test_each_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    shown = set(re.findall(r"(?:^|`|\$ )make ([a-z-]+)", ALL, re.MULTILINE))
    assert shown <= targets
    assert {"demo", "test"} <= set(re.findall(r"^\$ make ([a-z-]+)", README, re.MULTILINE))
    measured = {name for name in targets if name.startswith(("bench-", "evidence-"))}
    assert measured <= set(re.findall(r"`make ([a-z-]+)", DOCUMENTS["tests/README.md"]))


# --- links and files ---


def anchors(text: str) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    titles = re.findall(r"^#+ (.+)$", _FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_link_leads_somewhere(name: str) -> None:
    folder = (ROOT / name).parent
    for link in re.findall(r"\]\(([^)\s]+)\)", _FENCED.sub("", DOCUMENTS[name])):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (folder / path).resolve() if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_file_named_exists(name: str) -> None:
    named = re.findall(
        r"`((?:index|service|training|docker|tests)/[\w./-]+)`", _FENCED.sub("", DOCUMENTS[name])
    )
    made = {"docker/keys/keys", "training/results/LOG"}  # by whoever reads it
    assert [path for path in named if path not in made and not (ROOT / path).exists()] == []


def test_the_readme_fits_on_two_screens() -> None:
    assert len(README.splitlines()) <= 200


def test_the_readme_links_every_document() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+)", README))
    assert DOCUMENTS.keys() - {"README.md"} <= linked


# --- tables ---


def test_every_endpoint_is_in_the_tables(tmp_path: Path) -> None:
    document = _openapi(tmp_path)
    served = {
        f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item
    }
    for text in (README, SERVICE):
        assert first_column(section(text, "API")) >= served | {"GET /docs", "GET /"}
    table = section(SERVICE, "API").split("\n### ")[0]
    assert first_column(table) == served | {"GET /docs", "GET /"}


def test_every_field_of_requests_and_responses_is_explained(tmp_path: Path) -> None:
    schemas = _openapi(tmp_path)["components"]["schemas"]
    fields = {name for schema in schemas.values() for name in schema.get("properties", {})}
    words = set(re.findall(r"\w+", " ".join(_INLINE_CODE.findall(section(SERVICE, "API")))))
    assert fields - words == set()


def _openapi(releases: Path) -> dict[str, Any]:
    return create_app(Settings(releases=releases, admin_key="key")).openapi()


def test_every_error_code_is_explained() -> None:
    table = section(SERVICE, "Errors")
    for spec in ERROR_SPECS.values():
        [row] = [row for row in table.splitlines() if f"`{spec.code}`" in row]
        assert str(spec.status) in row.split("|")[1], spec


def test_the_settings_table_is_current() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "service", "settings"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    shown = SERVICE.split("<!-- settings -->")[1].split("<!-- /settings -->")[0]
    assert shown.strip() == printed.strip()


def test_each_variable_of_the_service_is_a_setting() -> None:
    known = {f"RE4_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"\bRE4_[A-Z_]+", ALL)) <= known


def test_each_variable_of_the_stack_has_its_default() -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| `([A-Z_0-9]+)` \| (?:`(.*?)`|none) \|", section(DOCKER, "Install with Docker"), re.M
    )
    assert len(rows) > 10
    for variable, default in rows:
        assert f"${{{variable}:-{default}}}" in compose, variable


def test_every_format_encoder_and_alert_is_listed() -> None:
    assert first_column(section(TRAINING, "Log formats")) == {"--format", *FORMATS}
    encoders = first_column(section(TRAINING, "Fit"))
    assert encoders >= {"--encoder", *ENCODERS}
    rules = yaml.safe_load((ROOT / "docker/prometheus/alerts.yml").read_text(encoding="utf-8"))
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    assert first_column(section(DOCKER, "Alerts")) == alerts


# --- examples ---


def test_each_example_for_contributors_runs() -> None:
    """In a process of their own, as most register something. The client's is tested with it."""
    text = DOCUMENTS["CONTRIBUTING.md"]
    examples = {
        part.splitlines()[0]: code
        for part in re.split(r"^## ", text, flags=re.MULTILINE)
        for code in re.findall(r"```python\n(.*?)```", part, re.DOTALL)
    }
    assert len(examples) == text.count("```python")
    program = "".join(
        f"exec(compile({code!r}, {title!r}, 'exec'), {{'__name__': 'example'}})\n"
        for title, code in examples.items()
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
