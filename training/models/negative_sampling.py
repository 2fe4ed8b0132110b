"""Samplers of negatives: rows shared by a whole batch, and how often each is drawn."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

SamplerName = Literal["uniform", "log-uniform", "in-batch", "full"]


class Negatives(NamedTuple):
    """rows (S,) of 1..N, shared by the batch.

    log_q (S,) and target_log_q (B,): log of the expected count of a row in such a draw, to be
    subtracted from its logit (logQ); None where it is the same for all rows and so has no effect.
    """

    rows: Tensor
    log_q: Tensor | None = None
    target_log_q: Tensor | None = None


Sampler = Callable[[Tensor], Negatives]


def uniform(items: int, count: int) -> Sampler:
    """`count` rows, each equally likely, with replacement, from torch's generator."""

    def draw(targets: Tensor) -> Negatives:
        return Negatives(torch.randint(1, items + 1, (count,), device=targets.device))

    return draw


def log_uniform(items: int, count: int) -> Sampler:
    """`count` rows, row r with probability log((r + 1) / r) / log(N + 1), with replacement.

    Rows are in descending order of popularity, so popular items are drawn more; padding never is.
    """

    def log_q(rows: Tensor) -> Tensor:
        return (torch.log1p(1 / rows) * (count / math.log(items + 1))).log()

    def draw(targets: Tensor) -> Negatives:
        draws = torch.rand(count, device=targets.device, dtype=torch.float64)
        rows = torch.exp(draws * math.log(items + 1)).long().clamp(1, items)
        return Negatives(rows, log_q(rows), log_q(targets))

    return draw


def in_batch(popularity: Tensor) -> Sampler:
    """The targets of the batch; items are drawn in proportion to their popularity.

    popularity (N + 1,): interactions of each row; row 0 is unused.
    """
    share = popularity.clamp_min(1) / popularity[1:].sum()

    def draw(targets: Tensor) -> Negatives:
        nonlocal share
        share = share.to(targets.device)  # once
        log_q = (share[targets] * len(targets)).log()
        return Negatives(targets, log_q, log_q)

    return draw


def full(items: int) -> Sampler:
    """Every row: the exact softmax."""

    def draw(targets: Tensor) -> Negatives:
        return Negatives(torch.arange(1, items + 1, device=targets.device))

    return draw


def build_sampler(name: SamplerName, popularity: Tensor, count: int) -> Sampler:
    """popularity (N + 1,) of the rows in the training log; count: negatives that uniform and
    log-uniform draw."""
    items = len(popularity) - 1
    samplers: dict[SamplerName, Callable[[], Sampler]] = {
        "uniform": lambda: uniform(items, count),
        "log-uniform": lambda: log_uniform(items, count),
        "in-batch": lambda: in_batch(popularity),
        "full": lambda: full(items),
    }
    return samplers[name]()
