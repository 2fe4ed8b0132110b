"""Selection of K, the number of interests, on validation metrics, if the settings leave it open.

Most logs gain from several interests. Logs with few users, or with users of one taste, do not.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from training.config import FitConfig

_CANDIDATE_COUNTS = (8, 1)  # the first is the default
_DECIDING_METRICS = ("recall@50", "ndcg@50")

Run = TypeVar("Run")


def candidates(config: FitConfig) -> list[FitConfig]:
    """The settings to compare: one for each candidate K, or only `config` if it names a K."""
    if config.interests is not None:
        return [config]
    return [with_interests(config, count) for count in _CANDIDATE_COUNTS]


def with_interests(config: FitConfig, count: int) -> FitConfig:
    """The settings with K = `count`, unless they name a K already."""
    if config.interests is not None:
        return config
    return config.model_copy(update={"interests": count})


def select_interests(
    config: FitConfig,
    run: Callable[[FitConfig], Run],
    metrics: Callable[[Run], Mapping[str, float]],
) -> tuple[FitConfig, Run]:
    """Run every candidate. Select the first one, unless a later one is better in both recall@50 and
    NDCG@50: with a few hundred users, a lead in one metric alone is as likely chance.

    metrics: returns the validation metrics of a run.
    """
    first, *alternatives = candidates(config)
    best = first, run(first)
    for alternative in alternatives:
        result = run(alternative)
        if all(metrics(result)[name] > metrics(best[1])[name] for name in _DECIDING_METRICS):
            best = alternative, result
    return best
