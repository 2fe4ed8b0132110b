"""glibc reuses freed memory instead of asking the kernel for more."""

import platform
import subprocess
import sys

import pytest

_COUNT_PAGE_FAULTS = """
import resource
import torch
from training.fitting.malloc import keep_freed_memory

{keep}
for _ in range(15):
    torch.ones(16, 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(16, 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(keep: str) -> int:
    """Page faults of ten tensors of 64 MiB that are allocated and freed one after the other."""
    code = _COUNT_PAGE_FAULTS.format(keep=keep)
    command = [sys.executable, "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(process.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_memory_of_freed_tensors_is_reused() -> None:
    reused, by_default = _page_faults("keep_freed_memory()"), _page_faults("")
    assert reused < by_default / 10
