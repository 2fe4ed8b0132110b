"""The item table in shards of rows, one for each process of a training, by TorchRec."""

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_NAME, _FEATURE = "item_vectors", "item"
_BLOCK_ROWS = 1 << 16  # of initial vectors, drawn at a time
ADAGRAD_EPSILON = 1e-8  # added to the root of Adagrad's sums


class ShardedTable(nn.Module):
    """Vectors (rows, D) of which a process holds a part of the rows; its call looks up any rows.

    All processes must make the same calls in the same order, backward passes included. A backward
    pass changes the vectors by Adagrad (TorchRec's fused optimizer, EXACT_ADAGRAD), by the mean
    over the processes of their gradients, as DistributedDataParallel takes it for the others.

    std: of the initial vectors, drawn by torch as a whole table's are; row 0 is zero and stays so.
    Raises ValueError without TorchRec, or in a process alone.
    """

    def __init__(
        self, rows: int, dim: int, std: float, learning_rate: float, device: torch.device
    ) -> None:
        super().__init__()
        self.rows, self.dim = rows, dim
        if not dist.is_initialized() or not 1 < dist.get_world_size() <= rows:
            raise ValueError(
                "shard_items = true splits the item table among several processes, of a row or "
                "more each: start them with torchrun --nproc-per-node 2 -m training fit …, or set "
                "shard_items = false"
            )
        # In a tuple, so that it is no part of this module: its weights are neither the dense
        # optimizer's nor broadcast by DistributedDataParallel.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            self._collection = (_shard(rows, dim, learning_rate, device),)
        self.optimizer = ShardOptimizer(self, learning_rate)
        self._initialize(std)

    def forward(self, rows: Tensor) -> Tensor:
        """(n, D): the vectors of rows (n,), of any process; repeated rows may be among them."""
        from torchrec import KeyedJaggedTensor

        [collection] = self._collection
        self.optimizer.set_rate()
        unique, places = torch.unique(rows, return_inverse=True)  # each is sent once
        keyed = KeyedJaggedTensor([_FEATURE], unique, lengths=torch.ones_like(unique))
        vectors: Tensor = collection(keyed)[_FEATURE].values()
        looked_up: Tensor = (vectors * (unique > 0)[:, None])[places]
        return looked_up

    @property
    def shard(self) -> Tensor:
        """The vectors of this process's rows (n, D), which begin at row `first`."""
        return self.part(self._collection[0].state_dict()[f"embeddings.{_NAME}.weight"])

    @property
    def first(self) -> int:
        return dist.get_rank() * self._rows_each

    @property
    def _rows_each(self) -> int:
        return -(-self.rows // dist.get_world_size())

    def part(self, sharded: Any) -> Tensor:
        """This process's rows of a ShardedTensor; none if there are fewer rows than that."""
        shards = sharded.local_shards()
        result: Tensor = shards[0].tensor if shards else torch.empty(0, self.dim)
        return result

    def gather(self, part: Tensor) -> Tensor:
        """(rows, D) on the CPU of the first process, of the parts (n, D) of all; on the others
        none, (0, D)."""
        padded = torch.zeros(self._rows_each, self.dim)
        padded[: len(part)] = part
        if dist.get_rank():
            dist.gather(padded)
            return padded[:0]
        whole = torch.empty(dist.get_world_size() * self._rows_each, self.dim)
        dist.gather(padded, [*torch.split(whole, self._rows_each)])
        return whole[: self.rows]

    def scatter(self, whole: Tensor, part: Tensor) -> None:
        """Set this process's part (n, D) to its rows of the whole (rows, D)."""
        part.copy_(whole[self.first : self.first + len(part)])

    def replace(self, rows: Tensor, vectors: Tensor) -> None:
        """Set the vectors of rows (n,) to `vectors` (n, D), which are the same on all processes."""
        shard = self.shard
        own = (rows >= self.first) & (rows < self.first + len(shard))
        shard[rows[own] - self.first] = vectors[own].to(shard.device)

    @torch.no_grad()
    def _initialize(self, std: float) -> None:
        """As a whole table, whose numbers it draws block by block: those that nn.Embedding begins
        with, and then those that replace them."""
        shard, first = self.shard, self.first
        for start in range(0, self.rows, _BLOCK_ROWS):
            torch.empty(min(_BLOCK_ROWS, self.rows - start), self.dim).normal_()
        for start in range(0, self.rows, _BLOCK_ROWS):
            count = min(_BLOCK_ROWS, self.rows - start)
            block = torch.empty(count, self.dim).normal_(std=std)
            if start == 0:
                block[0] = 0
            begin, end = max(first, start), min(first + len(shard), start + count)
            if begin < end:
                shard[begin - first : end - first] = block[begin - start : end - start]

    # A state has the whole table, so a checkpoint may be continued by any number of processes.

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        destination[prefix + "weight"] = self.gather(self.shard)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *_: Any, **__: Any
    ) -> None:
        with torch.no_grad():
            self.scatter(state_dict[prefix + "weight"], self.shard)


class ShardOptimizer:
    """The fused Adagrad of a ShardedTable, with the face and the state of torch.optim.Adagrad.

    A step is done by the backward pass, at the learning rate that the forward pass had.
    """

    def __init__(self, table: ShardedTable, learning_rate: float) -> None:
        self._table = table
        self.param_groups: list[dict[str, Any]] = [{"lr": learning_rate}]

    def set_rate(self) -> None:
        """Let the next passes have the learning rate of the parameter group."""
        fused = self._fused
        for group in fused.param_groups:
            group["lr"] = self.param_groups[0]["lr"]
        fused.step()  # sets the rate and does nothing else

    def zero_grad(self) -> None:
        """Nothing: there are no gradients to be kept."""

    def step(self) -> None:
        """Nothing: see above."""

    def state_dict(self) -> dict[str, Any]:
        """On the first process the whole sums (rows, D); all must call it."""
        return {"state": {0: {"sum": self._table.gather(self._sums)}}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._table.scatter(state["state"][0]["sum"], self._sums)

    @property
    def _sums(self) -> Tensor:
        [state] = self._fused.state_dict()["state"].values()
        return self._table.part(state[f"{_NAME}.momentum1"])

    @property
    def _fused(self) -> Any:
        return self._table._collection[0].fused_optimizer


def _shard(rows: int, dim: int, learning_rate: float, device: torch.device) -> Any:
    """An EmbeddingCollection of one table, sharded by rows over all processes."""
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # of its own deprecations
    try:
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from torchrec import EmbeddingCollection, EmbeddingConfig
        from torchrec.distributed.embedding import EmbeddingCollectionSharder
        from torchrec.distributed.sharding_plan import construct_module_sharding_plan, row_wise
        from torchrec.distributed.types import ShardingEnv
    except (ImportError, OSError) as error:
        raise ValueError(
            f"shard_items = true needs TorchRec, which cannot be used here ({error}): "
            "see 'An item table larger than a device' in training/README.md"
        ) from error
    table = EmbeddingConfig(
        name=_NAME, embedding_dim=dim, num_embeddings=rows, feature_names=[_FEATURE]
    )
    collection = EmbeddingCollection(tables=[table], device=torch.device("meta"))
    sharder = EmbeddingCollectionSharder(
        fused_params={
            "optimizer": EmbOptimType.EXACT_ADAGRAD,
            "learning_rate": learning_rate,
            "eps": ADAGRAD_EPSILON,
        }
    )
    plan = construct_module_sharding_plan(
        collection,
        {_NAME: row_wise(compute_kernel="fused")},
        sharder=sharder,
        world_size=dist.get_world_size(),
        device_type=device.type,
    )
    env = ShardingEnv.from_process_group(dist.group.WORLD)
    return sharder.shard(collection, plan, env, device)
