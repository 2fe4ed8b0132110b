"""How a night is to train on with its day: what that is worth the day after.

    python tests/evidence/refit.py LOG [--ends 0.9,1] [--late 0.05] [--users 0]
                                   [--orders ,E,EC,ECC,ECCCCC,CCCCC,CCCCCE] [--set KEY=VALUE]

An order is a word: E is an epoch with everything, C a pass over the day alone. The newest
interactions before each of --ends, a share of LOG, --late of all, are what is asked for: tomorrow.
As many before them are the day. A cold fit knows what came before that; validation, which is of
half of the users of the day, chooses its weights, as on a night. Each order goes on from them. The
last line is one JSON object: by end and order recall@50 of what the users of tomorrow took, shown
what they took before.
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
from training.evaluation.champion_challenger import measure
from training.evaluation.evaluate import exact
from training.evaluation.holdout_day import asked
from training.experiments.compare import parse_setting
from training.fitting.fit import PreparedData
from training.fitting.trainer import Trainer, build_optimizers, training_step
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


def trained_on(
    order: str, fitted: TrainedModel, data: PreparedData, config: FitConfig, since: float
) -> TrainedModel:
    torch.manual_seed(config.seed)
    counts = np.bincount(data.log.rows, minlength=len(data.catalog) + 1)
    model = Model(config, torch.from_numpy(counts))
    initialize_from(model, data.catalog, fitted, with_encoder=True, log=data.log)
    for kind, together in groupby(order):
        times = len(list(together))
        if kind == "C":
            train_on_recent(model, config, data.log, since, times)
        for _ in range(times if kind == "E" else 0):
            epoch(model, config, data)
    return TrainedModel(model.encoder.eval(), model.vectors(), data.catalog)


def compared(
    log: Interactions, end: float, late: float, config: FitConfig, orders: list[str]
) -> dict[str, Any]:
    since, today = np.quantile(log.times, [end - 2 * late, end - late])
    tomorrow = float(np.quantile(log.times, end)) if end < 1 else np.inf
    data, known = prepare_day(until(log, today), since, config), until(log, tomorrow)
    with tempfile.TemporaryDirectory() as folder:
        fitted = Trainer(config, data.catalog, data.task, Path(folder)).run()
    begun = TrainedModel(fitted.encoder, fitted.vectors, data.catalog)
    cases = asked(known, today, everybody=True)

    def found(order: str) -> float:
        parts = trained_on(order, begun, data, config, since)
        retriever = exact(parts.catalog, parts.encoder, parts.vectors, config.history)
        return float(measure(known, cases, retriever)[METRIC].mean())

    worth = {order or "nothing": round(found(order), 4) for order in orders}
    return {"end": end, "users": len(cases), METRIC: worth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("--ends", default="0.9,1")
    parser.add_argument("--late", type=float, default=0.05)
    parser.add_argument("--users", type=int, default=0, help="so many, drawn by chance; 0 is all")
    parser.add_argument("--orders", default=",E,EC,ECC,ECCCCC,CCCCC,CCCCCE")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"split": "temporal", "interests": 8, **dict(map(parse_setting, given.settings))}
    config = read_config(None, settings)
    log = sample_users(read_log(given.log, config.format), given.users)
    told = []
    for end in map(float, given.ends.split(",")):
        told.append(compared(log, end, given.late, config, given.orders.split(",")))
        print(json.dumps(told[-1]), flush=True)
    print(json.dumps({"log": given.log.name, "ends": told}))


if __name__ == "__main__":
    main()
