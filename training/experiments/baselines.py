"""Baselines of a comparison: what can be had without training, for users never seen too."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from index.retrieval.catalog import Catalog
from training.config import ConfigError, FitConfig
from training.data.packed_log import PackedLog
from training.evaluation.popularity import popular_rows, recent_rows
from training.evaluation.rankings import Ranker, Scorer, rank_by_popularity, rank_by_scores
from training.experiments.item_similarity import ease, item_knn

MessageCallback = Callable[[str], None]
POP, POP_RECENT = "pop", "pop-recent"


class BaselineOptions(BaseModel):
    """Settings of a baseline, such as those of `ease:l2=100`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class EaseOptions(BaselineOptions):
    l2: float = Field(20.0, gt=0, description="L2 regularisation of the items' weights")
    max_items: int = Field(
        20_000, ge=1, description="most popular items that are scored; 4 bytes for each pair"
    )


class ItemKnnOptions(BaselineOptions):
    neighbours: int = Field(200, ge=1, description="most similar items that an item adds to")
    shrinkage: float = Field(0.0, ge=0, description="users added to each item's in the cosine")
    decay: float = Field(0.8, gt=0, le=1, description="weight of an item over that of the next")


Options = TypeVar("Options", bound=BaselineOptions)


@dataclass(frozen=True)
class Baseline(Generic[Options]):
    """fit: makes the ranker of a training part. trials: settings to try on validation, in order."""

    options: type[Options]
    fit: Callable[[PackedLog, Catalog, FitConfig, Options, MessageCallback], Ranker]
    trials: Sequence[Mapping[str, Any]] = ({},)

    def own(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the settings that are this baseline's, and not a fit's."""
        return {n: v for n, v in settings.items() if n in self.options.model_fields}

    def options_to_try(self, own: Mapping[str, Any], trials: int) -> list[Options]:
        """The first trials that change no setting of `own`, with these settings."""
        given = self.own(own)
        tried = [trial for trial in self.trials[:trials] if not trial.keys() & given.keys()]
        return [self.options_of({**trial, **given}) for trial in tried or [{}]]

    def options_of(self, settings: Mapping[str, Any]) -> Options:
        """Raises ConfigError for a value that is not allowed."""
        try:
            return self.options.model_validate(settings)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"{first['loc'][0]} = {first['input']!r}: {first['msg']}") from error


def _popular(
    train: PackedLog,
    catalog: Catalog,
    config: FitConfig,
    options: BaselineOptions,
    on_message: MessageCallback,
) -> Ranker:
    return partial(rank_by_popularity, popular_rows(train, catalog))


def _recent(
    train: PackedLog,
    catalog: Catalog,
    config: FitConfig,
    options: BaselineOptions,
    on_message: MessageCallback,
) -> Ranker:
    rows = recent_rows(train, catalog, config.popularity_days)
    if rows is None:
        raise ConfigError(
            f"{POP_RECENT}: the log has no times, or popularity_days is none; leave it out, or "
            "give a log whose times are Unix seconds or ISO 8601"
        )
    return partial(rank_by_popularity, rows)


def _ease(
    train: PackedLog,
    catalog: Catalog,
    config: FitConfig,
    options: EaseOptions,
    on_message: MessageCallback,
) -> Ranker:
    if len(catalog) > options.max_items:
        on_message(
            f"ease: {len(catalog):,} items, of which it ranks the {options.max_items:,} most "
            "popular; for the others too, give ease:max_items=N, which takes 4 N^2 bytes, or fewer "
            "items to all systems, --set min_item_interactions=N"
        )
    try:
        scorer = ease(train, len(catalog), options.l2, options.max_items)
    except ArithmeticError as error:
        raise ConfigError(f"ease: {error}") from error
    return _by_scores(scorer, train, catalog)


def _item_knn(
    train: PackedLog,
    catalog: Catalog,
    config: FitConfig,
    options: ItemKnnOptions,
    on_message: MessageCallback,
) -> Ranker:
    scorer = item_knn(train, len(catalog), options.neighbours, options.shrinkage, options.decay)
    return _by_scores(scorer, train, catalog)


def _by_scores(scorer: Scorer, train: PackedLog, catalog: Catalog) -> Ranker:
    return partial(rank_by_scores, scorer, popular_rows(train, catalog))


BASELINES: Mapping[str, Baseline[Any]] = {
    POP: Baseline(BaselineOptions, _popular),
    POP_RECENT: Baseline(BaselineOptions, _recent),
    "ease": Baseline(EaseOptions, _ease, ({}, {"l2": 500.0}, {"l2": 100.0}, {"l2": 2000.0})),
    "item-knn": Baseline(
        ItemKnnOptions,
        _item_knn,
        (
            {},
            {"shrinkage": 20.0, "decay": 0.9},
            {"shrinkage": 20.0, "decay": 0.98},
            {"shrinkage": 100.0, "decay": 0.9},
        ),
    ),
}


def popularity_baselines(train: PackedLog, catalog: Catalog, config: FitConfig) -> list[str]:
    """Those that the log allows: what every comparison shows."""
    has_times = recent_rows(train, catalog, config.popularity_days) is not None
    return [POP, POP_RECENT] if has_times else [POP]
