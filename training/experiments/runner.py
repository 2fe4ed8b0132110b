"""Training runs on one log: cached results, tuning with equal budgets, several seeds."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from timeit import timeit
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel
from scipy import stats

from index.release.atomic_io import replace_text
from index.release.lock import exclusive_lock
from index.retrieval.retriever import Retriever
from training.config import ConfigError, FitConfig
from training.data.log_options import LogOptions
from training.evaluation.detail import measure_in_detail
from training.evaluation.evaluate import evaluate_in_detail, exact_retriever
from training.evaluation.interest_clusters import cluster_metrics
from training.evaluation.metrics import metric_names
from training.evaluation.protocols import EvaluationCase
from training.evaluation.rankings import encode_cases
from training.experiments.baselines import BASELINES, BaselineOptions
from training.fitting.fingerprint import fingerprint
from training.fitting.fit import PreparedData, prepare_log
from training.fitting.select_interests import select_interests
from training.fitting.time_gaps import with_time_gaps
from training.fitting.trainer import FitResult, Trainer

PER_USER = metric_names("per-user")  # stored for each user, for significance tests
_LOCK = "lock"
_TIMED_USERS = 300
_COMPUTED = ("device", "compile")  # settings that no result stores


@dataclass(frozen=True)
class RunResult:
    """One run: settings, metrics on validation and test, test metrics per user, and cost.

    users: metric -> value of each test user. encode_us: microseconds to encode a single history on
    one thread. curve: one record per epoch.
    """

    config: dict[str, Any]
    validation: dict[str, float]
    test: dict[str, float]
    users: dict[str, list[float]]
    samples_per_s: float
    encode_us: float
    curve: list[dict[str, Any]]


class _BaselineRun(BaseModel):
    """What identifies a run of a baseline, beside its data."""

    kind: str
    config: FitConfig
    options: dict[str, Any]


@dataclass(frozen=True)
class System:
    """A row of a results table: a name and one run per seed."""

    name: str
    runs: list[RunResult]

    def values(self, metric: str, part: str = "test") -> NDArray[np.float64]:
        """(seeds,)."""
        return np.array([getattr(run, part)[metric] for run in self.runs])

    def users(self, metric: str) -> NDArray[np.float64]:
        """(users,): mean over the seeds."""
        mean: NDArray[np.float64] = np.mean([run.users[metric] for run in self.runs], axis=0)
        return mean


class ExperimentRunner:
    """Training runs on one log. Results are cached in a folder, by the content of the log and the
    settings: no run is repeated, and an interrupted run continues from its checkpoint. Several
    processes may share the folder, as long as no two are at the same run."""

    def __init__(
        self, log: Path, folder: Path, on_message: Callable[[str], None], items: Path | None = None
    ) -> None:
        self.log, self.folder, self._on_message, self._items = log, folder, on_message, items
        self._prepared: dict[str, PreparedData] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def run(self, config: FitConfig) -> RunResult:
        """If K is open, the run with the K that validation selects. Raises the errors of a fit, and
        ConfigError if another process is at this run."""
        if config.interests is None:
            return select_interests(config, self.run, lambda result: result.validation)[1]
        config = with_time_gaps(config, float(self.prepare(config).log.times.max()))
        path = self._path(config)
        return _cached(path, lambda: self._train(config, path.with_suffix("")))

    def retriever(self, config: FitConfig) -> Retriever:
        """The weights of a run, with exact search; trains them unless the run is cached."""
        stored, computed = (
            self.run(config).config,
            {name: getattr(config, name) for name in _COMPUTED},
        )
        config = FitConfig.from_stored(stored).model_copy(update=computed)
        folder = self._path(config).with_suffix("")
        return self._fit(config, folder)[1]

    def _path(self, config: FitConfig) -> Path:
        data = self.prepare(config)
        return self.folder / f"{fingerprint(config, data.catalog, data.log)}.json"

    def run_seeds(self, name: str, config: FitConfig, seeds: int) -> System:
        """Runs with `seeds` seeds in a row, from that of `config` on."""
        runs = []
        for seed in range(config.seed, config.seed + seeds):
            self._on_message(f"{name}, seed {seed}")
            runs.append(self.run(config.model_copy(update={"seed": seed})))
        return System(name, runs)

    def tune(self, name: str, config: FitConfig, trials: Sequence[dict[str, Any]]) -> FitConfig:
        """The trial with the best validation metric, at the seed of `config`."""
        configs = [config.model_copy(update=trial) for trial in trials] or [config]
        if len(configs) == 1:
            return configs[0]
        scores = []
        for number, trial in enumerate(configs, start=1):
            self._on_message(f"{name}, trial {number} of {len(configs)}")
            scores.append(self.run(trial).validation[config.selection_metric])
        return configs[int(np.argmax(scores))]

    def prepare(self, config: FitConfig) -> PreparedData:
        """The log as `config` filters and splits it; read once for equal settings."""
        key = config.model_dump_json(include=set(LogOptions.model_fields))
        if key not in self._prepared:
            self._prepared[key] = prepare_log(self.log, self._items, config)
        return self._prepared[key]

    def run_baseline(
        self, name: str, kind: str, config: FitConfig, trials: Sequence[BaselineOptions]
    ) -> System:
        """One run of BASELINES[kind]: that of the trials whose validation metric is best."""
        runs = []
        for number, options in enumerate(trials, start=1):
            self._on_message(f"{name}, trial {number} of {len(trials)}")
            runs.append(self._run_trial(kind, config, options))
        scores = [run.validation[config.selection_metric] for run in runs]
        return System(name, [runs[int(np.argmax(scores))]])

    def _run_trial(self, kind: str, config: FitConfig, options: BaselineOptions) -> RunResult:
        data, settings = self.prepare(config), options.model_dump(mode="json")
        run = _BaselineRun(kind=kind, config=config, options=settings)
        path = self.folder / f"{fingerprint(run, data.catalog, data.log)}.json"
        return _cached(path, lambda: self._measure(kind, config, options))

    def _measure(self, kind: str, config: FitConfig, options: BaselineOptions) -> RunResult:
        catalog, _, split, _ = self.prepare(config)
        fit = BASELINES[kind].fit
        rank = fit(split.train, catalog, config, options, self._on_message)
        validation, test = (
            measure_in_detail(rank, cases, config.exclude_seen, catalog)
            for cases in (split.validation, split.test)
        )
        return RunResult(
            config=config.model_dump(mode="json") | {"baseline": options.model_dump(mode="json")},
            validation=validation.means,
            test=test.means,
            users=_per_user(test.users),
            samples_per_s=0.0,
            encode_us=0.0,
            curve=[],
        )

    def _train(self, config: FitConfig, folder: Path) -> RunResult:
        split = self.prepare(config).split
        fitted, retriever = self._fit(config, folder)
        test = evaluate_in_detail(retriever, split.test, config.exclude_seen)
        return RunResult(
            config=config.model_dump(mode="json"),
            validation=fitted.metrics,
            test=test.means | cluster_metrics(retriever, split.test),
            users=_per_user(test.users),
            samples_per_s=_mean_speed(fitted.history),
            encode_us=_encode_us(retriever, split.test),
            curve=fitted.history,
        )

    def _fit(self, config: FitConfig, folder: Path) -> tuple[FitResult, Retriever]:
        """The weights of a run, begun or continued in its folder, and exact search with them.
        Raises ConfigError if another process is at it."""
        catalog, _, split, _ = self.prepare(config)
        folder.mkdir(exist_ok=True)
        running = ConfigError(
            f"{folder}: another process is at this run; wait for it, or choose another --out"
        )
        with exclusive_lock(folder / _LOCK, running):
            fitted = Trainer(config, catalog, split, folder).run()
        return fitted, exact_retriever(catalog, fitted.encoder, fitted.vectors, config.history)


def _mean_speed(history: list[dict[str, Any]]) -> float:
    """Samples/s over the epochs; 0 of weights that were computed."""
    speeds = [record["samples_per_s"] for record in history if record["epoch"]]
    return float(np.mean(speeds)) if speeds else 0.0


def _cached(path: Path, run: Callable[[], RunResult]) -> RunResult:
    if not path.exists():
        replace_text(path, json.dumps(asdict(run())))
    return RunResult(**json.loads(path.read_text(encoding="utf-8")))


def _per_user(users: dict[str, NDArray[np.float64]]) -> dict[str, list[float]]:
    return {name: users[name].round(5).tolist() for name in PER_USER}


def _encode_us(retriever: Retriever, cases: list[EvaluationCase]) -> float:
    """Median time to encode one history, in microseconds."""
    timed = cases[:_TIMED_USERS]
    seconds = [timeit(partial(encode_cases, retriever, [case]), number=1) for case in timed]
    return float(np.median(seconds)) * 1e6


def significance(a: System, b: System, metric: str) -> float:
    """p-value of a paired t-test over the users, on means over the seeds: do a and b differ?"""
    difference = a.users(metric) - b.users(metric)
    if not difference.any():
        return 1.0
    return float(stats.ttest_1samp(difference, 0).pvalue)
