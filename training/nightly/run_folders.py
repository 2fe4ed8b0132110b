"""The folders of all runs: which are unfinished, how they ended, and which are removed.

<root>/nightly/<id>/         id: the day of the last event, and a hash of data and settings
    state.json               the completed steps and their results
    report.md, report.json   the outcome, for people and for programs; and plots
    window.parquet, fit/, settle/, refit/, draft/   intermediate files, removed when the run ends
<root>/nightly/last.json     the last outcome, even if there was nothing to do
"""

import time
from contextlib import suppress
from pathlib import Path

from index.release.atomic_io import discard
from index.release.canary_file import canary_release_id
from index.release.manifest import DRAFTS
from training.fitting.working_folder import remove_abandoned_fits
from training.nightly.config import NightConfig
from training.nightly.step_store import STATE, Result, StepStore
from training.nightly.window import WINDOW

RUNS = "nightly"
LAST_OUTCOME = "last.json"
DRAFT = "draft"
INTERMEDIATE_FILES = (WINDOW, "fit", "settle", "refit", DRAFT)
ABANDONED = "given up"  # the outcome of a run that may start again from the beginning


def unfinished_run(config: NightConfig, runs: Path, live: str | None) -> StepStore | None:
    """The interrupted run that can continue, if there is one; others are marked as ended.

    It must have the same settings, have started recently, and no other release may have become
    live since.
    """
    for store in _all_runs(runs):
        metadata = store.metadata
        if "ended" in metadata:
            continue
        hours = (time.time() - metadata["started"]) / 3600
        draft = store.result(DRAFT).get("draft")
        if store.is_done("publish") and draft not in (live, canary_release_id(config.root)):
            store.update(ended={"outcome": "published", "sentence": f"{draft} was published"})
            continue
        if (
            metadata["settings"] == config.settings()
            and hours < config.resume_h
            and live in (metadata["live"], draft)
        ):
            return store
        reason = "too old, or its settings or the live release have changed"
        store.update(ended={"outcome": ABANDONED, "sentence": reason})
    return None


def read_outcome(folder: Path) -> Result | None:
    """How the run of a folder ended; None if there is no folder.

    A run whose record cannot be read counts as abandoned.
    """
    if not folder.exists():
        return None
    try:
        outcome: Result = StepStore(folder).metadata["ended"]
    except (ValueError, KeyError):
        return {"outcome": ABANDONED, "sentence": "its record cannot be read"}
    return outcome


def remove_run(config: NightConfig, folder: Path) -> None:
    """Remove a run and its drafts, so that it can start from the beginning."""
    for draft in (config.root / DRAFTS).glob(f"{folder.name}-*"):
        discard(draft)
    discard(folder)


def clean_up(config: NightConfig, runs: Path) -> None:
    """Remove the intermediate files of ended runs, published drafts, the oldest runs with their
    rejected drafts, and fits that nobody continues."""
    remove_abandoned_fits(config.root / DRAFTS)
    ended = [store for store in _all_runs(runs) if "ended" in store.metadata]
    for age, store in enumerate(ended):
        for name in INTERMEDIATE_FILES:
            discard(store.folder / name)
        is_old = age >= config.keep_runs
        draft = store.result(DRAFT).get("draft")
        if draft is not None and (is_old or store.metadata["ended"]["outcome"] == "published"):
            discard(config.root / DRAFTS / draft)
        if is_old:
            discard(store.folder)


def _all_runs(runs: Path) -> list[StepStore]:
    """The newest first, without those whose record cannot be read."""
    stores = []
    for path in runs.glob(f"[!.]*/{STATE}"):
        with suppress(ValueError):
            stores.append(StepStore(path.parent))
    return sorted(stores, key=lambda store: float(store.metadata["started"]), reverse=True)
