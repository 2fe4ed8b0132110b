"""The search for what is allowed is exact, and looks no deeper than it needs to."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.ann import IndexSpec, ItemIndex, build_index
from index.filters import Categories, CategoryFilter, Filter
from index.merge import Hits, Line
from index.search import Timings, Wanted, look_at_all, search

ITEMS, DIM, KINDS = 4000, 8, 20
NOTHING: frozenset[int] = frozenset()
EVIDENCE = Path(__file__).parents[1] / "evidence" / "filters.py"

random = np.random.default_rng(8)
VECTORS = random.integers(-3, 4, (ITEMS + 1, DIM)).astype(np.float32)  # products are exact, and tie
VECTORS[0] = 0
ASKED = random.integers(-3, 4, (5, 3, DIM)).astype(np.float32)
# Categories by direction: those of an interest's best items are few.
NAMES = [
    f"category {kind}" for kind in (VECTORS[1:] @ random.standard_normal((DIM, KINDS))).argmax(1)
]
KNOWN = Categories(NAMES)


def best(request: NDArray[np.float32], allowed: Filter, count: int) -> list[int]:
    """By computing all, ties to the lower row."""
    scores = (VECTORS @ request.T).max(axis=1)
    rows = sorted(allowed.rows().tolist(), key=lambda row: (-scores[row], row))
    return rows[:count]


def allowed(
    excluded: frozenset[int] = NOTHING,
    withdrawn: frozenset[int] = NOTHING,
    categories: CategoryFilter | None = None,
) -> Filter:
    return Filter(KNOWN, excluded, withdrawn, KNOWN.passes(categories) if categories else None)


def ask(index: ItemIndex, interests: NDArray[np.float32], *wanted: Wanted) -> list[Line]:
    return search(index, VECTORS, interests, wanted, Timings())


@dataclass
class Noted:
    """An index that notes how deep it was searched, and for how many requests.

    It finds more than it has to, the worst of all items, as an index may.
    """

    index: ItemIndex
    depths: list[tuple[int, int]] = field(default_factory=list)

    def search(self, interests: NDArray[np.float32], k: int) -> Hits:
        self.depths.append((k, len(interests)))
        rows, scores, which = self.index.search(interests, k)
        products = np.einsum("bkd,nd->bnk", interests, VECTORS)
        worst = products.max(axis=2).argsort(axis=1)[:, :7]
        worst[worst == 0] = worst[:, :1][worst[:, :1] > 0][0]
        found = np.take_along_axis(products, worst[:, :, None], axis=1)
        return Hits(
            np.concatenate([rows, worst], axis=1),
            np.concatenate([scores, found.max(axis=2)], axis=1),
            np.concatenate([which, found.argmax(axis=2)], axis=1),
        )

    def write(self, path: Path) -> None:
        self.index.write(path)


@pytest.fixture
def noted() -> Noted:
    return Noted(build_index(VECTORS, IndexSpec()))


def head(request: NDArray[np.float32], count: int) -> frozenset[int]:
    return frozenset(best(request, allowed(), count))


def kinds_of(rows: frozenset[int]) -> list[str]:
    return sorted({NAMES[row - 1] for row in rows})


def test_with_exclusions_alone_one_search_is_deep_enough(noted: Noted) -> None:
    excluded = head(ASKED[0], 30)
    [line] = ask(noted, ASKED[:1], Wanted(20, allowed(excluded)))

    assert line[0].tolist() == best(ASKED[0], allowed(excluded), 20)
    assert noted.depths == [(50, 1)]


def test_a_thousand_exclusions_are_searched_past_only_if_they_stand_in_the_way(
    noted: Noted,
) -> None:
    drawn = np.random.default_rng(9).choice(ITEMS, 1000, replace=False) + 1
    far = frozenset(drawn.tolist()) - head(ASKED[0], 200)
    near = head(ASKED[0], 1000)
    [first] = ask(noted, ASKED[:1], Wanted(20, allowed(far)))
    shallow = noted.depths.copy()
    noted.depths.clear()
    [second] = ask(noted, ASKED[:1], Wanted(20, allowed(near)))

    assert first[0].tolist() == best(ASKED[0], allowed(far), 20)
    assert second[0].tolist() == best(ASKED[0], allowed(near), 20)
    assert [depth < 150 for depth, _ in shallow] == [True]
    assert all(depth <= 1020 for depth, _ in noted.depths)


def test_many_items_withdrawn_at_random_cost_no_second_search(noted: Noted) -> None:
    drawn = np.random.default_rng(9).choice(ITEMS, 400, replace=False) + 1
    withdrawn = frozenset(drawn.tolist())
    wanted = [Wanted(20, allowed(withdrawn=withdrawn))] * len(ASKED)
    lines = ask(noted, ASKED, *wanted)

    assert [line[0].tolist() for line in lines] == [
        best(request, allowed(withdrawn=withdrawn), 20) for request in ASKED
    ]
    assert len(noted.depths) == 1
    assert noted.depths[0][0] < 50


@pytest.mark.parametrize("count", [1, 5, 40, 1000, 10_000])
@pytest.mark.parametrize("denied", [1, 5, 50, 400])
def test_what_is_barred_may_be_all_that_an_interest_finds(
    noted: Noted, count: int, denied: int
) -> None:
    """Then it looks deeper, and in the end at all that is allowed."""
    for request in ASKED:
        near = head(request, denied)
        kinds = CategoryFilter(None, kinds_of(near))
        for each in (
            allowed(withdrawn=near),
            allowed(categories=kinds),
            allowed(near, near, kinds),
        ):
            [line] = ask(noted, request[None], Wanted(count, each))
            assert line[0].tolist() == best(request, each, count)


def test_requests_that_want_different_things_are_answered_together(noted: Noted) -> None:
    near = head(ASKED[1], 300)
    wanted = [
        Wanted(10, allowed()),
        Wanted(7, allowed(withdrawn=near)),
        Wanted(30, allowed(categories=CategoryFilter(["category 1"]))),
        Wanted(900, allowed(categories=CategoryFilter(None, ["category 2"]))),
        Wanted(5, allowed(categories=CategoryFilter(["unknown"]))),
    ]
    lines = ask(noted, ASKED, *wanted)

    for request, each, line in zip(ASKED, wanted, lines, strict=True):
        assert line[0].tolist() == best(request, each.filter, each.count)
        products = VECTORS[line[0]] @ request.T
        assert line[1].tolist() == products.max(axis=1).tolist()
        assert line[2].tolist() == products.argmax(axis=1).tolist()


def test_few_that_are_allowed_are_looked_at_without_a_search(noted: Noted) -> None:
    few = CategoryFilter(["category 3"])
    [line] = ask(noted, ASKED[:1], Wanted(20, allowed(categories=few)))

    assert line[0].tolist() == best(ASKED[0], allowed(categories=few), 20)
    assert noted.depths == []


@pytest.mark.parametrize("spread", ["dense", "sparse"])
def test_all_may_be_looked_at_in_pieces(monkeypatch: pytest.MonkeyPatch, spread: str) -> None:
    monkeypatch.setattr("index.search._CHUNK", 100)
    barred = frozenset(range(1, ITEMS + 1, 3))
    if spread == "sparse":
        barred = frozenset(range(1, ITEMS + 1)) - frozenset(range(7, ITEMS + 1, 11))
    for count in (1, 50, ITEMS):
        each = Wanted(count, allowed(barred))
        rows, _, _ = look_at_all(VECTORS, ASKED[0], each)
        assert rows.tolist() == best(ASKED[0], each.filter, count)


def test_with_an_index_of_lists_no_more_is_missed_than_without_filters() -> None:
    drawn = np.random.default_rng(9)
    vectors = drawn.standard_normal((ITEMS + 1, DIM)).astype(np.float32)
    vectors[0] = 0
    spec = IndexSpec(kind="ivf", head=200, lists=64, margin=2, probes=1)
    index = build_index(vectors, spec)
    asked = drawn.standard_normal((60, 3, DIM)).astype(np.float32)
    withdrawn = frozenset((drawn.choice(ITEMS, 600, replace=False) + 1).tolist())
    kinds = CategoryFilter(None, [f"category {kind}" for kind in range(5)])

    def recall(each: Filter) -> float:
        wanted = [Wanted(20, each)] * len(asked)
        found = search(index, vectors, asked, wanted, Timings())
        shares = []
        for request, (rows, _, _) in zip(asked, found, strict=True):
            scores = (vectors[each.rows()] @ request.T).max(axis=1)
            true = each.rows()[np.argsort(-scores)[:20]]
            shares.append(np.isin(true, rows).mean())
        return float(np.mean(shares))

    plain = recall(allowed())
    assert 0.8 < plain < 1, "else there is nothing to compare"
    assert recall(allowed(withdrawn=withdrawn)) >= plain - 0.01
    assert recall(allowed(categories=kinds)) >= plain - 0.01


def test_random_requests_get_what_the_oracle_says() -> None:
    """The short form of `make evidence-filters`."""
    ended = subprocess.run(
        [sys.executable, str(EVIDENCE), "--requests", "300", "--items", "0", "--seed", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["flat"]["identical"] + told["flat"]["as_good"] == 300
