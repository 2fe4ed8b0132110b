"""The state of a training run in one safetensors file: tensors, and JSON for everything else."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from index.release.atomic_io import atomic_path
from index.release.writing import write_tensors
from training.fitting.optimization import Optimizer

_MODULE = "module:"
_CUDA_RANDOM = "random.cuda"


class State(NamedTuple):
    """What a checkpoint file holds: tensors by name, and texts."""

    tensors: dict[str, Tensor]
    header: dict[str, str]


def collect(
    module: nn.Module,
    optimizers: Sequence[Optimizer] = (),
    metadata: dict[str, Any] | None = None,
) -> State:
    """The weights, the optimizers' state, torch's random state, and `metadata`, which must be JSON.

    Of a table in shards, all processes must call it, and the first gets the whole.
    """
    tensors = {_MODULE + name: value for name, value in module.state_dict().items()}
    tensors["random"] = torch.get_rng_state()
    if _on_gpu(module):
        tensors[_CUDA_RANDOM] = torch.cuda.get_rng_state()
    scalars: dict[str, Any] = {}
    for number, optimizer in enumerate(optimizers):
        for name, value in _flatten(optimizer, number):
            (tensors if isinstance(value, Tensor) else scalars)[name] = value
    return State(tensors, {"about": json.dumps(metadata), "scalars": json.dumps(scalars)})


def write(path: Path, state: State) -> None:
    """Atomically replace `path`."""
    with atomic_path(path) as tmp_path:
        write_tensors(tmp_path, {name: t.cpu() for name, t in state.tensors.items()}, state.header)


def load(path: Path, module: nn.Module, optimizers: Sequence[Optimizer] = ()) -> dict[str, Any]:
    """Restore what was collected, torch's random state included, and return `metadata`."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        header = file.metadata()
    weights = {name.removeprefix(_MODULE): t for name, t in tensors.items() if _MODULE in name}
    module.load_state_dict(weights)
    values = tensors | json.loads(header["scalars"])
    for number, optimizer in enumerate(optimizers):
        _unflatten(optimizer, number, values)
    torch.set_rng_state(tensors["random"])
    if _on_gpu(module) and _CUDA_RANDOM in tensors:
        torch.cuda.set_rng_state(tensors[_CUDA_RANDOM])
    metadata: dict[str, Any] = json.loads(header["about"])
    return metadata


def _on_gpu(module: nn.Module) -> bool:
    return any(parameter.is_cuda for parameter in module.parameters())


def _flatten(optimizer: Optimizer, number: int) -> Iterator[tuple[str, Any]]:
    for parameter, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            yield f"optimizer.{number}.{parameter}.{key}", value


def _unflatten(optimizer: Optimizer, number: int, values: dict[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in values.items():
        if name.startswith(f"optimizer.{number}."):
            _, _, parameter, key = name.split(".")
            state.setdefault(int(parameter), {})[key] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
