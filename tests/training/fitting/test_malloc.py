"""Memory that was freed is used again, without the system being asked for it."""

import platform
import subprocess
import sys

import pytest

_PAGES_TAKEN = """
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


def _pages_taken(keep: str) -> int:
    """Page faults of ten more tensors of 64 MiB, made and dropped one after the other."""
    code = _PAGES_TAKEN.format(keep=keep)
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(told.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc allocates here")
def test_freed_tensors_are_used_again() -> None:
    kept, given_back = _pages_taken("keep_freed_memory()"), _pages_taken("")
    assert kept < given_back / 10
