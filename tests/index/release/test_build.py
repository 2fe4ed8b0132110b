"""Build gives a draft an index with the requested recall, or leaves the draft as it was."""

import itertools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import index.ann.tuning
import index.release.build
from index.ann.flat import FlatIndex
from index.ann.ivf import IvfIndex
from index.ann.spec import IndexSpec
from index.ann.tuning import tune
from index.release.build import build
from index.release.errors import ReleaseError
from index.release.manifest import (
    INDEX,
    INTERESTS,
    MANIFEST,
    VECTORS,
    digest,
    read_manifest,
    write_manifest,
)
from index.release.reading import open_release
from index.release.verification import verify_files

MakeDraft = Callable[..., Path]
DIM, K = 8, 20


def replace_file(draft: Path, name: str, array: NDArray[np.generic]) -> None:
    """Replace a file and its digest in the manifest."""
    np.save(draft / name, array, allow_pickle=False)
    manifest = read_manifest(draft)
    files = {**manifest.files, name: digest(draft / name)}
    write_manifest(draft, manifest.model_copy(update={"files": files}))


def without_index(draft: Path) -> Path:
    manifest = read_manifest(draft)
    files = {name: file for name, file in manifest.files.items() if name != INDEX}
    (draft / INDEX).unlink()
    write_manifest(draft, manifest.model_copy(update={"files": files, "index": None}))
    return draft


@pytest.fixture
def draft(make_draft: MakeDraft) -> Path:
    """As training leaves it: 40 items, 4 held-out users."""
    return without_index(make_draft("first"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_small_draft_gets_exact_search_and_can_be_opened(draft: Path) -> None:
    message: list[str] = []
    built = build(draft, progress=message.append)
    assert built == read_manifest(draft)
    assert built.index is not None
    assert built.index.spec == IndexSpec()
    assert built.index.recall == 1
    assert (built.index.k, built.index.queries) == (50, 4)
    assert built.index.microseconds > 0
    assert message[-1].startswith("exact: recall 1.0000")
    assert built.files[INDEX] == digest(draft / INDEX)
    release = open_release(draft)
    assert isinstance(release.retriever.index, FlatIndex)


def test_canaries_are_answered_by_the_new_index(draft: Path) -> None:
    before = read_manifest(draft)
    forgotten = tuple(c.model_copy(update={"items": ()}) for c in before.canaries)
    write_manifest(draft, before.model_copy(update={"canaries": forgotten}))
    assert build(draft).canaries == before.canaries
    assert all(canary.items for canary in before.canaries)


def test_a_built_draft_can_be_built_again(draft: Path) -> None:
    first = build(draft)
    again = build(draft, recall=1.0, k=5)
    assert again.index is not None
    assert again.index.k == 5
    assert again.files == first.files
    open_release(draft)


def changed_vectors(value: float) -> Callable[[Path], None]:
    def change(draft: Path) -> None:
        vectors = np.load(draft / VECTORS)
        vectors[7, 3] = value
        replace_file(draft, VECTORS, vectors)

    return change


def unlist(draft: Path) -> None:
    manifest = read_manifest(draft)
    files = {name: file for name, file in manifest.files.items() if name != INTERESTS}
    write_manifest(draft, manifest.model_copy(update={"files": files}))


def interests(*shape: int, dtype: str = "float32", value: float = 1) -> Callable[[Path], None]:
    array = np.full(shape, value, dtype)
    return lambda draft: replace_file(draft, INTERESTS, array)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "vectors with NaN": (changed_vectors(np.nan), "item_vectors.npy has values .* not finite"),
    "infinite vectors": (changed_vectors(np.inf), "item_vectors.npy has values .* not finite"),
    "no interests": (unlist, "no interests.npy of held-out users; train again"),
    "interests of nobody": (interests(0, 3, DIM), "at least one user is needed"),
    "interests of another dimension": (interests(4, 3, 9), r"float32 \(users, interests, 8\)"),
    "interests in double precision": (interests(4, 3, DIM, dtype="float64"), "is float64"),
    "interests with NaN": (interests(4, 3, DIM, value=np.nan), "interests.npy has .* not finite"),
    "interests that are no array": (
        lambda draft: replace_file(draft, INTERESTS, np.zeros(())),
        "interests.npy is float64",
    ),
    "a missing file": (lambda draft: (draft / INTERESTS).unlink(), "interests.npy is missing"),
    "no manifest": (lambda draft: (draft / MANIFEST).unlink(), "no manifest.json"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_invalid_draft_is_refused_in_one_sentence(name: str, draft: Path) -> None:
    change, message = REFUSED[name]
    change(draft)
    before = contents(draft)
    with pytest.raises(ReleaseError, match=message) as refusal:
        build(draft)
    assert "\n" not in str(refusal.value)
    assert contents(draft) == before


@pytest.mark.parametrize("recall", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_an_impossible_recall_is_refused(recall: float, draft: Path) -> None:
    with pytest.raises(ReleaseError, match="above 0 to 1 is allowed"):
        build(draft, recall=recall)


def test_a_k_below_1_is_refused(draft: Path) -> None:
    with pytest.raises(ReleaseError, match="at least 1 item"):
        build(draft, k=0)


def test_a_full_disk_leaves_the_draft_as_it_was(
    draft: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(self: FlatIndex, path: Path) -> None:
        write(self, path)
        os.truncate(path, path.stat().st_size // 2)  # faiss reports no error

    write = FlatIndex.write
    monkeypatch.setattr(FlatIndex, "write", half)
    before = contents(draft)
    with pytest.raises(ReleaseError, match=r"items\.faiss cannot be written"):
        build(draft)
    assert contents(draft) == before


class Killed(BaseException):
    """Simulates a kill: from here on nothing on the disk can be changed, not even to clean up."""


_changes_left: list[int] = []  # before the kill; empty outside of a test of it


def _count_changes(event: str, arguments: tuple[object, ...]) -> None:
    if not _changes_left:
        return
    writes = event == "open" and isinstance(flags := arguments[2], int) and flags & os.O_WRONLY
    if writes or event in ("os.rename", "os.remove"):
        _changes_left[0] -= 1
        if _changes_left[0] < 0:
            raise Killed


sys.addaudithook(_count_changes)


def killed_after(changes: int, draft: Path) -> bool:
    """Build the draft, and return whether it was killed before its end."""
    _changes_left.append(changes)
    try:
        build(draft)
    except Killed:
        return True
    finally:
        _changes_left.clear()
    return False


@pytest.mark.parametrize("built_before", [False, True])
def test_killed_at_any_moment_build_leaves_a_valid_draft(
    built_before: bool, make_draft: MakeDraft
) -> None:
    """Without an index or with the one of its manifest, and it can be built again."""
    made = make_draft("first", items=300)
    if not built_before:
        without_index(made)
    states = []
    for changes in itertools.count():
        draft = made.with_name("second")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(made, draft)
        killed = killed_after(changes, draft)
        manifest = read_manifest(draft)
        verify_files(draft, manifest)
        states.append(manifest.index is not None)
        build(draft)
        open_release(draft)
        assert not list(draft.glob(f".{INDEX}.*"))
        if not killed:
            break
    assert len(states) > 4
    assert states[0] == built_before
    assert states[-1]


# --- tuning ---


def planted(
    items: int, users: int, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Long-tailed vectors in clusters, and users' interests near clusters."""
    random = np.random.default_rng(seed)
    middles = random.standard_normal((60, DIM))
    vectors = middles[random.integers(0, 60, items)] + 0.4 * random.standard_normal((items, DIM))
    vectors *= random.lognormal(0, 0.3, (items, 1))
    requests = middles[random.integers(0, 60, (users, 3))] + 0.3 * random.standard_normal(
        (users, 3, DIM)
    )
    padded = np.concatenate([np.zeros((1, DIM)), vectors]).astype(np.float32)
    return padded, requests.astype(np.float32)


@pytest.fixture
def slow_exact_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact search takes a second, so that the choice does not depend on the clock."""
    timed = index.ann.tuning._exact_candidate

    def candidate(exact: FlatIndex, tuning: object) -> object:
        return index.ann.tuning.replace(timed(exact, tuning), microseconds=1e6)  # type: ignore[arg-type]

    monkeypatch.setattr(index.ann.tuning, "_exact_candidate", candidate)
    monkeypatch.setattr(
        index.ann.tuning,
        "_rank_by_time",
        lambda candidates, tuning: sorted(candidates, key=lambda c: c.microseconds),
    )


@pytest.mark.usefixtures("slow_exact_search")
def test_an_approximate_index_is_chosen_if_it_is_cheaper_and_accurate() -> None:
    vectors, requests = planted(4000, 200)
    message: list[str] = []
    chosen, measured = tune(vectors, requests, 0.9, K, message.append)
    assert isinstance(chosen, IvfIndex)
    assert measured.spec.kind == "ivf"
    assert measured.recall >= 0.9
    assert measured.queries == 50
    assert measured.spec.probes >= 1
    assert len(measured.trials) == len(message) >= 3
    assert [t.microseconds for t in measured.trials] == sorted(
        t.microseconds for t in measured.trials
    )
    assert all(trial.recall >= 0.9 for trial in measured.trials)


@pytest.mark.usefixtures("slow_exact_search")
def test_recall_is_reported_on_users_that_did_not_tune() -> None:
    vectors, requests = planted(4000, 200)
    chosen, measured = tune(vectors, requests, 0.9, K, lambda message: None)
    report = index.ann.tuning._Sample.of(FlatIndex(vectors), requests[3::4], K)
    assert measured.recall == report.measure(chosen)[0].mean()
    requests[3::4] = -requests[3::4]  # users unlike those it is tuned on
    _, other = tune(vectors, requests, 0.9, K, lambda message: None)
    assert other.trials != ()
    assert other.recall >= 0.9


@pytest.mark.usefixtures("slow_exact_search")
def test_of_many_items_fewer_users_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, requests = planted(4000, 200)
    monkeypatch.setattr(index.ann.tuning, "_MAX_COMPARISONS", 100 * len(vectors))
    _, measured = tune(vectors, requests, 0.9, K, lambda message: None)
    assert measured.queries == 25


def test_a_slow_candidate_is_dropped_but_exact_search_stays() -> None:
    vectors, requests = planted(400, 10)
    exact = FlatIndex(vectors)
    specs = [IndexSpec(), *(IndexSpec(kind="ivf", lists=n, probes=1) for n in (1, 2))]
    candidates = [
        index.ann.tuning._Candidate(spec, exact, 1.0, microseconds)
        for spec, microseconds in zip(specs, (900.0, 10.0, 90.0), strict=True)
    ]
    kept, dropped = index.ann.tuning._keep_fast(candidates)
    assert [c.microseconds for c in kept] == [900, 10]
    assert [c.microseconds for c in dropped] == [90]
    sample = index.ann.tuning._Sample.of(exact, requests, K)
    ranked = index.ann.tuning._rank_by_time(kept, sample)
    assert [c.spec.lists for c in ranked] == [1, 0]
    assert ranked[1].microseconds == 900, "far too slow to be timed again"


@pytest.mark.parametrize(
    ("items", "microseconds", "directions"),
    [
        (1_000_000, 5000.0, [2.0, 0.5]),
        (1_000_000, 600.0, [0.5, 2.0]),
        (10_000_000, 5000.0, [2.0]),
        (10_000_000, 600.0, [0.5]),
    ],
)
def test_more_lists_are_tried_first_if_probing_takes_the_time(
    items: int, microseconds: float, directions: list[float]
) -> None:
    # A microsecond for ten vectors: 500 for head and means, of that 100 for the means.
    exact = index.ann.tuning._Candidate(IndexSpec(), None, 1.0, items / 10)  # type: ignore[arg-type]
    spec = IndexSpec(kind="ivf", head=4000, lists=1000, probes=1)
    best = index.ann.tuning._Candidate(spec, None, 1.0, microseconds)  # type: ignore[arg-type]
    assert index.ann.tuning._directions(best, exact, items) == directions


def test_full_recall_is_possible() -> None:
    vectors, requests = planted(3000, 60)
    _, measured = tune(vectors, requests, 1.0, K, lambda message: None)
    assert measured.recall == 1


@pytest.mark.parametrize("items", [1, 10, 1500])
def test_small_catalogues_are_searched_exactly(items: int) -> None:
    vectors, requests = planted(items, 60)
    chosen, measured = tune(vectors, requests, 0.95, 50, lambda message: None)
    assert isinstance(chosen, FlatIndex)
    assert measured.recall == 1


def test_a_draft_built_with_lists_serves(
    make_draft: MakeDraft, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = make_draft("first", items=4000)
    vectors, requests = planted(4000, 200)
    replace_file(draft, VECTORS, vectors)
    replace_file(draft, INTERESTS, requests)
    real = index.release.build.tune
    lists = IndexSpec(kind="ivf", head=512, lists=32, margin=3.0, probes=4)

    def with_lists(*arguments: object) -> object:
        _, measured = real(*arguments)  # type: ignore[arg-type]
        built = index.ann.tuning.build_index(vectors, lists)
        return built, measured.model_copy(update={"spec": lists})

    monkeypatch.setattr(index.release.build, "tune", with_lists)
    built = build(draft)
    release = open_release(draft)
    assert isinstance(release.retriever.index, IvfIndex)
    assert built.index is not None
    assert built.index.spec == lists
