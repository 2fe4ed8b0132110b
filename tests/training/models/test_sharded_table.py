"""The item table in shards: two real processes by gloo and TorchRec, beside torch's own Adagrad."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from training.config import ConfigError, read_config
from training.models.sharded_table import ShardedTable

SCRIPT = Path(__file__).with_name("two_processes.py")
ROOT = Path(__file__).parents[3]
SHARDS = {"shard_items": True, "item_optimizer": "adagrad"}


def test_two_processes_do_what_a_whole_table_does_and_continue_a_checkpoint(tmp_path):
    pytest.importorskip("torchrec", reason="TorchRec is not installed (extra sharded)")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    process = subprocess.run(
        [*command, str(SCRIPT), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]


def test_one_process_has_nothing_to_share():
    with pytest.raises(ValueError, match="torchrun --nproc-per-node 2"):
        ShardedTable(10, 4, 0.1, 0.1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"item_optimizer": "adam"}, "needs item_optimizer = 'adagrad'"),
        ({"encoder": "linear", "interests": 1}, "from all item vectors"),
        (
            {"encoder": "transformer", "interests": 2, "objective": "partitioned-max"},
            "clusters all item vectors",
        ),
    ],
)
def test_what_reads_all_item_vectors_is_refused(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        read_config(None, {**SHARDS, **settings})


def test_a_fit_of_one_process_says_how_to_start_several(planted, tmp_path, run_command):
    ended = run_command(
        "fit", planted / "interactions.parquet", "--root", tmp_path, "--shard-items", "true",
        "--item-optimizer", "adagrad", "--encoder", "re4", "--interests", "2",
    )  # fmt: skip
    assert ended.exit_code == 1
    assert "torchrun --nproc-per-node 2" in ended.stderr
