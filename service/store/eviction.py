"""What Redis does when it is full: reject writes, as it should here, or drop keys."""

import logging
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import ResponseError

from service.store.redis_url import Client
from service.telemetry.metrics import Metrics

_SAFE = "noeviction"

log = logging.getLogger(__name__)


class EvictionPolicy:
    """Reads maxmemory-policy, and warns if it lets Redis drop withdrawn items or histories."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._known: frozenset[str] = frozenset({_SAFE})

    async def check(self, client: Client) -> None:
        """Raises RedisError if Redis does not answer. A user without INFO is no failure."""
        policies = await _policies(client)
        self._metrics.redis_evicts.set(bool(policies - {_SAFE}))
        if policies == self._known:
            return
        self._known = policies
        for policy in sorted(policies - {_SAFE}):
            dropped = "withdrawn items, events and histories"
            log.warning(
                "REDIS EVICTS: a full Redis drops keys",
                extra={
                    "maxmemory_policy": policy,
                    "dropped": dropped if policy.startswith("allkeys") else "histories",
                    "remedy": "set maxmemory-policy noeviction",
                },
            )


async def _policies(client: Client) -> frozenset[str]:
    try:
        if isinstance(client, RedisCluster):
            by_node: dict[str, Any] = await client.info("memory", target_nodes=client.PRIMARIES)
            infos = list(by_node.values())
        else:
            infos = [await client.info("memory")]
    except ResponseError:
        return frozenset({_SAFE})
    return frozenset(str(info.get("maxmemory_policy", _SAFE)) for info in infos)
