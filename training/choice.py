"""K, the number of interests, chosen on validation where the settings leave it open.

Several interests are what most logs want and some do not: fewer users, or a taste that is one.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from training.config import FitConfig

_TRIED = (8, 1)  # the first, unless another is better
_DECIDING = ("recall@50", "ndcg@50")

Run = TypeVar("Run")


def candidates(config: FitConfig) -> list[FitConfig]:
    """The settings to try: with each K where they leave it open, else just themselves."""
    return [config] if config.interests is not None else [settled(config, k) for k in _TRIED]


def settled(config: FitConfig, interests: int) -> FitConfig:
    """The settings with this K, if they leave it open."""
    if config.interests is not None:
        return config
    return config.model_copy(update={"interests": interests})


def choose(
    config: FitConfig,
    run: Callable[[FitConfig], Run],
    metrics: Callable[[Run], Mapping[str, float]],
) -> tuple[FitConfig, Run]:
    """Run each candidate; the one with the greatest product of recall@50 and NDCG@50.

    metrics: of a run, on validation.
    """
    tried = [(each, run(each)) for each in candidates(config)]
    return max(tried, key=lambda one: _merit(metrics(one[1])))


def _merit(metrics: Mapping[str, float]) -> float:
    recall, ndcg = (metrics[name] for name in _DECIDING)
    return recall * ndcg
