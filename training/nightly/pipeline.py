"""The steps of a nightly run: fit, compare, refit, write a draft, build its index, publish."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from index.release.atomic_io import fsync
from index.release.build import build
from index.release.canary_file import canary_release_id
from index.release.canary_release import canary_command, publish_canary
from index.release.errors import GateRefusal, ReleaseError
from index.release.gate import DAY_LEAD, DAY_METRICS, POPULAR, RECENT, collapse_warnings
from index.release.manifest import CURRENT, DRAFTS, MANIFEST, RELEASES, Manifest, read_manifest
from index.release.publish import publish
from index.release.reading import read_current
from index.retrieval.retriever import Retriever
from training.data.matching import warn
from training.evaluation.champion_challenger import (
    Comparison,
    check_day,
    compare_releases,
    day_gate,
)
from training.evaluation.drift import drift
from training.evaluation.evaluate import exact_retriever
from training.evaluation.holdout_day import day_cases, whole_histories
from training.evaluation.protocols import DataSplit
from training.evaluation.unseen import later_than
from training.fitting.content_model import CONTENT_METRICS
from training.fitting.fit import PreparedData, in_detail, write_draft
from training.fitting.search_report import reports
from training.fitting.warm_start import TrainedModel
from training.nightly.config import NightConfig
from training.nightly.notifications import MessageCallback
from training.nightly.outcome import RejectedError
from training.nightly.run_folders import DRAFT
from training.nightly.step_store import Result, StepStore
from training.nightly.training_stage import TrainingStage

_TUNING_USERS = 2000


class NightlyPipeline:
    """Each step is done once, and may be the first one that this process does."""

    def __init__(self, config: NightConfig, store: StepStore, on_message: MessageCallback) -> None:
        self.config, self.store, self._on_message = config, store, on_message
        metadata = store.metadata
        self.name: str = metadata["night"]
        self.live_id: str | None = metadata["live"]
        self.window: Result = metadata["window"]
        self._training = TrainingStage(config, store, on_message)

    def run(self) -> str:
        """The id of the new release, which is live.

        Raises GateRefusal, RejectedError or DivergedError if the model is not fit to be served. Any
        other error says nothing about the model, and the run may be repeated.
        """
        steps: dict[str, Callable[[], Result]] = {
            "fit": self._fit,
            "judge": self._compare,
            "refit": self._refit,
            "draft": self._write_draft,
            "build": self._build_index,
            "publish": self._publish,
        }
        for name, work in steps.items():
            if not self.store.is_done(name):
                self._on_message(name)
            self.store.run_once(name, work)
        release: str = self.store.result("publish")["release"]
        return release

    @property
    def comparison(self) -> Comparison:
        return Comparison(**self.store.result("judge"))

    def scores(self) -> dict[str, float]:
        """The deciding metric of the new model, the live release and popularity, of all time and of
        the last weeks, on the held-out day."""
        if not self.store.is_done("judge"):
            return {}
        comparison, metric = self.comparison, self.config.metric
        metrics = {
            "new": comparison.new,
            "live": comparison.live,
            "popular": comparison.popular,
            "recent": comparison.recent,
        }
        return {f"{name}_{metric}": values[metric] for name, values in metrics.items() if values}

    # --- the steps ---

    def _fit(self) -> Result:
        training = self._training
        fitted, data = training.fitted, training.data
        live_catalog = training.live.model.catalog if training.live is not None else None
        return {
            "warm": training.is_warm,
            "encoder": training.is_warm and training.is_encoder_warm,
            "interests": fitted.encoder.interests,
            "method": training.selected_config.encoder,
            "search": [asdict(trial) for trial in training.trials],
            "metrics": in_detail(training.selected_config, training.data, fitted).metrics,
            "history": fitted.history,
            "users": len(data.log),
            "items": len(data.catalog),
            "interactions": len(data.log.rows),
            "drift": drift(training.log, self.window["since"], data.catalog, live_catalog),
        }

    def _compare(self) -> Result:
        training, since = self._training, self.window["since"]
        live = None
        if training.live is not None:
            manifest, model = training.live
            live = _retriever(model, manifest.encoder.history_length)
        config = training.selected_config
        new = _retriever(training.as_model(training.fitted), config.history)
        cases = day_cases(training.log, since)
        comparison = compare_releases(
            training.log, since, cases, new, live, config.exclude_seen, config.popularity_days
        )
        return comparison.to_json()

    def _refit(self) -> Result:
        refitted = self._training.refitted
        return {"metrics": refitted.metrics, "history": refitted.history}

    def _write_draft(self) -> Result:
        name = f"{self.name}-{self.store.result('fit')['method']}"
        draft = self.config.root / DRAFTS / name
        if not draft.exists():
            draft.parent.mkdir(exist_ok=True)
            training, comparison = self._training, self.comparison
            catalog, log, split, items = training.data
            metrics = {
                DAY_METRICS: comparison.new,
                DAY_LEAD: comparison.new_lead,
                f"{DAY_METRICS}_{POPULAR}": comparison.popular,
            }
            if comparison.recent is not None:
                metrics[f"{DAY_METRICS}_{RECENT}"] = comparison.recent
            # The index is tuned on users of the whole log: the day alone may have too few.
            tuning_split = DataSplit(split.train, whole_histories(log, _TUNING_USERS), split.test)
            data = PreparedData(catalog, log, tuning_split, items)
            # The metrics are those of the weights that were not trained on the day.
            fit = self.store.result("fit")
            released = replace(training.refitted, metrics=fit["metrics"], history=fit["history"])
            tmp_path = self.store.folder / DRAFT / name
            unseen = later_than(float(log.times.max()))
            texts = reports(training.trials) if training.trials else None
            write_draft(tmp_path, training.selected_config, data, released, metrics, unseen, texts)
            tmp_path.rename(draft)
            fsync(draft.parent)
        content = read_manifest(draft).metrics.get(CONTENT_METRICS)
        return {"draft": name, CONTENT_METRICS: content}

    def _build_index(self) -> Result:
        config = self.config
        try:
            with config.opened_engine() as engine:
                manifest = build(
                    self._draft,
                    config.index_recall,
                    config.index_k,
                    engine=engine,
                    index_type=config.engine_index,
                )
        except ReleaseError as error:
            if isinstance(error.__cause__, OSError):
                raise  # caused by the disk, not by the draft
            raise RejectedError(str(error)) from error
        assert manifest.index is not None
        return manifest.index.model_dump(mode="json", exclude={"trials"})

    def _publish(self) -> Result:
        draft, config = self._draft, self.config
        # Else it was interrupted after publishing.
        if draft.name not in (read_current(config.root), canary_release_id(config.root)):
            self._check_not_rolled_back()
            for sentence in collapse_warnings(read_manifest(draft)):
                warn(sentence)
            gate, live = day_gate(self.comparison, config), self._live_manifest
            release = self._training.live
            manifest = release.manifest if release is not None else None
            failures = check_day(self.comparison, manifest, config)
            if failures:
                failures += gate.failures(read_manifest(draft), live, same_cases=True)
                share = config.canary_share
                command = "publish" if share is None else canary_command(draft, share)
                raise GateRefusal(draft.name, failures, command)
            with config.opened_engine() as engine:
                if config.canary_share is None or read_current(config.root) is None:
                    publish(draft, gate, keep=config.keep, against=live, engine=engine)
                else:
                    publish_canary(
                        draft,
                        config.canary_share,
                        gate=gate,
                        keep=config.keep,
                        against=live,
                        engine=engine,
                    )
        return {"release": draft.name}

    def _check_not_rolled_back(self) -> None:
        """Raises RejectedError if the draft was published before and was rolled back since."""
        current = self.config.root / CURRENT
        release = self.config.root / RELEASES / self._draft.name / MANIFEST
        if not (current.exists() and release.exists()):
            return
        if current.stat().st_mtime_ns > release.stat().st_mtime_ns:
            raise RejectedError(
                f"{self._draft.name}: was published and rolled back; to publish it again, publish "
                "it by hand"
            )

    @property
    def _live_manifest(self) -> Manifest | None:
        """The live release's manifest, with its metrics on the held-out day."""
        live = self._training.live
        if live is None or self.comparison.live is None:
            return None
        return live.manifest.model_copy(update={"metrics": {DAY_METRICS: self.comparison.live}})

    @property
    def _draft(self) -> Path:
        return self.config.root / DRAFTS / str(self.store.result(DRAFT)["draft"])


def _retriever(model: TrainedModel, history_length: int) -> Retriever:
    return exact_retriever(model.catalog, model.encoder, model.vectors, history_length)
