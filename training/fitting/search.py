"""The choice of method and K on validation, by successive halving (Jamieson and Talwalkar, 2016).

All candidates are trained for an eighth of their epochs; the better half goes on to a quarter, and
the better half of these to one half. The last two are trained to their end. Half is by the metric
of the fit. In a round the cheap come first: those that are computed, then those that learn all
positions. A killed search goes on where it was: what the clock decided is in its state.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from joblib import cpu_count

from index.encoders import ENCODERS
from index.release.atomic_io import replace_text
from index.retrieval.catalog import Catalog
from training.config import FitConfig
from training.evaluation.metrics import DISTINCT_SHARE
from training.evaluation.protocols import DataSplit
from training.fitting import ranks
from training.fitting.candidates import Search
from training.fitting.search_report import Trial, describe, table
from training.fitting.steps import OneByOne, Outcome, SideBySide, Step, Steps, epochs_until
from training.fitting.trainer import DivergedError
from training.models.closed_form import has_closed_form

MIN_DISTINCT_SHARE = 0.5  # of the lists of `diverse`
_SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
_STATE = "search.json"
_WORTH_A_PROCESS = 100_000  # examples of the first round; starting one takes some seconds


class Choice(NamedTuple):
    """The name and settings of the best candidate, and what became of each."""

    name: str
    config: FitConfig
    trials: tuple[Trial, ...]


def search(
    plan: Search,
    catalog: Catalog,
    split: DataSplit,
    folder: Path,
    on_message: Callable[[str], None] = lambda message: None,
    processes: int | None = None,
) -> Choice:
    """Train the candidates, each in folder/NAME, and choose. The chosen one is to be trained on.

    processes: None means one for each core that this process may use, over torch's threads.
    Raises DivergedError if every candidate diverges, OSError if a process is killed.
    """
    halving = Halving(plan, folder, on_message)
    rounds = [epochs_until(config, _SHARES[0]) for config in plan.candidates.values()]
    if processes is None:
        is_small = sum(rounds) * len(split.train.rows) < _WORTH_A_PROCESS
        # Ranks train each candidate together, and candidates would share a GPU's memory.
        is_taken = ranks.count() > 1 or ranks.own_device(plan.first).type == "cuda"
        processes = 1 if is_small or is_taken else max(cpu_count() // torch.get_num_threads(), 1)
    processes = min(processes, len(plan.candidates))
    on_message(
        f"search: {len(plan.candidates)} candidates, at most {plan.minutes:g} minutes, "
        f"{processes} at a time"
    )
    with ExitStack() as stack:
        steps: Steps = OneByOne(catalog, split)
        if processes > 1 and not halving.is_over:
            steps = stack.enter_context(SideBySide(processes, catalog, split))
        finalists, rung = halving.run(steps)
    name = halving.best(finalists, rung)
    trials = halving.trials(name)
    on_message(f"search: {name} is chosen\n{table(trials)}")
    return Choice(name, plan.candidates[name], trials)


class Halving:
    """The rounds of a search. Its state, in folder/search.json, holds what each step brought, the
    time that is spent, and whether it is over."""

    def __init__(self, plan: Search, folder: Path, on_message: Callable[[str], None]) -> None:
        self._plan, self._folder, self._on_message = plan, folder, on_message
        self._state: dict[str, Any] = {"seconds": 0.0, "is_over": False, "outcomes": {}}
        if (folder / _STATE).exists():
            self._state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        self._outcomes = {
            name: [Outcome(**outcome) for outcome in self._state["outcomes"].get(name, ())]
            for name in plan.candidates
        }
        ranks.wait()  # until all have read it
        self._began: float = time.monotonic() - self._state["seconds"]

    @property
    def is_over(self) -> bool:
        """Whether no step is to be taken any more."""
        return bool(self._state["is_over"])

    def run(self, steps: Steps) -> tuple[list[str], int]:
        """The candidates that the last round compares, and its number."""
        alive, compared, last = [*self._plan.candidates], list[str](), 0
        for rung, share in enumerate(_SHARES):
            if not self.is_over:
                self._take(steps, alive, rung, share)
            there = [name for name in alive if self._has_reached(name, rung)]
            if len(there) > 1 or not compared:
                compared, last = there, rung
            if self.is_over or len(there) < 2:
                break
            alive = self._ranked(there, rung)[: max(math.ceil(len(there) / 2), 2)]
        return compared, last

    def best(self, finalists: Sequence[str], rung: int) -> str:
        """The most preferred one, unless a later one is better in both recall and NDCG: with a few
        hundred users, a lead in one metric alone is as likely chance."""
        sound = [name for name in self._plan.candidates if self._failure(name) is None]
        if not sound:
            raise DivergedError(str(self._failure(next(iter(self._plan.candidates)))))
        pool = [name for name in sound if name in finalists]
        if len(pool) < 2:
            if pool and (rung or not self.is_over):
                return pool[0]
            self._on_message(
                f"search: {self._plan.minutes:g} minutes are too few to compare two candidates; "
                f"{sound[0]} is the first of the list. Set search_minutes higher"
            )
            return sound[0]
        if self._plan.diverse:
            pool = self._distinct(pool, rung)
        best, *others = pool
        for name in others:
            deciding = _deciding_metrics(self._plan.candidates[name].selection_metric)
            if all(self._metric(name, rung, m) > self._metric(best, rung, m) for m in deciding):
                best = name
        return best

    def trials(self, chosen: str) -> tuple[Trial, ...]:
        """What became of each candidate."""
        return tuple(
            self._trial(name, config, "chosen" if name == chosen else None)
            for name, config in self._plan.candidates.items()
        )

    def _trial(self, name: str, config: FitConfig, result: str | None) -> Trial:
        outcomes, failure = self._outcomes[name], self._failure(name)
        metrics = outcomes[-1].metrics if outcomes else {}
        if result is None:
            result = "compared" if outcomes and outcomes[-1].complete else "no time left"
        return Trial(
            candidate=name,
            epochs=outcomes[-1].epochs if outcomes else 0,
            seconds=round(outcomes[-1].seconds, 1) if outcomes else 0.0,
            metric=config.selection_metric,
            value=metrics.get(config.selection_metric),
            distinct_share=metrics.get(DISTINCT_SHARE) if config.interests != 1 else None,
            result=failure or result,
        )

    def _take(self, steps: Steps, alive: Sequence[str], rung: int, share: float) -> None:
        """The steps of a round that are not taken yet, as far as there is time."""
        configs = self._plan.candidates
        missing = [
            Step(name, configs[name], self._folder / name, epochs_until(configs[name], share))
            for name in alive
            if len(self._outcomes[name]) <= rung
        ]
        missing.sort(key=lambda step: _cost(step.config))
        for step, outcome in steps.take(missing, self._seconds_left):
            self._outcomes[step.name].append(outcome)
            self._save(self._seconds_left() <= 0)
            trial = self._trial(step.name, step.config, None)
            self._on_message(f"search: {describe(trial)}")
        if any(len(self._outcomes[name]) <= rung for name in alive):
            self._save(is_over=True)
        if self.is_over:
            self._on_message(f"search: the {self._plan.minutes:g} minutes are over")

    def _seconds_left(self) -> float:
        return ranks.from_first(lambda: self._plan.minutes * 60 - (time.monotonic() - self._began))

    def _save(self, is_over: bool) -> None:
        outcomes = {name: [asdict(o) for o in past] for name, past in self._outcomes.items()}
        seconds = time.monotonic() - self._began
        self._state = {"seconds": seconds, "is_over": is_over, "outcomes": outcomes}
        if ranks.rank() == 0:
            replace_text(self._folder / _STATE, json.dumps(self._state))

    def _has_reached(self, name: str, rung: int) -> bool:
        outcomes = self._outcomes[name]
        return len(outcomes) > rung and outcomes[rung].complete

    def _failure(self, name: str) -> str | None:
        return next((o.failure for o in self._outcomes[name] if o.failure), None)

    def _metric(self, name: str, rung: int, metric: str) -> float:
        value: float = self._outcomes[name][rung].metrics[metric]
        return value

    def _is_distinct(self, name: str, rung: int) -> bool:
        return self._metric(name, rung, DISTINCT_SHARE) >= MIN_DISTINCT_SHARE

    def _ranked(self, names: Sequence[str], rung: int) -> list[str]:
        """Best first; of equals, the more preferred first."""

        def key(name: str) -> tuple[bool, float]:
            metric = self._plan.candidates[name].selection_metric
            counts = self._plan.diverse and self._is_distinct(name, rung)
            return counts, self._metric(name, rung, metric)

        return sorted(names, key=key, reverse=True)

    def _distinct(self, names: list[str], rung: int) -> list[str]:
        """Those whose lists differ; all, with a message, if there are none."""
        distinct = [name for name in names if self._is_distinct(name, rung)]
        if not distinct:
            shares = {name: self._metric(name, rung, DISTINCT_SHARE) for name in names}
            widest = max(shares, key=lambda name: shares[name])
            self._on_message(
                f"search: no candidate has a distinct share of {MIN_DISTINCT_SHARE:g}, at most "
                f"{shares[widest]:.2f} ({widest}); the best on validation is taken"
            )
        return distinct or names


def _cost(config: FitConfig) -> int:
    """The cheap first: what a slow candidate leaves no time for could have been the best."""
    if has_closed_form(config):
        return 0
    return 1 if config.positions == "all" and ENCODERS[config.encoder].causal else 2


def _deciding_metrics(selection: str) -> tuple[str, str]:
    """The metric of the fit and, at the same cutoff, the other of recall and NDCG."""
    name, _, cutoff = selection.partition("@")
    return selection, f"{'ndcg' if name == 'recall' else 'recall'}@{cutoff}"
