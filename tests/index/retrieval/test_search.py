"""Search under filters is exact, for each kind of index and filter."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.ann.build import build_index
from index.ann.gpu import GpuIndex, emulate_gpu
from index.ann.spec import GPU_LIMIT, IndexSpec
from index.retrieval.filters import Categories, CategoryFilter, Filter
from index.retrieval.merge import QueryHits
from index.retrieval.search import ItemIndex, SearchRequest, Timings, search

ITEMS, DIM, KINDS = 4000, 8, 20
NOTHING: frozenset[int] = frozenset()
EVIDENCE = Path(__file__).parents[2] / "evidence" / "filters.py"

random = np.random.default_rng(8)
VECTORS = random.integers(-3, 4, (ITEMS + 1, DIM)).astype(np.float32)  # products are exact, and tie
VECTORS[0] = 0
INTERESTS = random.integers(-3, 4, (5, 3, DIM)).astype(np.float32)
# Categories by direction: those of an interest's best items are few.
NAMES = [
    f"category {kind}" for kind in (VECTORS[1:] @ random.standard_normal((DIM, KINDS))).argmax(1)
]
KNOWN = Categories(NAMES)


# The same without equal products: lists may drop one of two equal items.
UNEQUAL = (VECTORS + random.uniform(-0.01, 0.01, VECTORS.shape)).astype(np.float32)
UNEQUAL[0] = 0
ROUNDING = 0.1  # the scores are up to 60


def best(
    request: NDArray[np.float32],
    allowed: Filter,
    count: int,
    vectors: NDArray[np.float32] = VECTORS,
) -> list[int]:
    """By brute force; ties to the lower row."""
    scores = (vectors.astype(np.float64) @ request.T.astype(np.float64)).max(axis=1)
    rows = sorted(allowed.rows().tolist(), key=lambda row: (-scores[row], row))
    return rows[:count]


def allowed(
    excluded: frozenset[int] = NOTHING,
    withdrawn: frozenset[int] = NOTHING,
    categories: CategoryFilter | None = None,
) -> Filter:
    return Filter(KNOWN, excluded, withdrawn, KNOWN.passes(categories) if categories else None)


def ask(
    index: ItemIndex,
    interests: NDArray[np.float32],
    *requests: SearchRequest,
) -> list[QueryHits]:
    found = dict(search(index, interests, requests, Timings()))
    return [found[position] for position in range(len(requests))]


def head(request: NDArray[np.float32], count: int) -> frozenset[int]:
    return frozenset(best(request, allowed(), count))


def kinds_of(rows: frozenset[int]) -> list[str]:
    return sorted({NAMES[row - 1] for row in rows})


def some(count: int) -> frozenset[int]:
    rows = np.random.default_rng(9).choice(ITEMS, count, replace=False) + 1
    return frozenset(rows.tolist())


@pytest.fixture(scope="module")
def flat() -> ItemIndex:
    return build_index(VECTORS, IndexSpec())


def built(spec: IndexSpec) -> ItemIndex:
    return build_index(UNEQUAL, spec)


def on_gpu(spec: IndexSpec) -> GpuIndex:
    return emulate_gpu(build_index(UNEQUAL, spec), UNEQUAL, spec.probes)  # type: ignore[arg-type]


LISTS = IndexSpec(kind="ivf", head=500, lists=32, margin=1e6, probes=32)  # probes every list
KINDS_OF_INDEX: dict[str, Callable[[], ItemIndex]] = {
    "flat": lambda: built(IndexSpec()),
    "lists": lambda: built(LISTS),
    "all in lists": lambda: built(LISTS.model_copy(update={"head": 0})),
    "flat on a GPU": lambda: on_gpu(IndexSpec()),
    "lists on a GPU": lambda: on_gpu(LISTS),
}


def assert_as_good_as_the_best(
    hits: QueryHits, request: NDArray[np.float32], filter_: Filter, count: int
) -> None:
    """Up to rounding: of two nearly equal items, lists may drop the better."""
    rows, scores, _ = hits
    expected = best(request, filter_, count, UNEQUAL)
    assert set(rows.tolist()) <= set(filter_.rows().tolist())
    assert len(set(rows.tolist())) == len(rows) == len(expected)
    true = (UNEQUAL[expected] @ request.T).max(axis=1)
    np.testing.assert_allclose(scores, true, atol=ROUNDING)


@pytest.mark.parametrize("kind", KINDS_OF_INDEX)
@pytest.mark.parametrize("interests", [1, 3])
def test_excluded_items_are_not_ranked(kind: str, interests: int) -> None:
    """With one interest the lists hold fewer than all items, and are probed."""
    index = KINDS_OF_INDEX[kind]()
    for request in INTERESTS[:2, :interests]:
        near = head(request, 300)
        for filter_ in (
            allowed(),
            allowed(some(20)),
            allowed(some(1000)),
            allowed(near),
            allowed(withdrawn=some(400)),
            allowed(withdrawn=near),
            allowed(categories=CategoryFilter(None, ["category 3"])),
            allowed(categories=CategoryFilter(None, kinds_of(near))),
            allowed(categories=CategoryFilter(["category 3"])),
            allowed(categories=CategoryFilter([f"category {number}" for number in range(12)])),
            allowed(near, some(400), CategoryFilter(None, kinds_of(head(request, 20)))),
            allowed(frozenset(range(1, ITEMS + 1)) - {7, 90, 2000}),
            allowed(categories=CategoryFilter([])),
        ):
            for count in (1, 20, 700):
                [hits] = ask(index, request[None], SearchRequest(count, filter_))
                assert_as_good_as_the_best(hits, request, filter_, count)


@pytest.mark.parametrize("count", [1, 5, 40, 1000, 10_000])
@pytest.mark.parametrize("denied", [1, 5, 50, 400])
def test_all_items_near_an_interest_may_be_excluded(
    flat: ItemIndex, count: int, denied: int
) -> None:
    for request in INTERESTS:
        near = head(request, denied)
        kinds = CategoryFilter(None, kinds_of(near))
        for filter_ in (
            allowed(withdrawn=near),
            allowed(categories=kinds),
            allowed(near, near, kinds),
        ):
            [hits] = ask(flat, request[None], SearchRequest(count, filter_))
            assert hits[0].tolist() == best(request, filter_, count)


def test_lists_are_probed_under_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Excluded items do not cause an exact search, which takes ten times as long."""
    index = built(LISTS.model_copy(update={"margin": 2.0}))
    monkeypatch.setattr("index.ann.ivf.FlatIndex", None)
    near = head(INTERESTS[0], 40)
    for filter_ in (
        allowed(near),
        allowed(withdrawn=some(400) | near),
        allowed(categories=CategoryFilter(None, kinds_of(head(INTERESTS[0], 3)))),
        allowed(categories=CategoryFilter([f"category {number}" for number in range(KINDS // 2)])),
    ):
        [hits] = ask(index, INTERESTS[:1], SearchRequest(20, filter_))
        assert len(hits[0]) == 20


def test_beyond_the_gpu_limit_the_cpu_searches() -> None:
    index = on_gpu(IndexSpec())
    for count in (GPU_LIMIT // 2, GPU_LIMIT, GPU_LIMIT + 1):
        for filter_ in (allowed(some(50)), allowed(some(3000))):
            [hits] = ask(index, INTERESTS[:1], SearchRequest(count, filter_))
            assert_as_good_as_the_best(hits, INTERESTS[0], filter_, count)


def test_different_requests_are_answered_together(flat: ItemIndex) -> None:
    near = head(INTERESTS[1], 300)
    requests = [
        SearchRequest(10, allowed()),
        SearchRequest(7, allowed(withdrawn=near)),
        SearchRequest(30, allowed(categories=CategoryFilter(["category 1"]))),
        SearchRequest(900, allowed(categories=CategoryFilter(None, ["category 2"]))),
        SearchRequest(5, allowed(categories=CategoryFilter(["unknown"]))),
    ]
    results = ask(flat, INTERESTS, *requests)

    for interests, request, hits in zip(INTERESTS, requests, results, strict=True):
        assert hits[0].tolist() == best(interests, request.filter, request.count)
        products = VECTORS[hits[0]] @ interests.T
        assert hits[1].tolist() == products.max(axis=1).tolist()
        assert hits[2].tolist() == products.argmax(axis=1).tolist()


def test_filters_do_not_lower_the_recall_of_lists() -> None:
    generator = np.random.default_rng(9)
    vectors = generator.standard_normal((ITEMS + 1, DIM)).astype(np.float32)
    vectors[0] = 0
    spec = IndexSpec(kind="ivf", head=200, lists=64, margin=2, probes=1)
    index = build_index(vectors, spec)
    interests = generator.standard_normal((60, 3, DIM)).astype(np.float32)
    withdrawn = frozenset((generator.choice(ITEMS, 600, replace=False) + 1).tolist())
    kinds = CategoryFilter(None, [f"category {kind}" for kind in range(5)])

    def recall(filter_: Filter) -> float:
        found = ask(index, interests, *[SearchRequest(20, filter_)] * len(interests))
        shares = []
        for request, (rows, _, _) in zip(interests, found, strict=True):
            scores = (vectors[filter_.rows()] @ request.T).max(axis=1)
            true = filter_.rows()[np.argsort(-scores)[:20]]
            shares.append(np.isin(true, rows).mean())
        return float(np.mean(shares))

    plain = recall(allowed())
    assert 0.8 < plain < 1, "otherwise the comparison is void"
    assert recall(allowed(withdrawn=withdrawn)) >= plain - 0.01
    assert recall(allowed(categories=kinds)) >= plain - 0.01


def test_random_requests_agree_with_the_oracle() -> None:
    """The short form of `make evidence-filters`."""
    ended = subprocess.run(
        [sys.executable, str(EVIDENCE), "--requests", "300", "--items", "0", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout.splitlines()[-1])
    assert summary["flat"]["identical"] + summary["flat"]["as_good"] == 300
