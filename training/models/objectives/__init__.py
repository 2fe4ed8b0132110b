"""What a fit minimizes: a main loss and weighted auxiliary terms, for any encoder of K interests.

Every module of this package is imported here, so a loss is one file: a class with `Arguments`,
registered under its name. The order of the modules' names is the order of the terms: of their sum,
and of their random draws.
"""

from importlib import import_module
from pkgutil import iter_modules

from training.models.objectives.interface import LossArguments, LossInputs, LossTerm
from training.models.objectives.objective import Objective, build_objective
from training.models.objectives.registry import AUXILIARY_LOSSES, MAIN_LOSSES

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

__all__ = [
    "AUXILIARY_LOSSES",
    "MAIN_LOSSES",
    "LossArguments",
    "LossInputs",
    "LossTerm",
    "Objective",
    "build_objective",
]
