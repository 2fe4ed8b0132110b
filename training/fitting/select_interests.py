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
    """Run each candidate; the first, unless a later one has both the greater recall@50 and NDCG@50.

    What is ahead in one alone is, on a few hundred users, as likely ahead by luck. metrics: of a
    run, on validation.
    """
    first, *others = candidates(config)
    best = first, run(first)
    for each in others:
        tried = run(each)
        if all(metrics(tried)[name] > metrics(best[1])[name] for name in _DECIDING):
            best = each, tried
    return best
