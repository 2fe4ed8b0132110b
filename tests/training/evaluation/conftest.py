"""Logs with a held-out day."""

from collections.abc import Callable

import numpy as np
import pytest

from training.data.interactions import Interactions

Histories = dict[str, list[tuple[str, float]]]  # items and times by user


@pytest.fixture(scope="session")
def log_of() -> Callable[[Histories], Interactions]:
    """Makes a log of items and times by user."""

    def log(histories: Histories) -> Interactions:
        rows = [(user, item, time) for user, items in histories.items() for item, time in items]
        users, items = sorted({row[0] for row in rows}), sorted({row[1] for row in rows})
        return Interactions.from_rows(
            np.array([users.index(row[0]) for row in rows], np.int32),
            np.array([items.index(row[1]) for row in rows], np.int32),
            np.array([row[2] for row in rows]),
            np.array(users, object),
            np.array(items, object),
        )

    return log


@pytest.fixture
def since() -> float:
    """The start of the held-out day of `log`."""
    return 10.0


@pytest.fixture
def log(log_of: Callable[[Histories], Interactions], since: float) -> Interactions:
    """Users with interactions before and on the day, only on it, only before it, and with one."""
    known = {f"known-{n}": [("a", 1.0), ("b", 2.0), ("c", since), ("d", 11.0)] for n in range(20)}
    new = {f"new-{n}": [("a", 11.0), ("b", 12.0), ("e", 13.0)] for n in range(20)}
    inactive = {f"inactive-{n}": [("a", 1.0), ("b", 2.0)] for n in range(5)}
    single = {f"single-{n}": [("a", 12.0)] for n in range(5)}
    return log_of(known | new | inactive | single)
