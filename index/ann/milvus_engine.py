"""Milvus as an engine: collections made, measured against exact search, opened, named by an alias.

A collection's name is made of the release, of what is in it and of its index. So a release never
finds another one's items under its name, and a build that was killed is done again in place.
"""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.ann.flat import FlatIndex
from index.ann.kernels import FLOAT32
from index.ann.milvus import MilvusIndex, merged_rows
from index.ann.milvus_client import SEARCH_TIMEOUT_S, MilvusClient
from index.ann.processor import processor_name
from index.ann.spec import (
    IndexMeasurement,
    IndexSpec,
    MilvusIndexType,
    MilvusSpec,
    TuningTrial,
)
from index.retrieval.merge import merge

ALIAS = "re4_current"
_SAMPLE = 200  # held-out users: half of them tune, the others are reported on
_EFFORTS = (64, 128, 256, 512, 1024, 2048)  # values of ef and search_list that are tried
_SCORES_PER_BATCH = 1 << 24  # of exact answers: 64 MiB
_SWITCH_TIMEOUT_S = 60.0
_SWITCH_RETRY_S = 0.2

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """Requests for k items: interests (Q, K, D), and the rows of exact search (Q, k)."""

    interests: NDArray[np.float32]
    answers: NDArray[np.int64]

    def measure(self, index: MilvusIndex) -> tuple[float, float]:
        """Recall, and the median of elapsed microseconds, of requests that are sent one by one."""
        recalls, seconds = [], []
        for request, answer in zip(self.interests, self.answers, strict=True):
            start = time.perf_counter()
            rows = merged_rows(index, request, len(answer))
            seconds.append(time.perf_counter() - start)
            recalls.append(np.isin(answer[answer > 0], rows).mean())
        return float(np.mean(recalls)), float(np.median(seconds) * 1e6)


class MilvusEngine:
    """An Engine. timeout_s: of a search. Raises ValueError if the URI cannot be one."""

    def __init__(self, uri: str, timeout_s: float = SEARCH_TIMEOUT_S) -> None:
        self._client = MilvusClient(uri, timeout_s)

    def open(self, spec: MilvusSpec, vectors: NDArray[np.float32]) -> MilvusIndex:
        held, needed = self._client.count(spec.collection), len(vectors) - 1
        if held != needed:
            has = "does not exist" if held is None else f"has {held:,} of {needed:,} items"
            raise ValueError(f"the collection {spec.collection} {has}; build it again")
        return MilvusIndex(self._client, spec, vectors)

    def build(
        self,
        name: str,
        vectors: NDArray[np.float32],
        categories: NDArray[np.int32],
        interests: NDArray[np.float32],
        recall: float,
        k: int,
        index_type: MilvusIndexType,
        progress: Progress,
    ) -> tuple[MilvusIndex, IndexMeasurement]:
        """A collection of vectors and category codes (N + 1), searched as cheaply as the recall
        allows for interests (Q, K, D) of held-out users.

        Raises ValueError if no effort reaches it, SearchUnavailableError if Milvus fails.
        """
        spec = _spec(name, vectors, categories, index_type)
        if self._client.count(spec.collection) != len(vectors) - 1:
            progress(f"{spec.collection}: inserting {len(vectors) - 1:,} items")
            self._client.create(spec, vectors, categories)
        tuning, report = _samples(vectors, interests[:_SAMPLE], k)
        trials: list[TuningTrial] = []
        for candidate in _candidates(spec):
            index = MilvusIndex(self._client, candidate, vectors)
            found, microseconds = tuning.measure(index)
            measured = IndexSpec(kind="milvus", milvus=candidate)
            trials.append(TuningTrial(spec=measured, recall=found, microseconds=microseconds))
            progress(f"{index_type} {candidate.search}: recall {found:.4f}, {microseconds:.0f} us")
            if found >= recall:
                reported, microseconds = report.measure(index)
                if reported >= recall:
                    return index, _measurement(measured, reported, microseconds, k, report, trials)
        raise ValueError(
            f"{index_type} reaches a recall of {max(t.recall for t in trials):.4f}, and {recall} "
            "is wanted; take another --engine-index, or a lower --recall"
        )

    def make_current(
        self, spec: MilvusSpec, vectors: NDArray[np.float32], answers: Callable[[MilvusIndex], None]
    ) -> None:
        """Make the alias name the collection, and wait until what it gives is right.

        answers: asks an index, and raises an error while its answers are not right. For a moment
        after a switch Milvus can refuse a search, or answer from the collection before. If it is
        not right in time, the alias names what it named before, and the last error is raised.
        """
        before = self._client.point(ALIAS, spec.collection)
        by_alias = MilvusIndex(self._client, spec.model_copy(update={"collection": ALIAS}), vectors)
        end = time.monotonic() + _SWITCH_TIMEOUT_S
        while True:
            try:
                return answers(by_alias)
            except Exception:
                if time.monotonic() > end:
                    if before is not None:
                        self._client.point(ALIAS, before)
                    raise
            time.sleep(_SWITCH_RETRY_S)

    def target(self, alias: str) -> str | None:
        """The collection that the alias names."""
        return self._client.target(alias)

    def drop(self, collections: Sequence[str]) -> None:
        for collection in collections:
            self._client.drop(collection)

    def close(self) -> None:
        self._client.close()


def _samples(
    vectors: NDArray[np.float32], interests: NDArray[np.float32], k: int
) -> tuple[Sample, Sample]:
    """Every second user each; the same one twice if there is but one."""
    answers = merge(FlatIndex(vectors, FLOAT32, _SCORES_PER_BATCH).search(interests, k)).rows[:, :k]
    second = min(1, len(answers) - 1)
    tuning, report = slice(0, None, 2), slice(second, None, 2)
    return Sample(interests[tuning], answers[tuning]), Sample(interests[report], answers[report])


def _spec(
    name: str,
    vectors: NDArray[np.float32],
    categories: NDArray[np.int32],
    index_type: MilvusIndexType,
) -> MilvusSpec:
    """The spec before a search effort is chosen."""
    lists = max(1, min(65_536, 4 * round(len(vectors) ** 0.5)))
    build = {"HNSW": {"M": 16, "efConstruction": 200}, "IVF_FLAT": {"nlist": lists}}
    parameters = build.get(index_type, {})
    content = hashlib.sha256(f"{index_type} {sorted(parameters.items())}".encode())
    content.update(vectors.data)
    content.update(np.ascontiguousarray(categories).data)
    collection = f"re4_{re.sub('[^A-Za-z0-9]', '_', name)}_{content.hexdigest()[:16]}"
    return MilvusSpec(collection=collection, index_type=index_type, build=parameters)


def _candidates(spec: MilvusSpec) -> Sequence[MilvusSpec]:
    """The spec with each search effort that is tried, the least first."""
    lists = spec.build.get("nlist", 1)
    efforts: dict[str, list[dict[str, int]]] = {
        "HNSW": [{"ef": effort} for effort in _EFFORTS],
        "DISKANN": [{"search_list": effort} for effort in _EFFORTS],
        "IVF_FLAT": [
            {"nprobe": min(lists, max(1, lists // part))} for part in (64, 32, 16, 8, 4, 1)
        ],
        "FLAT": [{}],
    }
    return [spec.model_copy(update={"search": effort}) for effort in efforts[spec.index_type]]


def _measurement(
    spec: IndexSpec,
    recall: float,
    microseconds: float,
    k: int,
    sample: Sample,
    trials: Sequence[TuningTrial],
) -> IndexMeasurement:
    return IndexMeasurement(
        spec=spec,
        recall=recall,
        k=k,
        queries=len(sample.interests),
        microseconds=microseconds,
        processor=processor_name(),
        trials=tuple(sorted(trials, key=lambda trial: trial.microseconds)),
    )
