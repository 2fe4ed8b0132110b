"""Calls of a history store that are given up at random points, and a look at whose answers come."""

import asyncio
import random
from dataclasses import dataclass

from service.errors import HistoryUnavailableError
from service.store.events import Event
from service.store.histories import HistoryStore

USERS = 50
TURNS = (0, 1, 2, 3, 5, 8, 13, 1000)  # of the event loop, before a call is given up
_GIVING_UP, _STAYING = 48, 16  # callers at one time
_LONGEST_S = 0.01


@dataclass
class Tally:
    """What became of the calls; foreign: answers that held anything of another user."""

    answered: int = 0
    cancelled: int = 0
    unavailable: int = 0
    foreign: int = 0


async def fill(store: HistoryStore) -> None:
    """Histories that say whose they are."""
    for number in range(USERS):
        await store.append(_events(f"user-{number}"))


def _events(user: str) -> list[Event]:
    return [Event(user_id=user, item_id=f"{user}'s {number}") for number in range(3)]


async def give_up(store: HistoryStore, cancelled: int, draw: random.Random) -> Tally:
    """Call until so many calls have been cancelled under way, many at one time.

    Others meanwhile read and wait for their answers.
    """
    tally = Tally()

    async def one(stays: bool) -> None:
        user = f"user-{draw.randrange(USERS)}"
        reads = stays or draw.random() < 0.8
        call = store.read(user) if reads else store.append(_events(user))
        task: asyncio.Task[object] = asyncio.create_task(call)
        if not stays:
            await _a_while(task, draw)
            task.cancel()
        try:
            answer = await task
        except asyncio.CancelledError:
            tally.cancelled += 1
        except HistoryUnavailableError:
            tally.unavailable += 1
        else:
            tally.answered += 1
            if isinstance(answer, list):
                tally.foreign += not all(item.startswith(f"{user}'s ") for item in answer)

    async def several(stays: bool) -> None:
        while tally.cancelled < cancelled:
            await one(stays)

    callers = [False] * _GIVING_UP + [True] * _STAYING
    await asyncio.gather(*map(several, callers))
    return tally


async def _a_while(task: "asyncio.Task[object]", draw: random.Random) -> None:
    """Some turns of the event loop, or some time."""
    if draw.random() < 0.2:
        await asyncio.wait((task,), timeout=draw.random() * _LONGEST_S)
        return
    for _ in range(draw.choice(TURNS)):
        if task.done():
            return
        await asyncio.sleep(0)
