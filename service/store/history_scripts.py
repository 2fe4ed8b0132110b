"""The scripts that change a user's history together with the event stream: all of it, or nothing.

A history is in order of the events' timestamps; of equal ones, in order of arrival. Items of which
no time is stored, as earlier versions wrote them, stay before all that arrives.

What an event does is its effect, see index.event_kinds. An event undoes what is not later than it,
and only what has arrived.
"""

from service.store.shown_items import NOTE_SHOWN

# KEYS: events, waiting, history, times, seen, forgotten, met, beyond, shown. ARGV: now,
# history-max-length, seconds of history-ttl, of event-dedup-ttl and of allowed-lateness, length of
# the stream, seen-max-items, 1 if repeats are folded, shown-max-items, seconds of shown-ttl; then
# for each event user, item, timestamp, event, event_id, impression_id, effect. Returns the counts
# of accepted, duplicate, outdated and late events. A late one is accepted, but not in the history.
#
# The first write is one that a full Redis rejects, and with it the whole script. The lists are read
# only for an event that is not the newest; then they are written anew.
_APPEND = """
local stream, waiting, history, times, seen, forgotten, met, beyond, shown = unpack(KEYS)
local now, max_length, history_ttl_s, dedup_ttl_s, lateness_s, stream_length = unpack(ARGV, 1, 6)
local seen_items, folds = tonumber(ARGV[7]), ARGV[8] == '1'
local shown_items, shown_ttl_s = tonumber(ARGV[9]), ARGV[10]
local since = tonumber(redis.call('GET', forgotten) or 0)
local accepted, duplicates, outdated, late = 0, 0, 0, 0
local items, moments, newest, last, has_shown, is_beyond

local function align()
  for _ = redis.call('LLEN', times) + 1, redis.call('LLEN', history) do
    redis.call('RPUSH', times, 0)
  end
  local length = redis.call('LLEN', history)
  if length == 0 then
    redis.call('DEL', times)
  else
    redis.call('LTRIM', times, -length, -1)
  end
end

local function open()
  if not newest then
    align()
    newest = tonumber(redis.call('LINDEX', times, -1) or 0)
    last = redis.call('LINDEX', history, -1)
  end
end

local function load()
  items = items or redis.call('LRANGE', history, 0, -1)
  moments = moments or redis.call('LRANGE', times, 0, -1)
end

local function insert(item, timestamp, at)
  load()
  local position = #items + 1
  while position > 1 and tonumber(moments[position - 1]) > at do
    position = position - 1
  end
  if folds and items[position - 1] == item then
    moments[position - 1] = timestamp
  elseif not (folds and items[position] == item) then
    table.insert(items, position, item)
    table.insert(moments, position, timestamp)
  end
  newest = math.max(newest, at)
end

local function add(item, timestamp)
  local at = tonumber(timestamp)
  open()
  if at < newest - lateness_s then
    late = late + 1
    is_beyond = true
  elseif at < newest or items then
    insert(item, timestamp, at)
  elseif folds and last == item then
    redis.call('LSET', times, -1, timestamp)
    newest = at
  else
    redis.call('RPUSH', history, item)
    redis.call('RPUSH', times, timestamp)
    newest, last = at, item
  end
end

local function remove(position)
  table.remove(items, position)
  table.remove(moments, position)
end

local function undo(item, timestamp)
  local at = tonumber(timestamp)
  open()
  load()
  for position = #items, 1, -1 do
    if items[position] == item and tonumber(moments[position]) <= at then
      remove(position)
      if folds and position > 1 and items[position] == items[position - 1] then
        remove(position - 1)
      end
      return
    end
  end
end

local function meet(item, kind, timestamp)
  local member = #kind .. ':' .. kind .. item
  local before = redis.call('ZSCORE', met, member)
  if not before or tonumber(before) < tonumber(timestamp) then
    redis.call('ZADD', met, timestamp, member)
  end
end

for i = 11, #ARGV, 7 do
  local user, item, timestamp, event, id, impression, effect = unpack(ARGV, i, i + 6)
  if tonumber(timestamp) < since then
    outdated = outdated + 1
  elseif id ~= '' and redis.call('ZSCORE', seen, id) then
    duplicates = duplicates + 1
  else
    local entry = {'user_id', user, 'item_id', item, 'timestamp', timestamp}
    for name, value in pairs({event = event, event_id = id, impression_id = impression}) do
      if value ~= '' then
        entry[#entry + 1] = name
        entry[#entry + 1] = value
      end
    end
    redis.call('XADD', stream, 'MAXLEN', '~', stream_length, '*', unpack(entry))
    if effect == 'history' then
      add(item, timestamp)
    elseif effect == 'undo' then
      undo(item, timestamp)
    elseif effect == 'shown' then
      note_shown(shown, item, impression, timestamp, false, 0)
      has_shown = true
    end
    if effect ~= 'shown' and effect ~= 'none' and seen_items > 0 then
      meet(item, event, timestamp)
      is_beyond = is_beyond or effect ~= 'history'
    end
    if id ~= '' then
      redis.call('ZADD', seen, now, id)
    end
    accepted = accepted + 1
  end
end
is_beyond = is_beyond or redis.call('LLEN', history) > tonumber(max_length)
if items then
  is_beyond = is_beyond or #items > tonumber(max_length)
  redis.call('DEL', history, times)
  for position = math.max(1, #items - max_length + 1), #items do
    redis.call('RPUSH', history, items[position])
    redis.call('RPUSH', times, moments[position])
  end
end
redis.call('INCRBY', waiting, accepted)
for _, list in ipairs({history, times}) do
  redis.call('LTRIM', list, -max_length, -1)
  redis.call('EXPIRE', list, history_ttl_s)
end
if has_shown then
  trim_shown(shown, shown_items, shown_ttl_s)
end
redis.call('ZREMRANGEBYRANK', met, 0, -seen_items - 1)
redis.call('EXPIRE', met, history_ttl_s)
if is_beyond then
  redis.call('SET', beyond, 1)
end
redis.call('EXPIRE', beyond, history_ttl_s)
redis.call('ZREMRANGEBYSCORE', seen, '-inf', '(' .. (now - dedup_ttl_s))
redis.call('EXPIRE', seen, dedup_ttl_s)
return {accepted, duplicates, outdated, late}
"""
APPEND = NOTE_SHOWN + _APPEND

# KEYS: events, waiting, history, times, met, beyond, shown, forgotten. ARGV: user, the event's
# type, now, seconds of event-dedup-ttl, length of the stream. Returns the number of items that the
# history had.
#
# It starts with a write that a full Redis allows, which lets the others pass: nobody has to wait
# for memory to be forgotten.
FORGET = """
local stream, waiting, history, times, met, beyond, shown, forgotten = unpack(KEYS)
local user, event, now, dedup_ttl_s, stream_length = unpack(ARGV)
local items = redis.call('LLEN', history)
redis.call('DEL', history, times, met, beyond, shown)
redis.call('SET', forgotten, now, 'EX', dedup_ttl_s)
redis.call('XADD', stream, 'MAXLEN', '~', stream_length, '*',
  'user_id', user, 'timestamp', now, 'event', event)
redis.call('INCR', waiting)
return items
"""

# KEYS: history, met, beyond, times. ARGV: history-max-length, 1 if what the user met is wanted, 1
# if the times are. Returns the history; all that the user met, or nothing where the history has all
# of it: most requests ask for this, and of most users; and the times, newest last.
READ = """
local items, seen, times = redis.call('LRANGE', KEYS[1], -ARGV[1], -1), {}, {}
if ARGV[2] == '1' then
  local is_beyond = redis.call('EXISTS', KEYS[3]) == 1
  if is_beyond or redis.call('LLEN', KEYS[1]) > #items then
    seen = redis.call('ZRANGE', KEYS[2], 0, -1)
  end
end
if ARGV[3] == '1' then
  times = redis.call('LRANGE', KEYS[4], -ARGV[1], -1)
end
return {items, seen, times}
"""
