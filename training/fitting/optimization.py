"""Optimizers, their learning rate, and one step of training."""

import math
from collections.abc import Sequence

import torch

from training.config import FitConfig
from training.data.examples import Examples
from training.models.model import Model


def training_step(
    model: Model, optimizers: Sequence[torch.optim.Optimizer], examples: Examples
) -> dict[str, float]:
    """One update of the weights; returns the loss terms and their weighted sum, "loss".

    If the loss is not finite, weights and optimizers stay unchanged.
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
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(
            dense,
            config.learning_rate,
            betas,
            weight_decay=config.weight_decay,
            foreach=False,
            # A tenth of the time, but other last digits: fits made before it stay as they are.
            fused=config.positions == "all",
        )
    ]
    if sparse:
        optimizers.append(torch.optim.SparseAdam(sparse, config.learning_rate, betas))
    return optimizers
