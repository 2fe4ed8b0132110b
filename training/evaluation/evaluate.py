"""Evaluation through the Retriever that serves: offline metrics and interest metrics."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.ann.build import build_index
from index.ann.spec import IndexSpec
from index.encoders import Encoder
from index.release.manifest import Manifest, read_manifest
from index.release.reading import open_release, read_parts
from index.release.verification import verify_files
from index.retrieval.catalog import Catalog
from index.retrieval.retriever import Retriever
from training.data.errors import LogError
from training.data.log_options import LogOptions
from training.data.packed_log import pack_all
from training.data.readers import read_log
from training.data.splits import ProtocolName
from training.evaluation.detail import Detail, measure_in_detail
from training.evaluation.interest_clusters import cluster_metrics
from training.evaluation.interest_metrics import interest_metrics, merged_metrics
from training.evaluation.metrics import measure
from training.evaluation.popularity import popularity_metrics
from training.evaluation.protocols import EvaluationCase
from training.evaluation.rankings import rank_cases
from training.evaluation.unseen import Part, trained_part, unseen_by, unseen_cases

_INTEREST_USERS = 1000


def exact_retriever(
    catalog: Catalog, encoder: Encoder, vectors: NDArray[np.float32], history_length: int
) -> Retriever:
    """A retriever with exact search, for weights that have no index yet."""
    index = build_index(vectors, IndexSpec(kind="flat"))
    return Retriever(catalog, encoder, vectors, index, history_length)


def open_retriever(folder: Path) -> tuple[Manifest, Retriever]:
    """Of a release or draft: with its index, or with exact search if it has none.

    Raises ReleaseError if it cannot be opened.
    """
    manifest = read_manifest(folder)
    if manifest.index is not None:
        release = open_release(folder)
        return release.manifest, release.retriever
    verify_files(folder, manifest)
    encoder, vectors, catalog = read_parts(folder, manifest)
    return manifest, exact_retriever(catalog, encoder, vectors, manifest.encoder.history_length)


class Evaluation(NamedTuple):
    """Metrics of a release, and in words what it was trained on."""

    metrics: dict[str, float]
    trained_on: str


def evaluate_release(
    folder: Path,
    log_path: Path,
    part: Part = "test",
    split: ProtocolName | None = None,
    exclude_seen: bool | None = None,
    source: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Metrics on a part of a log that the release or draft was not trained on.

    Beside them, under popular/ and recent/, those of the popularity of what the release was trained
    on, and of its last weeks, as far as the log has it.
    The log is read and filtered as in the fit, and split so that only what the release has not seen
    is held out: by default as in the fit. An item that the release does not know is a miss.
    exclude_seen: None means that of the fit. source: settings of LogSource that differ from the
    fit's.
    Raises ReleaseError, or LogError if nothing unseen is in the log.
    """
    manifest, retriever = open_retriever(folder)
    options = LogOptions.from_stored({**manifest.training, **(source or {})})
    interactions = read_log(
        log_path, options.format, options.event_types or None, options.min_weight, options
    )
    core = interactions.k_core(options.min_user_interactions, options.min_item_interactions)
    log, items = pack_all(core, retriever.catalog), len(retriever.catalog)
    unseen = unseen_by(manifest, options, log)
    trained_on = f"{manifest.id} was {unseen.sentence(manifest.data)}"
    try:
        cases = unseen_cases(unseen, log, items, options, split, part)
    except LogError as error:
        raise LogError(f"{log_path}: {trained_on}; {error}") from error
    excludes = manifest.exclude_seen if exclude_seen is None else exclude_seen
    metrics = evaluate_in_detail(retriever, cases, excludes).means
    train = trained_part(unseen, log, items, options, split)
    by_popularity = popularity_metrics(
        train, retriever.catalog, cases, excludes, options.popularity_days
    )
    for baseline, values in by_popularity.items():
        metrics |= {f"{baseline}/{name}": value for name, value in values.items()}
    return Evaluation(metrics | cluster_metrics(retriever, _known(cases, items)), trained_on)


def _known(cases: list[EvaluationCase], items: int) -> list[EvaluationCase]:
    """The cases without rows above those of the catalogue; those with a history left."""
    reduced = (
        case.known(items)._replace(relevant=[row for row in case.relevant if row <= items])
        for case in cases
    )
    return [case for case in reduced if case.history]


def user_metrics(
    retriever: Retriever, cases: list[EvaluationCase], exclude_seen: bool = True
) -> dict[str, NDArray[np.float64]]:
    """Each metric at each cutoff, such as recall@50, for each user (C,)."""
    rankings = rank_cases(retriever, cases, exclude_seen)
    return measure((case.relevant for case in cases), rankings)


def evaluate(
    retriever: Retriever, cases: list[EvaluationCase], exclude_seen: bool = True
) -> dict[str, float]:
    """Each metric at each cutoff, mean over the users; what was counted; the interest metrics."""
    values = user_metrics(retriever, cases, exclude_seen)
    means = {name: float(by_user.mean()) for name, by_user in values.items()}
    measure_interests = partial(interest_metrics, retriever, exclude_seen=exclude_seen)
    return means | about(len(retriever.catalog), cases, exclude_seen, measure_interests)


def evaluate_in_detail(
    retriever: Retriever, cases: list[EvaluationCase], exclude_seen: bool = True
) -> Detail:
    """As evaluate, with what several interests are for; it takes several times as long."""
    rank = partial(rank_cases, retriever)
    detail = measure_in_detail(rank, cases, exclude_seen, retriever.catalog, retriever)
    items, measure_interests = len(retriever.catalog), partial(merged_metrics, retriever)
    counted = about(items, cases, exclude_seen, measure_interests)  # the lists are in the detail
    return detail._replace(means=counted | detail.means)


def about(
    items: int,
    cases: list[EvaluationCase],
    exclude_seen: bool,
    measure_interests: Callable[[list[EvaluationCase]], dict[str, float]],
) -> dict[str, float]:
    """What was counted, and the interest metrics, of a catalogue of so many items.

    held_out_items: distinct items, summed over users; among them unknown_items, which the catalogue
    lacks, and repeated_items, which are in the history too: with exclude_seen both are misses.
    """
    held_out = [(case.history, set(case.relevant)) for case in cases]
    counts = {
        "users": len(cases),
        "exclude_seen": exclude_seen,
        "held_out_items": sum(len(relevant) for _, relevant in held_out),
        "unknown_items": sum(row > items for _, relevant in held_out for row in relevant),
        "repeated_items": sum(len(relevant & set(history)) for history, relevant in held_out),
    }
    known = _known(cases[:_INTEREST_USERS], items)
    named = {name: float(count) for name, count in counts.items()}
    return named | measure_interests(known) if known else named
