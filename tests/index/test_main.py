"""python -m index: its output, its error messages and its exit codes."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import pytest

from index.__main__ import (
    Abort,
    Build,
    Canary,
    Example,
    ListReleases,
    Promote,
    Prune,
    Publish,
    Rollback,
    Verify,
    main,
)
from index.release.canary_file import read_canary
from index.release.manifest import INDEX, VECTORS, read_manifest, write_manifest
from index.release.reading import open_release, read_current

MakeDraft = Callable[..., Path]


class Result(NamedTuple):
    exit_code: object
    stdout: str
    stderr: str


def run(*arguments: object) -> Result:
    exit_code: object = 0
    with redirect_stdout(StringIO()) as stdout, redirect_stderr(StringIO()) as stderr:
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            exit_code = ended.code
    return Result(exit_code, stdout.getvalue(), stderr.getvalue())


def succeed(*arguments: object) -> list[str]:
    """The lines of stdout."""
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()


def fail(*arguments: object) -> str:
    """The one sentence on stderr."""
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("Error: ")
    return sentence


def unbuilt(draft: Path) -> Path:
    """The draft as training leaves it."""
    manifest = read_manifest(draft)
    files = {name: file for name, file in manifest.files.items() if name != INDEX}
    (draft / INDEX).unlink()
    write_manifest(draft, manifest.model_copy(update={"files": files, "index": None}))
    return draft


@pytest.fixture
def root(make_draft: MakeDraft, tmp_path: Path) -> Path:
    """With the releases first and second, the latter live."""
    for name in ("first", "second"):
        succeed("publish", make_draft(name))
    return tmp_path


def test_build_and_publish_print_the_path_last(make_draft: MakeDraft, tmp_path: Path) -> None:
    draft = unbuilt(make_draft("first"))
    assert succeed("build", draft, "--recall", "0.9")[-1] == str(draft)
    assert open_release(draft).manifest.index is not None
    folder = succeed("publish", draft)[-1]
    assert folder == str(tmp_path / "releases" / "first")
    assert open_release(Path(folder)).id == "first"


def test_publish_keeps_to_the_gate_unless_forced(make_draft: MakeDraft, root: Path) -> None:
    draft = make_draft("third", items=20)
    assert "the catalogue has 20 items, -50.0%" in fail("publish", draft)
    assert read_current(root) == "second"
    succeed("publish", draft, "--force")
    assert read_current(root) == "third"


def test_options_configure_the_gate(make_draft: MakeDraft, root: Path) -> None:
    poor = make_draft("third", items=20, metrics={"test": {"recall@20": 0.1, "recall@50": 0.2}})
    options = ["--size-change", "0.5", "--metric-drop", "0.5", "--split", "test"]
    assert "no offline metric" in fail("publish", poor, *options)
    succeed("publish", poor, *options, "--force")
    poorer = make_draft("fourth", items=20, metrics={"test": {"recall@20": 0.04, "recall@50": 0.2}})
    succeed("publish", poorer, *options)
    assert "recall@20 (test) is 0.0100" in fail(
        "publish",
        make_draft("fifth", items=20, metrics={"test": {"recall@20": 0.01}}),
        *options,
        "--metric",
        "recall@20",
    )


def test_a_mistyped_metric_is_named_with_those_there_are(make_draft: MakeDraft, root: Path) -> None:
    sentence = fail("publish", make_draft("third"), "--metric", "ncdg@50")
    assert "metric 'ncdg@50': not measured on validation" in sentence
    assert "choose one of recall@50" in sentence
    assert read_current(root) == "second"


def test_publish_keeps_the_number_of_releases_of_the_option(
    make_draft: MakeDraft, root: Path
) -> None:
    succeed("publish", make_draft("third"), "--keep", "1")
    assert [line.split()[0] for line in succeed("list", "--root", root)] == ["second", "*"]


def test_list_prints_one_line_per_release(root: Path) -> None:
    first, second = succeed("list", "--root", root)
    assert first.startswith("  first  2026-01-02 00:00 UTC  40 items  ")
    assert first.endswith("flat ANN recall@50 1.0000  validation recall@50 0.2000")
    assert second.startswith("* second  ")


def test_a_root_without_releases_says_so(make_draft: MakeDraft, tmp_path: Path) -> None:
    make_draft("first")
    result = run("list", "--root", tmp_path)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no release; publish one of 1 drafts" in result.stderr


def test_verify_prints_bad_releases_and_their_number(root: Path) -> None:
    lines = succeed("verify", "--root", root)
    assert lines == ["first: sound", "second: sound", "2 verified, 0 bad"]
    (root / "releases" / "first" / VECTORS).write_bytes(b"")
    result = run("verify", "--root", root)
    assert result.exit_code == 1
    bad, sound, summary = result.stdout.splitlines()
    assert bad.startswith("first: item_vectors.npy has 0 bytes")
    assert (sound, summary) == ("second: sound", "2 verified, 1 bad")
    assert succeed("verify", "--root", root, "--to", "second")[-1] == "1 verified, 0 bad"
    assert run("verify", "--root", root, "--to", "third").exit_code == 1


def test_rollback_prints_the_path_of_the_live_release(root: Path) -> None:
    assert succeed("rollback", "--root", root) == [str(root / "releases" / "first")]
    assert read_current(root) == "first"
    succeed("rollback", "--root", root, "--to", "second")
    assert read_current(root) == "second"


def test_prune_prints_the_deleted_releases(make_draft: MakeDraft, root: Path) -> None:
    succeed("publish", make_draft("third"))
    assert succeed("prune", "--root", root, "--keep", "1") == ["first: deleted", "1 deleted"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "{root}/none"], "no manifest.json"),
        (["publish", "{root}/drafts/none"], "no manifest.json"),
        (["publish", "{root}/releases/first"], "not a draft"),
        (["publish", "{root}/none/drafts/first"], "has neither"),
        (["list", "--root", "{root}/none"], "has neither"),
        (["verify", "--root", "{root}/none"], "has neither"),
        (["rollback", "--root", "{root}/none"], "has neither"),
        (["prune", "--root", "{root}/none"], "has neither"),
        (["rollback", "--root", "{root}", "--to", "third"], "no manifest.json"),
        (["rollback", "--root", "{root}", "--to", "../first"], "not a release id"),
    ],
)
def test_an_error_is_one_sentence_and_changes_nothing(
    root: Path, arguments: list[str], message: str
) -> None:
    before = sorted(root.rglob("*"))
    assert message in fail(*(argument.format(root=root) for argument in arguments))
    assert sorted(root.rglob("*")) == before
    assert read_current(root) == "second"


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "draft", "--recall", "0"],
        ["build", "draft", "--recall", "1.1"],
        ["build", "draft", "--recall", "nan"],
        ["publish", "draft", "--keep", "0"],
        ["publish", "draft", "--metric-drop", "-0.1"],
        ["prune", "--root", ".", "--keep", "x"],
        ["canary", "first", "--share", "1.1"],
        ["canary", "first"],
        ["list"],
        ["publish"],
        ["deploy"],
    ],
)
def test_an_invalid_argument_is_refused(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_a_canary_is_listed_promoted_and_aborted(
    root: Path, make_draft: MakeDraft, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(root / "releases" / "first")
    assert succeed("canary", "first", "--root", root, "--share", "0.1") == [path]
    assert [line[0] for line in succeed("list", "--root", root)] == ["+", "*"]
    assert succeed("abort", "--root", root) == ["first: aborted"]
    assert "no canary" in fail("abort", "--root", root)
    assert succeed("canary", path, "--share", "0.1", "--shadow") == [path]
    canary = read_canary(root)
    assert canary is not None
    assert (canary.release, canary.share, canary.shadow) == ("first", 0.1, True)
    assert succeed("promote", "--root", root) == [path]
    assert read_current(root) == "first"
    monkeypatch.chdir(root)
    make_draft("third")
    assert succeed("canary", "third", "--share", "1") == [str(root / "releases" / "third")]
    (root / "canary").write_text("{")
    assert succeed("abort", "--root", root) == ["a damaged canary: aborted"]


COMMANDS = {
    "build": Build,
    "publish": Publish,
    "list": ListReleases,
    "example": Example,
    "verify": Verify,
    "rollback": Rollback,
    "canary": Canary,
    "promote": Promote,
    "abort": Abort,
    "prune": Prune,
}


FLAGS = {"force", "shadow"}
NO_DEFAULT = {"engine_uri", "to", "distinct_share"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_describes_every_option_with_its_default(command: str) -> None:
    assert command in "\n".join(succeed("--help"))
    text = " ".join("\n".join(succeed(command, "--help")).split())
    for name, option in COMMANDS[command].model_fields.items():
        assert option.description, f"{name} has no help"
        assert option.description in text
        assert option.is_required() or option.default is not None or name in NO_DEFAULT
        if option.default is not None and not option.is_required() and name not in FLAGS:
            assert f"(default: {option.default})" in text


def test_the_module_reports_an_error_without_a_traceback(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "index", "publish", tmp_path / "drafts" / "none"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("Error: ")
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "drafts").exists()
