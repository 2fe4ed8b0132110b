"""Tuning: the cheapest index whose recall against exact search suffices for held-out users."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from index.ann.build import assign_lists, build_index
from index.ann.flat import FlatIndex
from index.ann.gpu import emulate_gpu
from index.ann.ivf import IvfIndex
from index.ann.kernels import FLOAT32, Kernel
from index.ann.one_thread import one_thread
from index.ann.processor import processor_name
from index.ann.spec import GPU_LIMIT, IndexMeasurement, IndexSpec, TuningTrial
from index.retrieval.merge import merge
from index.retrieval.search import ItemIndex

Progress = Callable[[str], None]

_MIN_USERS = 40  # with fewer, recall is too uncertain to choose an index by
_DEMAND_DEPTH = 2  # times k: how many items of each user's answer count as demand
# Of users and items in all exact answers: of ten million items, 800 users are asked for.
_MAX_COMPARISONS = 8_000_000_000
_SCORES_PER_BATCH = 1 << 27  # of exact answers: 512 MiB
_HEADS = (512, 1024, 2048, 4096, 8192, 16384, 32768)
# The smallest still lets items without demand be found, and more than k items; the largest probes
# nearly every list.
_MARGINS = np.arange(2.5, 8, 0.25)
_TIMING_ROUNDS = 5  # in each, the candidates are timed in turn
_TIMING_REQUESTS = 100  # per round
_WIDENINGS = (0.25, 0.5, 1.0)  # of a margin that does not reach the recall on other users
_MAX_LISTS = 8  # times the default, which is about the square root of the items
_ONE_DIRECTION_FROM = 1 << 21  # items, whose assignment to lists takes minutes
_WORTH_IT = 0.95  # another number of lists is pursued if it takes at most this part of the time
_EXACT_REQUESTS = 40  # that exact search is first timed with
_HOPELESS = 1.5  # times the fastest's time: not kept in memory, nor timed again
_FLAT_PREFERENCE = 1.05  # exact search is chosen if it takes at most this times the fastest's time


@dataclass(frozen=True)
class _Sample:
    """Requests for k items: interests (Q, K, D), and the rows of exact search (Q, k)."""

    interests: NDArray[np.float32]
    answers: NDArray[np.int64]
    k: int

    @classmethod
    def of(cls, exact: FlatIndex, interests: NDArray[np.float32], k: int) -> "_Sample":
        """Computed once: every candidate is compared with it."""
        return cls(interests, merge(exact.search(interests, k)).rows[:, :k], k)

    def first(self, requests: int) -> "_Sample":
        return _Sample(self.interests[:requests], self.answers[:requests], self.k)

    def measure(self, index: ItemIndex) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """For each request, searched alone: the recall, and microseconds of CPU with the merge."""
        recalls, seconds = [], []
        for request, answer in zip(self.interests, self.answers, strict=True):
            start = time.process_time()  # which other load on the machine hardly changes
            merged = merge(index.search(request[None], self.k))
            seconds.append(time.process_time() - start)
            recalls.append(np.isin(answer, merged.rows[0, : self.k]).mean())
        return np.array(recalls), np.array(seconds) * 1e6


@dataclass(frozen=True)
class _Candidate:
    spec: IndexSpec
    index: FlatIndex | IvfIndex
    recall: float
    microseconds: float

    @property
    def cost(self) -> float:
        """By which candidates are ranked."""
        return self.microseconds / (_FLAT_PREFERENCE if self.spec.kind == "flat" else 1)

    @property
    def summary(self) -> str:
        spec = self.spec
        name = f"head {spec.head:,}, {spec.lists:,} lists" if spec.kind == "ivf" else "exact"
        return f"{name}: recall {self.recall:.4f}, {self.microseconds:.0f} us a request"


def tune(
    vectors: NDArray[np.float32],
    interests: NDArray[np.float32],
    recall: float,
    k: int,
    progress: Progress,
    kernel: Kernel | None = None,
) -> tuple[FlatIndex | IvfIndex, IndexMeasurement]:
    """The cheapest index over vectors (N + 1, D) that reaches the recall; flat always does.

    interests (Q, K, D): of users who were not trained on. Half of them give the demand for each
    item, a quarter tunes the index, and the last quarter, used for neither, is reported on.
    kernel: of the products; by default the fastest on this processor.
    """
    interests = interests[: max(_MIN_USERS, _MAX_COMPARISONS // len(vectors))]
    with one_thread():
        exact = FlatIndex(vectors, kernel)
        # In large batches float32 products are the fastest, and their kernel takes no memory.
        answering = FlatIndex(vectors, FLOAT32, _SCORES_PER_BATCH)
        if len(interests) < _MIN_USERS:
            all_users = _Sample.of(answering, interests, k)
            progress(_exact_candidate(exact, all_users).summary)
            return exact, _measure(exact, IndexSpec(), all_users, ())
        answers = _Sample.of(answering, interests[::2], _DEMAND_DEPTH * k).answers
        demand = np.bincount(answers.ravel(), minlength=len(vectors))
        tuning, report = (_Sample.of(answering, interests[start::4], k) for start in (1, 3))
        ranked, trials = _try_candidates(vectors, demand, tuning, recall, exact, progress)
        for candidate in (c for r in ranked for c in _with_wider_margins(r)):
            measurement = _measure(candidate.index, candidate.spec, report, trials)
            if measurement.recall >= recall:
                spec = _with_probes(candidate, vectors, tuning.first(_TIMING_REQUESTS), recall)
                return candidate.index, measurement.model_copy(update={"spec": spec})
    raise AssertionError("exact search reaches every recall; this is a bug")


def _try_candidates(
    vectors: NDArray[np.float32],
    demand: NDArray[np.int64],
    tuning: _Sample,
    recall: float,
    exact: FlatIndex,
    progress: Progress,
) -> tuple[list[_Candidate], tuple[TuningTrial, ...]]:
    """Those that can be the cheapest, and exact search: cheapest first; and what was tried."""
    candidates = [_exact_candidate(exact, tuning)]
    progress(candidates[0].summary)
    dropped: list[TuningTrial] = []
    for candidate in _ivf_candidates(vectors, demand, tuning, recall, candidates[0]):
        progress(candidate.summary)
        candidates, slow = _keep_fast([*candidates, candidate])
        dropped += map(_trial, slow)
    ranked = _rank_by_time(candidates, tuning)
    trials = sorted([*map(_trial, ranked), *dropped], key=lambda trial: trial.microseconds)
    return ranked, tuple(trials)


def _measure(
    index: FlatIndex | IvfIndex, spec: IndexSpec, report: _Sample, trials: tuple[TuningTrial, ...]
) -> IndexMeasurement:
    recalls, microseconds = report.measure(index)
    return IndexMeasurement(
        spec=spec,
        recall=float(recalls.mean()),
        k=report.k,
        queries=len(recalls),
        microseconds=float(np.median(microseconds)),
        kernel=index.kernel.name,
        processor=processor_name(),
        trials=trials,
    )


def _trial(candidate: _Candidate) -> TuningTrial:
    spec, recall, microseconds = candidate.spec, candidate.recall, candidate.microseconds
    return TuningTrial(spec=spec, recall=recall, microseconds=microseconds)


def _exact_candidate(exact: FlatIndex, tuning: _Sample) -> _Candidate:
    recalls, microseconds = tuning.first(_EXACT_REQUESTS).measure(exact)
    return _Candidate(IndexSpec(), exact, float(recalls.mean()), float(np.median(microseconds)))


def _ivf_candidates(
    vectors: NDArray[np.float32],
    demand: NDArray[np.int64],
    tuning: _Sample,
    recall: float,
    exact: _Candidate,
) -> Iterator[_Candidate]:
    """Those that reach the recall: all heads, then the best head with more lists or with fewer."""
    items = len(vectors) - 1
    default_lists = 2 ** round(np.log2(items**0.5))
    smallest_head = max(4 * tuning.k, items**0.5 / 2)

    def candidates(heads: Iterable[int], lists: int) -> Iterator[_Candidate]:
        list_ids = assign_lists(vectors, lists)
        for head in heads:
            spec = IndexSpec(kind="ivf", head=head, lists=lists, probes=1)
            index = build_index(vectors, spec, demand, list_ids, exact.index.kernel)
            assert isinstance(index, IvfIndex)
            candidate = _with_margin(index, spec, tuning, recall, exact.microseconds)
            if candidate:
                yield candidate

    best: _Candidate | None = None
    heads = [head for head in _HEADS if smallest_head <= head <= items // 3]
    for candidate in candidates(heads, default_lists) if heads else ():
        best = candidate if best is None else min(best, candidate, key=lambda c: c.microseconds)
        yield candidate
    for factor in _directions(best, exact, items) if best else ():
        while best and 1 < (lists := int(best.spec.lists * factor)) <= _MAX_LISTS * default_lists:
            other = next(candidates([best.spec.head], lists), None)
            if other:
                yield other
            if not other or other.microseconds > _WORTH_IT * best.microseconds:
                break
            best = other
        if best and best.spec.lists != default_lists:
            return


def _directions(best: _Candidate, exact: _Candidate, items: int) -> list[float]:
    """Factors of the number of lists to try: the more promising first, the only one of many items.

    By counted work: exact search tells what a scanned vector costs, so head and means are known,
    and the rest of the time is spent on probed lists.
    """
    vector_us = exact.microseconds / items
    probing_us = best.microseconds - vector_us * (best.spec.head + best.spec.lists)
    # Twice as many lists at best halve the probing, and cost as many means more.
    more_first = probing_us > 2 * vector_us * best.spec.lists
    directions = [2.0, 0.5] if more_first else [0.5, 2.0]
    return directions[:1] if items > _ONE_DIRECTION_FROM else directions


def _with_margin(
    index: IvfIndex, spec: IndexSpec, tuning: _Sample, recall: float, max_microseconds: float
) -> _Candidate | None:
    """With the smallest margin whose recall, less its standard error, is high enough."""
    for margin in _MARGINS.tolist():
        candidate = index.with_margin(margin)
        recalls, microseconds = tuning.measure(candidate)
        median = float(np.median(microseconds))
        if recalls.mean() - recalls.std() / len(recalls) ** 0.5 >= recall:
            spec = spec.model_copy(update={"margin": margin})
            return _Candidate(spec, candidate, float(recalls.mean()), median)
        if median > max_microseconds:
            return None
    return None


def _keep_fast(candidates: list[_Candidate]) -> tuple[list[_Candidate], list[_Candidate]]:
    """Those that can be the fastest, and exact search; and the others, whose indexes go."""
    limit = _HOPELESS * min(c.microseconds for c in candidates)
    is_kept = [c.microseconds <= limit or c.spec.kind == "flat" for c in candidates]
    kept = [c for c, keep in zip(candidates, is_kept, strict=True) if keep]
    return kept, [c for c, keep in zip(candidates, is_kept, strict=True) if not keep]


def _rank_by_time(candidates: list[_Candidate], tuning: _Sample) -> list[_Candidate]:
    """Fastest first; timed again in turns, so that other load on the machine affects all alike."""
    sample = tuning.first(_TIMING_REQUESTS)
    limit = _HOPELESS * min(c.microseconds for c in candidates)
    close = [c for c in candidates if c.microseconds <= limit]
    rounds = [[np.median(sample.measure(c.index)[1]) for c in close] for _ in range(_TIMING_ROUNDS)]
    timed = [
        replace(candidate, microseconds=float(microseconds))
        for candidate, microseconds in zip(close, np.min(rounds, axis=0), strict=True)
    ]
    slow = [c for c in candidates if c.microseconds > limit]
    return sorted([*timed, *slow], key=lambda c: c.cost)


def _with_wider_margins(candidate: _Candidate) -> Iterator[_Candidate]:
    """The candidate; then with wider margins, for when its recall was chance."""
    yield candidate
    if isinstance(candidate.index, IvfIndex):
        for widening in _WIDENINGS:
            margin = candidate.spec.margin + widening
            spec = candidate.spec.model_copy(update={"margin": margin})
            yield replace(candidate, spec=spec, index=candidate.index.with_margin(margin))


def _with_probes(
    candidate: _Candidate, vectors: NDArray[np.float32], tuning: _Sample, recall: float
) -> IndexSpec:
    """The spec with the number of lists that each interest probes on a GPU."""
    spec, probes = candidate.spec, 1
    if isinstance(candidate.index, FlatIndex):
        return spec
    emulated = emulate_gpu(candidate.index, vectors, probes)
    while probes < min(spec.lists, GPU_LIMIT):
        if tuning.measure(emulated)[0].mean() >= recall:
            break
        probes *= 2
        emulated.set_probes(probes)
    return spec.model_copy(update={"probes": min(probes, GPU_LIMIT)})
