"""Evaluation through the Retriever that serves: offline metrics and interest metrics."""

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
from index.retrieval.retriever import Retriever
from training.data.log_options import LogOptions
from training.data.packed_log import PackedLog, pack
from training.data.readers import read_log
from training.data.splits import ProtocolName
from training.evaluation.interest_clusters import cluster_metrics
from training.evaluation.interest_metrics import interest_metrics
from training.evaluation.metrics import measure
from training.evaluation.protocols import EvaluationCase, split_log
from training.evaluation.rankings import popularity_order, rank_by_popularity, rank_cases

Part = Literal["test", "validation"]
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


def evaluate_release(
    folder: Path,
    log_path: Path,
    part: Part,
    format: str = "auto",
    split: ProtocolName | None = None,
) -> dict[str, float]:
    """Metrics on the part of a log that the release or draft was not trained on.

    The log is filtered and split as in the fit, so the same part of the same log is held out; with
    another split than the fit's, training data is evaluated on.
    Raises ReleaseError or LogError.
    """
    manifest, retriever = open_retriever(folder)
    options = LogOptions.from_stored(manifest.training)
    interactions = read_log(log_path, format, options.event_types or None, options.min_weight)
    core = interactions.k_core(options.min_user_interactions, options.min_item_interactions)
    log = pack(core, retriever.catalog)
    data = split_log(
        split or options.split,
        log,
        len(retriever.catalog),
        options.test_fraction,
        options.split_seed,
    )
    cases = data.test if part == "test" else data.validation
    return evaluate(retriever, cases, data.exclude_seen) | cluster_metrics(retriever, cases)


def user_metrics(
    retriever: Retriever, cases: list[EvaluationCase], exclude_seen: bool = False
) -> dict[str, NDArray[np.float64]]:
    """Each metric at each cutoff, such as recall@50, for each user (C,)."""
    rankings = rank_cases(retriever, cases, exclude_seen)
    return measure((case.relevant for case in cases), rankings)


def popularity_metrics(
    catalog: Catalog, train: PackedLog, cases: list[EvaluationCase], exclude_seen: bool = False
) -> dict[str, NDArray[np.float64]]:
    """As user_metrics, of the popularity baseline: the most popular items of `train` for everyone.

    train: what models are trained on, in rows of the catalogue.
    """
    counts = np.bincount(train.rows, minlength=len(catalog) + 1)[1:]
    rows = [index + 1 for index in popularity_order(counts, catalog.ids)]
    rankings = rank_by_popularity(rows, cases, exclude_seen)
    return measure((case.relevant for case in cases), rankings)


def evaluate(
    retriever: Retriever, cases: list[EvaluationCase], exclude_seen: bool = False
) -> dict[str, float]:
    """Each metric at each cutoff, mean over the users; their number; and the interest metrics."""
    values = user_metrics(retriever, cases, exclude_seen)
    means = {name: float(by_user.mean()) for name, by_user in values.items()}
    histories = [case.history for case in cases[:_INTEREST_USERS]]
    return means | {"users": float(len(cases))} | interest_metrics(retriever, histories)
