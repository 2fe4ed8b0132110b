"""A log to a draft: read, filter, split, train, write."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from index.encoders import ENCODERS
from index.release.atomic_io import fsync
from index.release.lock import exclusive_lock
from index.release.manifest import Canary, DataWindow, EncoderSpec, Manifest, digest, write_manifest
from index.release.writing import write_parts
from index.retrieval.catalog import Catalog
from training.config import ConfigError, FitConfig
from training.data.interactions import PackedLog, prepare
from training.data.item_metadata import read_items
from training.data.readers import read_log
from training.evaluation.evaluate import exact
from training.evaluation.protocols import Task, divide
from training.fitting.select_interests import choose
from training.fitting.trainer import CHECKPOINT, Fitted, OnStep, Trainer
from training.models.model import encoder_arguments

HISTORY = "history.jsonl"
_INTERESTS = 2000  # held-out users whose interests travel with the draft, for tuning its index
_CANARIES = 8


class Prepared(NamedTuple):
    """A log ready to train on, whole and divided by a protocol."""

    catalog: Catalog
    log: PackedLog
    task: Task


def prepare_log(log_path: Path, items_path: Path | None, config: FitConfig) -> Prepared:
    """Raises LogError if the log cannot be used or is too small to split."""
    interactions = read_log(log_path, config.format, config.event_types or None, config.min_weight)
    items = read_items(items_path) if items_path else None
    catalog, log = prepare(
        interactions, config.min_user_interactions, config.min_item_interactions, items
    )
    task = divide(config.split, log, len(catalog), config.test_fraction, config.split_seed)
    return Prepared(catalog, log, task)


def fit(
    log_path: Path,
    root: Path,
    config: FitConfig,
    items_path: Path | None = None,
    watch: Callable[[Trainer], OnStep] = lambda trainer: lambda examples, progress: None,
) -> Path:
    """Train on a log and write <root>/drafts/<id>; returns that folder.

    A run that was killed continues when the same call is made again, to the metrics it would have
    reached unbroken. watch is called before each training, of which there are several where K is
    open, and gives what is called after each step.
    Raises LogError, ConfigError, or DivergedError; then no draft is there.
    """
    if config.encoder not in ENCODERS:
        raise ConfigError(f"encoder: no {config.encoder!r}; choose one of {', '.join(ENCODERS)}")
    prepared = prepare_log(log_path, items_path, config)
    drafts = root / "drafts"
    fingerprint = _fingerprint(config, prepared)
    with _working_folder(drafts / f".fit-{fingerprint}") as folder:

        def run(config: FitConfig) -> Fitted:
            of_run = folder / f"K={config.interests}"
            of_run.mkdir(exist_ok=True)
            trainer = Trainer(config, prepared.catalog, prepared.task, of_run)
            return trainer.run(watch(trainer))

        config, fitted = choose(config, run, lambda fitted: fitted.metrics)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{config.encoder}-{fingerprint[:6]}"
        aside = write_draft(folder / name, config, prepared, fitted)
        draft = aside.rename(drafts / name)
        fsync(drafts)
        return draft


def write_draft(
    folder: Path,
    config: FitConfig,
    prepared: Prepared,
    fitted: Fitted,
    metrics: Mapping[str, dict[str, float]] | None = None,
) -> Path:
    """A new folder named by the draft's id, which may be moved once it is whole.

    metrics: by split, what the manifest says besides those of validation.
    """
    sample = [case.history for case in prepared.task.validation[:_INTERESTS]]
    retriever = exact(prepared.catalog, fitted.encoder, fitted.vectors, config.history)
    interests = np.concatenate(
        [retriever.encode(sample[start : start + 256]) for start in range(0, len(sample), 256)]
    )
    files = write_parts(folder, fitted.encoder, fitted.vectors, prepared.catalog, interests)
    records = "".join(json.dumps(record) + "\n" for record in fitted.history)
    (folder / HISTORY).write_text(records, encoding="utf-8")
    manifest = _manifest(folder.name, config, prepared, fitted, metrics or {})
    write_manifest(
        folder,
        manifest.model_copy(update={"files": {**files, HISTORY: digest(folder / HISTORY)}}),
    )
    return folder


def _manifest(
    name: str,
    config: FitConfig,
    prepared: Prepared,
    fitted: Fitted,
    metrics: Mapping[str, dict[str, float]],
) -> Manifest:
    catalog, log = prepared.catalog, prepared.log
    shown = prepared.task.validation[:_CANARIES]
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
        training=config.model_dump(mode="json"),
        metrics={"validation": fitted.metrics, **metrics},
        canaries=tuple(
            Canary(history=tuple(catalog.id(row) for row in case.history)) for case in shown
        ),
    )


def code_version() -> str:
    """The installed version, and the commit where the code is a git checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # an image need not have git
        return version("re4")
    commit = done.stdout.strip()
    return version("re4") + (f"+{commit}" if commit else "")


def _fingerprint(config: FitConfig, prepared: Prepared) -> str:
    """What makes a run this run: its settings and its data."""
    sha256 = hashlib.sha256(config.model_dump_json().encode())
    sha256.update("\0".join(prepared.catalog.ids).encode())
    sha256.update(prepared.log.offsets.tobytes() + prepared.log.rows.tobytes())
    return sha256.hexdigest()[:16]


@contextmanager
def _working_folder(folder: Path) -> Iterator[Path]:
    """The folder of a run's checkpoints: this process's alone, and gone when the run is done."""
    folder.mkdir(parents=True, exist_ok=True)
    held = ConfigError(
        f"{folder.name}: this very fit is running; wait for it, or change the settings"
    )
    with exclusive_lock(folder / "lock", held):
        try:
            yield folder
        except Exception:
            # Without a checkpoint there is nothing to continue from, and so nothing to keep.
            if not any(folder.glob(f"*/{CHECKPOINT}")):
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)
