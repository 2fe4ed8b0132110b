"""The device that a model is trained on, and the precision of its products."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, BaseModel, Field

Precision = Literal["float32", "bf16"]


def _device_name(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError("a device is auto, cpu, cuda, or cuda: and a number, such as cuda:0")
    return name


class DeviceOptions(BaseModel):
    """How a fit is computed. What it computes is the same up to rounding, so neither a manifest nor
    a fingerprint has it: a fit that began on a GPU may end on the CPU. Only bf16 is kept, whose
    rounding can be seen."""

    device: Annotated[str, AfterValidator(_device_name)] = Field(
        "auto",
        exclude=True,
        description="device of the training: auto, which is the first GPU or else the CPU; cpu; "
        "cuda or cuda:N",
    )
    precision: Precision = Field(
        "float32",
        exclude_if=lambda precision: precision == "float32",
        description="of the products in training; bf16 has half the bytes, and Adam and the "
        "weights stay float32",
    )
    shard_items: bool = Field(
        False,
        exclude=True,
        description="split the item table among the processes of torchrun, by TorchRec; with "
        "item_optimizer = adagrad",
    )
    compile: bool = Field(
        False,
        exclude=True,
        description="compile encoder and losses with torch.compile: a minute or more at the "
        "start, for faster steps on a GPU",
    )


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device that a name of DeviceOptions means to the process of this number on its machine.

    Raises ValueError if it is not there.
    """
    count = torch.cuda.device_count()
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    given = name.partition(":")[2]
    number = int(given) if given else local_rank
    if number >= count:
        raise ValueError(
            f"device = {name!r}: torch {torch.__version__} sees {count} GPUs, and number {number} "
            "is none of them; set device = 'cpu', start fewer processes, or install a torch for "
            "this GPU"
        )
    return torch.device("cuda", number)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context in which a forward pass has this precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


class DeviceMemoryError(RuntimeError):
    """A device has too little memory for what was asked of it."""


@contextmanager
def memory_needed(by: str) -> Iterator[None]:
    """Raises DeviceMemoryError if the block needs more memory than there is. by: what needs it, and
    which settings to lower."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        # torch has a class for this on GPUs alone.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in text:
            raise
        raise DeviceMemoryError(f"out of memory in {by} ({text.splitlines()[0]})") from error
