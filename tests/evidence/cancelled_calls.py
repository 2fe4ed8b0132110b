"""Calls of a history store that are cancelled at random points, and a check whose replies come."""

import asyncio
import random
from dataclasses import dataclass

from service.errors import HistoryUnavailableError
from service.store.events import Event
from service.store.histories import HistoryStore

USERS = 50
ITERATIONS = (0, 1, 2, 3, 5, 8, 13, 1000)  # of the event loop, before a call is cancelled
_CANCELLING_CALLERS, _WAITING_CALLERS = 48, 16  # concurrent callers
_MAX_DELAY_S = 0.01


@dataclass
class CallCounts:
    """Calls by outcome. foreign: replies that held anything of another user."""

    answered: int = 0
    cancelled: int = 0
    unavailable: int = 0
    foreign: int = 0


async def store_histories(store: HistoryStore) -> None:
    """Store histories whose items name their user."""
    for number in range(USERS):
        await store.append(_events(f"user-{number}"))


def _events(user: str) -> list[Event]:
    return [Event(user_id=user, item_id=f"{user}'s {number}") for number in range(3)]


async def cancel_calls(store: HistoryStore, cancelled: int, draw: random.Random) -> CallCounts:
    """Make concurrent calls until so many have been cancelled under way.

    Other callers read meanwhile, and wait for their replies.
    """
    counts = CallCounts()

    async def call_once(waits: bool) -> None:
        user = f"user-{draw.randrange(USERS)}"
        reads = waits or draw.random() < 0.8
        call = store.read(user) if reads else store.append(_events(user))
        task: asyncio.Task[object] = asyncio.create_task(call)
        if not waits:
            await _delay(task, draw)
            task.cancel()
        try:
            answer = await task
        except asyncio.CancelledError:
            counts.cancelled += 1
        except HistoryUnavailableError:
            counts.unavailable += 1
        else:
            counts.answered += 1
            if isinstance(answer, list):
                counts.foreign += not all(item.startswith(f"{user}'s ") for item in answer)

    async def call_repeatedly(waits: bool) -> None:
        while counts.cancelled < cancelled:
            await call_once(waits)

    callers = [False] * _CANCELLING_CALLERS + [True] * _WAITING_CALLERS
    await asyncio.gather(*map(call_repeatedly, callers))
    return counts


async def _delay(task: "asyncio.Task[object]", draw: random.Random) -> None:
    """Wait for some iterations of the event loop, or some time."""
    if draw.random() < 0.2:
        await asyncio.wait((task,), timeout=draw.random() * _MAX_DELAY_S)
        return
    for _ in range(draw.choice(ITERATIONS)):
        if task.done():
            return
        await asyncio.sleep(0)
