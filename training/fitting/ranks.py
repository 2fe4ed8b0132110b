"""The processes of one training, as torchrun starts them; a process alone is rank 0 of 1.

All ranks take the same steps with the same weights. Rank 0 validates, writes, and decides whatever
depends on a clock.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from training.config import ConfigError, FitConfig
from training.models.device import DeviceOptions, find_device
from training.models.sharded_table import ShardedTable

T = TypeVar("T")
# Rank 0 may validate, or compute weights, for hours. A rank that is killed ends the others at once:
# torchrun sees to it.
_TIMEOUT = timedelta(days=2)


def is_launched() -> bool:
    """Whether torchrun started this process."""
    return dist.is_torchelastic_launched()


def local_rank() -> int:
    """The number of this process among those on its machine."""
    return dist.get_node_local_rank(fallback_rank=0)


def own_device(options: DeviceOptions) -> torch.device:
    """The device of this process. Raises ConfigError if there is no such device for it."""
    try:
        return find_device(options.device, local_rank())
    except ValueError as error:
        raise ConfigError(str(error)) from error


def shared_table(config: FitConfig, rows: int, device: torch.device) -> ShardedTable | None:
    """The item table of which each process has a shard, if the settings ask for one.

    Raises ConfigError if there cannot be one here.
    """
    if not config.shard_items:
        return None
    rate = config.item_learning_rate or config.learning_rate
    try:
        return ShardedTable(rows, config.dim, config.item_init_std, rate, device)
    except ValueError as error:
        raise ConfigError(str(error)) from error


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Join the other processes, if there are any: by gloo, and for tensors on GPUs by NCCL."""
    if not is_launched():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT
    )
    try:
        yield
    finally:
        # What still holds the group when the interpreter ends, as models in cycles do, aborts it.
        gc.collect()
        dist.destroy_process_group()


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def wait() -> None:
    """Until every rank is here."""
    if count() > 1:
        dist.all_reduce(torch.zeros(1))  # not barrier(), which NCCL would do on its GPU


def from_first(compute: Callable[[], T]) -> T:
    """What rank 0 computes, on every rank; raises what it raises."""
    if count() == 1:
        return compute()
    result: T | None = None
    error: Exception | None = None
    if rank() == 0:
        try:
            result = compute()
        except Exception as raised:
            error = raised
    sent: list[Any] = [result, error]
    dist.broadcast_object_list(sent, device=torch.device("cpu"))
    result, error = sent
    if error is not None:
        raise error
    return result


def anywhere(condition: bool) -> bool:
    """Whether it holds on any rank."""
    return bool(add_up(torch.tensor(float(condition))) > 0)


def add_up(values: Tensor) -> Tensor:
    """The sum of the ranks' values, in their place."""
    if count() > 1:
        dist.all_reduce(values)
    return values


def add_up_rows(gradient: Tensor) -> Tensor:
    """The sum of the ranks' sparse gradients of one table, coalesced.

    Rows differ by rank. NCCL adds up no sparse tensors, so all ranks get all rows.
    """
    own = gradient.coalesce()
    rows, values = own.indices()[0], own.values()
    sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(count())]
    dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
    lengths = [int(size) for size in sizes]
    gathered = [_gather(part, lengths) for part in (rows, values)]
    return torch.sparse_coo_tensor(gathered[0][None], gathered[1], gradient.shape).coalesce()


def _gather(part: Tensor, lengths: list[int]) -> Tensor:
    """The parts (length, ...) of all ranks, one after the other."""
    padded = part.new_zeros(max(lengths), *part.shape[1:])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([each[:length] for each, length in zip(parts, lengths, strict=True)])
