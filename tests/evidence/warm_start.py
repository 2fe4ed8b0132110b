"""How many steps a warm start needs to reach the best validation metric of a cold start.

    python tests/evidence/warm_start.py LOG [--late 0.05] [--users 0] [--seeds 3] [--catch-up 2]
                                        [--set KEY=VALUE] [--warm KEY=VALUE] [--out DIR]

The newest share --late of the interactions of LOG is the held-out day of tonight's run; an equal
share before it is that of the run before, whose release is live. Tonight's run trains with early
stopping, validated on the same half of the day's users: once cold, once from the live release.
Validation takes place after each epoch and, for a warm start, also before its first step. The best
of many epochs of a metric over a few hundred users is partly chance, so the curves are the best
metric so far, averaged over the seeds. The last line is one JSON object: the steps to the cold
start's best metric, their ratio, and the metric on the other half of the users. The exit code is 1
if a warm start needs more than a third of the steps.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.config import FitConfig, read_config
from training.data.examples import open_stream
from training.data.interactions import Interactions
from training.data.packed_log import prepare
from training.data.readers import read_log
from training.evaluation.champion_challenger import day_metrics
from training.evaluation.evaluate import exact_retriever
from training.evaluation.holdout_day import day_cases, split_day
from training.experiments.compare import parse_setting
from training.fitting.fit import PreparedData
from training.fitting.trainer import FitResult, Trainer
from training.fitting.warm_start import TrainedModel, initialize_from, train_on_recent
from training.models.model import Model

ModelUpdate = Callable[[Model], None]


def until(log: Interactions, end: float) -> Interactions:
    return _filter(log, log.times < end)


def sample_users(log: Interactions, count: int) -> Interactions:
    """`count` random users; all users if it is 0."""
    if not count:
        return log
    sample = np.random.default_rng(0).permutation(len(log.user_ids))[:count]
    return _filter(log, np.isin(_users(log), sample))


def _filter(log: Interactions, keep: NDArray[np.bool_]) -> Interactions:
    rows = _users(log)[keep], log.items[keep], log.times[keep]
    return Interactions.from_rows(*rows, log.user_ids, log.item_ids)


def _users(log: Interactions) -> NDArray[np.int32]:
    return np.repeat(np.arange(len(log.user_ids), dtype=np.int32), np.diff(log.offsets))


def prepare_day(log: Interactions, since: float, config: FitConfig) -> PreparedData:
    catalog, packed = prepare(log, config.min_user_interactions, config.min_item_interactions)
    return PreparedData(catalog, packed, split_day(packed, since))


def fit(
    data: PreparedData,
    config: FitConfig,
    folder: Path,
    live: TrainedModel | None,
    finalize: ModelUpdate | None = None,
) -> tuple[FitResult, TrainedModel]:
    """Train from random weights, or from those of the live release."""

    def initialize(model: Model) -> None:
        assert live is not None
        initialize_from(model, data.catalog, live, with_encoder=True, log=data.split.train)

    folder.mkdir()
    start = initialize if live else None
    result = Trainer(config, data.catalog, data.split, folder, start, finalize).run()
    return result, TrainedModel(result.encoder, result.vectors, data.catalog)


def release(
    data: PreparedData, config: FitConfig, folder: Path, since: float, passes: int
) -> TrainedModel:
    """The model that a nightly run releases: also trained on its held-out day."""
    _, trained = fit(data, config, folder / "live", None)
    all_data = data._replace(split=replace(data.split, train=data.log))
    one_epoch = config.model_copy(update={"epochs": 1})

    def finalize(model: Model) -> None:
        train_on_recent(model, one_epoch, data.log, since, passes)

    return fit(all_data, one_epoch, folder / "refit", trained, finalize)[1]


def compare(
    log: Interactions, late: float, cold: FitConfig, warm: FitConfig, seed: int, passes: int
) -> dict[str, Any]:
    cold, warm = (config.model_copy(update={"seed": seed}) for config in (cold, warm))
    before, since = np.quantile(log.times, [1 - 2 * late, 1 - late])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = prepare_day(until(log, since), before, cold)
        live = release(known, cold, folder, before, passes)
        data = prepare_day(log, since, cold)
        cold_result, cold_model = fit(data, cold, folder / "cold", None)
        # Live was trained on all of tonight's training data: there are no recent events to add.
        warm_result, warm_model = fit(data, warm, folder / "warm", live)
    metric, cases = cold.selection_metric, day_cases(log, since)
    test_values = {
        name: day_metrics(
            log, cases, exact_retriever(m.catalog, m.encoder, m.vectors, cold.history)
        )[metric]
        for name, m in {"live": live, "cold": cold_model, "warm": warm_model}.items()
    }
    return {
        "seed": seed,
        "steps_an_epoch": open_stream(
            cold.positions, data.split.train, cold.history, cold.batch_size, 0
        ).batches,
        # Before its first step a cold start has random weights.
        "cold": [0.0, *(record["validation"][metric] for record in cold_result.history)],
        "warm": [record["validation"][metric] for record in warm_result.history],
        "judged": {name: float(values.mean()) for name, values in test_values.items()},
        "judges": len(cases),
    }


def first_epoch_at(curves: Sequence[Sequence[float]], goal: float) -> int | None:
    """The first epoch at which the curves' best metric so far, averaged, reaches the goal."""
    longest = max(map(len, curves))
    best = [np.maximum.accumulate([*curve, *[0.0] * (longest - len(curve))]) for curve in curves]
    epochs = np.flatnonzero(np.mean(best, axis=0) >= goal - 1e-9)
    return int(epochs[0]) if len(epochs) else None


def summarize(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """goal: the best metric of a cold start, averaged over the seeds."""
    goal = float(np.mean([max(run["cold"]) for run in runs]))
    cold, warm = (first_epoch_at([run[name] for run in runs], goal) for name in ("cold", "warm"))
    assert cold is not None
    per_epoch = runs[0]["steps_an_epoch"]
    ratio = None if warm is None else warm / cold
    return {
        "passed": ratio is not None and ratio <= 1 / 3,
        "goal": goal,
        "cold_steps": cold * per_epoch,
        "warm_steps": None if warm is None else warm * per_epoch,
        "ratio": ratio,
        "warm_before_a_step": float(np.mean([run["warm"][0] for run in runs])),
        "warm_best": float(np.mean([max(run["warm"]) for run in runs])),
        "judged": {
            name: float(np.mean([run["judged"][name] for run in runs]))
            for name in ("live", "cold", "warm")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--late", type=float, default=0.05)
    parser.add_argument("--users", type=int, default=0, help="number of random users; 0: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--warm", action="append", default=[], help="setting of warm starts")
    parser.add_argument("--catch-up", type=int, default=2, help="passes over the newest events")
    parser.add_argument("--out", type=Path, help="folder for the JSON of all runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"split": "temporal", "interests": 8, **dict(map(parse_setting, arguments.settings))}
    cold = read_config(None, settings)
    warm = read_config(None, settings | dict(map(parse_setting, arguments.warm)))
    log = sample_users(read_log(arguments.log, cold.format), arguments.users)
    runs = []
    for seed in range(arguments.seeds):
        runs.append(compare(log, arguments.late, cold, warm, seed, arguments.catch_up))
        print(json.dumps(runs[-1]))
    summary = {**summarize(runs), "log": arguments.log.name, "runs": runs}
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "warm.json").write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary))
    sys.exit(not summary["passed"])


if __name__ == "__main__":
    main()
