"""The compiled scan of lists against brute force; and what is done where it was not built."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.ann import native
from index.ann.build import build_index
from index.ann.ivf import IvfIndex
from index.ann.kernel_choice import choose_kernel, find_kernel, is_exact
from index.ann.kernels import FLOAT32, KERNELS, Kernel, Native
from index.ann.list_scan import FaissScan, NativeScan
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


def candidates(index: IvfIndex, asked: Vectors, k: int, margin: float) -> NDArray[np.int64]:
    """For interests (K, D); every list's best item is assumed to be `margin` above its mean."""
    means = index.faiss_index.quantizer.reconstruct_n(0, index.faiss_index.nlist)
    bounds = (asked @ means.T + np.float32(margin)).astype(np.float32)
    [rows] = index._scan.candidates(asked[None], bounds[None], k, [None])
    assert rows is not None
    return rows


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
def test_what_is_found_raises_the_threshold(kernel: Native) -> None:
    """The head is far from the interests: by its threshold alone, most items would be found."""
    vectors, [asked] = clustered(6000), interests(1)
    products = (vectors @ asked.T).max(axis=1)
    demand = np.zeros(len(vectors), np.int64)
    demand[products.argsort()[:60]] = 1
    spec = EVERYTHING.model_copy(update={"head": 60})
    by_kernel = [build_index(vectors, spec, demand, kernel=k) for k in (kernel, FLOAT32)]
    few, many = (
        candidates(index, asked, 10, margin=100.0)
        for index in by_kernel
        if isinstance(index, IvfIndex)
    )
    assert np.isin(best(vectors, asked, 10), few).all()
    assert len(few) < 200 < len(many)


@EACH_NATIVE
def test_a_list_whose_bound_is_too_low_is_not_scanned(kernel: Native) -> None:
    vectors, [asked] = clustered(3000), interests(1, 4)
    index = lists_of(vectors, kernel)
    rows = candidates(index, asked, 10, margin=-1e6)
    assert np.isin(rows, index.head).all()
    assert len(rows) >= 10


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
