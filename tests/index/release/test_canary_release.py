"""A canary is started, promoted and aborted; what becomes of it when others change the root."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from index.release import canary_release
from index.release.canary_file import CANARY, CanaryRelease, canary_release_id, read_canary
from index.release.canary_release import abort, promote, publish_canary, start_canary
from index.release.errors import GateRefusal, ReleaseError
from index.release.listing import list_releases, verify
from index.release.manifest import read_manifest
from index.release.publish import prune, publish, rollback
from index.release.reading import read_current

MakeDraft = Callable[..., Path]


@pytest.fixture
def root(make_draft: MakeDraft, tmp_path: Path) -> Path:
    """With the live release first, and the canary second."""
    publish(make_draft("first"))
    publish_canary(make_draft("second"), 0.1)
    return tmp_path


def test_a_draft_becomes_a_release_and_the_canary(root: Path) -> None:
    assert read_current(root) == "first"
    canary = read_canary(root)
    assert canary is not None
    assert time.time() - 60 < canary.started <= time.time()
    assert canary == CanaryRelease(release="second", share=0.1, started=canary.started)
    assert read_manifest(root / "releases" / "second").parent == "first"
    marked = [(release.id, release.current, release.canary) for release in list_releases(root)]
    assert marked == [("first", True, False), ("second", False, True)]


def test_the_gate_applies(root: Path, make_draft: MakeDraft) -> None:
    worse = make_draft("worse", metrics={"validation": {"recall@50": 0.1}})
    with pytest.raises(GateRefusal) as refused:
        publish_canary(worse, 0.1, shadow=True)
    command = f"`python -m index canary {worse} --share 0.1 --shadow --force` overrides"
    assert str(refused.value).endswith(command)
    assert canary_release_id(root) == "second"
    publish_canary(worse, 0.1, force=True)
    assert canary_release_id(root) == "worse"


def test_a_canary_needs_another_release_that_is_live(make_draft: MakeDraft, tmp_path: Path) -> None:
    draft = make_draft("first")
    with pytest.raises(ReleaseError, match="no live release"):
        publish_canary(draft, 0.1)
    publish(draft)
    with pytest.raises(ReleaseError, match="is live"):
        start_canary(tmp_path, "first", 0.1)
    with pytest.raises(ReleaseError, match="no canary"):
        promote(tmp_path)
    with pytest.raises(ReleaseError, match=r"no manifest\.json"):
        start_canary(tmp_path, "third", 0.1)


def test_a_promoted_canary_is_live(root: Path) -> None:
    assert promote(root) == root / "releases" / "second"
    assert read_current(root) == "second"
    assert not (root / CANARY).exists()
    rollback(root)
    assert (read_current(root), read_canary(root)) == ("first", None)


def test_a_damaged_canary_is_not_promoted(root: Path) -> None:
    (root / "releases" / "second" / "catalog.parquet").unlink()
    with pytest.raises(ReleaseError, match="catalog"):
        promote(root)
    assert (read_current(root), canary_release_id(root)) == ("first", "second")


def test_an_aborted_canary_stays_a_release(root: Path) -> None:
    assert abort(root) == "second"
    assert (read_current(root), read_canary(root)) == ("first", None)
    assert len(list_releases(root)) == 2


def test_publishing_the_canary_itself_ends_it_and_another_release_leaves_it(
    root: Path, make_draft: MakeDraft
) -> None:
    publish(make_draft("third"))
    assert canary_release_id(root) == "second"
    publish(root / "drafts" / "second")
    assert read_current(root) == "second"
    assert not (root / CANARY).exists()


def test_a_promotion_killed_before_its_end_leaves_no_canary_for_a_rollback(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: object, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(root)
    assert (root / CANARY).exists()
    assert (read_current(root), read_canary(root)) == ("second", None)
    rollback(root)
    assert (read_current(root), read_canary(root)) == ("first", None)


def test_prune_keeps_the_canary(root: Path, make_draft: MakeDraft) -> None:
    (root / f".{CANARY}.123").write_text("left by one that died")
    publish(make_draft("third"), keep=1)
    assert [release.id for release in list_releases(root)] == ["first", "second", "third"]
    abort(root)
    assert prune(root, keep=1) == ["second"]
    assert not [*root.glob(f".{CANARY}*")]


@pytest.mark.parametrize("text", ["", "{", '{"release": "second", "share": 0}', '{"share": 1}'])
def test_a_damaged_file_is_reported_and_aborted(root: Path, text: str) -> None:
    (root / CANARY).write_text(text)
    with pytest.raises(ReleaseError, match="canary: cannot be read"):
        read_canary(root)
    assert canary_release_id(root) is None
    assert [result.id for result in verify(root) if result.problem] == [CANARY]
    assert abort(root) is None
    assert not (root / CANARY).exists()


def test_verify_reports_a_canary_whose_release_is_gone(root: Path) -> None:
    (root / CANARY).write_text('{"release": "third", "share": 0.1}')
    assert [result.id for result in verify(root) if result.problem] == ["third"]


def test_one_command_at_a_time(root: Path) -> None:
    with canary_release.locked_root(root):
        for change in (
            lambda: promote(root),
            lambda: abort(root),
            lambda: start_canary(root, "second", 0.1),
        ):
            with pytest.raises(ReleaseError, match="another command is changing it"):
                change()
