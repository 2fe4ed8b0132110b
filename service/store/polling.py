"""Polls of Redis, for as long as the service runs."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from service.errors import HistoryUnavailableError


async def poll_forever(poll: Callable[[], Awaitable[object]], interval_s: float) -> None:
    """Call `poll`, wait, and so on; a Redis that does not answer ends no poll but that one."""
    while True:
        with suppress(HistoryUnavailableError):  # recorded by ResilientRedis
            await poll()
        await asyncio.sleep(interval_s)
