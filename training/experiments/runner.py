"""Side by side: several settings on one log, tuned with equal budgets, over several seeds."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from index.release.atomic_io import replace_text
from index.retrieval.retriever import Retriever
from training.config import FitConfig
from training.evaluation.evaluate import evaluate, exact, popular, user_metrics
from training.evaluation.interest_clusters import separation
from training.evaluation.protocols import Case
from training.fitting.fit import Prepared, prepare_log
from training.fitting.select_interests import choose
from training.fitting.trainer import Trainer

PER_USER = ("recall@20", "recall@50", "ndcg@50")  # kept for each user, to test differences
_TIMED_USERS = 300


@dataclass(frozen=True)
class Outcome:
    """One run: its settings, metrics by part, each test user's metric, and what it cost.

    encode_us: microseconds to encode one history, alone, on one thread. curve: a record an epoch.
    """

    config: dict[str, Any]
    validation: dict[str, float]
    test: dict[str, float]
    users: dict[str, list[float]]
    samples_per_s: float
    encode_us: float
    curve: list[dict[str, Any]]


@dataclass(frozen=True)
class System:
    """A row of a table: a name, and settings over seeds."""

    name: str
    outcomes: list[Outcome]

    def values(self, metric: str, part: str = "test") -> NDArray[np.float64]:
        """(seeds,)."""
        return np.array([getattr(outcome, part)[metric] for outcome in self.outcomes])

    def users(self, metric: str) -> NDArray[np.float64]:
        """(users,): mean over the seeds."""
        mean: NDArray[np.float64] = np.mean([o.users[metric] for o in self.outcomes], axis=0)
        return mean


class ExperimentRunner:
    """Runs on one log, whose outcomes are kept in a folder: none is made twice, and a run that was
    interrupted goes on where it was."""

    def __init__(
        self, log: Path, folder: Path, say: Callable[[str], None], items: Path | None = None
    ) -> None:
        self.log, self.folder, self._say, self._items = log, folder, say, items
        self._prepared: dict[str, Prepared] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, config: FitConfig) -> Outcome:
        """Where K is open, the run whose K validation chose. Raises what a fit raises."""
        if config.interests is None:
            return choose(config, self.run, lambda outcome: outcome.validation)[1]
        path = self._path(config)
        if not path.exists():
            outcome = self._train(config, path.with_suffix(""))
            replace_text(path, json.dumps(asdict(outcome)))
        return Outcome(**json.loads(path.read_text(encoding="utf-8")))

    def retriever(self, config: FitConfig) -> Retriever:
        """The weights of a run that was made, behind exact search."""
        config = FitConfig.model_validate(self.run(config).config)
        ready = self.prepared(config)
        folder = self._path(config).with_suffix("")
        fitted = Trainer(config, ready.catalog, ready.task, folder).run()
        return exact(ready.catalog, fitted.encoder, fitted.vectors, config.history)

    def _path(self, config: FitConfig) -> Path:
        about = f"{self.log.name} {config.model_dump_json()}"
        return self.folder / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.json"

    def system(self, name: str, config: FitConfig, seeds: int) -> System:
        outcomes = []
        for seed in range(seeds):
            self._say(f"{name}, seed {seed}")
            outcomes.append(self.run(config.model_copy(update={"seed": seed})))
        return System(name, outcomes)

    def tuned(self, name: str, config: FitConfig, trials: Sequence[dict[str, Any]]) -> FitConfig:
        """The trial with the best validation metric at seed 0; all systems get the same trials."""
        tried = [config.model_copy(update=trial) for trial in trials] or [config]
        if len(tried) == 1:
            return tried[0]
        scores = []
        for number, trial in enumerate(tried, start=1):
            self._say(f"{name}, trial {number} of {len(tried)}")
            scores.append(self.run(trial).validation[config.select_on])
        return tried[int(np.argmax(scores))]

    def prepared(self, config: FitConfig) -> Prepared:
        """The log as this config filters and divides it."""
        about = {"format", "events", "min_weight", "min_user_interactions", "min_item_interactions"}
        about |= {"split", "test_fraction", "split_seed"}
        key = config.model_dump_json(include=about)
        if key not in self._prepared:
            self._prepared[key] = prepare_log(self.log, self._items, config)
        return self._prepared[key]

    def popularity(self, config: FitConfig) -> Outcome:
        """The trivial baseline: the most popular items for everyone."""
        ready = self.prepared(config)
        users = popular(ready.catalog, ready.task.test, ready.task.exclude_seen)
        held = popular(ready.catalog, ready.task.validation, ready.task.exclude_seen)
        validation, test = (
            {name: float(each.mean()) for name, each in part.items()} for part in (held, users)
        )
        return Outcome(config.model_dump(mode="json"), validation, test, _kept(users), 0.0, 0.0, [])

    def _train(self, config: FitConfig, folder: Path) -> Outcome:
        ready = self.prepared(config)
        folder.mkdir(exist_ok=True)
        fitted = Trainer(config, ready.catalog, ready.task, folder).run()
        retriever = exact(ready.catalog, fitted.encoder, fitted.vectors, config.history)
        task = ready.task
        users = user_metrics(retriever, task.test, task.exclude_seen)
        return Outcome(
            config=config.model_dump(mode="json"),
            validation=fitted.metrics,
            test=evaluate(retriever, task.test, task.exclude_seen)
            | separation(retriever, task.test),
            users=_kept(users),
            samples_per_s=float(np.mean([r["samples_per_s"] for r in fitted.history])),
            encode_us=_encode_us(retriever, task.test),
            curve=fitted.history,
        )


def _kept(users: dict[str, NDArray[np.float64]]) -> dict[str, list[float]]:
    return {name: users[name].round(5).tolist() for name in PER_USER}


def _encode_us(retriever: Retriever, cases: list[Case]) -> float:
    histories = [case.history for case in cases[:_TIMED_USERS]]
    spent = []
    for history in histories:
        start = time.perf_counter()
        retriever.encode([history])
        spent.append(time.perf_counter() - start)
    return float(np.median(spent)) * 1e6


def significance(a: System, b: System, metric: str) -> float:
    """p of a paired t-test over the users that a and b differ in the mean, seeds averaged first."""
    difference = a.users(metric) - b.users(metric)
    if not difference.any():
        return 1.0
    return float(stats.ttest_1samp(difference, 0).pvalue)
