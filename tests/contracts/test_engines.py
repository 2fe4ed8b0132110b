"""Both engines find the same: faiss in files, Milvus in a collection (embedded, milvus-lite)."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.ann.build import build_index
from index.ann.milvus import ForeignCollectionError, MilvusIndex
from index.ann.milvus_client import MilvusClient
from index.ann.spec import IndexSpec, MilvusSpec
from index.retrieval.filters import Categories, CategoryFilter, Filter
from index.retrieval.merge import merge
from index.retrieval.search import (
    ItemIndex,
    SearchRequest,
    SearchUnavailableError,
    Timings,
    search,
)

N, D, K = 400, 12, 4
NAMES = [None if row % 7 == 0 else f"category {row % 5}" for row in range(N)]
CATEGORIES = Categories(NAMES)


def drawn(seed: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((N + 1, D), dtype=np.float32)
    vectors[0] = 0
    return vectors


VECTORS = drawn(1)
INTERESTS = np.random.default_rng(2).standard_normal((6, K, D), dtype=np.float32)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusClient]:
    pytest.importorskip("pymilvus")
    client = MilvusClient(str(tmp_path_factory.mktemp("milvus") / "items.db"))
    for spec in COLLECTIONS.values():
        client.create(spec, VECTORS, CATEGORIES.codes)
    yield client
    client.close()


COLLECTIONS = {
    "milvus FLAT": MilvusSpec(collection="flat", index_type="FLAT"),
    "milvus HNSW": MilvusSpec(
        collection="hnsw",
        index_type="HNSW",
        build={"M": 16, "efConstruction": 200},
        search={"ef": 512},
    ),
    "milvus IVF_FLAT": MilvusSpec(
        collection="ivf", index_type="IVF_FLAT", build={"nlist": 16}, search={"nprobe": 16}
    ),
}
FILES = {"faiss flat": IndexSpec(), "faiss ivf": IndexSpec(
    kind="ivf", head=60, lists=16, margin=8.0, probes=16
)}  # fmt: skip
EXACT = ("faiss flat", "milvus FLAT", "milvus IVF_FLAT")


@pytest.fixture(params=[*FILES, *COLLECTIONS])
def engine(request: pytest.FixtureRequest) -> tuple[str, ItemIndex]:
    name: str = request.param
    if name in FILES:
        return name, in_files(name)
    return name, MilvusIndex(request.getfixturevalue("client"), COLLECTIONS[name], VECTORS)


@cache
def in_files(name: str) -> ItemIndex:
    return build_index(VECTORS, FILES[name])


def allowing(
    excluded: set[int] = frozenset(),  # type: ignore[assignment]
    withdrawn: set[int] = frozenset(),  # type: ignore[assignment]
    categories: CategoryFilter | None = None,
) -> Filter:
    passes = CATEGORIES.passes(categories) if categories else None
    return Filter(CATEGORIES, frozenset(excluded), frozenset(withdrawn), passes)


def best_rows(interests: NDArray[np.float32], allowed: Filter, k: int) -> list[int]:
    rows = allowed.rows()
    scores = (interests @ VECTORS.take(rows, axis=0).T).max(axis=0)
    return [int(row) for row in rows[(-scores).argsort(kind="stable")[:k]]]


def found(index: ItemIndex, requests: list[SearchRequest]) -> list[list[int]]:
    hits = dict(search(index, INTERESTS[: len(requests)], requests, Timings()))
    return [hits[position][0].tolist() for position in range(len(requests))]


TOP = set(best_rows(INTERESTS[0], allowing(), 120))
FILTERS = {
    "none": allowing(),
    "a history": allowing(excluded={1, 5, *list(TOP)[:9]}),
    "the best withdrawn": allowing(withdrawn=TOP),
    "one category": allowing(categories=CategoryFilter(allow=["category 3"])),
    "two denied": allowing(categories=CategoryFilter(deny=["category 0", "category 1"])),
    "all together": allowing({3, 4}, TOP, CategoryFilter(deny=["category 2"])),
    "few left": allowing(withdrawn=set(range(9, N + 1))),
    "nothing left": allowing(categories=CategoryFilter(allow=["unknown"])),
    "everything withdrawn": allowing(withdrawn=set(range(1, N + 1))),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("k", [1, 20, 2 * N])
def test_the_best_allowed_items_are_found(engine: tuple[str, ItemIndex], name: str, k: int) -> None:
    kind, index = engine
    allowed = FILTERS[name]
    [rows] = found(index, [SearchRequest(k, allowed)])
    expected = best_rows(INTERESTS[0], allowed, k)
    assert set(rows) <= set(allowed.rows().tolist())
    if kind in EXACT:
        assert rows == expected
    else:
        assert len(rows) == len(expected)
        assert len(set(rows) & set(expected)) >= 0.8 * len(expected)


def test_requests_of_one_batch_have_filters_of_their_own(engine: tuple[str, ItemIndex]) -> None:
    kind, index = engine
    requests = [SearchRequest(10 + i, allowed) for i, allowed in enumerate(FILTERS.values())][:6]
    for rows, interests, request in zip(found(index, requests), INTERESTS, requests, strict=True):
        expected = best_rows(interests, request.filter, request.count)
        assert len(set(rows) & set(expected)) >= (1 if kind in EXACT else 0.8) * len(expected)


def test_scores_and_interests_are_exact(engine: tuple[str, ItemIndex]) -> None:
    merged = [part[:, :15] for part in merge(engine[1].search(INTERESTS, 15))]
    for rows, scores, interests, asked in zip(*merged, INTERESTS, strict=True):
        products = asked @ VECTORS.take(rows, axis=0).T
        assert np.allclose(scores, products.max(axis=0), atol=1e-5)
        assert interests.tolist() == products.argmax(axis=0).tolist()


def test_a_collection_of_other_vectors_is_refused(client: MilvusClient) -> None:
    index = MilvusIndex(client, COLLECTIONS["milvus FLAT"], drawn(3))
    with pytest.raises(ForeignCollectionError, match="does not hold this release's vectors"):
        index.search(INTERESTS, 5)
    fewer = MilvusIndex(client, COLLECTIONS["milvus FLAT"], VECTORS[:5])
    with pytest.raises(ForeignCollectionError):
        fewer.search(INTERESTS, 5)


def test_a_missing_collection_is_unavailable(client: MilvusClient) -> None:
    spec = MilvusSpec(collection="missing", index_type="FLAT")
    with pytest.raises(SearchUnavailableError, match="did not answer a call"):
        MilvusIndex(client, spec, VECTORS).search(INTERESTS, 5)


def test_a_milvus_that_is_not_there_is_unavailable_in_time(tmp_path: Path) -> None:
    pytest.importorskip("pymilvus")
    for uri, message in (
        ("http://127.0.0.1:9", "cannot be reached"),
        (str(tmp_path / "missing" / "items.db"), "items.db cannot be opened"),
    ):
        client = MilvusClient(uri, timeout_s=0.3)
        with pytest.raises(SearchUnavailableError, match=message):
            MilvusIndex(client, COLLECTIONS["milvus FLAT"], VECTORS).search(INTERESTS, 5)


@pytest.mark.parametrize("uri", ["items", "redis://host", "localhost:19530", ""])
def test_other_uris_are_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(ValueError, match="give http://HOST") as refusal:
        MilvusClient(uri)
    assert not uri or uri not in str(refusal.value)
