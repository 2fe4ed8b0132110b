"""The compiled scan of lists against brute force; and what is done where it was not built."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.ann import native
from index.ann.build import build_index
from index.ann.ivf import IvfIndex
from index.ann.kernel_choice import choose_kernel, find_kernel, is_exact
from index.ann.kernels import FLOAT32, KERNELS, Kernel, Native
from index.ann.list_scan import FaissScan, ListRequest, NativeScan
from index.retrieval.filters import Categories, CategoryFilter, Filter
from index.retrieval.merge import merge
from tests.index.ann.test_index import (
    EVERYTHING,
    Vectors,
    best,
    clustered,
    in_half_precision,
    interests,
)

NATIVE = [kernel for kernel in KERNELS if isinstance(kernel, Native) and is_exact(kernel)]
EACH_NATIVE = pytest.mark.parametrize("kernel", NATIVE, ids=lambda kernel: kernel.name)


def lists_of(vectors: Vectors, kernel: Kernel, head: int = 60) -> IvfIndex:
    spec = EVERYTHING.model_copy(update={"head": head, "lists": 8})
    index = build_index(vectors, spec, kernel=kernel)
    assert isinstance(index, IvfIndex)
    return index


def request(index: IvfIndex, asked: Vectors, k: int, margin: float) -> ListRequest:
    """For interests (K, D), as if the head had k items, all of which score zero."""
    means = index.faiss_index.quantizer.reconstruct_n(0, index.faiss_index.nlist)
    bounds = (asked @ means.T + np.float32(margin)).astype(np.float32)
    return ListRequest(asked, bounds, np.zeros(k, np.float32), 0.0, 0.0, None)


def test_it_was_built_where_there_is_a_compiler() -> None:
    if not (shutil.which("cc") or shutil.which("gcc")):
        pytest.skip("no C compiler")
    assert native.is_supported("portable"), "run: pip install --no-deps --editable ."


@EACH_NATIVE
@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**32 - 1),
    items=st.integers(70, 900),
    dim=st.integers(1, 100),
    count=st.sampled_from([1, 2, 7, 8, 70]),
    k=st.sampled_from([1, 5, 50]),
    filtered=st.booleans(),
)
def test_the_answer_is_the_best_of_the_allowed(
    kernel: Native, seed: int, items: int, dim: int, count: int, k: int, filtered: bool
) -> None:
    """Rows that end where nothing is to be read, any number of interests, every kind of filter."""
    random = np.random.default_rng(seed)
    vectors, asked = clustered(items, dim, seed), interests(1, count, dim, seed)
    index = lists_of(vectors, kernel)
    assert isinstance(index._scan, NativeScan)
    categories = Categories(random.choice(["a", "b", "c"], items).tolist())
    some = [frozenset(random.integers(1, items + 1, 9).tolist()) for _ in range(2)]
    passes = categories.passes(CategoryFilter(deny=["c"])) if random.random() < 0.5 else None
    allowed = Filter(categories, some[0], some[1] if random.random() < 0.5 else frozenset(), passes)
    [ranking] = merge(index.search(asked, k, [allowed] if filtered else None)).rows
    expected = best(vectors, asked[0], items)
    if filtered:
        expected = expected[np.isin(expected, allowed.rows())]
    scores = (vectors.astype(np.float64) @ asked[0].T).max(axis=1)
    np.testing.assert_allclose(
        scores[ranking[:k]], scores[expected[:k]], rtol=1e-5, atol=1e-5
    )  # some tie but for the rounding of float32


@EACH_NATIVE
def test_what_is_found_ends_the_scan(kernel: Native) -> None:
    """The best list comes first; the others, and most of its own items, are then too bad."""
    vectors, [asked] = clustered(6000), interests(1, 3)
    index = lists_of(vectors, kernel, head=100)
    asked *= 10
    [first] = merge(index.search(asked[None], 10)).rows
    found = index._scan.rows(request(index, asked, 10, margin=1e6))
    assert found is not None
    listed = np.setdiff1d(first[:10], index.head)
    assert np.isin(listed, found).all()
    assert len(found) < 600
    none = index._scan.rows(request(index, asked, 10, margin=-1e6))
    assert none is not None
    assert len(none) == 0


@EACH_NATIVE
def test_it_finds_what_faiss_finds_with_the_same_threshold(kernel: Native) -> None:
    """With so many wanted that the threshold never rises."""
    vectors, [asked] = clustered(3000), interests(1, 1)
    index = lists_of(vectors, kernel)
    plain = lists_of(vectors, FLOAT32)
    assert isinstance(plain._scan, FaissScan)
    asked_for = request(index, asked, 3000, margin=0.5)
    asked_for = asked_for._replace(best=asked_for.best + np.float32(2))
    found, expected = index._scan.rows(asked_for), plain._scan.rows(asked_for)
    assert found is not None
    assert expected is not None
    products = (vectors @ asked.T).max(axis=1)
    listed = expected[products[expected] > 2]
    assert len(listed) > 20
    assert np.isin(listed, found).all()


@EACH_NATIVE
def test_lists_in_half_precision_are_scanned_by_faiss(kernel: Native) -> None:
    vectors = clustered(2000)
    index = IvfIndex(in_half_precision(vectors, EVERYTHING), vectors, 1e6, kernel=kernel)
    assert isinstance(index._scan, FaissScan)
    [asked] = interests(1, 2)
    [ranking] = merge(index.search(asked[None], 20)).rows
    np.testing.assert_array_equal(ranking[:20], best(vectors, asked, 20))


def test_without_a_compiler_another_kernel_gives_the_same_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors, asked = clustered(3000), interests(4, 3)
    answers = merge(build_index(vectors, EVERYTHING).search(asked, 30)).rows[:, :30]
    monkeypatch.setattr(native, "find_spec", lambda name: None)
    native.library.cache_clear()
    try:
        chosen = choose_kernel(KERNELS)
        assert not isinstance(chosen, Native)
        with pytest.raises(ValueError, match=r"native-portable is not available: .* not built"):
            find_kernel("native-portable")
        index = build_index(vectors, EVERYTHING, kernel=chosen)
        np.testing.assert_array_equal(merge(index.search(asked, 30)).rows[:, :30], answers)
    finally:
        native.library.cache_clear()
