"""The parts of building that large catalogues need: blocks, two levels of centroids, the head."""

import numpy as np
import pytest
from numpy.typing import NDArray

import index.ann.blocks
import index.ann.build
from index.ann.blocks import blocks
from index.ann.build import assign_lists, build_index, choose_head
from index.ann.ivf import IvfIndex
from index.ann.spec import IndexSpec
from index.retrieval.merge import merge

DIM = 16


def clustered(items: int) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    middles = random.standard_normal((50, DIM))
    vectors = middles[random.integers(0, 50, items)] + 0.3 * random.standard_normal((items, DIM))
    return np.concatenate([np.zeros((1, DIM)), vectors]).astype(np.float32)


def spread(vectors: NDArray[np.float32], list_ids: NDArray[np.int64], lists: int) -> float:
    """Mean squared distance from the mean of the list."""
    items = vectors[1:]
    means = np.zeros((lists, DIM))
    np.add.at(means, list_ids, items)
    means /= np.maximum(np.bincount(list_ids, minlength=lists), 1)[:, None]
    return float(np.square(items - means[list_ids]).sum(axis=1).mean())


def test_blocks_make_up_all_rows() -> None:
    assert [*blocks(7, 3)] == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert [*blocks(0)] == []


def test_two_levels_of_centroids_assign_nearly_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, lists = clustered(6000), 200
    one = spread(vectors, assign_lists(vectors, lists), lists)
    monkeypatch.setattr(index.ann.build, "_TWO_LEVELS_FROM", 1)
    assigned = assign_lists(vectors, lists)
    assert assigned.min() >= 0
    assert assigned.max() < lists
    assert spread(vectors, assigned, lists) < 1.1 * one


def test_equal_items_are_assigned_with_two_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index.ann.build, "_TWO_LEVELS_FROM", 1)
    assert set(assign_lists(np.zeros((401, DIM), np.float32), 100).tolist()) <= set(range(100))


def test_an_index_built_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(3000)
    spec = IndexSpec(kind="ivf", head=100, lists=16, margin=3, probes=1)
    list_ids = assign_lists(vectors, 16)
    requests = np.random.default_rng(1).standard_normal((20, 3, DIM)).astype(np.float32)
    whole = build_index(vectors, spec, None, list_ids)
    monkeypatch.setattr(index.ann.blocks.blocks, "__defaults__", (70,))
    parts = build_index(vectors, spec, None, list_ids)
    assert isinstance(whole, IvfIndex)
    assert isinstance(parts, IvfIndex)
    means = [i.faiss_index.quantizer.reconstruct_n(0, 16) for i in (whole, parts)]
    np.testing.assert_allclose(*means, atol=1e-6)
    np.testing.assert_array_equal(*(merge(i.search(requests, 20)).rows for i in (whole, parts)))


@pytest.mark.parametrize("size", [0, 1, 7, 300, 400])
@pytest.mark.parametrize("most", [0, 1, 3])
def test_the_head_is_the_first_of_a_full_sort(size: int, most: int) -> None:
    random = np.random.default_rng(most)
    vectors = np.repeat(clustered(150), 2, axis=0)[1:]  # pairs of equal norms
    demand = random.integers(0, most + 1, len(vectors))
    norms = np.linalg.norm(vectors[1:], axis=1)
    expected = np.lexsort((-norms, -demand[1:]))[:size] + 1
    assert choose_head(vectors, size, demand).tolist() == expected.tolist()
    by_norm = np.lexsort((-norms,))[:size] + 1
    assert choose_head(vectors, size, None).tolist() == by_norm.tolist()
