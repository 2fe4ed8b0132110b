"""The indexes against brute force in float64, their files, and damaged files."""

import platform
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import Mock

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

import index
from index.ann.build import build_index
from index.ann.gpu import GpuIndex, emulate_gpu, make_cloner
from index.ann.index import read_index
from index.ann.ivf import IvfIndex, _rows_by_list
from index.ann.kernel_choice import is_exact
from index.ann.kernels import FLOAT32, KERNELS, Int8Fbgemm, Kernel
from index.ann.list_codec import byte_codec
from index.ann.quantization import QuantizedMatrix
from index.ann.selection import top_candidates
from index.ann.spec import GPU_LIMIT, IndexSpec
from index.retrieval.filters import Categories, CategoryFilter, Filter
from index.retrieval.merge import Hits, merge
from index.retrieval.search import ItemIndex

Vectors = NDArray[np.float32]
FLAT = IndexSpec()
IVF = IndexSpec(kind="ivf", head=300, lists=32, margin=4, probes=16)
EVERYTHING = IVF.model_copy(update={"margin": 1e6})  # probes every list: exact
BOTH = pytest.mark.parametrize("spec", [FLAT, EVERYTHING], ids=["flat", "ivf"])


def padded(vectors: NDArray[np.floating]) -> Vectors:
    row = np.zeros((1, vectors.shape[1]))
    return np.concatenate([row, vectors]).astype(np.float32)


def clustered(items: int, dim: int = 16, seed: int = 0) -> Vectors:
    """Skewed clusters, log-normal norms."""
    random = np.random.default_rng(seed)
    middles = random.standard_normal((40, dim))
    cluster = np.minimum(random.geometric(0.1, items), 40) - 1
    vectors = middles[cluster] + 0.5 * random.standard_normal((items, dim))
    return padded(vectors * random.lognormal(0, 0.3, (items, 1)))


def interests(requests: int, count: int = 1, dim: int = 16, seed: int = 1) -> Vectors:
    random = np.random.default_rng(seed)
    return random.standard_normal((requests, count, dim)).astype(np.float32)


def best(vectors: Vectors, request: Vectors, k: int) -> NDArray[np.int64]:
    """The k rows with the best score over the interests, by brute force in float64."""
    scores = (vectors[1:].astype(np.float64) @ request.T.astype(np.float64)).max(axis=1)
    return np.argsort(-scores, kind="stable")[:k] + 1


def recall(index: ItemIndex, vectors: Vectors, requests: Vectors, k: int) -> float:
    rows = merge(index.search(requests, k)).rows
    return float(
        np.mean(
            [
                np.isin(best(vectors, request, k), ranking[:k]).mean()
                for request, ranking in zip(requests, rows, strict=True)
            ]
        )
    )


def assert_true_scores(hits: Hits, vectors: Vectors, requests: Vectors) -> None:
    """Each hit is an item with its best inner product and the interest that gives it."""
    for rows, scores, which, request in zip(*hits, requests, strict=True):
        found = rows > 0
        products = vectors[rows[found]] @ request.T
        np.testing.assert_allclose(scores[found], products.max(axis=1), rtol=1e-5, atol=1e-6)
        best_products = products[np.arange(len(products)), which[found]]
        np.testing.assert_allclose(best_products, products.max(axis=1), rtol=1e-5, atol=1e-6)
        assert rows.max(initial=0) < len(vectors)


class SmallFbgemm(Int8Fbgemm):
    """For a test's few vectors too."""

    min_vectors = 0


EACH_KERNEL = [*KERNELS[:-2], SmallFbgemm(), FLOAT32]


@pytest.fixture(params=EACH_KERNEL, ids=lambda kernel: kernel.name)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Each that is right on this processor, however slow."""
    chosen: Kernel = request.param
    if not is_exact(chosen):
        pytest.skip(f"{chosen.name} does not work on {platform.processor()}")
    return chosen


# --- answers ---


@BOTH
@pytest.mark.parametrize("requests", [1, 2, 70])
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("k", [1, 10, 120])
def test_the_answer_is_the_best_of_all_items(
    spec: IndexSpec, kernel: Kernel, requests: int, count: int, k: int
) -> None:
    """With four interests, an index that would probe every list four times searches exactly."""
    vectors, batch = clustered(2000), interests(requests, count)
    hits = build_index(vectors, spec, kernel=kernel).search(batch, k)
    assert_true_scores(hits, vectors, batch)
    rows = merge(hits).rows
    for ranking, request in zip(rows, batch, strict=True):
        np.testing.assert_array_equal(ranking[:k], best(vectors, request, k))


@BOTH
@pytest.mark.parametrize("items", [1, 2, 5, 33])
@pytest.mark.parametrize("k", [1, 5, 40, 2048])
def test_a_small_catalogue_is_searched_exactly(
    spec: IndexSpec, kernel: Kernel, items: int, k: int
) -> None:
    vectors, requests = clustered(items), interests(2)
    for head in (0, 3, 300):
        varied = spec if spec.kind == "flat" else spec.model_copy(update={"head": head})
        merged = merge(build_index(vectors, varied, kernel=kernel).search(requests, k))
        for ranking, request in zip(merged.rows, requests, strict=True):
            expected = best(vectors, request, k)
            np.testing.assert_array_equal(ranking[: len(expected)], expected)


@pytest.mark.parametrize("kernel", EACH_KERNEL, ids=lambda k: k.name)
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.data())
def test_exact_search_is_exact(
    kernel: Kernel, seed: int, items: int, dim: int, count: int, data: st.DataObject
) -> None:
    """Whatever the scale of vectors and interests, with components and whole vectors of zero."""
    if not is_exact(kernel):
        pytest.skip(f"{kernel.name} does not work on {platform.processor()}")
    random = np.random.default_rng(seed)
    # Powers of two: every product and sum is exact, so none of zero comes out as nearly zero.
    scales = 2.0 ** random.integers(-20, 20, (items, 1))
    vectors = padded(random.integers(-3, 4, (items, dim)) * scales)
    requests = (random.integers(-3, 4, (1, count, dim)) * 2.0 ** random.integers(-20, 20)).astype(
        np.float32
    )
    k = data.draw(st.integers(1, items))
    merged = merge(build_index(vectors, FLAT, kernel=kernel).search(requests, k))
    scores = np.sort((vectors[1:] @ requests[0].T).max(axis=1))[::-1][:k]
    np.testing.assert_allclose(merged.scores[0, :k], scores, rtol=1e-4, atol=0)


@pytest.mark.parametrize("block_size", [64, 500, 501])
def test_the_error_bound_of_products_holds(kernel: Kernel, block_size: int) -> None:
    vectors, requests = clustered(500)[1:], interests(9) * np.float32(7)
    matrix = QuantizedMatrix(vectors, kernel, block_size)
    assert matrix.kernel is kernel
    rounded = matrix.quantize(requests)
    true = np.einsum("md,bkd->bkm", vectors, requests)
    near = matrix.to_inner_products(matrix.products(rounded), rounded)
    off = np.abs(near - true).max(axis=(1, 2))
    assert (off <= matrix.error_bounds(rounded)).all()
    share = 0.05 if kernel.max_query_code != 63 else 0.08
    assert (np.array(matrix.error_bounds(rounded)) < share * true.max(axis=(1, 2))).all()
    np.testing.assert_allclose(matrix.maxima(rounded), near.max(axis=1), rtol=1e-6)
    subset = np.array([3, 77, 499])
    np.testing.assert_allclose(
        matrix.maxima_at(rounded, subset), true.max(axis=1)[:, subset], rtol=1e-5
    )


@pytest.mark.parametrize("spec", [FLAT, EVERYTHING], ids=["flat", "ivf"])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.6])
def test_the_filtered_answer_is_the_best_of_the_allowed(
    spec: IndexSpec, kernel: Kernel, share: float
) -> None:
    vectors, batch = clustered(2000), interests(3, 4)
    random = np.random.default_rng(5)
    categories = Categories(["kept" if random.random() < share else "not" for _ in range(2000)])
    passes = categories.passes(CategoryFilter(["kept"]))
    allowed = Filter(categories, frozenset(range(1, 40)), frozenset(), passes)
    hits = build_index(vectors, spec, kernel=kernel).search(batch, 10, [allowed] * 3)
    rows = allowed.rows()
    for ranking, request in zip(merge(hits).rows, batch, strict=True):
        expected = [row for row in best(vectors, request, 2000) if row in set(rows)][:10]
        np.testing.assert_array_equal(ranking[: len(expected)], expected)


@given(
    st.integers(0, 1000),
    st.sampled_from([1, 2, 31, 32, 65, 2000, 5000]),
    st.sampled_from([1, 2, 7, 40, 5000]),
    st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    st.booleans(),
)
def test_top_candidates_include_all_possible_best(
    seed: int, size: int, k: int, masked: float, equal: bool
) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(-3, 3, size) if equal else random.standard_normal(size)
    scores = np.where(random.random(size) < masked, -np.inf, scores).astype(np.float32)
    error = float(random.choice([0, 0.01, 1]))
    positions, threshold = top_candidates(scores, error, k)

    ranked = np.sort(scores[scores > -np.inf])[::-1]
    assert threshold == (ranked[k - 1] if k <= len(ranked) else -np.inf)
    lowest = max(threshold - 2 * error, np.finfo(np.float32).min)
    np.testing.assert_array_equal(positions, np.flatnonzero(scores >= lowest))


@pytest.mark.parametrize("k", [1, 10, 50, 140, 500])
def test_an_approximate_index_finds_nearly_all(k: int) -> None:
    vectors, requests = clustered(6000), interests(50, 4)
    hits = build_index(vectors, IVF).search(requests, k)
    assert_true_scores(hits, vectors, requests)
    assert recall(build_index(vectors, IVF), vectors, requests, k) > 0.95


def test_a_wider_margin_finds_more() -> None:
    vectors, requests = clustered(3000), interests(30, 2)
    lists = build_index(vectors, IVF.model_copy(update={"head": 50}))
    assert isinstance(lists, IvfIndex)
    found = [recall(lists.with_margin(margin), vectors, requests, 20) for margin in (-3, 0, 2, 50)]
    assert found == sorted(found)
    assert found[0] < 0.9
    assert found[-1] == 1


def test_the_head_holds_items_in_demand_then_the_longest() -> None:
    vectors = clustered(500)
    norms = np.linalg.norm(vectors, axis=1)
    spec = IVF.model_copy(update={"head": 20})
    longest = build_index(vectors, spec)
    assert isinstance(longest, IvfIndex)
    assert set(longest.head) == set(np.argsort(-norms)[:20])
    demand = np.zeros(501, np.int64)
    demand[[3, 400]] = 5, 1
    by_demand = build_index(vectors, spec, demand)
    assert isinstance(by_demand, IvfIndex)
    assert {3, 400} <= set(by_demand.head)
    assert len(set(by_demand.head) & set(longest.head)) >= 18


def test_equal_items_and_zero_interests_are_searched() -> None:
    vectors = padded(np.ones((700, 8)))
    for spec in (FLAT, IVF):
        built = build_index(vectors, spec)
        for requests in (np.ones((1, 2, 8), np.float32), np.zeros((1, 2, 8), np.float32)):
            merged = merge(built.search(requests, 10))
            assert merged.rows[0, :10].min() > 0
            assert (merged.scores[0, :10] == requests[0, 0].sum()).all()


def test_vectors_may_be_memory_mapped(tmp_path: Path) -> None:
    vectors, requests = clustered(800), interests(2)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    for spec in (FLAT, IVF):
        in_memory, mapped_hits = (
            build_index(v, spec).search(requests, 10) for v in (vectors, mapped)
        )
        np.testing.assert_array_equal(in_memory.rows, mapped_hits.rows)


@BOTH
def test_many_threads_may_search_one_index(spec: IndexSpec) -> None:
    vectors, requests = clustered(3000), interests(64, 4)
    built = build_index(vectors, spec)

    def search_one(position: int) -> list[int]:
        k = 10 + position % 3
        return list(merge(built.search(requests[position : position + 1], k)).rows[0, :10])

    alone = [search_one(position) for position in range(64)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(search_one, list(range(64)) * 4)) == alone * 4


# --- files ---


@pytest.mark.parametrize("spec", [FLAT, IVF], ids=["flat", "ivf"])
def test_an_index_is_read_as_it_was_built(spec: IndexSpec, tmp_path: Path) -> None:
    vectors, requests = clustered(2000), interests(5)
    built = build_index(vectors, spec)
    built.write(tmp_path / "items.faiss")
    hits = read_index(tmp_path / "items.faiss", vectors, spec).search(requests, 20)
    for actual, expected in zip(hits, built.search(requests, 20), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_no_work_is_left_for_the_first_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """List members are read once, and the exact index is built when the file is read."""
    vectors, path, read = clustered(2000), tmp_path / "items.faiss", Mock(wraps=_rows_by_list)
    build_index(vectors, IVF).write(path)
    monkeypatch.setattr("index.ann.ivf._rows_by_list", read)
    loaded = read_index(path, vectors, IVF)
    monkeypatch.setattr("index.ann.ivf.FlatIndex", None)
    requests = interests(1)
    merged = merge(loaded.search(requests, 1500))

    np.testing.assert_array_equal(merged.rows[0, :1500], best(vectors, requests[0], 1500))
    assert read.call_count == 1


def test_the_lists_are_memory_mapped(tmp_path: Path) -> None:
    vectors, path = clustered(2000), tmp_path / "items.faiss"
    build_index(vectors, IVF).write(path)
    loaded = read_index(path, vectors, IVF)
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("no /proc/self/maps")
    assert str(path) in maps.read_text()
    assert merge(loaded.search(interests(1), 5)).rows.shape[1] >= 5


def change(**changes: object) -> Callable[[Vectors, IndexSpec], tuple[Vectors, IndexSpec]]:
    return lambda vectors, spec: (vectors, spec.model_copy(update=changes))


MISMATCHES: dict[str, tuple[IndexSpec, Callable[..., tuple[Vectors, IndexSpec]], str]] = {
    "more vectors": (IVF, lambda v, s: (clustered(601), s), "items: 300 found, 301 needed"),
    "fewer vectors": (FLAT, lambda v, s: (clustered(599), s), "items: 600 found, 599 needed"),
    "another dimension": (IVF, lambda v, s: (clustered(600, 8), s), "dimension: 16 found"),
    "another kind": (FLAT, lambda v, s: (v, IVF), "kind: .*IndexFlatIP.*Scalar"),
    "another head": (IVF, change(head=301), "items: 300 found, 299 needed"),
    "other values": (FLAT, lambda v, s: (v * 1.01, s), "vectors: not those of the release"),
    "other values, listed": (IVF, lambda v, s: (v * 1.01, s), "a mean that is not of its members"),
    "another row's": (IVF, lambda v, s: (v[[0, *range(600, 0, -1)]], s), "not the vectors of"),
    "other lists": (IVF, change(lists=31), "lists: 32 found, 31 needed"),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_a_file_of_another_index_is_refused(name: str, tmp_path: Path) -> None:
    spec, change, message = MISMATCHES[name]
    vectors = clustered(600)
    build_index(vectors, spec).write(tmp_path / "items.faiss")
    with pytest.raises(ValueError, match=message):
        read_index(tmp_path / "items.faiss", *change(vectors, spec))


def written(index: faiss.Index, path: Path) -> Path:
    faiss.write_index(index, str(path))
    return path


def test_the_metric_and_the_rows_are_checked(tmp_path: Path) -> None:
    vectors = clustered(600)
    euclidean = faiss.IndexFlatL2(16)
    euclidean.add(vectors[1:])
    with pytest.raises(ValueError, match="metric: 1 found, 0 needed"):
        read_index(written(euclidean, tmp_path / "l2"), vectors, FLAT)
    spec = IVF.model_copy(update={"head": 0})
    for rows, message in ((np.arange(600), "no item"), (np.full(600, 7), "appears twice")):
        built = build_index(vectors, spec)
        assert isinstance(built, IvfIndex)
        lists = faiss.clone_index(built.faiss_index)
        lists.reset()
        lists.add_with_ids(vectors[1:], rows)
        with pytest.raises(ValueError, match=message):
            read_index(written(lists, tmp_path / "ivf"), vectors, spec)


def test_the_means_are_checked(tmp_path: Path) -> None:
    vectors = clustered(600)
    for position, value, message in ((0, np.nan, "a mean"), (31, 0.5, "a mean"), (31, 1e-6, None)):
        built = build_index(vectors, IVF)
        assert isinstance(built, IvfIndex)
        means = built.faiss_index.quantizer.reconstruct_n(0, 32)
        means[position, 3] += value
        built.faiss_index.quantizer.reset()
        built.faiss_index.quantizer.add(means)
        built.write(tmp_path / f"{value}")
        if message is None:
            read_index(tmp_path / f"{value}", vectors, IVF)
            continue
        with pytest.raises(ValueError, match=message):
            read_index(tmp_path / f"{value}", vectors, IVF)


def test_of_many_items_a_part_of_the_lists_is_checked_unless_all_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = clustered(600)
    built = build_index(vectors, IVF)
    assert isinstance(built, IvfIndex)
    means = built.faiss_index.quantizer.reconstruct_n(0, 32)
    means[31] += 1
    built.faiss_index.quantizer.reset()
    built.faiss_index.quantizer.add(means)
    built.write(tmp_path / "items.faiss")
    monkeypatch.setattr(index.ann.index, "_CHECKED_ITEMS", 300)  # every second list
    read_index(tmp_path / "items.faiss", vectors, IVF)
    with pytest.raises(ValueError, match="a mean"):
        read_index(tmp_path / "items.faiss", vectors, IVF, check_all=True)


def test_exact_search_of_many_items_copies_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, requests = clustered(20_000), interests(5)
    spec = IVF.model_copy(update={"head": 0})  # no threshold: every item is compared
    monkeypatch.setattr(index.ann.ivf, "_EXACT_IN_FLOAT32_FROM", 10_000)
    built = build_index(vectors, spec, kernel=Int8Fbgemm())
    assert isinstance(built, IvfIndex)
    assert built.exact().kernel.name == "float32"
    assert recall(built, vectors, requests, 20) == 1


def test_infinite_half_precision_numbers_are_accepted(tmp_path: Path) -> None:
    vectors = clustered(600) * np.float32(1e5)
    written(in_half_precision(vectors), tmp_path / "items.faiss")
    read_index(tmp_path / "items.faiss", vectors, IVF)


def in_half_precision(vectors: Vectors, spec: IndexSpec = IVF) -> faiss.IndexIVF:
    """The lists of an older release."""
    built = build_index(vectors, spec)
    assert isinstance(built, IvfIndex)
    return built.half_precision_lists()


def test_lists_of_an_older_release_are_read_and_answer_alike(tmp_path: Path) -> None:
    vectors, requests = clustered(3000), interests(20)
    path = written(in_half_precision(vectors, EVERYTHING), tmp_path / "items.faiss")
    old = merge(read_index(path, vectors, EVERYTHING).search(requests, 30))
    new = merge(build_index(vectors, EVERYTHING).search(requests, 30))
    np.testing.assert_array_equal(old.rows[:, :30], new.rows[:, :30])


@given(
    seed=st.integers(0, 1000),
    dim=st.integers(2, 80),
    magnitude=st.floats(-6, 6),
    skew=st.floats(0, 1.5),
)
def test_no_product_above_the_threshold_is_missed_for_its_rounding(
    seed: int, dim: int, magnitude: float, skew: float
) -> None:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((300, dim)) * random.lognormal(magnitude, skew, (300, 1))
    vectors, asked = vectors.astype(np.float32), random.standard_normal((4, dim), np.float32)
    codec = byte_codec(vectors, np.arange(300))
    stored = codec.stored(vectors)
    assert 0 < stored.min() <= stored.max() < 256
    exact = asked @ vectors.T
    threshold = float(np.quantile(exact, random.random()))
    codes, radius = codec.queries(asked, threshold)
    assert np.abs(codes).max() == 127
    approximate = codes @ codec.encode(vectors).T
    assert (approximate[exact > threshold] > radius).all()


def test_zeros_and_no_vectors_have_codes() -> None:
    zeros = np.zeros((3, 4), np.float32)
    assert (byte_codec(zeros, np.arange(3)).stored(zeros) == 128).all()
    codes, radius = byte_codec(zeros, np.arange(0)).queries(zeros, 0.0)
    assert not codes.any()
    assert np.isfinite(radius)


def test_the_codes_suit_the_members_alone() -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    expected = byte_codec(vectors[:12], np.arange(12))
    vectors[12:] *= 100  # in the same block
    assert byte_codec(vectors, np.arange(12)) == expected


@pytest.mark.parametrize("spec", [FLAT, IVF], ids=["flat", "ivf"])
def test_a_damaged_file_is_an_error_not_a_crash(spec: IndexSpec, tmp_path: Path) -> None:
    """Truncated anywhere, or with a byte changed: refused, or searched without a crash."""
    vectors, requests, path = clustered(400), interests(1), tmp_path / "items.faiss"
    build_index(vectors, spec).write(path)
    intact = path.read_bytes()
    for length in [*range(0, 200, 3), *range(200, len(intact), len(intact) // 40)]:
        path.write_bytes(intact[:length])
        with pytest.raises((ValueError, RuntimeError)):
            read_index(path, vectors, spec)
    random, refused = np.random.default_rng(0), 0
    for position in [*range(0, 160, 2), *random.integers(0, len(intact), 40)]:
        damaged = bytearray(intact)
        damaged[position] ^= 0xFF
        path.unlink()  # a mapped file must not change
        path.write_bytes(damaged)
        try:
            read_index(path, vectors, spec).search(requests, 10)
        except (ValueError, RuntimeError):
            refused += 1
    assert refused > 10


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"items\.faiss"):
        read_index(tmp_path / "items.faiss", clustered(10), FLAT)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "flat", "lists": 4},
        {"kind": "ivf", "probes": 4},
        {"kind": "ivf", "lists": 4},
        {"kind": "ivf", "lists": 4, "probes": GPU_LIMIT + 1},
        {"kind": "ivf", "lists": 4, "probes": 1, "head": -1},
        {"kind": "ivf", "lists": 4, "probes": 1, "margin": float("nan")},
        {"kind": "hnsw"},
        {"kind": "flat", "links": 4},
    ],
    ids=str,
)
def test_an_invalid_spec_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        IndexSpec.model_validate(fields)


@pytest.mark.parametrize("spec", [FLAT, IVF], ids=["flat", "ivf"])
def test_a_spec_survives_json(spec: IndexSpec) -> None:
    assert IndexSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize("module", ["build", "flat", "gpu", "index", "ivf"])
def test_torch_is_loaded_before_faiss(module: str) -> None:
    """The other order has crashed processes."""
    source = Path(index.__path__[0], "ann", f"{module}.py").read_text(encoding="utf-8")
    assert 0 < source.index("\nimport torch") < source.index("\nimport faiss")


# --- GPU ---


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:64", "sees [0-9]+ GPUs; install the extra `gpu`"),
        ("cuda", "name one of them"),
        ("cuda:-1", "name one of them"),
        ("tpu:0", "name one of them"),
    ],
)
def test_a_missing_device_is_refused(device: str, message: str, tmp_path: Path) -> None:
    vectors = clustered(10)
    build_index(vectors, FLAT).write(tmp_path / "items.faiss")
    with pytest.raises(ValueError, match=message):
        read_index(tmp_path / "items.faiss", vectors, FLAT, device)


@pytest.mark.parametrize("spec", [FLAT, IVF], ids=["flat", "ivf"])
@pytest.mark.parametrize("k", [1, 10, GPU_LIMIT + 1])
def test_the_emulated_gpu_agrees_with_the_cpu(spec: IndexSpec, k: int) -> None:
    """Emulated on the CPU, where faiss has the same calls."""
    vectors, requests = clustered(3000), interests(6, 4)
    cpu_index = build_index(vectors, spec)
    emulated = emulate_gpu(cpu_index, vectors, probes=spec.lists)
    assert_true_scores(emulated.search(requests, k), vectors, requests)
    assert recall(emulated, vectors, requests, k) == 1


@pytest.mark.parametrize("items", [1, 20])
def test_the_emulated_gpu_searches_small_catalogues(items: int) -> None:
    vectors, requests = clustered(items), interests(2)
    for head in (0, 300):
        cpu_index = build_index(vectors, IVF.model_copy(update={"head": head}))
        emulated = emulate_gpu(cpu_index, vectors, probes=IVF.lists)
        assert recall(emulated, vectors, requests, 5) == 1


@pytest.mark.gpu
@pytest.mark.parametrize("spec", [FLAT, EVERYTHING], ids=["flat", "ivf"])
def test_a_gpu_agrees_with_the_cpu(spec: IndexSpec, tmp_path: Path) -> None:
    if not faiss.get_num_gpus():
        pytest.skip("faiss sees no GPU: not installed with the extra `gpu`, or none is there")
    vectors, requests, path = clustered(3000), interests(40, 4), tmp_path / "items.faiss"
    wide = spec if spec.kind == "flat" else spec.model_copy(update={"probes": spec.lists})
    cpu_index = build_index(vectors, wide)
    cpu_index.write(path)
    device = read_index(path, vectors, wide, "cuda:0")
    assert isinstance(device, GpuIndex)
    for k in (1, 50, GPU_LIMIT):
        on_gpu, on_cpu = (merge(i.search(requests, k)) for i in (device, cpu_index))
        assert_true_scores(on_gpu, vectors, requests)
        shared = [
            np.isin(a[:k], b[:k]).mean() for a, b in zip(on_gpu.rows, on_cpu.rows, strict=True)
        ]
        assert np.mean(shared) > 0.999
    assert callable(make_cloner("cuda:0"))
