"""From a log to a draft: read, filter, split, train, write."""

import json
import subprocess
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from index.encoders import ENCODERS
from index.release.atomic_io import fsync
from index.release.gate import VALIDATION
from index.release.manifest import (
    Canary,
    DataWindow,
    EncoderSpec,
    Manifest,
    digest,
    write_manifest,
)
from index.release.new_items import write_new_items
from index.release.text_model import write_text_model
from index.release.writing import write_parts
from index.retrieval.catalog import Catalog
from index.retrieval.details import Details
from training.config import ConfigError, FitConfig
from training.data.item_metadata import ItemDetails, read_items
from training.data.matching import require_event_types
from training.data.packed_log import PackedLog, prepare
from training.data.readers import read_log
from training.evaluation.evaluate import evaluate_in_detail, exact_retriever
from training.evaluation.popularity import popularity_metrics
from training.evaluation.protocols import DataSplit, split_log
from training.evaluation.rankings import encode_cases
from training.evaluation.unseen import Unseen, unseen_by_fit
from training.fitting import ranks
from training.fitting.candidates import Search
from training.fitting.content_model import CONTENT_METRICS, MAX_NEW_ITEMS, fit_content
from training.fitting.fingerprint import fingerprint
from training.fitting.search import search
from training.fitting.search_report import reports
from training.fitting.select_interests import select_interests
from training.fitting.time_gaps import with_time_gaps
from training.fitting.trainer import FitResult, StepCallback, Trainer
from training.fitting.working_folder import working_folder
from training.models.model import encoder_arguments

HISTORY = "history.jsonl"  # of the training: one record per epoch
_TUNING_USERS = 2000  # held-out users whose interests are stored in the draft to tune its index
_CANARY_COUNT = 8
_ENCODE_BATCH = 256


class PreparedData(NamedTuple):
    """A log that is filtered, packed in rows of a catalog, and split by a protocol.

    items: what an item file has, also of items outside the catalog; empty without one.
    """

    catalog: Catalog
    log: PackedLog
    split: DataSplit
    items: Mapping[str, ItemDetails] = MappingProxyType({})


def prepare_log(log_path: Path, items_path: Path | None, config: FitConfig) -> PreparedData:
    """Raises LogError if the log cannot be used or is too small to split."""
    interactions = read_log(
        log_path, config.format, config.event_types or None, config.min_weight, config
    )
    if interactions.events is not None:
        found = [name for name in interactions.events.types if name]
        weights = config.weights_by_event
        require_event_types(
            log_path, weights, found, len(interactions), "interactions", "event_weights"
        )
    items = read_items(items_path) if items_path else None
    catalog, log = prepare(
        interactions, config.min_user_interactions, config.min_item_interactions, items
    )
    split = split_log(config.split, log, len(catalog), config.test_fraction, config.split_seed)
    return PreparedData(catalog, log, split, items or {})


def fit(
    log_path: Path,
    root: Path,
    plan: FitConfig | Search,
    items_path: Path | None = None,
    step_callback: Callable[[Trainer], StepCallback] = lambda trainer: lambda examples, state: None,
    on_message: Callable[[str], None] = lambda message: None,
) -> Path:
    """Train on a log and write the draft <root>/drafts/<id>; returns that folder.

    After a run was killed, the same call over the same users, items and times continues it and ends
    with the same metrics.
    plan: the settings, or the candidates to choose from.
    Several processes of torchrun fit together: all call this, and the first writes.
    step_callback: makes the function that is called after each step, once for each training run
    to its end; there are several runs if only K is open. on_message: gets what the search says.
    Raises LogError, ConfigError, DivergedError, or DeviceMemoryError; then it leaves no draft.
    """
    config = plan.first if isinstance(plan, Search) else plan
    if config.encoder not in ENCODERS:
        raise ConfigError(f"encoder: no {config.encoder!r}; choose one of {', '.join(ENCODERS)}")
    data = prepare_log(log_path, items_path, config)
    plan = _decided(plan, float(data.log.times.max()))
    drafts, key = root / "drafts", fingerprint(plan, data.catalog, data.log)
    own = drafts / f".fit-{key}"
    with working_folder(own) if ranks.rank() == 0 else nullcontext(own) as folder:
        ranks.wait()
        config, result, texts = _train(plan, data, folder, step_callback, on_message)
        ranks.wait()  # until all have read the checkpoints

        def publish() -> Path:
            detailed = in_detail(config, data, result)
            name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{config.encoder}-{key[:6]}"
            metrics = _popularity(config, data)
            written = write_draft(folder / name, config, data, detailed, metrics, texts=texts)
            draft = written.rename(drafts / name)
            fsync(drafts)
            return draft

        return ranks.from_first(publish)


def _decided(plan: FitConfig | Search, moment: float) -> FitConfig | Search:
    """With what the log decides: whether its times are read."""
    if isinstance(plan, FitConfig):
        return with_time_gaps(plan, moment)
    candidates = {name: with_time_gaps(own, moment) for name, own in plan.candidates.items()}
    return plan.model_copy(update={"candidates": candidates})


def in_detail(config: FitConfig, data: PreparedData, result: FitResult) -> FitResult:
    """With all that is measured on validation, of which an epoch is measured by a part."""
    retriever = exact_retriever(data.catalog, result.encoder, result.vectors, config.history)
    cases = data.split.validation[: config.validation_users]
    detail = evaluate_in_detail(retriever, cases, config.exclude_seen)
    return replace(result, metrics={**result.metrics, **detail.means})


def _popularity(config: FitConfig, data: PreparedData) -> dict[str, dict[str, float]]:
    """What popularity reaches on validation, of all time and of the last weeks."""
    cases = data.split.validation[: config.validation_users]
    by_popularity = popularity_metrics(
        data.split.train, data.catalog, cases, config.exclude_seen, config.popularity_days
    )
    return {f"{VALIDATION}_{name}": values for name, values in by_popularity.items()}


def _train(
    plan: FitConfig | Search,
    data: PreparedData,
    folder: Path,
    step_callback: Callable[[Trainer], StepCallback],
    on_message: Callable[[str], None],
) -> tuple[FitConfig, FitResult, Mapping[str, str]]:
    """The settings that were chosen, the run with them, and the reports of a search."""

    def run(config: FitConfig, name: str | None = None) -> FitResult:
        run_folder = folder / (name or f"K={config.interests}")
        run_folder.mkdir(exist_ok=True)
        trainer = Trainer(config, data.catalog, data.split, run_folder)
        return trainer.run(step_callback(trainer))

    if isinstance(plan, Search):
        choice = search(plan, data.catalog, data.split, folder, on_message)
        return choice.config, run(choice.config, choice.name), reports(choice.trials)
    return *select_interests(plan, run, lambda result: result.metrics), {}


def write_draft(
    folder: Path,
    config: FitConfig,
    data: PreparedData,
    result: FitResult,
    metrics: Mapping[str, dict[str, float]] | None = None,
    unseen: Unseen | None = None,
    texts: Mapping[str, str] | None = None,
) -> Path:
    """Write a new folder whose name is the draft's id. It may be moved once it is complete.

    metrics: by split, metrics for the manifest besides those on validation. unseen: what was not
    trained on; None is what the settings hold out. texts: more files, by name.
    """
    sample = data.split.validation[:_TUNING_USERS]
    retriever = exact_retriever(data.catalog, result.encoder, result.vectors, config.history)
    batches = range(0, len(sample), _ENCODE_BATCH)
    interests = np.concatenate(
        [encode_cases(retriever, sample[start : start + _ENCODE_BATCH]) for start in batches]
    )
    files = {**write_parts(folder, result.encoder, result.vectors, data.catalog, interests)}
    content = fit_content(data.catalog, data.items, result.encoder, result.vectors)
    if content is not None:
        metrics = {**(metrics or {}), CONTENT_METRICS: content.metrics}
        files |= write_text_model(folder, content.text)
        if new_items := content.text.delta(_new_items(data)):
            files |= write_new_items(folder, new_items)
    records = "".join(json.dumps(record) + "\n" for record in result.history)
    texts = {HISTORY: records, **(texts or {})}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    unseen = unseen or unseen_by_fit(config, data.log)
    manifest = _manifest(folder.name, config, data, result, metrics or {}, unseen)
    write_manifest(
        folder,
        manifest.model_copy(
            update={"files": {**files, **{name: digest(folder / name) for name in texts}}}
        ),
    )
    return folder


def _new_items(data: PreparedData) -> dict[str, Details]:
    """Those of the item file that the catalogue lacks."""
    others = sorted(data.items.keys() - {*data.catalog.ids})
    return {item: data.items[item].known for item in others[:MAX_NEW_ITEMS]}


def _manifest(
    name: str,
    config: FitConfig,
    data: PreparedData,
    result: FitResult,
    metrics: Mapping[str, dict[str, float]],
    unseen: Unseen,
) -> Manifest:
    catalog, log = data.catalog, data.log
    canary_cases = data.split.validation[:_CANARY_COUNT]
    return Manifest(
        id=name,
        created=datetime.now(UTC),
        code_version=code_version(),
        encoder=EncoderSpec(
            name=config.encoder,
            arguments=encoder_arguments(config, len(catalog)),
            history_length=config.history,
        ),
        data=DataWindow(
            interactions=len(log.rows),
            users=len(log),
            items=len(catalog),
            first=float(log.times.min()),
            last=float(log.times.max()),
        ),
        training=config.model_dump(mode="json") | unseen.to_settings(),
        metrics={VALIDATION: result.metrics, **metrics},
        canaries=tuple(
            Canary(history=tuple(catalog.id(row) for row in case.history)) for case in canary_cases
        ),
    )


def code_version() -> str:
    """The installed version, plus the commit if the code is a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed, as in a container image
        return version("re4")
    commit = process.stdout.strip()
    return version("re4") + (f"+{commit}" if commit else "")
