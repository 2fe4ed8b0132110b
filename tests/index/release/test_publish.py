"""Publish, gate, rollback, list, verify and prune; the state after a crash."""

import fcntl
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.ann.spec import IndexMeasurement
from index.release.build import build
from index.release.errors import GateRefusal, ReleaseError
from index.release.gate import Gate
from index.release.listing import list_releases, verify
from index.release.manifest import (
    CATALOG,
    ENCODER,
    INTERESTS,
    MANIFEST,
    VECTORS,
    read_manifest,
    write_manifest,
)
from index.release.publish import prune, publish, rollback
from index.release.reading import open_release, read_current

MakeDraft = Callable[..., Path]


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file of the releases and `current`, with its content."""
    files = [*root.glob("releases/**/*"), root / "current"]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def published(make_draft: MakeDraft, *names: str) -> Path:
    """The root, with each of the drafts made and published in turn."""
    folders = [publish(make_draft(name), keep=100) for name in names]
    return folders[0].parent.parent


# --- publish ---


def test_publish_makes_the_draft_current_and_leaves_it(
    make_draft: MakeDraft, tmp_path: Path
) -> None:
    draft = make_draft("first")
    folder = publish(draft)
    assert folder == tmp_path / "releases" / "first"
    assert (tmp_path / "current").read_text() == "first\n"
    assert open_release(folder).id == "first"
    assert open_release(draft).id == "first"


def test_a_release_has_only_the_files_that_serving_needs(make_draft: MakeDraft) -> None:
    draft = make_draft("first")
    folder = publish(draft)
    assert (draft / INTERESTS).is_file()
    assert {path.name for path in folder.iterdir()} == {*read_manifest(folder).files, MANIFEST}
    assert INTERESTS not in read_manifest(folder).files


def test_the_parent_is_the_release_that_was_live(make_draft: MakeDraft) -> None:
    first = publish(make_draft("first"))
    second = publish(make_draft("second"))
    assert read_manifest(first).parent is None
    assert read_manifest(second).parent == "first"


def test_publish_accepts_a_relative_path(
    make_draft: MakeDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = make_draft("first")
    monkeypatch.chdir(draft)
    assert publish(Path()) == tmp_path / "releases" / "first"


def test_publishing_twice_changes_nothing(make_draft: MakeDraft, tmp_path: Path) -> None:
    draft = make_draft("first")
    folder = publish(draft)
    before = snapshot(tmp_path)
    assert publish(draft) == folder
    assert snapshot(tmp_path) == before


def test_publishing_an_older_draft_again_makes_it_current(
    make_draft: MakeDraft, tmp_path: Path
) -> None:
    first = make_draft("first")
    publish(first)
    publish(make_draft("second"))
    publish(first)
    assert read_current(tmp_path) == "first"
    assert read_manifest(tmp_path / "releases" / "first").parent is None


def test_an_id_is_never_reused_for_other_content(make_draft: MakeDraft, tmp_path: Path) -> None:
    publish(make_draft("first"))
    publish(make_draft("second"))
    before = snapshot(tmp_path)
    with pytest.raises(ReleaseError, match="first: published before with other content"):
        publish(make_draft("first"), force=True)
    assert snapshot(tmp_path) == before


def test_a_published_draft_that_is_built_again_becomes_a_release_of_its_own(
    make_draft: MakeDraft, tmp_path: Path
) -> None:
    draft = make_draft("first")
    publish(draft)
    before = snapshot(tmp_path / "releases" / "first")
    build(draft, k=5)
    folder = publish(draft)
    assert folder == tmp_path / "releases" / "first-2"
    assert read_current(tmp_path) == "first-2"
    manifest = open_release(folder).manifest
    assert (manifest.id, manifest.parent) == ("first-2", "first")
    assert manifest.index is not None
    assert manifest.index.k == 5
    assert snapshot(tmp_path / "releases" / "first") == before
    assert publish(draft) == folder, "the same content"
    build(draft, k=6)
    assert publish(draft).name == "first-3"
    assert rollback(tmp_path).name == "first-2"


def test_the_id_of_a_release_built_again_is_not_too_long(make_draft: MakeDraft) -> None:
    draft = make_draft("a" * 64)
    publish(draft)
    build(draft, k=5)
    assert publish(draft).name == "a" * 62 + "-2"


def test_publishing_again_repairs_a_damaged_release(make_draft: MakeDraft, tmp_path: Path) -> None:
    publish(make_draft("first"))
    draft = make_draft("second")
    folder = publish(draft)
    before = snapshot(tmp_path)
    flip(folder / VECTORS)
    publish(draft)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", [ENCODER, VECTORS, CATALOG, MANIFEST])
def test_force_does_not_publish_a_damaged_draft(
    make_draft: MakeDraft, tmp_path: Path, name: str
) -> None:
    published(make_draft, "first")
    before = snapshot(tmp_path)
    draft = make_draft("second")
    flip(draft / name)
    with pytest.raises(ReleaseError, match=r"second.*" + name):
        publish(draft, force=True)
    assert snapshot(tmp_path) == before


def test_a_draft_without_an_index_is_told_to_build(make_draft: MakeDraft) -> None:
    with pytest.raises(ReleaseError, match="python -m index build"):
        publish(make_draft("first", index=None))


def test_only_a_folder_of_drafts_is_published(make_draft: MakeDraft, tmp_path: Path) -> None:
    folder = publish(make_draft("first"))
    with pytest.raises(ReleaseError, match="not a draft"):
        publish(folder)


def test_a_second_publisher_refuses(make_draft: MakeDraft, tmp_path: Path) -> None:
    draft = make_draft("first")
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for change in (
            lambda: publish(draft),
            lambda: rollback(tmp_path),
            lambda: prune(tmp_path),
        ):
            with pytest.raises(ReleaseError, match="another command is changing it"):
                change()
    publish(draft)  # the file stays, but its lock is released


def test_a_full_disk_leaves_no_partial_release(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "first")
    before = snapshot(tmp_path)
    draft = make_draft("second")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(ReleaseError, match=r"File too large.*no partial file is left"):
            publish(draft)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert snapshot(tmp_path) == before
    assert [path.name for path in (tmp_path / "releases").iterdir()] == ["first"]


def test_a_draft_that_changes_while_it_is_copied_is_not_published(
    make_draft: MakeDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(make_draft, "first")
    before = snapshot(tmp_path)
    draft = make_draft("second")
    copy = shutil.copyfile

    def copy_damaged_file(source: Path, target: Path) -> None:
        if source.name == VECTORS:
            flip(source)
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy_damaged_file)
    with pytest.raises(
        ReleaseError, match=r"item_vectors\.npy does not have the manifest's sha256"
    ):
        publish(draft)
    assert snapshot(tmp_path) == before
    assert [path.name for path in (tmp_path / "releases").iterdir()] == ["first"]


def test_files_are_synced_before_they_are_renamed(
    make_draft: MakeDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order matters after a power failure, which a kill does not simulate."""
    draft = make_draft("first")
    files = [name for name in read_manifest(draft).files if name != INTERESTS]
    steps: list[str] = []

    def shorten(path: object) -> str:
        return str(path).removeprefix(f"{tmp_path}/").replace(f".{os.getpid()}", ".PID")

    def recorded(call: Callable[..., None], describe: Callable[..., str]) -> Callable[..., None]:
        def record(*arguments: Any) -> None:
            steps.append(describe(*arguments))
            call(*arguments)

        return record

    monkeypatch.setattr(
        os,
        "fsync",
        recorded(os.fsync, lambda fd: f"fsync {shorten(Path(f'/proc/self/fd/{fd}').readlink())}"),
    )
    for name in ("rename", "replace"):
        moved = recorded(getattr(os, name), lambda old, new: f"{shorten(old)} -> {shorten(new)}")
        monkeypatch.setattr(os, name, moved)
    publish(draft)
    temporary = "releases/.first.new"
    assert steps == [
        *[f"fsync {temporary}/{name}" for name in files],
        f"fsync {temporary}/.manifest.json.PID",
        f"{temporary}/.manifest.json.PID -> {temporary}/manifest.json",
        f"fsync {temporary}",
        f"{temporary} -> releases/first",
        "fsync releases",
        "fsync .current.PID",
        ".current.PID -> current",
        f"fsync {tmp_path}",
    ]


def test_after_a_crash_anywhere_a_whole_release_is_live_and_publish_works(
    make_draft: MakeDraft, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Kills before each file system change and at random, and a full disk."""
    template, scratch = tmp_path_factory.mktemp("template"), tmp_path_factory.mktemp("scratch")
    for name in ("first", "second", "third", "fourth"):
        make_draft(name, root=template)
    program = Path(__file__).parents[2] / "evidence" / "interrupted.py"
    ended = subprocess.run(
        [sys.executable, "-W", "error", program, template, scratch, "--random", "8"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    points = json.loads(ended.stdout)
    # Fewer points would mean that the program no longer finds them.
    assert points["first publish"] >= 25
    assert points["publish and prune"] >= 30
    assert points["full disk"] >= 20
    assert points["rollback"] >= 5
    assert points["prune"] >= 5
    assert points["canary"] >= 25
    assert points["promote"] >= 5
    assert points["abort"] >= 2
    assert points["kills"] >= 100
    assert points["random kills"] > 0


# --- the gate ---


def metrics(**values: float) -> dict[str, dict[str, float]]:
    return {"validation": {f"{name}@50": value for name, value in values.items()}}


def test_nothing_is_compared_before_the_first_release(make_draft: MakeDraft) -> None:
    publish(make_draft("first", items=3, metrics={}), Gate(ann_recall=1.0))


def test_a_metric_may_drop_by_the_allowed_share(make_draft: MakeDraft) -> None:
    publish(make_draft("first", metrics=metrics(recall=0.2)))
    publish(make_draft("second", metrics=metrics(recall=0.19)), Gate(metric_drop=0.0501))
    with pytest.raises(GateRefusal) as refused:
        publish(make_draft("third", metrics=metrics(recall=0.15)), Gate(metric_drop=0.1))
    assert refused.value.failures == [
        "recall@50 (validation) is 0.1500, 0.0400 below the 0.1900 of the live second; "
        "a drop of 0.0190 (10.0%) is allowed"
    ]


def test_each_failed_check_has_a_sentence(make_draft: MakeDraft, tmp_path: Path) -> None:
    publish(make_draft("first", items=40))
    poor = make_draft("second", items=20, metrics=metrics(recall=0.01))
    manifest = read_manifest(poor)
    measured = manifest.index
    assert isinstance(measured, IndexMeasurement)
    worse = measured.model_copy(update={"recall": 0.9})
    write_manifest(poor, manifest.model_copy(update={"index": worse}))
    before = snapshot(tmp_path)
    with pytest.raises(GateRefusal) as refused:
        publish(poor)
    assert refused.value.failures == [
        "ANN recall is 0.9000, 0.0500 below the required 0.95",
        "recall@50 (validation) is 0.0100, 0.1900 below the 0.2000 of the live first; "
        "a drop of 0.0100 (5.0%) is allowed",
        "the catalogue has 20 items, -50.0% from the 40 of the live first; "
        "a change of 20.0% is allowed",
    ]
    assert all(sentence in str(refused.value) for sentence in refused.value.failures)
    assert snapshot(tmp_path) == before
    publish(poor, force=True)
    assert read_current(tmp_path) == "second"


def test_a_catalogue_may_not_grow_too_much_either(make_draft: MakeDraft) -> None:
    publish(make_draft("first", items=40))
    with pytest.raises(GateRefusal, match=r"\+50\.0% from the 40"):
        publish(make_draft("second", items=60))
    publish(make_draft("third", items=60), Gate(size_change=0.5))


def test_given_metrics_of_the_live_release_replace_those_of_its_manifest(
    make_draft: MakeDraft,
) -> None:
    first = read_manifest(publish(make_draft("first")))
    draft = make_draft("second", metrics={"day": {"recall@50": 0.2}})
    gate = Gate(split="day")
    today = first.model_copy(update={"metrics": {"day": {"recall@50": 0.3}}})
    with pytest.raises(GateRefusal, match=r"recall@50 \(day\) is 0.2000, 0.1000 below"):
        publish(draft, gate, against=today)
    with pytest.raises(ReleaseError, match="compared with other, but first is live now") as refused:
        publish(draft, gate, against=today.model_copy(update={"id": "other"}))
    assert not isinstance(refused.value, GateRefusal), "a refusal would be a result on the draft"
    worse = first.model_copy(update={"metrics": {"day": {"recall@50": 0.1}}})
    assert publish(draft, gate, against=worse).name == "second"


def test_a_metric_that_the_manifests_do_not_have_is_refused_by_name(
    make_draft: MakeDraft, tmp_path: Path
) -> None:
    publish(make_draft("first", metrics=metrics(recall=0.2, ndcg=0.1)))
    draft = make_draft("second", metrics=metrics(recall=0.2, ndcg=0.1))
    before = snapshot(tmp_path)
    whose = "in both its manifest and that of the live first"
    for gate, sentence in (
        (Gate(metric="ncdg@50"), f"metric 'ncdg@50': not measured on validation {whose}"),
        (Gate(metric="ncdg@50"), "; choose one of ndcg@50, recall@50;"),
        (Gate(split="validatoin"), f"split 'validatoin': no metrics {whose}"),
        (Gate(split="validatoin"), "; choose one of validation;"),
    ):
        with pytest.raises(GateRefusal, match=re.escape(sentence)):
            publish(draft, gate)
    assert snapshot(tmp_path) == before
    assert publish(draft, Gate(metric="ndcg@50")).name == "second"


def test_a_metric_of_one_manifest_alone_is_not_replaced_by_another(make_draft: MakeDraft) -> None:
    publish(make_draft("first", metrics=metrics(ndcg=0.1)))
    draft = make_draft("second", metrics=metrics(ndcg=0.1, recall=0.3))
    with pytest.raises(GateRefusal, match=r"'recall@50'.*the live first.*choose one of ndcg@50;"):
        publish(draft)
    assert publish(draft, Gate(metric="ndcg@50")).name == "second"


def test_a_mistyped_metric_is_refused_before_there_is_a_live_release(make_draft: MakeDraft) -> None:
    draft = make_draft("first")
    with pytest.raises(GateRefusal, match=r"metric 'ncdg@50'.*choose one of recall@50"):
        publish(draft, Gate(metric="ncdg@50"))


PROTOCOL: dict[str, Any] = {"split": "unseen-users", "min_weight": None, "event_types": ["view"]}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"split": "sampled-99"}, "split = sampled-99, and unseen-users"),
        ({"split": None}, "split = unknown, and unseen-users"),
        ({"min_weight": 4.0}, "min_weight = 4.0, and none"),
        ({"event_types": ["buy"]}, "event_types = buy, and view"),
    ],
)
def test_metrics_of_different_protocols_are_not_compared(
    make_draft: MakeDraft, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    publish(make_draft("first", training=PROTOCOL))
    better = {"validation": {"recall@50": 0.9}}
    draft = make_draft("second", training=PROTOCOL | changes, metrics=better)
    with pytest.raises(GateRefusal, match="measured by different protocols") as refused:
        publish(draft)
    assert sentence in str(refused.value)
    assert "fit the draft again with the settings of first" in str(refused.value)
    with pytest.raises(GateRefusal, match=r"different protocols.*metric 'ncdg@50'"):
        publish(draft, Gate(metric="ncdg@50"))
    assert read_current(tmp_path) == "first"
    assert publish(make_draft("third", training=PROTOCOL, metrics=better)).name == "third"


def test_a_fit_and_a_nightly_run_are_measured_by_different_protocols(
    make_draft: MakeDraft,
) -> None:
    temporal = {"split": "temporal", "test_fraction": 0.1}
    day = {"validation": {"recall@50": 0.2}, "night": {"recall@50": 0.2}}
    publish(make_draft("first", training=temporal))
    with pytest.raises(GateRefusal, match="split = held-out day, and temporal"):
        publish(make_draft("second", training=temporal, metrics=day))


def test_the_part_of_the_time_that_is_held_out_belongs_to_the_protocol(
    make_draft: MakeDraft,
) -> None:
    publish(make_draft("first", training={"split": "temporal", "test_fraction": 0.1}))
    with pytest.raises(GateRefusal, match=r"test_fraction = 0\.3, and 0\.1"):
        publish(make_draft("second", training={"split": "temporal", "test_fraction": 0.3}))


def test_metrics_on_the_same_cases_are_compared_whatever_the_fits_protocol(
    make_draft: MakeDraft,
) -> None:
    live = read_manifest(publish(make_draft("first", training={"split": "unseen-users"})))
    draft = make_draft("second", training={"split": "temporal"})
    assert publish(draft, against=live).name == "second"


def test_without_a_shared_metric_the_gate_refuses(make_draft: MakeDraft) -> None:
    publish(make_draft("first", metrics=metrics(ndcg=0.1)))
    with pytest.raises(GateRefusal, match="no offline metric is in both"):
        publish(make_draft("second", metrics=metrics(recall=0.9)))


@pytest.mark.parametrize("damage", ["manifest", "current"])
def test_a_damaged_live_release_needs_force_to_be_replaced(
    make_draft: MakeDraft, tmp_path: Path, damage: str
) -> None:
    folder = publish(make_draft("first"))
    if damage == "manifest":
        flip(folder / MANIFEST)
    else:
        (tmp_path / "current").write_text("../../etc/passwd")
    draft = make_draft("second")
    with pytest.raises(GateRefusal, match="the live release cannot be read for a comparison"):
        publish(draft)
    publish(draft, force=True)
    assert read_current(tmp_path) == "second"


def test_a_gate_compares_with_metrics_below_zero(make_draft: MakeDraft, tmp_path: Path) -> None:
    first, second = make_draft("first", metrics=metrics(recall=-1.0)), make_draft("second")
    live = read_manifest(first)
    gate = Gate(metric_drop=0.1)
    lower = live.model_copy(update={"metrics": metrics(recall=-1.2)})
    assert len(gate.failures(lower, live)) == 1
    assert gate.failures(live.model_copy(update={"metrics": metrics(recall=-1.05)}), live) == []
    assert replace(gate, metric_drop=0.3).failures(lower, live) == []
    assert gate.failures(read_manifest(second), live) == []


# --- rollback ---


def test_rollback_goes_to_the_parent_step_by_step(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "first", "second", "third")
    assert rollback(tmp_path) == tmp_path / "releases" / "second"
    assert read_current(tmp_path) == "second"
    rollback(tmp_path)
    assert read_current(tmp_path) == "first"
    with pytest.raises(ReleaseError, match="no release is older than the live first"):
        rollback(tmp_path)


def test_rollback_goes_to_a_given_release(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "first", "second", "third")
    rollback(tmp_path, "first")
    assert read_current(tmp_path) == "first"
    rollback(tmp_path, "third")
    assert read_current(tmp_path) == "third"


def test_rollback_verifies_first(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "first", "second")
    flip(tmp_path / "releases" / "first" / VECTORS)
    with pytest.raises(ReleaseError, match="sha256"):
        rollback(tmp_path)
    assert read_current(tmp_path) == "second"


def test_rollback_works_from_an_unreadable_release(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "first", "second")
    (tmp_path / "releases" / "second" / MANIFEST).write_bytes(b"\0" * 100)
    rollback(tmp_path)
    assert read_current(tmp_path) == "first"


@pytest.mark.parametrize("to", ["../drafts/first", "", "/", ".hidden", "a\n", "a" * 65])
def test_rollback_refuses_an_invalid_id(make_draft: MakeDraft, tmp_path: Path, to: str) -> None:
    published(make_draft, "first", "second")
    with pytest.raises(ReleaseError, match="not a release id"):
        rollback(tmp_path, to)
    assert read_current(tmp_path) == "second"


def test_rollback_before_the_first_publish_refuses(make_draft: MakeDraft, tmp_path: Path) -> None:
    make_draft("first")
    with pytest.raises(ReleaseError, match="nothing is published"):
        rollback(tmp_path)


# --- list and verify ---


def test_list_gives_releases_by_creation_and_marks_the_live_one(
    make_draft: MakeDraft, tmp_path: Path
) -> None:
    older, newer = make_draft("zebra"), make_draft("ant")
    publish(newer)
    publish(older)
    (tmp_path / "releases" / ".half.new").mkdir()
    (tmp_path / "releases" / "a file").write_text("")
    listed = list_releases(tmp_path)
    assert [(release.id, release.current) for release in listed] == [
        ("zebra", True),
        ("ant", False),
    ]
    folder = tmp_path / "releases" / "ant"
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name != MANIFEST)
    assert listed[1].size_bytes == size
    assert listed[1].manifest == read_manifest(folder)


def test_list_reports_an_unreadable_release(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "first", "second")
    (tmp_path / "releases" / "second" / MANIFEST).unlink()
    listed = list_releases(tmp_path)
    assert [release.id for release in listed] == ["second", "first"]
    assert listed[0].manifest is None
    assert "no manifest.json" in str(listed[0].problem)


def test_list_refuses_a_folder_that_is_not_a_root(make_draft: MakeDraft, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="has neither drafts/ nor releases/"):
        list_releases(tmp_path)
    make_draft("first")
    assert list_releases(tmp_path) == []


def test_verify_opens_every_release(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "first", "second")
    assert [result.problem for result in verify(tmp_path)] == [None, None]
    flip(tmp_path / "releases" / "first" / CATALOG)
    first, second = verify(tmp_path)
    assert first.id == "first"
    assert "catalog.parquet does not have the manifest's sha256" in str(first.problem)
    assert second.problem is None
    assert [result.id for result in verify(tmp_path, "second")] == ["second"]
    with pytest.raises(ReleaseError, match="not a release id"):
        verify(tmp_path, "../first")


def test_verify_reports_a_missing_current_release(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "first")
    (tmp_path / "current").write_text("gone\n")
    problems = {result.id: result.problem for result in verify(tmp_path)}
    assert problems["first"] is None
    assert "no manifest.json" in str(problems["gone"])


def test_verify_reports_a_damaged_current_and_all_releases(
    make_draft: MakeDraft, tmp_path: Path
) -> None:
    published(make_draft, "first", "second")
    (tmp_path / "current").write_bytes(bytes(7))
    assert [(release.id, release.current) for release in list_releases(tmp_path)] == [
        ("first", False),
        ("second", False),
    ]
    assert [result.id for result in verify(tmp_path) if result.problem] == ["current"]
    with pytest.raises(ReleaseError, match="rollback --to a release"):
        rollback(tmp_path)
    rollback(tmp_path, "first")
    assert all(result.problem is None for result in verify(tmp_path))


def test_a_release_under_another_name_is_not_opened(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "first")
    (tmp_path / "releases" / "first").rename(tmp_path / "releases" / "second")
    with pytest.raises(ReleaseError, match="second: is the release first"):
        rollback(tmp_path, "second")


# --- prune ---


def ids(root: Path) -> list[str]:
    return [release.id for release in list_releases(root)]


def test_prune_keeps_the_newest(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "a", "b", "c", "d", "e")
    assert prune(tmp_path, keep=3) == ["a", "b"]
    assert ids(tmp_path) == ["c", "d", "e"]
    assert prune(tmp_path, keep=3) == []


def test_publish_prunes(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "a", "b", "c")
    publish(make_draft("d"), keep=2)
    assert ids(tmp_path) == ["c", "d"]


def test_prune_keeps_the_live_release_and_its_parent(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "a", "b", "c", "d", "e")
    rollback(tmp_path, "b")
    assert prune(tmp_path, keep=1) == ["c", "d"]
    assert ids(tmp_path) == ["a", "b", "e"]


def test_prune_keeps_a_release_that_is_open(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "a", "b", "c")
    server = open_release(tmp_path / "releases" / "a")
    assert prune(tmp_path, keep=1) == []
    assert np.isfinite(server.retriever.vectors).all()
    del server
    assert prune(tmp_path, keep=1) == ["a"]


def test_prune_removes_leftovers_of_crashes(make_draft: MakeDraft, tmp_path: Path) -> None:
    published(make_draft, "a")
    half = tmp_path / "releases" / ".b.new"
    half.mkdir()
    (half / VECTORS).write_bytes(b"half")
    (tmp_path / ".current.123").write_text("b")
    prune(tmp_path)
    assert [path.name for path in (tmp_path / "releases").iterdir()] == ["a"]
    assert not (tmp_path / ".current.123").exists()


def test_files_that_cannot_be_removed_do_no_harm(
    make_draft: MakeDraft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS, or of another user: they are hidden, and removal is tried again."""
    published(make_draft, "a", "b")
    releases = tmp_path / "releases"
    (releases / "b").rename(tmp_path / "elsewhere")
    (releases / "b").symlink_to(tmp_path / "elsewhere")
    (releases / ".DS_Store").write_text("")
    rmtree = shutil.rmtree

    def refused(path: Path, ignore_errors: bool = False) -> None:
        if path.name.startswith(".a."):
            assert ignore_errors
        else:
            rmtree(path, ignore_errors=ignore_errors)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refused)
        for name in "cd":
            publish(make_draft(name), keep=2)
            assert read_current(tmp_path) == name
    assert ids(tmp_path) == ["c", "d"]
    assert (tmp_path / "elsewhere").exists()
    prune(tmp_path)
    assert {path.name for path in releases.iterdir()} == {"c", "d"}


def test_drafts_may_be_a_symbolic_link(make_draft: MakeDraft, tmp_path: Path) -> None:
    """The root is the folder in the given path, not the target of the link."""
    make_draft("a")
    (tmp_path / "drafts").rename(tmp_path / "away")
    root = tmp_path / "shop"
    root.mkdir()
    (root / "drafts").symlink_to(tmp_path / "away")
    assert publish(root / "drafts" / "a") == root / "releases" / "a"
    assert read_current(root) == "a"


def test_prune_touches_nothing_while_the_live_release_is_unknown(
    make_draft: MakeDraft, tmp_path: Path
) -> None:
    published(make_draft, "a", "b", "c")
    (tmp_path / "current").write_text("c\0")
    with pytest.raises(ReleaseError, match="current"):
        prune(tmp_path, keep=1)
    assert len(list((tmp_path / "releases").iterdir())) == 3


def test_keeping_none_is_refused(make_draft: MakeDraft, tmp_path: Path) -> None:
    draft = make_draft("a")
    with pytest.raises(ValueError, match="keep: given 0"):
        publish(draft, keep=0)
    with pytest.raises(ValueError, match="keep: given 0"):
        prune(tmp_path, keep=0)
