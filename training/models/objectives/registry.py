"""The losses by name: main losses, one per fit, and auxiliary losses with a coefficient."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from training.models.objectives.interface import LossTerm


class RegisteredLoss(NamedTuple):
    """description: of the option; of a main loss, of this choice among the others."""

    term: type[LossTerm]
    description: str


MAIN_LOSSES: dict[str, RegisteredLoss] = {}
AUXILIARY_LOSSES: dict[str, RegisteredLoss] = {}
T = TypeVar("T", bound=type[LossTerm])


def register_main(name: str, description: str) -> Callable[[T], T]:
    """Register a loss that the option `objective` may name."""
    return _adder(MAIN_LOSSES, name, description)


def register_auxiliary(name: str, description: str) -> Callable[[T], T]:
    """Register a loss that is added with a coefficient: the option `name`, 0 by default."""
    return _adder(AUXILIARY_LOSSES, name, description)


def _adder(registry: dict[str, RegisteredLoss], name: str, description: str) -> Callable[[T], T]:
    def add(term: T) -> T:
        assert name not in registry, f"two losses are called {name!r}: this is a bug"
        registry[name] = RegisteredLoss(term, description)
        return term

    return add
