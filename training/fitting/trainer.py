"""The loop: epochs of steps, validation, early stopping, and checkpoints from which a killed run
continues as if it had not been."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from index.encoders import Encoder
from index.retrieval.catalog import Catalog
from training.config import FitConfig
from training.data.examples import Examples, ExampleStream
from training.evaluation.evaluate import evaluate, exact
from training.evaluation.protocols import Task
from training.fitting import checkpoint
from training.models.model import Model

CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_EVERY_S = 120.0
_LOOKED_AT = 256  # histories whose interests have to be numbers


class DivergedError(RuntimeError):
    """The loss, or what the weights make of a history, is no longer a number."""


@dataclass
class Progress:
    """Where a run stands; with the tensors, all that it takes to continue it."""

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

    def mean(self, term: str) -> float:
        """Of a loss, over the examples of this epoch so far."""
        return self.sums[term] / self.examples


OnStep = Callable[[int, Progress], None]


@dataclass(frozen=True)
class Fitted:
    """What came out of a run, its metrics on validation, and a record an epoch."""

    encoder: Encoder
    vectors: NDArray[np.float32]
    metrics: dict[str, float]
    history: list[dict[str, Any]]


class Trainer:
    """One run over the training users of a log.

    folder: where its checkpoints are; what is there already is continued from, so it must belong to
    this very run. start: gives a fresh model the weights to begin with, which then compete, as
    epoch 0, with those of each epoch; without it a run begins as the model was drawn. finish: goes
    on after the last epoch. Then all epochs are done and that is what comes out, for which it
    does not matter who validates.
    """

    def __init__(
        self,
        config: FitConfig,
        catalog: Catalog,
        task: Task,
        folder: Path,
        start: Callable[[Model], None] | None = None,
        finish: Callable[[Model], None] | None = None,
    ) -> None:
        self._finish = finish
        self.epochs, self.selection_metric = config.epochs, config.selection_metric
        self._config, self._catalog = config, catalog
        self._validation = task.validation[: config.validation_users]
        self._exclude_seen = task.exclude_seen
        torch.manual_seed(config.seed)
        counts = np.bincount(task.train.rows, minlength=len(catalog) + 1)
        self._model = Model(config, torch.from_numpy(counts))
        self.interests = self._model.encoder.interests
        self._optimizers = build_optimizers(self._model, config)
        self._stream = ExampleStream(task.train, config.history, config.batch_size, config.seed)
        self.progress = Progress()
        self._checkpoint = folder / CHECKPOINT
        self._best = folder / "best.safetensors"
        if self._checkpoint.exists():
            about = checkpoint.load(self._checkpoint, self._model, self._optimizers)
            self.progress = Progress(**about)
        elif start is not None:
            start(self._model)
            self._open()

    def __len__(self) -> int:
        """Examples in an epoch."""
        return len(self._stream)

    def run(self, on_step: OnStep = lambda examples, progress: None) -> Fitted:
        """Train until the validation metric has not risen for `patience` epochs, or all are done.

        What comes out are the weights that were best, unless there is a `finish`.

        on_step(examples, progress) is called after each step with the number of its examples.
        Raises DivergedError if the loss, or what is served, becomes NaN or infinite.
        """
        progress = self.progress
        while progress.epoch < self._config.epochs and not self._exhausted():
            self._train_epoch(on_step)
            self._close_epoch()
        if self._finish is not None and not progress.finished:
            self._close(self._finish)
        checkpoint.load(self._best, self._model)
        vectors = self._model.vectors()
        return Fitted(self._model.encoder.eval(), vectors, progress.best, progress.history)

    def _exhausted(self) -> bool:
        if self._finish is not None:
            return False
        best = max(self.progress.best_epoch, self._config.pretrain_epochs)
        epochs = self.progress.epoch - 1 - best
        steps = epochs * self._stream.batches
        return epochs >= self._config.patience and steps >= self._config.patience_steps

    def _train_epoch(self, on_step: OnStep) -> None:
        progress, model = self.progress, self._model
        model.train()
        model.objective.start_epoch(progress.epoch)
        if progress.batch == 0:
            _seed_epoch(self._config.seed, progress.epoch)
        batches = self._stream.epoch(progress.epoch, first=progress.batch)
        started = saved = time.monotonic()
        before = progress.epoch_seconds
        for examples in batches:
            losses = step(model, self._optimizers, examples)
            if not math.isfinite(losses["loss"]):
                raise self._diverged(f"loss is {losses['loss']}")
            size = len(examples.targets)
            for name, value in losses.items():
                progress.sums[name] = progress.sums.get(name, 0.0) + value * size
            progress.examples += size
            progress.batch += 1
            now = time.monotonic()
            progress.epoch_seconds = before + now - started
            on_step(size, progress)
            if now - saved > CHECKPOINT_EVERY_S:
                self._save()
                saved = time.monotonic()

    def _open(self) -> None:
        """Take the weights that a run starts with for its best so far."""
        progress = self.progress
        progress.best = self.validate()
        progress.history.append({"epoch": 0, "validation": progress.best})
        self._save_best()
        self._save()

    def _close_epoch(self) -> None:
        progress, config = self.progress, self._config
        metrics = self.validate()
        progress.seconds += progress.epoch_seconds
        record = {
            "epoch": progress.epoch + 1,
            "examples": progress.examples,
            "losses": {name: progress.mean(name) for name in progress.sums},
            "validation": metrics,
            "samples_per_s": progress.examples / progress.epoch_seconds,
            "seconds": progress.seconds,
        }
        progress.history.append(record)
        better = metrics[config.selection_metric] > progress.best.get(config.selection_metric, -1.0)
        if better and progress.epoch >= config.pretrain_epochs:
            progress.best, progress.best_epoch = metrics, progress.epoch
            self._save_best()
        progress.epoch += 1
        progress.batch, progress.examples, progress.sums = 0, 0, {}
        progress.epoch_seconds = 0.0
        self._save()

    def _close(self, finish: Callable[[Model], None]) -> None:
        _seed_epoch(self._config.seed, self.progress.epoch)
        finish(self._model)
        self.progress.best = self.validate()
        self._save_best()
        self.progress.finished = True
        self._save()

    def _check(self, vectors: NDArray[np.float32], what: str) -> None:
        if not np.isfinite(vectors).all():
            raise self._diverged(f"{what} are not finite")

    def _diverged(self, what: str) -> DivergedError:
        return DivergedError(
            f"{what} in epoch {self.progress.epoch + 1}; "
            f"try a learning rate below {self._config.learning_rate}"
        )

    def validate(self) -> dict[str, float]:
        """Metrics of the weights as they are, by exact search. Raises DivergedError."""
        self._model.eval()
        vectors = self._model.vectors()
        # Of cosines the loss may still be a number when the weights no longer are.
        self._check(vectors, "item vectors")
        retriever = exact(self._catalog, self._model.encoder, vectors, self._config.history)
        if looked_at := [case.history for case in self._validation[:_LOOKED_AT]]:
            self._check(retriever.encode(looked_at), "interests")
        return evaluate(retriever, self._validation, self._exclude_seen)

    # A file is replaced whole. The best weights are written before the checkpoint that names them;
    # a run killed in between does that epoch again, to the same end.

    def _save(self) -> None:
        checkpoint.save(self._checkpoint, self._model, self._optimizers, asdict(self.progress))

    def _save_best(self) -> None:
        checkpoint.save(self._best, self._model)


def step(
    model: Model, optimizers: Sequence[torch.optim.Optimizer], examples: Examples
) -> dict[str, float]:
    """One update of the weights; returns the terms of the loss and their weighted sum, "loss".

    Weights are left alone, and so are the optimizers, when the loss is not a number.
    """
    loss, terms = model(examples)
    losses = {name: value.item() for name, value in terms.items()} | {"loss": loss.item()}
    if math.isfinite(losses["loss"]):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    return losses


def _seed_epoch(seed: int, epoch: int) -> None:
    state = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0]))


def build_optimizers(model: Model, config: FitConfig) -> list[torch.optim.Optimizer]:
    """Adam for what is dense; a large item table gets its own, which updates the rows of a step."""
    betas = (config.beta1, config.beta2)
    sparse = [model.table.weight] if model.table.sparse else []
    dense = [p for p in model.parameters() if all(p is not other for other in sparse)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(
            dense, config.learning_rate, betas, weight_decay=config.weight_decay, foreach=False
        )
    ]
    if sparse:
        optimizers.append(torch.optim.SparseAdam(sparse, config.learning_rate, betas))
    return optimizers
