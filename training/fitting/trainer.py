"""The training loop: epochs of steps, validation, early stopping, and checkpoints.

A run that was killed continues from its last checkpoint and ends with the same weights.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.encoders import Encoder
from index.retrieval.catalog import Catalog
from training.config import FitConfig
from training.data.packed_log import PackedLog
from training.evaluation.protocols import DataSplit
from training.fitting import checkpoint, ranks
from training.fitting.optimization import Stepper, build_optimizers, set_learning_rate
from training.fitting.stream import restrict_gaps, stream_for
from training.fitting.validation import validate
from training.models.closed_form import has_closed_form, solve
from training.models.cooccurrence import initial_vectors
from training.models.model import Model

CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_EVERY_S = 120.0


class DivergedError(RuntimeError):
    """The loss, an item vector or an interest vector is NaN or infinite."""


@dataclass
class TrainingState:
    """How far a run has come: with the tensors, everything that is needed to continue it.

    sums: of each loss term over the examples of this epoch. best: validation metrics of the best
    weights. history: one record per epoch.
    """

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    best_epoch: int = -1
    best: dict[str, float] = field(default_factory=dict)
    examples: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False

    def mean_loss(self, term: str) -> float:
        """Mean of a loss term over the examples of this epoch so far."""
        return self.sums[term] / self.examples

    def start_next_epoch(self) -> None:
        self.epoch += 1
        self.batch, self.examples, self.sums = 0, 0, {}
        self.epoch_seconds = 0.0


StepCallback = Callable[[int, TrainingState], None]


@dataclass(frozen=True)
class FitResult:
    """The weights of a run, their validation metrics, and one record per epoch."""

    encoder: Encoder
    vectors: NDArray[np.float32]
    metrics: dict[str, float]
    history: list[dict[str, Any]]


class Trainer:
    """One training run over the training users of a log.

    folder: holds the checkpoints. A checkpoint that exists is continued, so it must belong to this
    very run.
    initialize: sets the initial weights of a fresh model. They are validated as epoch 0 and compete
    with those of each epoch. Without it, a run begins with random weights. A model that is computed
    in closed form takes neither, and has no epochs.
    finalize: changes the weights after the last epoch. With it there is no early stopping, and the
    run returns the final weights, not the best ones on validation.
    """

    def __init__(
        self,
        config: FitConfig,
        catalog: Catalog,
        split: DataSplit,
        folder: Path,
        initialize: Callable[[Model], None] | None = None,
        finalize: Callable[[Model], None] | None = None,
    ) -> None:
        self._finalize = finalize
        self.epochs = 0 if has_closed_form(config) else config.epochs
        self.selection_metric = config.selection_metric
        self._config, self._catalog = config, catalog
        self._validation = split.validation[: config.validation_users]
        torch.manual_seed(config.seed)
        counts = np.bincount(split.train.rows, minlength=len(catalog) + 1)
        self._device = ranks.own_device(config)
        # Weights are drawn on the CPU: they are the same wherever they are trained.
        table = ranks.shared_table(config, len(counts), self._device)
        self._model = Model(config, torch.from_numpy(counts), table).to(self._device)
        self.interests = self._model.encoder.interests
        self._optimizers = build_optimizers(self._model, config)
        restrict_gaps(self._model, split.train)
        self._stream = stream_for(self._model, config, split.train, config.batch_size, self._device)
        self.state = TrainingState()
        self._checkpoint = folder / CHECKPOINT
        self._best = folder / "best.safetensors"
        if initialize is None and not ranks.from_first(self._checkpoint.exists):
            initial = ranks.from_first(lambda: initial_vectors(config, split.train, len(catalog)))
            if initial is not None:
                self._model.place_items(torch.from_numpy(initial))
        ranks.from_first(lambda: self._begin(split.train, initialize))
        if ranks.from_first(self._checkpoint.exists):
            self._resume()
        self._stepper = Stepper(self._model, self._optimizers, config)
        if config.compile:
            self._model.encoder.compile()
            self._model.objective.compile()

    def _begin(self, log: PackedLog, initialize: Callable[[Model], None] | None) -> None:
        """Set the weights of a run that begins with its own, and write its first checkpoint."""
        config = self._config
        if self._checkpoint.exists():
            return
        if has_closed_form(config):
            try:
                solve(self._model, config, log)
            except ArithmeticError as error:
                raise DivergedError(f"ease_l2 = {config.ease_l2:g}: {error}") from error
            self._validate_initial_weights()
        elif initialize is not None:
            initialize(self._model)
            self._validate_initial_weights()

    def _resume(self) -> None:
        metadata = checkpoint.load(self._checkpoint, self._model, self._optimizers)
        self.state = TrainingState(**metadata)

    def __len__(self) -> int:
        """Examples per epoch."""
        return len(self._stream)

    def run(self, on_step: StepCallback = lambda examples, state: None) -> FitResult:
        """Train for all epochs, or until the validation metric stops rising for `patience` epochs.

        Returns the weights that were best on validation or, with `finalize`, the final ones.
        on_step(examples, state) is called after each step with the number of its examples.
        Raises DivergedError if the loss, or a vector that is served, becomes NaN or infinite,
        DeviceMemoryError if the device's memory is too small.
        """
        state = self.state
        self.train(on_step)
        if self._finalize is not None and not state.finished:
            self._finish(self._finalize)
        ranks.wait()  # until the first has written them
        checkpoint.load(self._best, self._model)
        model = self._model.cpu()
        return FitResult(model.encoder.eval(), model.vectors(), state.best, state.history)

    def train(
        self, on_step: StepCallback, until: int | None = None, deadline: float = math.inf
    ) -> bool:
        """Train until `until` epochs are done, all by default; returns whether the run got there,
        or ended before by its patience.

        deadline: of time.monotonic(); the epoch that is running then is the last. Calls with rising
        `until` make the same weights as one call. Raises DivergedError.
        """
        state = self.state
        last = min(until or self.epochs, self.epochs)
        while state.epoch < last and not self._patience_exhausted():
            self._train_epoch(on_step)
            self._end_epoch()
            if ranks.from_first(lambda: time.monotonic() > deadline):
                break
        return state.epoch >= last or self._patience_exhausted()

    def validate(self, vectors: Tensor | None = None) -> dict[str, float]:
        """Metrics of the current weights, by exact search. Raises DivergedError.

        vectors: of `Model.vectors_on_device`, if they have been gathered.
        """
        if vectors is None:
            vectors = self._model.vectors_on_device()
        try:
            return validate(self._model, vectors, self._catalog, self._validation, self._config)
        except ArithmeticError as error:
            raise self._diverged(str(error)) from error

    def _patience_exhausted(self) -> bool:
        if self._finalize is not None:
            return False
        best = max(self.state.best_epoch, self._config.pretrain_epochs)
        epochs = self.state.epoch - 1 - best
        steps = epochs * self._stream.batches
        return epochs >= self._config.patience and steps >= self._config.patience_steps

    def _train_epoch(self, on_step: StepCallback) -> None:
        state, model = self.state, self._model
        model.train()
        model.objective.start_epoch(state.epoch)
        set_learning_rate(self._optimizers, self._config, state.epoch)
        if state.batch == 0:
            _seed_epoch(self._config.seed, state.epoch)
            model.start_epoch()
        batches = self._stream.epoch(state.epoch, first=state.batch)
        started = saved = time.monotonic()
        seconds_before = state.epoch_seconds
        for examples in batches:
            losses = self._stepper.step(examples)
            if not math.isfinite(losses["loss"]):
                raise self._diverged(f"loss is {losses['loss']}")
            size = examples.size
            for name, value in losses.items():
                state.sums[name] = state.sums.get(name, 0.0) + value * size
            state.examples += size
            state.batch += 1
            now = time.monotonic()
            state.epoch_seconds = seconds_before + now - started
            on_step(size, state)
            if ranks.anywhere(now - saved > CHECKPOINT_EVERY_S):
                self._save()
                saved = time.monotonic()

    def _validate_initial_weights(self) -> None:
        state = self.state
        state.best = self.validate()
        state.history.append({"epoch": 0, "validation": state.best})
        self._save_best()
        self._save()

    def _end_epoch(self) -> None:
        state, config = self.state, self._config
        vectors = self._model.vectors_on_device()
        metrics = ranks.from_first(lambda: self.validate(vectors))
        state.seconds += state.epoch_seconds
        record = {
            "epoch": state.epoch + 1,
            "examples": state.examples,
            "losses": {name: state.mean_loss(name) for name in state.sums},
            "validation": metrics,
            "samples_per_s": state.examples / state.epoch_seconds,
            "seconds": state.seconds,
        }
        state.history.append(record)
        is_better = metrics[config.selection_metric] > state.best.get(config.selection_metric, -1.0)
        if is_better and state.epoch >= config.pretrain_epochs:
            state.best, state.best_epoch = metrics, state.epoch
            self._save_best()
        state.start_next_epoch()
        self._save()

    def _finish(self, finalize: Callable[[Model], None]) -> None:
        _seed_epoch(self._config.seed, self.state.epoch)
        finalize(self._model)
        self.state.best = self.validate()
        self._save_best()
        self.state.finished = True
        self._save()

    def _diverged(self, reason: str) -> DivergedError:
        return DivergedError(
            f"{reason} in epoch {self.state.epoch + 1}; "
            f"try a learning rate below {self._config.learning_rate}"
        )

    # The best weights are written before the checkpoint that refers to them. A run that is killed
    # between the two repeats that epoch, with the same result. Of several ranks the first writes;
    # all give their shards.

    def _save(self) -> None:
        state = checkpoint.collect(self._model, self._optimizers, asdict(self.state))
        if ranks.rank() == 0:
            checkpoint.write(self._checkpoint, state)

    def _save_best(self) -> None:
        state = checkpoint.collect(self._model)
        if ranks.rank() == 0:
            checkpoint.write(self._best, state)


def _seed_epoch(seed: int, epoch: int) -> None:
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))
