"""A log in order of time, and the users that are evaluated on it."""

from typing import NamedTuple

import numpy as np

from training.data.interactions import Interactions


class Case(NamedTuple):
    """A user: the items so far, oldest first, and those to be found."""

    history: list[str]
    relevant: set[str]


class Log(NamedTuple):
    """Interactions in order of time."""

    users: list[str]
    items: list[str]


def in_order(log: Interactions) -> Log:
    order = np.lexsort((log.users, log.times))
    users, items = log.users[order], log.items[order]
    return Log(log.user_ids[users].tolist(), log.item_ids[items].tolist())
