"""How a nightly run should train on with its held-out day: what it is worth the day after.

    python tests/evidence/refit.py LOG [--ends 0.9,1] [--late 0.05] [--users 0]
                                   [--orders ,E,EC,ECC,ECCCCC,CCCCC,CCCCCE] [--set KEY=VALUE]

An order is a word: E is an epoch on all data, C a pass over the day. --ends are shares of LOG: the
newest interactions before each, --late of the log, are tomorrow, which is held out; as many before
them are the day. A cold fit trains on the time before the day; half of the day's users validate it
and select its weights, as in a nightly run. Each order continues from these weights. The last line
is one JSON object: recall@50 of tomorrow's items by end and order.
"""

import argparse
import json
import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from warm_start import prepare_day, sample_users, until

from training.config import FitConfig, read_config
from training.data.examples import ExampleStream
from training.data.interactions import Interactions
from training.data.readers import read_log
from training.evaluation.champion_challenger import day_metrics
from training.evaluation.evaluate import exact_retriever
from training.evaluation.holdout_day import day_cases
from training.experiments.compare import parse_setting
from training.fitting.fit import PreparedData
from training.fitting.optimization import build_optimizers, training_step
from training.fitting.trainer import Trainer
from training.fitting.warm_start import TrainedModel, initialize_from, train_on_recent
from training.models.model import Model

METRIC = "recall@50"


def epoch(model: Model, config: FitConfig, data: PreparedData) -> None:
    stream = ExampleStream(data.log, config.history, config.batch_size, config.seed)
    optimizers = build_optimizers(model, config)
    model.train()
    model.objective.start_epoch(0)
    for examples in stream.epoch(0):
        training_step(model, optimizers, examples)


def train_on(
    order: str, fitted: TrainedModel, data: PreparedData, config: FitConfig, since: float
) -> TrainedModel:
    torch.manual_seed(config.seed)
    counts = np.bincount(data.log.rows, minlength=len(data.catalog) + 1)
    model = Model(config, torch.from_numpy(counts))
    initialize_from(model, data.catalog, fitted, with_encoder=True, log=data.log)
    for step, repeats in groupby(order):
        times = len(list(repeats))
        if step == "C":
            train_on_recent(model, config, data.log, since, times)
        for _ in range(times if step == "E" else 0):
            epoch(model, config, data)
    return TrainedModel(model.encoder.eval(), model.vectors(), data.catalog)


def compare(
    log: Interactions, end: float, late: float, config: FitConfig, orders: list[str]
) -> dict[str, Any]:
    since, today = np.quantile(log.times, [end - 2 * late, end - late])
    tomorrow = float(np.quantile(log.times, end)) if end < 1 else np.inf
    data, known = prepare_day(until(log, today), since, config), until(log, tomorrow)
    with tempfile.TemporaryDirectory() as folder:
        fitted = Trainer(config, data.catalog, data.split, Path(folder)).run()
    start = TrainedModel(fitted.encoder, fitted.vectors, data.catalog)
    cases = day_cases(known, today, all_users=True)

    def metric(order: str) -> float:
        model = train_on(order, start, data, config, since)
        retriever = exact_retriever(model.catalog, model.encoder, model.vectors, config.history)
        return float(day_metrics(known, cases, retriever)[METRIC].mean())

    by_order = {order or "nothing": round(metric(order), 4) for order in orders}
    return {"end": end, "users": len(cases), METRIC: by_order}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--ends", default="0.9,1")
    parser.add_argument("--late", type=float, default=0.05)
    parser.add_argument("--users", type=int, default=0, help="size of a random sample; 0 is all")
    parser.add_argument("--orders", default=",E,EC,ECC,ECCCCC,CCCCC,CCCCCE")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"split": "temporal", "interests": 8, **dict(map(parse_setting, options.settings))}
    config = read_config(None, settings)
    log = sample_users(read_log(options.log, config.format), options.users)
    results = []
    for end in map(float, options.ends.split(",")):
        results.append(compare(log, end, options.late, config, options.orders.split(",")))
        print(json.dumps(results[-1]), flush=True)
    print(json.dumps({"log": options.log.name, "ends": results}))


if __name__ == "__main__":
    main()
