"""One night's work on a window that was read: fit, judge, refit, draft, build, publish."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from index.release.atomic_io import fsync
from index.release.build import build
from index.release.errors import GateRefusal, ReleaseError
from index.release.manifest import CURRENT, DRAFTS, MANIFEST, RELEASES, Manifest, read_manifest
from index.release.publish import publish
from index.release.reading import read_current, read_parts, verify_files
from index.retrieval.retriever import Retriever
from training.config import FitConfig
from training.data.interactions import Interactions, LogError, prepare
from training.data.item_metadata import read_items
from training.data.readers import read_log
from training.evaluation.champion_challenger import (
    LEAD,
    NIGHT,
    Judgement,
    gate_of,
    judge,
    strange_day,
)
from training.evaluation.drift import drift
from training.evaluation.evaluate import exact
from training.evaluation.holdout_day import asked, divide_day, histories
from training.evaluation.protocols import Task
from training.fitting.fit import Prepared, write_draft
from training.fitting.select_interests import choose, settled
from training.fitting.trainer import Fitted, Trainer
from training.fitting.warm_start import Parts, catch_up, encoder_fits, vectors_fit, warm
from training.models.model import Model
from training.nightly.config import NightConfig
from training.nightly.notifications import Say
from training.nightly.step_store import Result, Steps

WINDOW = "window.parquet"
DRAFT = "draft"
_ASKERS = 2000
_Train = Callable[[Model], None]
HANDED_ON = (
    WINDOW,
    "fit",
    "settle",
    "refit",
    DRAFT,
)  # from step to step, in the folder of the night


class RefusedError(Exception):
    """What the night made is not fit to be served."""


class Night:
    """The steps, each of which may be the first that this process does: what they share is made
    when it is first asked for, from what the steps before have left in the folder."""

    def __init__(self, config: NightConfig, steps: Steps, say: Say) -> None:
        self.config, self.steps, self._say = config, steps, say
        about = steps.about
        self.name: str = about["night"]
        self.live_id: str | None = about["live"]
        self.window: Result = about["window"]

    def run(self) -> str:
        """The id of the release, which is live.

        Raises GateRefusal, RefusedError or DivergedError for a night that is not fit to serve;
        anything else is no judgement of it, and it may be run again.
        """
        for step in (self._fit, self._judge, self._refit, self._draft, self._build, self._publish):
            self._once(step)
        release: str = self.steps.result("publish")["release"]
        return release

    def _once(self, step: Callable[[], Result]) -> None:
        name = step.__name__.removeprefix("_")
        if not self.steps.done(name):
            self._say(name)
        self.steps.once(name, step)

    def scores(self) -> dict[str, float]:
        """What new, live and popularity reached on the day, in the metric that decides."""
        if not self.steps.done("judge"):
            return {}
        judged, metric = self.judgement, self.config.metric
        found = {"new": judged.new, "live": judged.live, "popular": judged.popular}
        return {f"{who}_{metric}": values[metric] for who, values in found.items() if values}

    # --- the steps ---

    def _fit(self) -> Result:
        fitted, ready = self.fitted, self.prepared
        there = self.live[1].catalog if self.live is not None else None
        return {
            "warm": self.is_warm,
            "encoder": self.is_warm and self._encoder_is_warm,
            "interests": fitted.encoder.interests,
            "metrics": fitted.metrics,
            "history": fitted.history,
            "users": len(ready.log),
            "items": len(ready.catalog),
            "interactions": len(ready.log.rows),
            "drift": drift(self.log, self.window["since"], ready.catalog, there),
        }

    def _judge(self) -> Result:
        since = self.window["since"]
        live = None
        if self.live is not None:
            manifest, parts = self.live
            live = _retriever(parts, manifest.encoder.history_length)
        new = _retriever(self._parts(self.fitted), self.fit_config.history)
        return judge(self.log, since, asked(self.log, since), new, live).to_json()

    def _refit(self) -> Result:
        return {"metrics": self.refitted.metrics, "history": self.refitted.history}

    def _draft(self) -> Result:
        name = f"{self.name}-{self.fit_config.encoder}"
        draft = self.config.root / DRAFTS / name
        if not draft.exists():
            draft.parent.mkdir(exist_ok=True)
            ready, judged = self.prepared, self.judgement
            metrics = {NIGHT: judged.new, LEAD: judged.new_lead}
            # The index is tuned on whoever will ask, as the day alone may have too few users.
            shown = Task(ready.task.train, histories(ready.log, _ASKERS), ready.task.test)
            aside = self.steps.folder / DRAFT / name
            whole = Prepared(ready.catalog, ready.log, shown)
            # Metrics are those of the weights that had not seen the day.
            fitted = self.fitted
            released = replace(self.refitted, metrics=fitted.metrics, history=fitted.history)
            write_draft(aside, self._chosen[0], whole, released, metrics)
            aside.rename(draft)
            fsync(draft.parent)
        return {"draft": name}

    def _build(self) -> Result:
        try:
            manifest = build(self._drafted, self.config.index_recall, self.config.index_k)
        except ReleaseError as error:
            if isinstance(error.__cause__, OSError):
                raise  # the disk, not the draft
            raise RefusedError(str(error)) from error
        assert manifest.index is not None
        return manifest.index.model_dump(mode="json", exclude={"trials"})

    def _publish(self) -> Result:
        draft, config = self._drafted, self.config
        if read_current(config.root) != draft.name:  # it was cut short just after
            self._was_not_live_before()
            gate, live = gate_of(self.judgement, config), self._live_today
            strange = strange_day(self.judgement, self.live and self.live[0], config)
            if strange:
                failures = strange + gate.failures(read_manifest(draft), live)
                raise GateRefusal(draft.name, failures)
            publish(draft, gate, keep=config.keep, against=live)
        return {"release": draft.name}

    def _was_not_live_before(self) -> None:
        """Raises RefusedError if what is to be published has been, and somebody went back since."""
        current = self.config.root / CURRENT
        release = self.config.root / RELEASES / self._drafted.name / MANIFEST
        if not (current.exists() and release.exists()):
            return
        if current.stat().st_mtime_ns > release.stat().st_mtime_ns:
            raise RefusedError(
                f"{self._drafted.name}: was published, and is live no more; publish it by hand if "
                "it is to be"
            )

    # --- what they share ---

    @cached_property
    def log(self) -> Interactions:
        return read_log(self.steps.folder / WINDOW, "parquet")

    @cached_property
    def prepared(self) -> Prepared:
        fit = self.fit_config
        items = read_items(self.config.items) if self.config.items else None
        read = self.log
        try:
            catalog, log = prepare(
                read, fit.min_user_interactions, fit.min_item_interactions, items
            )
        except LogError as error:  # as it is, there will be no more in it another time
            raise RefusedError(f"{self.name}: {error}") from error
        task = divide_day(log, self.window["since"])
        if not task.validation or np.diff(task.train.offsets).max(initial=0) < 2:
            raise RefusedError(
                f"{self.name}: {len(log):,} users of {len(log.rows):,} interactions leave nothing "
                "to train on, or nobody to choose the weights by: too little of the day is of "
                f"users and items that have {fit.min_user_interactions} and "
                f"{fit.min_item_interactions} interactions, or too "
                "much is held out"
            )
        return Prepared(catalog, log, task)

    @cached_property
    def live(self) -> tuple[Manifest, Parts] | None:
        """Raises ReleaseError if it is damaged."""
        if self.live_id is None:
            return None
        folder = self.config.root / RELEASES / self.live_id
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
        return manifest, Parts(*read_parts(folder, manifest))

    @property
    def _live_today(self) -> Manifest | None:
        """The live release's manifest, with its metrics of this day."""
        if self.live is None or self.judgement.live is None:
            return None
        return self.live[0].model_copy(update={"metrics": {NIGHT: self.judgement.live}})

    @cached_property
    def is_warm(self) -> bool:
        if self.config.cold or self.live is None:
            return False
        return vectors_fit(self.live[1], self.config.fit_config(warm=True))

    @property
    def _encoder_is_warm(self) -> bool:
        return self.live is not None and encoder_fits(self.live[0].encoder, self.fit_config)

    @cached_property
    def fit_config(self) -> FitConfig:
        """With the share of the interactions that are held out for that of the temporal split."""
        share = self.window["held_out"] / self.window["counts"]["kept"]
        config = self.config.fit_config(self.is_warm)
        if self.live is not None and self.is_warm:
            config = settled(config, int(str(self.live[0].training["interests"])))
        return config.model_copy(update={"test_fraction": min(max(share, 1e-6), 0.49)})

    @cached_property
    def _chosen(self) -> tuple[FitConfig, Fitted]:
        """With K, which the settings may leave open."""
        start = self._from_live if self.is_warm else None

        def run(config: FitConfig) -> Fitted:
            return self._run(f"fit/K={config.interests}", config, self.prepared.task, start)

        return choose(self.fit_config, run, lambda fitted: fitted.metrics)

    @cached_property
    def fitted(self) -> Fitted:
        """The weights that are judged: they have not seen the day."""
        fitted = self._chosen[1]
        if self.is_warm or not self.config.refit_epochs:
            return fitted
        # Live was trained on with the newest that it has seen; so must be what is compared with it.
        since = 2 * self.window["since"] - self.window["last"]
        settled = self._again("settle", fitted, self.prepared.task, since)
        epochs = len(fitted.history)
        later = [{**r, "epoch": epochs + r["epoch"]} for r in settled.history if r["epoch"]]
        return replace(settled, history=[*fitted.history, *later])

    @cached_property
    def refitted(self) -> Fitted:
        """The weights that are released: the same, trained on with the day."""
        if not self.config.refit_epochs:
            return self.fitted
        task, log = self.prepared.task, self.prepared.log
        whole = Task(log, task.validation, task.test)
        return self._again("refit", self.fitted, whole, self.window["since"])

    def _again(self, name: str, fitted: Fitted, task: Task, since: float) -> Fitted:
        """Trained on, first on everything, then on what came since a time."""
        update = {
            "epochs": self.config.refit_epochs,
            "pretrain_epochs": 0,
            "interests": self._chosen[0].interests,
        }
        config = self.config.fit_config(warm=True).model_copy(update=update)

        def start(model: Model) -> None:
            warm(model, self.prepared.catalog, self._parts(fitted), encoder=True, log=task.train)

        def finish(model: Model) -> None:
            catch_up(model, config, task.train, since, self.config.recent_data_passes)

        return self._run(name, config, task, start, finish)

    def _run(
        self,
        name: str,
        config: FitConfig,
        task: Task,
        start: _Train | None,
        finish: _Train | None = None,
    ) -> Fitted:
        """A run that is done already only loads its weights."""
        folder = self.steps.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        fitted = Trainer(config, self.prepared.catalog, task, folder, start, finish).run()
        weights = [torch.from_numpy(fitted.vectors), *fitted.encoder.state_dict().values()]
        if not all(weight.isfinite().all() for weight in weights):
            raise RefusedError(f"{self.name}: {name} made weights that are not finite")
        return fitted

    def _from_live(self, model: Model) -> None:
        assert self.live is not None
        ready = self.prepared
        manifest, parts = self.live
        config, log = self.fit_config, ready.task.train
        warm(model, ready.catalog, parts, self._encoder_is_warm, log)
        unseen = float(np.nextafter(manifest.data.last, np.inf))
        catch_up(model, config, log, unseen, self.config.recent_data_passes)

    def _parts(self, fitted: Fitted) -> Parts:
        return Parts(fitted.encoder, fitted.vectors, self.prepared.catalog)

    @property
    def judgement(self) -> Judgement:
        return Judgement(**self.steps.result("judge"))

    @property
    def _drafted(self) -> Path:
        return self.config.root / DRAFTS / str(self.steps.result(DRAFT)["draft"])


def _retriever(parts: Parts, history: int) -> Retriever:
    return exact(parts.catalog, parts.encoder, parts.vectors, history)
