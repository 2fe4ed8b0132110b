"""A HistoryStore on a real Redis, for the tests of what is stored of users."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.settings import Settings
from service.store.histories import HistoryStore
from service.store.redis_client import ResilientRedis, deployment_of
from service.telemetry.metrics import Metrics


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[HistoryStore]:
    metrics = Metrics()
    redis = ResilientRedis(deployment_of(settings), settings, metrics)
    await redis.start()
    try:
        yield HistoryStore(redis, settings, metrics)
    finally:
        await redis.close()
