"""Which index finds enough of what exact search gives held-out users, at the least cost."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from index.ann.build import assign_lists, build_index
from index.ann.flat import FlatIndex
from index.ann.gpu import rehearse
from index.ann.ivf import IvfIndex
from index.ann.spec import LIMIT, IndexMeasurement, IndexSpec, TuningTrial
from index.retrieval.merge import merge
from index.retrieval.search import ItemIndex

Progress = Callable[[str], None]

_ENOUGH = 40  # users, with fewer of whom recall is too uncertain to choose by
_DEPTH = 2  # in units of k: how many answers of each user count as demand
_HEADS = (512, 1024, 2048, 4096, 8192, 16384)
# From what lets items be found that nobody was given yet, and more than k items, to where nearly
# every list is probed.
_MARGINS = np.arange(2.5, 8, 0.25)
_TURNS = 5  # of timing, in which the candidates follow each other
_TIMED = 100  # requests a turn
_DRAW = 1.05  # exact search is preferred where it takes no longer than this, as a share


@dataclass(frozen=True)
class _Sample:
    """Requests for k items, interests (Q, K, D), and the rows that exact search answers (Q, k)."""

    interests: NDArray[np.float32]
    answers: NDArray[np.int64]
    k: int

    @classmethod
    def of(cls, exact: FlatIndex, interests: NDArray[np.float32], k: int) -> "_Sample":
        return cls(interests, merge(exact.search(interests, k)).rows[:, :k], k)

    def first(self, requests: int) -> "_Sample":
        return _Sample(self.interests[:requests], self.answers[:requests], self.k)

    def ask(self, index: ItemIndex) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """For each request, asked alone: the recall, and the microseconds with the merge."""
        recalls, seconds = [], []
        for request, answer in zip(self.interests, self.answers, strict=True):
            start = time.perf_counter()
            merged = merge(index.search(request[None], self.k))
            seconds.append(time.perf_counter() - start)
            recalls.append(np.isin(answer, merged.rows[0, : self.k]).mean())
        return np.array(recalls), np.array(seconds) * 1e6


@dataclass(frozen=True)
class _Candidate:
    spec: IndexSpec
    index: FlatIndex | IvfIndex
    recall: float
    microseconds: float

    @property
    def said(self) -> str:
        spec = self.spec
        what = f"head {spec.head:,}, {spec.lists:,} lists" if spec.kind == "ivf" else "exact"
        return f"{what}: recall {self.recall:.4f}, {self.microseconds:.0f} us a request"


def tune(
    vectors: NDArray[np.float32],
    interests: NDArray[np.float32],
    recall: float,
    k: int,
    progress: Progress,
) -> tuple[FlatIndex | IvfIndex, IndexMeasurement]:
    """The cheapest index over vectors (N + 1, D) that reaches the recall; flat always does.

    interests (Q, K, D): of users who were not trained on. Half of them tell which items are in
    demand, a quarter tunes, and the last quarter, which had no part in it, is reported.
    """
    with _one_thread():
        exact = FlatIndex(vectors)
        if len(interests) < _ENOUGH:
            everyone = _Sample.of(exact, interests, k)
            progress(_exact_candidate(exact, everyone).said)
            return exact, _measure(exact, IndexSpec(), everyone, ())
        answers = _Sample.of(exact, interests[::2], _DEPTH * k).answers
        demand = np.bincount(answers.ravel(), minlength=len(vectors))
        tuning, report = (_Sample.of(exact, interests[start::4], k) for start in (1, 3))
        candidates = [_exact_candidate(exact, tuning)]
        progress(candidates[0].said)
        for candidate in _ivf_candidates(vectors, demand, tuning, recall, candidates[0]):
            progress(candidate.said)
            candidates.append(candidate)
        ranked = _ranked(candidates, tuning)
        trials = tuple(
            TuningTrial(spec=c.spec, recall=c.recall, microseconds=c.microseconds) for c in ranked
        )
        for candidate in ranked:
            spec = _with_probes(candidate, vectors, tuning, recall)
            measured = _measure(candidate.index, spec, report, trials)
            if measured.recall >= recall:
                return candidate.index, measured
    raise AssertionError("exact search reaches every recall; this is a bug")


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a server, where each thread answers requests of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _measure(
    index: ItemIndex, spec: IndexSpec, report: _Sample, trials: tuple[TuningTrial, ...]
) -> IndexMeasurement:
    recalls, microseconds = report.ask(index)
    return IndexMeasurement(
        spec=spec,
        recall=float(recalls.mean()),
        k=report.k,
        queries=len(recalls),
        microseconds=float(np.median(microseconds)),
        trials=trials,
    )


def _exact_candidate(exact: FlatIndex, tuning: _Sample) -> _Candidate:
    recalls, microseconds = tuning.ask(exact)
    return _Candidate(IndexSpec(), exact, float(recalls.mean()), float(np.median(microseconds)))


def _ivf_candidates(
    vectors: NDArray[np.float32],
    demand: NDArray[np.int64],
    tuning: _Sample,
    recall: float,
    exact: _Candidate,
) -> Iterator[_Candidate]:
    """Those that are good enough: of all heads, then of fewer and more lists with the best."""
    items = len(vectors) - 1
    usual = 2 ** round(np.log2(items**0.5))
    heads = [head for head in _HEADS if 4 * tuning.k <= head <= items // 3]
    tried: list[_Candidate] = []
    for lists in (usual, usual // 2, usual * 2):
        if not heads:
            return
        assigned = assign_lists(vectors, lists)
        for head in heads:
            spec = IndexSpec(kind="ivf", head=head, lists=lists, probes=1)
            index = build_index(vectors, spec, demand, assigned)
            assert isinstance(index, IvfIndex)
            candidate = _with_margin(index, spec, tuning, recall, exact.microseconds)
            if candidate:
                tried.append(candidate)
                yield candidate
        heads = [min(tried, key=lambda c: c.microseconds).spec.head] if tried else []


def _with_margin(
    index: IvfIndex, spec: IndexSpec, tuning: _Sample, recall: float, too_long: float
) -> _Candidate | None:
    """With the least margin whose recall is enough even if the sample flatters by a deviation."""
    for margin in _MARGINS.tolist():
        other = index.with_margin(margin)
        recalls, microseconds = tuning.ask(other)
        took = float(np.median(microseconds))
        if recalls.mean() - recalls.std() / len(recalls) ** 0.5 >= recall:
            spec = spec.model_copy(update={"margin": margin})
            return _Candidate(spec, other, float(recalls.mean()), took)
        if took > too_long:
            return None
    return None


def _ranked(candidates: list[_Candidate], tuning: _Sample) -> list[_Candidate]:
    """Fastest first, timed again in turns, so that what else the machine does meets all alike."""
    few = tuning.first(_TIMED)
    turns = [[np.median(few.ask(c.index)[1]) for c in candidates] for _ in range(_TURNS)]
    timed = [
        replace(candidate, microseconds=float(took))
        for candidate, took in zip(candidates, np.min(turns, axis=0), strict=True)
    ]
    return sorted(timed, key=lambda c: c.microseconds / (_DRAW if c.spec.kind == "flat" else 1))


def _with_probes(
    candidate: _Candidate, vectors: NDArray[np.float32], tuning: _Sample, recall: float
) -> IndexSpec:
    """The spec with the lists to probe on a GPU, where each interest probes equally many."""
    spec, probes = candidate.spec, 1
    if isinstance(candidate.index, FlatIndex):
        return spec
    while probes < min(spec.lists, LIMIT):
        rehearsal = rehearse(candidate.index, vectors, probes)
        if tuning.ask(rehearsal)[0].mean() >= recall:
            break
        probes *= 2
    return spec.model_copy(update={"probes": min(probes, LIMIT)})
