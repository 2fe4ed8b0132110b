"""The models of a nightly run: which data, which settings, and which initial weights train them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from index.release.manifest import RELEASES, Manifest, read_manifest
from index.release.reading import read_parts
from index.release.verification import verify_files
from training.config import FitConfig
from training.data.errors import LogError, UnmatchedError
from training.data.interactions import Interactions
from training.data.item_changes import with_changes
from training.data.item_metadata import ItemDetails, read_items
from training.data.packed_log import prepare
from training.evaluation.holdout_day import split_day
from training.evaluation.protocols import DataSplit
from training.fitting.candidates import Search, chosen_settings
from training.fitting.fit import PreparedData
from training.fitting.search import Choice, search
from training.fitting.search_report import Trial
from training.fitting.select_interests import select_interests, with_interests
from training.fitting.time_gaps import with_time_gaps
from training.fitting.trainer import FitResult, Trainer
from training.fitting.warm_start import (
    TrainedModel,
    are_vectors_compatible,
    initialize_from,
    is_encoder_compatible,
    train_on_recent,
)
from training.models.closed_form import has_closed_form
from training.models.model import Model
from training.nightly.config import NightConfig
from training.nightly.notifications import MessageCallback
from training.nightly.outcome import RejectedError
from training.nightly.step_store import StepStore
from training.nightly.window import WINDOW, read_window_log

_ModelUpdate = Callable[[Model], None]
_UNKNOWN = ItemDetails(None, None)


class LiveRelease(NamedTuple):
    manifest: Manifest
    model: TrainedModel


class TrainingStage:
    """Everything is computed on first use, from the files that earlier steps have left in the run's
    folder: the process may have been started for any step."""

    def __init__(self, config: NightConfig, store: StepStore, on_message: MessageCallback) -> None:
        self._config, self._folder, self._on_message = config, store.folder, on_message
        metadata = store.metadata
        self._run_id: str = metadata["night"]
        self._live_id: str | None = metadata["live"]
        self._window = metadata["window"]

    # --- data ---

    @cached_property
    def log(self) -> Interactions:
        log = read_window_log(self._config, self._folder / WINDOW)
        return log.newest(self.fit_config.max_user_interactions)

    @cached_property
    def data(self) -> PreparedData:
        """The log, filtered, with its held-out day split off.

        Raises RejectedError if too little is left to train or to validate on.
        """
        fit = self.fit_config
        log, items = self.log, self._items()
        try:
            catalog, packed = prepare(
                log, fit.min_user_interactions, fit.min_item_interactions, items
            )
        except UnmatchedError:  # the item file is another one's, which says nothing about the model
            raise
        except LogError as error:  # a retry would read the same window
            raise RejectedError(f"{self._run_id}: {error}") from error
        split = split_day(packed, self._window["since"])
        if not split.validation or not split.train.is_target.any():
            raise RejectedError(
                f"{self._run_id}: {len(packed):,} users of {len(packed.rows):,} interactions leave "
                "nothing to train on, or no users to validate on: too little of the day is of "
                f"users and items that have {fit.min_user_interactions} and "
                f"{fit.min_item_interactions} interactions, or too much is held out"
            )
        return PreparedData(catalog, packed, split, items or {})

    def _items(self) -> Mapping[str, ItemDetails] | None:
        """Of the item file, and what the shop has said since; None if nothing is known."""
        if self._config.items:
            return with_changes(read_items(self._config.items), self._config.events)
        said = with_changes({}, self._config.events)
        items = {item_id: said.get(item_id, _UNKNOWN) for item_id in self.log.item_ids}
        return items if said.keys() & items.keys() else None

    # --- the live release ---

    @cached_property
    def live(self) -> LiveRelease | None:
        """Raises ReleaseError if it is damaged."""
        if self._live_id is None:
            return None
        folder = self._config.root / RELEASES / self._live_id
        manifest = read_manifest(folder)
        verify_files(folder, manifest)
        return LiveRelease(manifest, TrainedModel(*read_parts(folder, manifest)))

    @cached_property
    def is_warm(self) -> bool:
        """Whether training starts from the item vectors of the live release."""
        if self._config.cold or self._config.search or self.live is None:
            return False
        config = self._config.fit_config(warm=True, chosen=self._chosen_before)
        return are_vectors_compatible(self.live.model, config) and not has_closed_form(config)

    @property
    def is_encoder_warm(self) -> bool:
        """Whether the encoder of the live release can be continued too."""
        if self.live is None:
            return False
        return is_encoder_compatible(self.live.manifest.encoder, self.fit_config)

    # --- settings ---

    @cached_property
    def _chosen_before(self) -> dict[str, Any]:
        """The method and K of the live release; nothing without one, or if they are chosen anew."""
        if self.live is None or self._config.search:
            return {}
        return chosen_settings(self.live.manifest.training)

    @cached_property
    def _plan(self) -> Search | FitConfig:
        """Candidates only if nothing was chosen before."""
        plan = self.fit_config if self._chosen_before else self._config.search_plan()
        if not isinstance(plan, Search):
            return self.fit_config
        update = {"test_fraction": self.fit_config.test_fraction}
        candidates = {
            name: self._with_times(own).model_copy(update=update)
            for name, own in plan.candidates.items()
        }
        return plan.model_copy(update={"candidates": candidates})

    @cached_property
    def fit_config(self) -> FitConfig:
        """Its test fraction is the share of the interactions that is held out. A search changes
        method and K: see selected_config."""
        share = self._window["held_out"] / self._window["counts"]["kept"]
        config = self._config.fit_config(self.is_warm, self._chosen_before)
        if self.live is not None and self.is_warm:
            config = with_interests(config, int(str(self.live.manifest.training["interests"])))
        update = {"test_fraction": min(max(share, 1e-6), 0.49)}
        return self._with_times(config).model_copy(update=update)

    def _with_times(self, config: FitConfig) -> FitConfig:
        return with_time_gaps(config, self._window["last"])

    @property
    def selected_config(self) -> FitConfig:
        """The settings that the search, or the choice of K, selected."""
        return self._selected[0]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """What the search tried; nothing without one."""
        choice = self._choice
        return choice.trials if choice is not None else ()

    # --- models ---

    @cached_property
    def _choice(self) -> Choice | None:
        if not isinstance(self._plan, Search):
            return None
        folder = self._folder / "fit"
        folder.mkdir(exist_ok=True)
        return search(self._plan, self.data.catalog, self.data.split, folder, self._on_message)

    @cached_property
    def _selected(self) -> tuple[FitConfig, FitResult]:
        if (choice := self._choice) is not None:
            result = self._train(f"fit/{choice.name}", choice.config, self.data.split, None)
            return choice.config, result
        initialize = self._initialize_from_live if self.is_warm else None

        def run(config: FitConfig) -> FitResult:
            return self._train(f"fit/K={config.interests}", config, self.data.split, initialize)

        return select_interests(self.fit_config, run, lambda result: result.metrics)

    @cached_property
    def fitted(self) -> FitResult:
        """The model that is compared with the live release: not trained on the held-out day."""
        result = self._selected[1]
        if self.is_warm or not self._config.refit_epochs or has_closed_form(self.selected_config):
            return result
        # The live release was last trained on its newest events; so is the model compared with it.
        since = 2 * self._window["since"] - self._window["last"]
        continued = self._continue("settle", result, self.data.split, since)
        epochs = len(result.history)
        later = [{**r, "epoch": epochs + r["epoch"]} for r in continued.history if r["epoch"]]
        return replace(continued, history=[*result.history, *later])

    @cached_property
    def refitted(self) -> FitResult:
        """The model that is released: `fitted`, trained on the held-out day too."""
        if not self._config.refit_epochs:
            return self.fitted
        split = DataSplit(self.data.log, self.data.split.validation, self.data.split.test)
        if has_closed_form(self.selected_config):
            return self._train("refit", self.selected_config, split, None)
        return self._continue("refit", self.fitted, split, self._window["since"])

    def as_model(self, result: FitResult) -> TrainedModel:
        return TrainedModel(result.encoder, result.vectors, self.data.catalog)

    def _continue(self, name: str, result: FitResult, split: DataSplit, since: float) -> FitResult:
        """Train on: first on all data of the task, then on its interactions since a time."""
        selected = self.selected_config
        update = {
            "epochs": self._config.refit_epochs,
            "pretrain_epochs": 0,
            "interests": selected.interests,
        }
        chosen = chosen_settings(selected.model_dump(mode="json"))
        config = self._with_times(self._config.fit_config(warm=True, chosen=chosen))
        config = config.model_copy(update=update)

        def initialize(model: Model) -> None:
            source = self.as_model(result)
            initialize_from(model, self.data.catalog, source, with_encoder=True, log=split.train)

        def finalize(model: Model) -> None:
            train_on_recent(model, config, split.train, since, self._config.recent_data_passes)

        return self._train(name, config, split, initialize, finalize)

    def _train(
        self,
        name: str,
        config: FitConfig,
        split: DataSplit,
        initialize: _ModelUpdate | None,
        finalize: _ModelUpdate | None = None,
    ) -> FitResult:
        """If the training is complete already, this only loads its weights.

        Raises RejectedError if a weight is not finite.
        """
        folder: Path = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        result = Trainer(config, self.data.catalog, split, folder, initialize, finalize).run()
        weights = [torch.from_numpy(result.vectors), *result.encoder.state_dict().values()]
        if not all(weight.isfinite().all() for weight in weights):
            raise RejectedError(f"{self._run_id}: {name} made weights that are not finite")
        return result

    def _initialize_from_live(self, model: Model) -> None:
        """The weights of the live release, trained on the events that are new to it."""
        assert self.live is not None
        log, seen_until = self.data.split.train, self._window.get("seen_until")
        initialize_from(model, self.data.catalog, self.live.model, self.is_encoder_warm, log)
        since = np.inf if seen_until is None else float(np.nextafter(seen_until, np.inf))
        train_on_recent(model, self.fit_config, log, since, self._config.recent_data_passes)
