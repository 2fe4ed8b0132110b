"""Work done in a child process, which may be killed at it."""

import os
import traceback
from collections.abc import Callable

BROKEN = 99  # the status of a child whose work raised


def begin(work: Callable[[], int]) -> int:
    """The child that does the work, and ends with what that returns.

    Forked, so that no interpreter is started: for processes that run neither torch nor faiss
    themselves, or a child would inherit their threads and held locks.
    """
    child = os.fork()
    if child == 0:
        os.fsync = lambda fd: None  # a kill loses nothing written, and disks are slow
        try:
            os._exit(work())
        except BaseException:
            traceback.print_exc()
            os._exit(BROKEN)
    return child


def end_of(child: int) -> int:
    """How it ended: its status, or its signal, negative."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(work: Callable[[], int]) -> int:
    return end_of(begin(work))
