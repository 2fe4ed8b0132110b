"""Optimizers, their learning rate, and the steps of training, on one process or several."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from training.config import FitConfig
from training.data.examples import Examples
from training.fitting import ranks
from training.models.device import Precision, autocast, memory_needed
from training.models.model import Model, Part


def training_step(
    model: Model,
    optimizers: Sequence[torch.optim.Optimizer],
    examples: Examples,
    precision: Precision = "float32",
) -> dict[str, float]:
    """One update of the weights; returns the loss terms and their weighted sum, "loss".

    If the loss is not finite, weights and optimizers stay unchanged.
    """
    with autocast(examples.rows.device, precision):
        loss, terms = model(examples)
    losses = _numbers(loss, terms)
    if math.isfinite(losses["loss"]):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    return losses


class Stepper:
    """The training steps of a model on `ranks.count()` processes, which call it together.

    Each computes its part of the same batch. The loss is the sum over the ranks of their losses,
    each by its share of the targets' weights: for the main losses that is the loss of the whole
    batch. Auxiliary losses with another denominator are means of means.
    """

    def __init__(
        self, model: Model, optimizers: Sequence[torch.optim.Optimizer], config: FitConfig
    ) -> None:
        self._model, self._optimizers, self._config = model, optimizers, config
        self._parallel: DistributedDataParallel | None = None
        if ranks.count() > 1:
            # Buffers are the same on all ranks; a sparse gradient is added up below.
            ignored = [name for name, _ in model.named_buffers()]
            ignored += ["table.weight"] if model.table.sparse else []
            model._ddp_params_and_buffers_to_ignore = ignored  # type: ignore[assignment]
            self._parallel = DistributedDataParallel(model, find_unused_parameters=True)

    def step(self, examples: Examples) -> dict[str, float]:
        """As training_step. Raises DeviceMemoryError."""
        config = self._config
        given = "none" if config.batch_size is None else config.batch_size
        with memory_needed(
            f"a training step on {examples.rows.device}: lower batch_size (now {given}, here "
            f"{len(examples.rows)}), negatives ({config.negatives}), dim ({config.dim}), history "
            f"({config.history}) or interests ({config.interests})"
        ):
            if self._parallel is None:
                return training_step(self._model, self._optimizers, examples, config.precision)
            return self._step_together(self._parallel, examples)

    def _step_together(
        self, parallel: DistributedDataParallel, examples: Examples
    ) -> dict[str, float]:
        part, share = _own_part(examples)
        with autocast(examples.rows.device, self._config.precision):
            loss, terms = parallel(examples, part)
        scaled = {name: value * share for name, value in terms.items()}
        losses = _numbers(loss.detach() * share, scaled)
        if math.isfinite(losses["loss"]):
            for optimizer in self._optimizers:
                optimizer.zero_grad()
            (loss * (share * ranks.count())).backward()  # of which it takes the mean
            table = self._model.table
            if table.sparse and table.weight.grad is not None:
                table.weight.grad = ranks.add_up_rows(table.weight.grad) / ranks.count()
            for optimizer in self._optimizers:
                optimizer.step()
        return losses


def _numbers(loss: Tensor, terms: dict[str, Tensor]) -> dict[str, float]:
    """Of all ranks together, in one transfer from the device."""
    values = ranks.add_up(torch.stack([*terms.values(), loss.detach()]).float())
    return dict(zip([*terms, "loss"], values.tolist(), strict=True))


def _own_part(examples: Examples) -> tuple[Part, float]:
    """The histories of this rank, and the share of the batch's targets, by weight, that they have.

    A rank for which none is left computes one without a share.
    """
    size, rank, count = len(examples.rows), ranks.rank(), ranks.count()
    begin, end = rank * size // count, (rank + 1) * size // count
    weights = (examples.targets > 0).float() if examples.weights is None else examples.weights
    share = float(weights[begin:end].sum() / weights.sum())
    return Part(begin, end, rank) if end > begin else Part(0, 1, rank), share


def set_learning_rate(
    optimizers: Sequence[torch.optim.Optimizer], config: FitConfig, epoch: int
) -> None:
    """The rate of an epoch, counted from 0: constant, or falling linearly to 0 after the last."""
    rate = config.learning_rate
    if config.learning_rate_schedule == "linear":
        rate *= 1 - epoch / config.epochs
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def build_optimizers(model: Model, config: FitConfig) -> list[torch.optim.Optimizer]:
    """Adam for dense parameters; SparseAdam for a large item table, to update only used rows."""
    betas = (config.beta1, config.beta2)
    sparse = [model.table.weight] if model.table.sparse else []
    dense = [p for p in model.parameters() if all(p is not q for q in sparse)]
    on_gpu = model.table.weight.is_cuda
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(
            dense,
            config.learning_rate,
            betas,
            weight_decay=config.weight_decay,
            foreach=False,
            # A tenth of the time, but other last digits: fits made before it stay as they are.
            fused=config.positions == "all" or on_gpu,
        )
    ]
    if sparse:
        optimizers.append(torch.optim.SparseAdam(sparse, config.learning_rate, betas))
    return optimizers
