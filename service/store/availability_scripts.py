"""The scripts that change, read and expire the availability of items.

Every change has an entry in a capped stream: item, its state from then on, and the versions before
and after. So a reader sees whether it missed one. A version ends with the number of withdrawn items
that belongs to it: a set that has fewer has lost some.
"""

MAX_CHANGES = 10_000
MAX_ANNOUNCED = 100_000

# The first write is one that a full Redis allows, so the others pass too: an item has to be
# withdrawn at once, whatever is full.
_RECORD = """
local items, announced, unknown, version, changes = unpack(KEYS)
local unique, now, max_changes, limit = unpack(ARGV, 1, 4)
local number = 0
redis.call('ZREM', unknown, '')

local function record(item, state)
  number = number + 1
  local previous = redis.call('GET', version) or ''
  local current = unique .. '-' .. number .. ':' .. redis.call('SCARD', items)
  redis.call('XADD', changes, 'MAXLEN', '~', max_changes, '*',
    'item', item, 'state', state, 'previous', previous, 'version', current)
  redis.call('SET', version, current)
end
"""

# ARGV: a unique word, now, MAX_CHANGES, MAX_ANNOUNCED; for each change the item and its new state.
# Returns for each whether it changed anything, and whether the item had been announced.
CHANGE = (
    _RECORD
    + """
local result = {}
for i = 5, #ARGV, 2 do
  local item, state = ARGV[i], ARGV[i + 1]
  local was_announced = redis.call('ZSCORE', announced, item) and 1 or 0
  local changed
  if state == 'withdrawn' then
    changed = redis.call('SADD', items, item)
    redis.call('ZREM', announced, item)
  else
    changed = redis.call('SREM', items, item)
    redis.call('ZREM', unknown, item)
    if state == 'announced' then
      redis.call('ZADD', announced, now, item)
      changed = math.max(changed, 1 - was_announced)
    end
  end
  if changed == 1 then
    record(item, state)
  end
  result[#result + 1] = {changed, was_announced}
end
while redis.call('ZCARD', announced) > tonumber(limit) do
  local oldest = redis.call('ZRANGE', announced, 0, 0)[1]
  redis.call('ZREM', announced, oldest)
  record(oldest, 'plain')
end
return result
"""
)

# ARGV: a unique word, now, MAX_CHANGES, the time before which an entry has expired; for each
# withdrawn item its id and 1 if the release knows it, else 0.
EXPIRE = (
    _RECORD
    + """
for i = 5, #ARGV, 2 do
  local item = ARGV[i]
  if ARGV[i + 1] == '1' then
    redis.call('ZREM', unknown, item)
  else
    redis.call('ZADD', unknown, 'NX', now, item)
    if tonumber(redis.call('ZSCORE', unknown, item)) <= tonumber(limit) then
      redis.call('ZREM', unknown, item)
      if redis.call('SREM', items, item) == 1 then
        record(item, 'plain')
      end
    end
  end
end
for _, item in ipairs(redis.call('ZRANGEBYSCORE', announced, '-inf', limit, 'LIMIT', 0, 250)) do
  redis.call('ZREM', announced, item)
  record(item, 'plain')
end
return {}
"""
)

# ARGV: the last entry read, how many to read at most, and the version read. Returns version, number
# of withdrawn items, id of the last entry, and the entries since, if the version is another.
POLL = """
local items, announced, unknown, version, changes = unpack(KEYS)
local current = redis.call('GET', version) or ''
local last = redis.call('XREVRANGE', changes, '+', '-', 'COUNT', 1)[1]
local entries = {}
if current ~= ARGV[3] then
  entries = redis.call('XRANGE', changes, '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
end
return {current, redis.call('SCARD', items), last and last[1] or '0-0', entries}
"""
