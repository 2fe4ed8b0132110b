"""How often a user was shown an item, and may be.

re4:{N}:shown:USER     hash: item -> `time:impression;` for each of its newest impressions, in Unix
                       seconds; capped, and expired after shown-ttl-days without an impression

Impressions are noted with the answer to a request that has a cap, and with events that say so, see
index.event_kinds. An item is shown once by an impression, however often that is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass

MAX_TIMES = 20  # of an item that are kept: no cap can be higher

# For scripts. It takes and keeps what the hash of a user has of an item. `limit` is false if there
# is no cap, else how often the item may be shown after `since`. Returns whether it may be.
NOTE_SHOWN = f"""
local function note_shown(shown, item, impression, at, limit, since)
  local kept, count = {{}}, 0
  for moment, id in string.gmatch(redis.call('HGET', shown, item) or '', '([^:;]+):([^:;]*);') do
    if impression ~= '' and id == impression then
      return true
    end
    kept[#kept + 1] = moment .. ':' .. id .. ';'
    if tonumber(moment) > since then
      count = count + 1
    end
  end
  if limit and count >= limit then
    return false
  end
  kept[#kept + 1] = at .. ':' .. impression .. ';'
  redis.call('HSET', shown, item, table.concat(kept, '', math.max(1, #kept - {MAX_TIMES} + 1)))
  return true
end

local function trim_shown(shown, most, ttl_s)
  if redis.call('HLEN', shown) > most * 1.25 then
    local newest, contents = {{}}, redis.call('HGETALL', shown)
    for i = 1, #contents, 2 do
      local moment = string.match(contents[i + 1], '([^:;]+):[^:;]*;$')
      newest[#newest + 1] = {{tonumber(moment), contents[i]}}
    end
    table.sort(newest, function(one, other) return one[1] < other[1] end)
    for i = 1, #newest - most do
      redis.call('HDEL', shown, newest[i][2])
    end
  end
  redis.call('EXPIRE', shown, ttl_s)
end
"""


@dataclass(frozen=True, slots=True)
class ShownCap:
    """An item may be shown so many times after `since`, in Unix seconds."""

    times: int
    since: float

    def reached(self, shown: Mapping[bytes, bytes]) -> list[str]:
        """The items of a user's hash that may not be shown again."""
        return [
            item.decode("utf-8", "replace")
            for item, content in shown.items()
            if content.count(b";") >= self.times and self._count(content) >= self.times
        ]

    def _count(self, content: bytes) -> int:
        moments = (float(each.partition(b":")[0]) for each in content.split(b";")[:-1])
        return sum(moment > self.since for moment in moments)
