"""What it is worth to read the times of histories: `transformer` with and without, on one log.

    python tests/evidence/time_gaps.py LOG --out DIR [--seeds 3] [--set learning_rate=0.002 ...]

Both are trained with each seed, in DIR, where a run that was interrupted continues. The test part
is measured as `compare` does, and again without its times, and as if each request came an hour
later. Then every item of the test users but the first two is to be found after those before it, by
the time since the last one. The unit is recall@50. Prints Markdown tables, then one JSON object.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.retrieval.retriever import Retriever
from training.config import FitConfig, read_config
from training.data.event_times import Clock
from training.data.packed_log import PackedLog
from training.data.splits import split_users
from training.evaluation.evaluate import exact_retriever, user_metrics
from training.evaluation.protocols import EvaluationCase
from training.experiments.compare import parse_setting
from training.fitting.fit import PreparedData, prepare_log
from training.fitting.time_gaps import with_time_gaps
from training.fitting.trainer import Trainer

METRICS = ("recall@50", "ndcg@50")
BORDERS = {
    "below a second": 1.0,
    "a second to an hour": 3600.0,
    "to a day": 86_400.0,
    "to a week": 7 * 86_400.0,
    "to a month": 30 * 86_400.0,
    "longer": math.inf,
}


def trained(data: PreparedData, config: FitConfig, out: Path) -> tuple[Retriever, dict[str, float]]:
    """With exact search, and its metrics on validation."""
    folder = out / f"{'with' if config.time_gaps else 'without'}-{config.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    result = Trainer(config, data.catalog, data.split, folder).run()
    retriever = exact_retriever(data.catalog, result.encoder, result.vectors, config.history)
    return retriever, {name: result.metrics[name] for name in METRICS}


def next_items(log: PackedLog, users: NDArray[np.int64]) -> Iterator[EvaluationCase]:
    clock = Clock(log.times)
    for user in users:
        start, end = log.offsets[user], log.offsets[user + 1]
        for cut in range(start + 2, end):
            history, ages = log.rows[start:cut].tolist(), clock.ages(start, cut)
            yield EvaluationCase(history, [int(log.rows[cut])], ages=ages)


def without_times(cases: Sequence[EvaluationCase]) -> list[EvaluationCase]:
    return [case._replace(ages=None) for case in cases]


def an_hour_later(cases: Sequence[EvaluationCase]) -> list[EvaluationCase]:
    return [case._replace(ages=[age + 3600 for age in case.ages or ()]) for case in cases]


def spans(cases: list[EvaluationCase]) -> dict[str, NDArray[np.bool_]]:
    """Which cases are of each time since the last event, and all of them."""
    since = np.array([case.ages[-1] if case.ages else np.nan for case in cases])
    chosen, low = {"all": np.ones(len(cases), dtype=bool)}, 0.0
    for name, high in BORDERS.items():
        chosen[name], low = (since >= low) & (since < high), high
    return chosen


def by_time(retriever: Retriever, cases: list[EvaluationCase]) -> dict[str, float]:
    """recall@50 by the time since the last event, and of all."""
    found = user_metrics(retriever, cases)[METRICS[0]]
    return {name: float(found[of].mean()) for name, of in spans(cases).items() if of.any()}


def measure(
    retriever: Retriever, data: PreparedData, cases: list[EvaluationCase], reads_times: bool
) -> dict[str, dict[str, float]]:
    test = data.split.test
    versions = {"": test}
    if reads_times:
        versions |= {", withheld": without_times(test), ", an hour later": an_hour_later(test)}
    rows = {}
    for name, version in versions.items():
        values = user_metrics(retriever, version)
        rows[f"test{name}"] = {metric: float(values[metric].mean()) for metric in METRICS}
    return rows | {"next items": by_time(retriever, cases)}


def mean(runs: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    return {
        part: {name: float(np.mean([run[part][name] for run in runs])) for name in runs[0][part]}
        for part in runs[0]
    }


def table(title: str, rows: dict[str, dict[str, float]], counts: dict[str, int]) -> str:
    columns = [*dict.fromkeys(name for row in rows.values() for name in row)]
    heads = [f"{name} ({counts[name]:,})" if name in counts else name for name in columns]
    lines = [f"| {title} | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(f'{row[column]:.4f}' for column in columns)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    settings: dict[str, Any] = {"encoder": "transformer", **dict(map(parse_setting, options.set))}
    config = read_config(None, {**settings, "time_gaps": True})
    data = prepare_log(options.log, None, config)
    with_time_gaps(config, float(data.log.times.max()))  # refuses a log without times
    users = split_users(data.log.user_ids, config.test_fraction, config.split_seed)
    cases = [*next_items(data.log, users.test)]
    results: dict[str, dict[str, dict[str, float]]] = {}
    for reads_times in (True, False):
        runs = []
        for seed in range(options.seeds):
            own = config.model_copy(update={"time_gaps": reads_times, "seed": seed})
            retriever, validation = trained(data, own, options.out)
            measured = measure(retriever, data, cases, reads_times)
            runs.append({"validation": validation, **measured})
            print(f"times {reads_times}, seed {seed}: {json.dumps(runs[-1])}", file=sys.stderr)
        results["with times" if reads_times else "without"] = mean(runs)
    parts = {
        f"{name}: {part}": values
        for name, rows in results.items()
        for part, values in rows.items()
        if part != "next items"
    }
    print(table("mean over the seeds", parts, {}))
    counts = {name: int(of.sum()) for name, of in spans(cases).items()}
    print(table("next items", {n: rows["next items"] for n, rows in results.items()}, counts))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
