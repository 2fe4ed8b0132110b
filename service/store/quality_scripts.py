"""The scripts that note what became of a user's answers; see service.store.live_quality.

The note of an observation is `UNTIL EXPIRES VARIANT PERIOD HIT`: Unix seconds of its window's end
and of when the user may be observed again, and 1 once there was a hit.
"""

_PARSE = """
local function parse(note)
  local ends, expires, variant, period, hit = string.match(note, '^(%S+) (%S+) (%S+) (%S+) (%d)$')
  return tonumber(ends), tonumber(expires), variant, period, hit == '1'
end
"""

# KEYS: observed, answers. ARGV: now, window, variant, period, answer, how many of these are kept;
# then for each run its name, and the seconds until the user is observed again. Returns run and
# field of each count that grows by one.
RECORD_ANSWER = f"""{_PARSE}
local observed, answers = unpack(KEYS)
local now, window_s, variant, period, content, kept = unpack(ARGV, 1, 6)
local counted, is_open = {{}}, false

local function forget_expired()
  local notes = redis.call('HGETALL', observed)
  for i = 1, #notes, 2 do
    local _, expires = parse(notes[i + 1])
    if not expires or expires <= tonumber(now) then
      redis.call('HDEL', observed, notes[i])
    end
  end
end

for i = 7, #ARGV, 2 do
  local run, again_s = ARGV[i], tonumber(ARGV[i + 1])
  local ends, expires, first_variant, _, has_hit = parse(redis.call('HGET', observed, run) or '')
  if not expires or expires <= tonumber(now) then
    forget_expired()
    redis.call('HSET', observed, run, table.concat(
      {{now + window_s, now + again_s, variant, period, 0}}, ' '))
    if redis.call('TTL', observed) < again_s then
      redis.call('EXPIRE', observed, again_s)
    end
    counted[#counted + 1] = run
    counted[#counted + 1] = variant .. ':' .. period .. ':users'
    is_open = true
  elseif ends >= tonumber(now) and first_variant == variant and not has_hit then
    is_open = true
  end
end
if is_open then
  redis.call('LPUSH', answers, content)
  redis.call('LTRIM', answers, 0, kept - 1)
  redis.call('EXPIRE', answers, window_s)
end
return counted
"""

# KEYS: observed, answers. ARGV: now; then for each event its impression, or nothing, and its item.
# Returns as above.
RECORD_EVENTS = f"""{_PARSE}
local observed, answers = unpack(KEYS)
local now, counted = tonumber(ARGV[1]), {{}}
local latest = {{}}
for position, content in ipairs(redis.call('LRANGE', answers, 0, -1)) do
  latest[position] = cjson.decode(content)
end

local function named(impression)
  for _, answer in ipairs(latest) do
    if impression == '' or answer.impression == impression then
      return answer
    end
  end
end

local function count_hit(run, variant, interest)
  local ends, expires, first_variant, period, has_hit =
    parse(redis.call('HGET', observed, run) or '')
  if ends and ends >= now and first_variant == variant and not has_hit then
    redis.call('HSET', observed, run, table.concat({{ends, expires, variant, period, 1}}, ' '))
    counted[#counted + 1] = run
    counted[#counted + 1] = variant .. ':' .. period .. ':' .. interest
  end
end

for i = 2, #ARGV, 2 do
  local answer = named(ARGV[i])
  local interest = answer and answer.items[ARGV[i + 1]]
  if interest then
    for _, run in ipairs(answer.runs) do
      count_hit(run, answer.variant, interest)
    end
  end
end
return counted
"""
