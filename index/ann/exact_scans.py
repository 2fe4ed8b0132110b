"""Count of the requests that lists could not answer: every item was compared, which takes long."""

from threading import Lock

_lock = Lock()
_total = 0


def count_exact_scan() -> None:
    global _total
    with _lock:
        _total += 1


def exact_scans() -> int:
    """How many there were in this process."""
    return _total
