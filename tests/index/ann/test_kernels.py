"""The kernels against 64-bit integers, and the choice of one for this processor."""

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from index.ann.flat import FlatIndex
from index.ann.kernel_choice import choose_kernel, find_kernel, is_exact, measure_kernels
from index.ann.kernel_names import KernelName
from index.ann.kernels import (
    FLOAT32,
    KERNELS,
    MAX_CODE,
    Codes,
    Float32,
    Int8Fbgemm,
    Int8Vnni,
    Kernel,
    Native,
    Packed,
    Product,
)
from index.ann.quantization import QuantizedMatrix
from index.retrieval.merge import merge
from service.settings import Settings

NAMES: list[KernelName] = [kernel.name for kernel in KERNELS]


@pytest.fixture(params=KERNELS, ids=NAMES)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    chosen: Kernel = request.param
    if not is_exact(chosen):
        pytest.skip(f"{chosen.name} does not work on this processor")
    return chosen


def timing(**seconds: float) -> Callable[[Sequence[Kernel]], Mapping[KernelName, float]]:
    """Times by name, with _ in place of -; the first word of the name will do."""
    by_name = {name.replace("_", "-"): time for name, time in seconds.items()}
    return lambda kernels: {k.name: by_name.get(k.name, by_name.get("native", 9)) for k in kernels}


class Right(Float32):
    """Right on every processor, under another name."""

    max_query_code = 1

    def __init__(self, name: KernelName) -> None:
        self.name = name


class RightNative(Native):
    """Its products in numpy, as if it had been built for this processor."""

    def pack(self, codes: Codes) -> Packed:
        return Float32().pack(codes)


class Wrong(Int8Fbgemm):
    """Off by one in the last product."""

    def pack(self, codes: Codes) -> Packed:
        multiply = super().pack(codes)

        def off_by_one(queries: Codes) -> Codes:
            products = multiply(queries)
            products[-1, -1] += 1
            return products

        return Product(off_by_one)


class ForFew(Int8Fbgemm):
    min_vectors = 0


class Missing(Int8Fbgemm):
    """As with a torch that has no such operator."""

    def pack(self, codes: Codes) -> Packed:
        raise AttributeError("'_OpNamespace' 'quantized' object has no attribute")


ALL_RIGHT = [RightNative("avx2"), Right("int8-vnni"), Right("int8-fbgemm"), FLOAT32]

# --- products ---


@pytest.mark.parametrize("queries", [1, 8, 33])
@pytest.mark.parametrize("vectors", [1, 7, 2000])
@pytest.mark.parametrize("dim", [2, 3, 64, 100, 1024])
def test_products_are_those_of_64_bit_integers(
    kernel: Kernel, queries: int, vectors: int, dim: int
) -> None:
    random = np.random.default_rng(dim)
    limit = kernel.max_query_code or MAX_CODE
    for largest in (False, True):
        left = random.integers(-limit, limit + 1, (queries, dim))
        right = random.integers(-MAX_CODE, MAX_CODE + 1, (vectors, dim))
        if largest:
            left, right = np.full_like(left, -limit), np.full_like(right, MAX_CODE)
        stored = right.astype(np.int8 if kernel.max_query_code else np.float32)
        products = kernel.pack(stored)(left.astype(np.float32))
        if kernel.max_query_code:
            np.testing.assert_array_equal(products, left @ right.T)
        else:
            np.testing.assert_allclose(products, left @ right.T, rtol=1e-5, atol=1e-2)


def test_packing_does_not_warn(kernel: Kernel) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel.pack(np.ones((3, 4), np.int8 if kernel.max_query_code else np.float32))


@pytest.mark.parametrize("dim", [1, 2, 2064, 2065, 4096])
def test_vectors_that_a_kernel_cannot_multiply_exactly_are_multiplied_in_float32(dim: int) -> None:
    for kernel in (Float32(), Int8Vnni(), ForFew()):
        matrix = QuantizedMatrix(np.ones((20, dim), np.float32), kernel)
        assert matrix.kernel is (kernel if kernel.fits(dim) else FLOAT32)
    assert Int8Fbgemm().fits(dim) == (dim in (2, 2064))


def test_few_vectors_are_multiplied_in_float32() -> None:
    kernel = Int8Fbgemm()
    few = np.ones((kernel.min_vectors - 1, 4), np.float32)
    assert QuantizedMatrix(few, kernel).kernel is FLOAT32
    assert QuantizedMatrix(np.concatenate([few, few]), kernel).kernel is kernel


@pytest.mark.parametrize(("onednn", "torch_level"), [("AVX2", "avx2"), ("SSE41", "default")])
def test_a_processor_with_fewer_instructions_gives_the_same_answers(
    onednn: str, torch_level: str
) -> None:
    """Its kernels are tried in another process, as the libraries read the variables once."""
    code = (
        "from tests.index.ann.test_kernels import print_answers_of_all_kernels as answer; answer()"
    )
    lowered = {"ONEDNN_MAX_CPU_ISA": onednn, "ATEN_CPU_CAPABILITY": torch_level}
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **lowered},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert json.loads(printed) == answers_of_all_kernels()


def answers_of_all_kernels() -> list[list[int]]:
    """The rows of exact search, which are the same with each kernel that works here."""
    random = np.random.default_rng(3)
    vectors = random.standard_normal((20_001, 16), dtype=np.float32)
    interests = random.standard_normal((4, 3, 16), dtype=np.float32)
    rows = [
        merge(FlatIndex(vectors, kernel).search(interests, 20)).rows[:, :20].tolist()
        for kernel in (*(k for k in KERNELS if is_exact(k)), find_kernel())
    ]
    assert all(answers == rows[0] for answers in rows)
    answered: list[list[int]] = rows[0]
    return answered


def print_answers_of_all_kernels() -> None:
    print(json.dumps(answers_of_all_kernels()))


# --- choice ---


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"native": 0.2, "int8_vnni": 8.0, "int8_fbgemm": 0.5}, "native-avx2"),
        ({"native": 0.5, "int8_vnni": 8.0, "int8_fbgemm": 0.3}, "int8-fbgemm"),
        ({"native": 0.9, "int8_vnni": 0.3, "int8_fbgemm": 0.5}, "int8-vnni"),
        ({"native": 1.1, "int8_vnni": 1.1, "int8_fbgemm": 1.1}, "float32"),
        ({"native": 1.0, "int8_vnni": 1.0, "int8_fbgemm": 1.0}, "float32"),
        ({"native": 9.0, "int8_vnni": 1e9, "int8_fbgemm": float("inf")}, "float32"),
    ],
    ids=str,
)
def test_a_kernel_that_is_slower_than_float32_is_never_chosen(
    seconds: dict[str, float], chosen: KernelName
) -> None:
    assert choose_kernel(ALL_RIGHT, timing(float32=1.0, **seconds)).name == chosen


@pytest.mark.parametrize("noise", [-0.04, 0.04])
def test_near_a_tie_the_choice_is_always_the_same(noise: float) -> None:
    """Else two processes on one machine would search by different kernels."""
    tie = timing(float32=1.0, native=3.0, int8_vnni=9.0, int8_fbgemm=1.0 + noise)
    assert choose_kernel(ALL_RIGHT, tie) is FLOAT32
    tie = timing(float32=1.0, native=0.5 + noise / 2, int8_vnni=9.0, int8_fbgemm=0.5)
    assert choose_kernel(ALL_RIGHT, tie).name == "native-avx2"


def test_what_is_chosen_here_is_faster_than_float32() -> None:
    chosen = choose_kernel(KERNELS)
    if chosen is FLOAT32:
        pytest.skip("float32 is the fastest on this processor")
    seconds = measure_kernels([chosen, FLOAT32])
    assert seconds[chosen.name] < seconds["float32"]


def test_the_best_instructions_of_a_processor_are_timed_alone() -> None:
    def record(kernels: Sequence[Kernel]) -> Mapping[KernelName, float]:
        timed.append([kernel.name for kernel in kernels])
        return dict.fromkeys((kernel.name for kernel in kernels), 1.0)

    timed: list[list[KernelName]] = []
    choose_kernel([RightNative("avx512-vnni"), *ALL_RIGHT], record)
    assert timed == [["native-avx512-vnni", "int8-vnni", "int8-fbgemm", "float32"]]


@pytest.mark.parametrize("broken", [Wrong(), Missing()], ids=["wrong", "missing"])
def test_a_kernel_that_is_wrong_or_missing_is_never_chosen(broken: Kernel) -> None:
    assert not is_exact(broken)
    fastest = timing(float32=1.0, int8_fbgemm=0.1)
    assert choose_kernel([Float32(), broken], fastest) is FLOAT32


def test_it_is_measured_once_and_in_milliseconds() -> None:
    assert find_kernel() is find_kernel("auto")
    start = time.process_time()
    choose_kernel(KERNELS)
    assert time.process_time() - start < 0.15


def test_a_named_kernel_is_honoured(kernel: Kernel) -> None:
    assert find_kernel(kernel.name) is kernel


def test_an_unknown_kernel_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'int4' is unknown; choose one of auto, native-") as error:
        find_kernel("int4")
    assert all(name in str(error.value) for name in NAMES)


def test_a_named_kernel_that_does_not_work_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.ann.kernel_choice.KERNELS", (FLOAT32, Missing()))
    with pytest.raises(ValueError, match=r"int8-fbgemm is not available: .* or torch lacks it"):
        find_kernel("int8-fbgemm")


def test_the_service_knows_the_same_kernels() -> None:
    """Its settings name them again, as they load no torch."""
    known = Settings.model_json_schema()["properties"]["kernel"]["enum"]
    assert sorted(known) == sorted(["auto", *NAMES])


def test_torch_still_has_what_the_kernels_use() -> None:
    """Else this fails with a new torch, and the next person learns why search became slower."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("no FBGEMM on this processor")
    assert is_exact(Int8Fbgemm())


def test_lists_with_few_vectors_to_scan_take_no_longer_with_the_kernel_chosen() -> None:
    """Head and means are fewer than the kernel's calls pay for: they stay in float32."""
    assert QuantizedMatrix(np.ones((4096 + 512, 64), np.float32), Int8Fbgemm()).kernel is FLOAT32


# --- vectors whose bytes tell little ---


def with_parts(items: int, count: int, requests: int) -> tuple[NDArray[np.float32], ...]:
    """Cosines and a barrier between the parts, as `partitioned-max` trains: vectors, interests."""
    random = np.random.default_rng(0)

    def directions(*shape: int) -> NDArray[np.float64]:
        drawn = random.standard_normal(shape)
        return drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)

    parts = np.eye(count)[random.integers(0, count, items)]
    vectors = np.concatenate([directions(items, 64), parts], axis=1)
    barriers = np.broadcast_to(3 * (np.eye(count) - 1), (requests, count, count))
    interests = np.concatenate([directions(requests, count, 64), barriers], axis=2)
    padding = np.zeros((1, vectors.shape[1]))
    return np.concatenate([padding, vectors]).astype(np.float32), interests.astype(np.float32)


def with_bias(items: int, count: int, requests: int) -> tuple[NDArray[np.float32], ...]:
    """One coordinate that is many times the others: a bias of the item."""
    vectors, interests = with_parts(items, count, requests)
    vectors[1:, 64:], interests[:, :, 64:] = 0, 0
    vectors[1:, 64] = -np.random.default_rng(1).exponential(8, items)
    interests[:, :, 64] = 1
    return vectors, interests


@pytest.mark.parametrize("make", [with_parts, with_bias])
def test_bytes_that_tell_little_give_the_answers_of_float64(
    kernel: Kernel, make: Callable[..., tuple[NDArray[np.float32], ...]]
) -> None:
    vectors, interests = make(1500, 3, 5)
    ranked = merge(FlatIndex(vectors, kernel).search(interests, 20)).rows
    for rows, asked in zip(ranked, interests.astype(np.float64), strict=True):
        scores = (vectors[1:] @ asked.T).max(axis=1)
        assert rows[:20].tolist() == (np.argsort(-scores, kind="stable")[:20] + 1).tolist()
