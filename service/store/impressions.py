"""The items that an answer shows, noted for caps; see service.store.shown_items."""

import math
import time
from collections.abc import Sequence
from typing import Any

from service.settings import Settings
from service.store.pages import Pages
from service.store.redis_client import ResilientRedis
from service.store.redis_url import Client
from service.store.shown_items import NOTE_SHOWN, ShownCap

_DAY_S = 86_400

# KEYS: shown. ARGV: impression, now, limit, since, shown-max-items, seconds of shown-ttl; then the
# items. Returns for each, as 1 or 0, whether it may be shown.
_NOTE = f"""{NOTE_SHOWN}
local impression, now, limit, since, most, ttl_s = unpack(ARGV, 1, 6)
local allowed = {{}}
for i = 7, #ARGV do
  local may = note_shown(KEYS[1], ARGV[i], impression, now, tonumber(limit), tonumber(since))
  allowed[#allowed + 1] = may and 1 or 0
end
trim_shown(KEYS[1], tonumber(most), ttl_s)
return allowed
"""


class Impressions:
    """pages: what they have shown, for cursors."""

    def __init__(self, redis: ResilientRedis, settings: Settings) -> None:
        self.pages = Pages(redis, settings)
        self._redis = redis
        self._limits = settings.shown_max_items, math.ceil(settings.shown_ttl_days * _DAY_S)

    async def note(
        self, user_id: str, impression: str, items: Sequence[str], cap: ShownCap
    ) -> list[bool]:
        """Note that the items are shown, as far as the cap allows; for each, whether it does.

        Of the same impressions at once, no more are allowed than one after the other. Raises
        HistoryUnavailableError.
        """
        key = self._redis.keys.of_user(user_id, "shown")
        arguments: list[Any] = [impression, time.time(), cap.times, cap.since, *self._limits]

        async def run(client: Client) -> list[int]:
            allowed: list[int] = await client.eval(_NOTE, 1, key, *arguments, *items)
            return allowed

        return [bool(each) for each in await self._redis.call("note", run)]
