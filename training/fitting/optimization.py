"""Optimizers, their learning rate, and the steps of training, on one process or several."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.config import FitConfig
from training.data.examples import Examples
from training.fitting import ranks
from training.models.device import Precision, autocast, memory_needed
from training.models.model import Model, Part
from training.models.sharded_table import ADAGRAD_EPSILON, ShardedTable


class Optimizer(Protocol):
    """What torch's optimizers, and the one of a table in shards, have in common."""

    param_groups: list[dict[str, Any]]

    def zero_grad(self) -> None: ...

    def step(self) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None: ...


def training_step(
    model: Model,
    optimizers: Sequence[Optimizer],
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

    def __init__(self, model: Model, optimizers: Sequence[Optimizer], config: FitConfig) -> None:
        self._model, self._optimizers, self._config = model, optimizers, config
        self._parallel: DistributedDataParallel | None = None
        if ranks.count() > 1:
            # Buffers are the same on all ranks; a sparse gradient is added up below.
            ignored = [name for name, _ in model.named_buffers()]
            ignored += ["table.weight"] if _is_sparse(model) else []
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
            if _is_sparse(self._model) and (gradient := self._model.weight.grad) is not None:
                self._model.weight.grad = ranks.add_up_rows(gradient) / ranks.count()
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


def set_learning_rate(optimizers: Sequence[Optimizer], config: FitConfig, epoch: int) -> None:
    """The rates of an epoch, counted from 0: constant, or falling linearly to 0 after the last."""
    share = 1.0
    if config.learning_rate_schedule == "linear":
        share -= epoch / config.epochs
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * share


def build_optimizers(model: Model, config: FitConfig) -> list[Optimizer]:
    """Adam for dense parameters. Only used rows of a large item table are updated, by SparseAdam;
    Adagrad, if it is asked for, updates only used rows of any."""
    rate, item_rate = config.learning_rate, config.item_learning_rate or config.learning_rate
    betas = (config.beta1, config.beta2)
    together = config.item_optimizer == "adam" and not _is_sparse(model)
    dense = [
        parameter
        for name, parameter in model.named_parameters()
        if together or name != "table.weight"
    ]
    on_gpu = any(parameter.is_cuda for parameter in dense)
    optimizers: list[Optimizer] = [
        torch.optim.Adam(
            dense,
            rate,
            betas,
            weight_decay=config.weight_decay,
            foreach=False,
            # A tenth of the time, but other last digits: fits made before it stay as they are.
            fused=config.positions == "all" or on_gpu,
        )
    ]
    if isinstance(model.table, ShardedTable):
        optimizers.append(model.table.optimizer)
    elif config.item_optimizer == "adagrad":
        optimizers.append(torch.optim.Adagrad([model.weight], item_rate, eps=ADAGRAD_EPSILON))
    elif not together:
        optimizers.append(torch.optim.SparseAdam([model.weight], item_rate, betas))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def _is_sparse(model: Model) -> bool:
    """Whether the gradient of the item table has only the rows of a batch."""
    return isinstance(model.table, nn.Embedding) and model.table.sparse
