"""The objective of a fit: a main loss and weighted auxiliary terms, for any encoder."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from training.models.objectives.interface import LossInputs, LossTerm
from training.models.objectives.registry import AUXILIARY_LOSSES, MAIN_LOSSES


class Objective(nn.Module):
    """L = sum of coefficient * term (Re4 Eq. 16). A term with coefficient 0 is not computed."""

    def __init__(self, terms: Mapping[str, tuple[float, LossTerm]]) -> None:
        super().__init__()
        used = {name: term for name, (coefficient, term) in terms.items() if coefficient}
        self._terms = nn.ModuleDict(used)
        self._coefficients = {name: terms[name][0] for name in used}

    @property
    def future_items(self) -> int:
        """Number of next items that a term learns; 0 if only the target is learnt."""
        terms = [term for term in self._terms.values() if isinstance(term, LossTerm)]
        return max((term.future_items for term in terms), default=0)

    def start_epoch(self, number: int) -> None:
        for term in self._terms.values():
            assert isinstance(term, LossTerm)
            term.start_epoch(number)

    def forward(self, batch: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and each term before its coefficient, detached."""
        values = {name: term(batch) for name, term in self._terms.items()}
        loss = sum(self._coefficients[name] * value for name, value in values.items())
        return loss, {name: value.detach() for name, value in values.items()}


def build_objective(settings: Mapping[str, Any]) -> Objective:
    """The objective that the settings name, the main loss first.

    Terms with coefficient 0 are built too: the random draws of a fit do not depend on coefficients.
    """
    main = settings["objective"]
    terms = {main: (1.0, MAIN_LOSSES[main].term.build(settings))}
    for name, loss in AUXILIARY_LOSSES.items():
        terms[name] = (settings[name], loss.term.build(settings))
    return Objective(terms)
