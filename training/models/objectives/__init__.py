"""What is learnt: a main loss and weighted auxiliary terms, for any encoder of K interests."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from index.encoders import History, Interests


class Forward(NamedTuple):
    """What the terms of an objective may look at, for a batch of B examples.

    targets (B,) rows, target_vectors (B, D); negatives (S,) rows shared by the batch,
    negative_vectors (S, D). target_log_q (B,), negative_log_q (S,): log of how often each is drawn,
    None where all are drawn alike.
    """

    history: History
    interests: Interests
    targets: Tensor
    target_vectors: Tensor
    negatives: Tensor
    negative_vectors: Tensor
    target_log_q: Tensor | None = None
    negative_log_q: Tensor | None = None


class LossTerm(nn.Module):
    """Base of the losses, so that a checker knows what calling one returns: a scalar."""

    def forward(self, batch: Forward) -> Tensor:
        raise NotImplementedError  # the terms define it; this class is their type

    def start_epoch(self, number: int) -> None:
        """Called before each epoch, counted from 0; for terms that come in stages."""

    def __call__(self, batch: Forward) -> Tensor:
        result: Tensor = super().__call__(batch)
        return result


class Objective(nn.Module):
    """L = sum of coefficient * term (Re4 Eq. 16). A term with coefficient 0 is not computed."""

    def __init__(self, terms: Mapping[str, tuple[float, LossTerm]]) -> None:
        super().__init__()
        used = {name: term for name, (coefficient, term) in terms.items() if coefficient}
        self._terms = nn.ModuleDict(used)
        self._coefficients = {name: terms[name][0] for name in used}

    def start_epoch(self, number: int) -> None:
        for term in self._terms.values():
            assert isinstance(term, LossTerm)
            term.start_epoch(number)

    def forward(self, batch: Forward) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and each term before its coefficient, detached."""
        values = {name: term(batch) for name, term in self._terms.items()}
        loss = sum(self._coefficients[name] * value for name, value in values.items())
        return loss, {name: value.detach() for name, value in values.items()}
