"""Functions that run in a child process, which may be killed."""

import os
import traceback
from collections.abc import Callable
from contextlib import suppress

import torch.utils._device  # noqa: F401  (otherwise torch imports it in every child)

with suppress(ImportError):  # pyarrow imports it where it is installed: here, or in every child
    import pandas  # noqa: F401

FAILED = 99  # exit code of a child whose function raised


def begin(work: Callable[[], int]) -> int:
    """Start a child that runs the function and exits with its result; returns the process id.

    The child is forked, to save the start of an interpreter. The parent must not run torch or
    faiss itself, because the child would inherit their threads and held locks.
    """
    child = os.fork()
    if child == 0:
        os.fsync = lambda fd: None  # a kill loses no written data, and disks are slow
        try:
            os._exit(work())
        except BaseException:
            traceback.print_exc()
            os._exit(FAILED)
    return child


def end_of(child: int) -> int:
    """The exit code of the child, or its signal as a negative number."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(work: Callable[[], int]) -> int:
    return end_of(begin(work))
