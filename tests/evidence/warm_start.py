"""How soon a warm start is where a cold one ends.

    python tests/evidence/warm_start.py LOG [--late 0.05] [--users 0] [--seeds 3] [--catch-up 2]
                                        [--set KEY=VALUE] [--warm KEY=VALUE] [--out DIR]

The newest interactions of LOG, --late of them, are the held-out day of a night; as many before them
that of the night before, whose release is live. Tonight fits until validation stops it, on the
same half of the day's users: once cold, once from the live release. Validation is once an epoch,
and of a warm start also before its first step. Of a metric that is as uncertain as that of a few
hundred users, the best of many epochs is partly luck: so curves are best so far, and mean over the
seeds. The last line is one JSON object: steps to the cold start's best, their ratio, and the metric
on the other half of the users; the status is 1 if a warm start takes more than a third.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from index.retrieval.catalog import Catalog
from training.config import FitConfig, read_config
from training.data.examples import ExampleStream
from training.data.interactions import Interactions, PackedLog, prepare
from training.data.readers import read_log
from training.evaluation.champion_challenger import measure
from training.evaluation.evaluate import exact
from training.evaluation.holdout_day import asked, divide_day
from training.evaluation.protocols import Task
from training.experiments.compare import setting
from training.fitting.trainer import Fitted, Trainer
from training.fitting.warm_start import Parts, catch_up, warm
from training.models.model import Model


def until(log: Interactions, end: float) -> Interactions:
    keep = log.times < end
    users = np.repeat(np.arange(len(log.user_ids), dtype=np.int32), np.diff(log.offsets))
    rows = users[keep], log.items[keep], log.times[keep]
    return Interactions.from_rows(*rows, log.user_ids, log.item_ids)


def some(log: Interactions, count: int) -> Interactions:
    if not count:
        return log
    users = np.repeat(np.arange(len(log.user_ids), dtype=np.int32), np.diff(log.offsets))
    drawn = np.random.default_rng(0).permutation(len(log.user_ids))[:count]
    keep = np.isin(users, drawn)
    rows = users[keep], log.items[keep], log.times[keep]
    return Interactions.from_rows(*rows, log.user_ids, log.item_ids)


Train = Callable[[Model], None]


class Ready(NamedTuple):
    catalog: Catalog
    log: PackedLog
    task: Task


def ready(log: Interactions, since: float, config: FitConfig) -> Ready:
    catalog, packed = prepare(log, config.min_user_interactions, config.min_item_interactions)
    return Ready(catalog, packed, divide_day(packed, since))


def fit(
    data: Ready, config: FitConfig, folder: Path, live: Parts | None, finish: Train | None = None
) -> tuple[Fitted, Parts]:
    """The run, and what it made."""

    def start(model: Model) -> None:
        assert live is not None
        warm(model, data.catalog, live, encoder=True, log=data.task.train)

    folder.mkdir()
    begin = start if live else None
    fitted = Trainer(config, data.catalog, data.task, folder, begin, finish).run()
    return fitted, Parts(fitted.encoder, fitted.vectors, data.catalog)


def released(data: Ready, config: FitConfig, folder: Path, since: float, passes: int) -> Parts:
    """As a night releases it: trained on with its own day."""
    _, parts = fit(data, config, folder / "live", None)
    whole = data._replace(task=replace(data.task, train=data.log))
    once = config.model_copy(update={"epochs": 1})

    def finish(model: Model) -> None:
        catch_up(model, once, data.log, since, passes)

    return fit(whole, once, folder / "refit", parts, finish)[1]


def compared(
    log: Interactions, late: float, config: FitConfig, started: FitConfig, seed: int, passes: int
) -> dict[str, Any]:
    config, started = (each.model_copy(update={"seed": seed}) for each in (config, started))
    before, since = np.quantile(log.times, [1 - 2 * late, 1 - late])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        known = ready(until(log, since), before, config)
        live = released(known, config, folder, before, passes)
        data = ready(log, since, config)
        cold, new = fit(data, config, folder / "cold", None)
        # Live has seen all that is trained on tonight, so there is nothing to catch up with.
        again, kept = fit(data, started, folder / "warm", live)
    metric = config.selection_metric
    cases = asked(log, since)
    judged = {
        name: measure(log, cases, exact(p.catalog, p.encoder, p.vectors, config.history))[metric]
        for name, p in {"live": live, "cold": new, "warm": kept}.items()
    }
    return {
        "seed": seed,
        "steps_an_epoch": ExampleStream(data.task.train, 1, config.batch_size, 0).batches,
        # Before the first step a cold start knows nothing.
        "cold": [0.0, *(record["validation"][metric] for record in cold.history)],
        "warm": [record["validation"][metric] for record in again.history],
        "judged": {name: float(values.mean()) for name, values in judged.items()},
        "judges": len(cases),
    }


def reached(curves: Sequence[Sequence[float]], goal: float) -> int | None:
    """The epoch at which the mean of the best so far of each curve reaches the goal."""
    longest = max(map(len, curves))
    best = [np.maximum.accumulate([*curve, *[0.0] * (longest - len(curve))]) for curve in curves]
    at = np.flatnonzero(np.mean(best, axis=0) >= goal - 1e-9)
    return int(at[0]) if len(at) else None


def summed_up(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """goal: the mean over the seeds of the best that a cold start reaches."""
    goal = float(np.mean([max(run["cold"]) for run in runs]))
    cold, warm = (reached([run[name] for run in runs], goal) for name in ("cold", "warm"))
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
    parser.add_argument("--users", type=int, default=0, help="so many, drawn by chance; 0 is all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--warm", action="append", default=[], help="setting where it starts warm")
    parser.add_argument("--catch-up", type=int, default=2, help="passes, as a night's catch_up")
    parser.add_argument("--out", type=Path, help="folder for the JSON of all runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    given = {"split": "temporal", "interests": 8, **dict(map(setting, arguments.settings))}
    config = read_config(None, given)
    started = read_config(None, given | dict(map(setting, arguments.warm)))
    log = some(read_log(arguments.log, config.format), arguments.users)
    runs = []
    for seed in range(arguments.seeds):
        runs.append(compared(log, arguments.late, config, started, seed, arguments.catch_up))
        print(json.dumps(runs[-1]))
    told = {**summed_up(runs), "log": arguments.log.name, "runs": runs}
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "warm.json").write_text(json.dumps(told, indent=2) + "\n")
    print(json.dumps(told))
    sys.exit(not told["passed"])


if __name__ == "__main__":
    main()
