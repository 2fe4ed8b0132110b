"""A run's state in one safetensors file that is replaced whole: tensors, and JSON for the rest."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from index.release.atomic_io import atomic_path
from index.release.writing import write_tensors

_MODULE = "module:"


def save(
    path: Path,
    module: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    about: dict[str, Any] | None = None,
) -> None:
    """Weights, optimizer state, torch's random state, and `about`, which must be JSON."""
    tensors = {_MODULE + name: value for name, value in module.state_dict().items()}
    tensors["random"] = torch.get_rng_state()
    scalars: dict[str, Any] = {}
    for number, optimizer in enumerate(optimizers):
        for name, value in _flatten(optimizer, number):
            (tensors if isinstance(value, Tensor) else scalars)[name] = value
    described = {"about": json.dumps(about), "scalars": json.dumps(scalars)}
    with atomic_path(path) as temporary:
        write_tensors(temporary, tensors, described)


def load(
    path: Path, module: nn.Module, optimizers: Sequence[torch.optim.Optimizer] = ()
) -> dict[str, Any]:
    """Put all that was saved back, torch's random state included, and return `about`."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        described = file.metadata()
    weights = {name.removeprefix(_MODULE): t for name, t in tensors.items() if _MODULE in name}
    module.load_state_dict(weights)
    values = tensors | json.loads(described["scalars"])
    for number, optimizer in enumerate(optimizers):
        _unflatten(optimizer, number, values)
    torch.set_rng_state(tensors["random"])
    about: dict[str, Any] = json.loads(described["about"])
    return about


def _flatten(optimizer: torch.optim.Optimizer, number: int) -> Iterator[tuple[str, Any]]:
    for parameter, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            yield f"optimizer.{number}.{parameter}.{key}", value


def _unflatten(optimizer: torch.optim.Optimizer, number: int, values: dict[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in values.items():
        if name.startswith(f"optimizer.{number}."):
            _, _, parameter, key = name.split(".")
            state.setdefault(int(parameter), {})[key] = value
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})
