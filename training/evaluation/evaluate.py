"""Evaluation through the Retriever that serves: metrics, and the health of the interests."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from index.ann.build import build_index
from index.ann.spec import IndexSpec
from index.encoders import Encoder
from index.release.manifest import Manifest, read_manifest
from index.release.reading import open_release, read_parts, verify_files
from index.retrieval.catalog import Catalog
from index.retrieval.retriever import Query, Retriever
from training.data.interactions import pack
from training.data.log_options import LogOptions
from training.data.readers import read_log
from training.data.splits import ProtocolName
from training.evaluation.interest_clusters import separation
from training.evaluation.interest_metrics import interest_health
from training.evaluation.metrics import METRICS
from training.evaluation.protocols import Case, divide

CUTOFFS = (5, 10, 20, 50)
Part = Literal["test", "validation"]
_BATCH = 256
_HEALTH_USERS = 1000


def exact(
    catalog: Catalog, encoder: Encoder, vectors: NDArray[np.float32], history_length: int
) -> Retriever:
    """A retriever with exact search, for weights that have no index yet."""
    index = build_index(vectors, IndexSpec(kind="flat"))
    return Retriever(catalog, encoder, vectors, index, history_length)


def open_retriever(folder: Path) -> tuple[Manifest, Retriever]:
    """Of a release or built draft with the index it has, of a draft without one with exact search.

    Raises ReleaseError if it cannot be opened.
    """
    manifest = read_manifest(folder)
    if manifest.index is not None:
        release = open_release(folder)
        return release.manifest, release.retriever
    verify_files(folder, manifest)
    encoder, vectors, catalog = read_parts(folder, manifest)
    return manifest, exact(catalog, encoder, vectors, manifest.encoder.history_length)


def evaluate_release(
    folder: Path,
    log_path: Path,
    part: Part,
    format: str = "auto",
    split: ProtocolName | None = None,
) -> dict[str, float]:
    """Metrics on what the release or draft was not trained on.

    The log is filtered and divided as the fit did it, so the same part of the same log is held out;
    another split than the fit's asks about what was trained on.
    Raises ReleaseError or LogError.
    """
    manifest, retriever = open_retriever(folder)
    config = LogOptions.from_stored(manifest.training)
    interactions = read_log(log_path, format, config.event_types or None, config.min_weight)
    core = interactions.k_core(config.min_user_interactions, config.min_item_interactions)
    log = pack(core, retriever.catalog)
    task = divide(
        split or config.split, log, len(retriever.catalog), config.test_fraction, config.split_seed
    )
    cases = task.test if part == "test" else task.validation
    return evaluate(retriever, cases, task.exclude_seen) | separation(retriever, cases)


def user_metrics(
    retriever: Retriever, cases: list[Case], exclude_seen: bool = False
) -> dict[str, NDArray[np.float64]]:
    """Each metric at each cutoff, such as recall@50, for each user (C,)."""
    return measured(_relevant(cases), _rankings(retriever, cases, max(CUTOFFS), exclude_seen))


def _relevant(cases: list[Case]) -> list[list[int]]:
    return [case.relevant for case in cases]


def measured(
    relevant: Sequence[Sequence[int]], rankings: Iterable[Sequence[int]]
) -> dict[str, NDArray[np.float64]]:
    """Each metric at each cutoff, for each ranking and what it should have found."""
    values: dict[str, list[float]] = {f"{name}@{n}": [] for name in METRICS for n in CUTOFFS}
    for wanted, ranked in zip(relevant, rankings, strict=True):
        for name, metric in METRICS.items():
            for n in CUTOFFS:
                values[f"{name}@{n}"].append(metric(ranked, wanted, n))
    return {name: np.array(each) for name, each in values.items()}


def popular(
    catalog: Catalog, cases: list[Case], exclude_seen: bool = False
) -> dict[str, NDArray[np.float64]]:
    """As user_metrics, of ranking by popularity alone."""
    depth = max(CUTOFFS)

    def ranked(case: Case) -> list[int]:
        if case.among is not None:
            return sorted(case.among)
        seen = set(case.history) if exclude_seen else set()
        head = range(1, min(depth + len(seen), len(catalog)) + 1)
        return [row for row in head if row not in seen]

    return measured(_relevant(cases), map(ranked, cases))


def evaluate(
    retriever: Retriever, cases: list[Case], exclude_seen: bool = False
) -> dict[str, float]:
    """Each metric at each cutoff, mean over the users; how many there were; and interest health."""
    values = user_metrics(retriever, cases, exclude_seen)
    means = {name: float(each.mean()) for name, each in values.items()}
    shown = [case.history for case in cases[:_HEALTH_USERS]]
    return means | {"users": float(len(cases))} | interest_health(retriever, shown)


def _rankings(
    retriever: Retriever, cases: list[Case], k: int, exclude_seen: bool
) -> Iterator[list[int]]:
    for start in range(0, len(cases), _BATCH):
        batch = cases[start : start + _BATCH]
        if batch[0].among is not None:
            yield from _ranked_among(retriever, batch)
            continue
        queries = [
            Query([retriever.catalog.id(row) for row in case.history], k, exclude_seen)
            for case in batch
        ]
        for answer in retriever.recommend(queries):
            yield answer.rows.tolist()


def _ranked_among(retriever: Retriever, cases: list[Case]) -> Iterator[list[int]]:
    """Each case's own candidates by the score that is served, ties to the less wanted."""
    interests = retriever.encode([case.history for case in cases])
    for case, vectors in zip(cases, interests, strict=True):
        rows = np.array((case.among or [])[::-1])
        scores = (retriever.vectors[rows] @ vectors.T).max(axis=1)
        yield rows[np.argsort(-scores, kind="stable")].tolist()
