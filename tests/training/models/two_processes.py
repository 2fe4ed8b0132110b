"""What each of two processes does in test_sharded_table: run by torchrun, with a folder."""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from training.config import FitConfig
from training.data.synthetic import write_synthetic
from training.fitting import ranks
from training.fitting.fit import prepare_log
from training.fitting.trainer import Trainer
from training.models.sharded_table import ADAGRAD_EPSILON, ShardedTable

ROWS, DIM, STD, RATE = 11, 4, 0.1, 0.1
# With repeated rows, padding, and rows of both shards. The first process has one row more.
LOOKUPS = [[[1, 3, 3, 9, 0], [10, 2, 9, 3]], [[6, 5], [5, 6, 0, 0]], [[10, 1, 1], [4]]]


def compare_with_a_whole_table() -> None:
    rank = dist.get_rank()
    torch.manual_seed(5)
    sharded = ShardedTable(ROWS, DIM, STD, RATE, torch.device("cpu"))
    after_sharded = torch.rand(1)
    torch.manual_seed(5)
    whole = torch.nn.Embedding(ROWS, DIM, padding_idx=0)
    torch.nn.init.normal_(whole.weight, std=STD)
    assert after_sharded == torch.rand(1)  # as many numbers were drawn
    with torch.no_grad():
        whole.weight[0] = 0
        replaced, vectors = torch.tensor([1, 6, 10]), torch.rand(3, DIM)  # of both shards
        sharded.replace(replaced, vectors)
        whole.weight[replaced] = vectors
    adagrad = torch.optim.Adagrad(whole.parameters(), RATE, eps=ADAGRAD_EPSILON)

    def check() -> None:
        vectors, sums = sharded.gather(sharded.shard), sharded.optimizer.state_dict()["state"][0]
        if rank == 0:
            torch.testing.assert_close(vectors, whole.weight.data)
            torch.testing.assert_close(sums["sum"], adagrad.state[whole.weight]["sum"])

    def step(of_ranks: list[list[int]], weights: torch.Tensor) -> None:
        own = torch.tensor(of_ranks[rank])
        looked_up = sharded(own)
        torch.testing.assert_close(looked_up, whole(own))
        sharded.optimizer.zero_grad()
        (looked_up.square().sum(1) @ weights[: len(own)]).backward()
        sharded.optimizer.step()
        adagrad.zero_grad()
        losses = [
            whole(torch.tensor(rows)).square().sum(1) @ weights[: len(rows)] for rows in of_ranks
        ]
        (sum(losses) / len(losses)).backward()
        adagrad.step()

    for number, of_ranks in enumerate(LOOKUPS):
        for optimizer in (sharded.optimizer, adagrad):
            optimizer.param_groups[0]["lr"] = RATE / (1 + number)
        step(of_ranks, torch.rand(8, generator=torch.Generator().manual_seed(number)))
        check()

    # The state of one table, in a fresh one, as a checkpoint has it.
    vectors = [sharded.state_dict()["weight"], sharded.optimizer.state_dict()["state"][0]["sum"]]
    for part in vectors:  # only the first has the whole
        whole_part = part if rank == 0 else torch.empty(ROWS, DIM)
        dist.broadcast(whole_part, 0)
        part.set_(whole_part)
    fresh = ShardedTable(ROWS, DIM, STD, RATE, torch.device("cpu"))
    fresh.load_state_dict({"weight": vectors[0]})
    fresh.optimizer.load_state_dict({"state": {0: {"sum": vectors[1]}}})
    fresh.optimizer.param_groups[0]["lr"] = adagrad.param_groups[0]["lr"]
    sharded = fresh
    step(LOOKUPS[0], torch.ones(8))
    check()


def resume_a_fit(folder: Path) -> None:
    """A run that is continued twice, after an epoch each, has the weights of one that is not."""
    log = folder / "log"
    if dist.get_rank() == 0:
        write_synthetic(log, users=120, items=80, seed=1)
    dist.barrier()
    config = FitConfig(
        dim=8,
        interests=2,
        hidden=8,
        negatives=20,
        batch_size=64,
        epochs=3,
        item_optimizer="adagrad",
        item_learning_rate=0.05,
        shard_items=True,
        item_init="co-occurrence",
        device="cpu",
    )
    data = prepare_log(log / "interactions.parquet", None, config)
    results = {}
    for name, stops in {"straight": [None], "stopped": [1, 2, None]}.items():
        (folder / name).mkdir(exist_ok=True)
        for until in stops:
            trainer = Trainer(config, data.catalog, data.split, folder / name)
            if until is not None:
                trainer.train(lambda examples, state: None, until)
            else:
                results[name] = trainer.run()
    straight, stopped = results["straight"], results["stopped"]
    assert straight.metrics == stopped.metrics
    np.testing.assert_array_equal(straight.vectors, stopped.vectors)
    expected = (len(data.catalog) + 1, 8) if dist.get_rank() == 0 else (0, 8)
    assert straight.vectors.shape == expected
    first, *_, last = straight.history
    assert last["losses"]["loss"] < first["losses"]["loss"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with ranks.joined(torch.device("cpu")):
        compare_with_a_whole_table()
        resume_a_fit(Path(sys.argv[1]))
