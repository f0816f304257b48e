"""What Redis does to the lists of the mirror in one step (Lua); bridge/mirror/lists.py runs it.

With EVAL: Redis knows a script again by its text, and redis-py asks before each EVALSHA in a pipeline whether it is
still there, which is a round trip more for each look.
"""

# Takes up to ARGV[1] IDs in the order of priority, with LMOVE so that each is in one of the lists at any moment.
TAKE = """
local taken = {}
for priority = 1, #KEYS - 1 do
  while #taken < 2 * tonumber(ARGV[1]) do
    local id = redis.call('LMOVE', KEYS[priority], KEYS[#KEYS], 'RIGHT', 'LEFT')
    if not id then break end
    taken[#taken + 1] = priority - 1
    taken[#taken + 1] = id
  end
end
return taken
"""
# Gives a taken ID back to the head, unless it was settled or returned by a sweep meanwhile.
PUT_BACK = "if redis.call('LREM', KEYS[1], -1, ARGV[1]) > 0 then redis.call('RPUSH', KEYS[2], ARGV[1]) end"

# Takes many IDs out of a list in one pass from the head: 500 IDs deep in a list of 300 000 take 60 ms this way, during
# which Redis serves nobody else, and 4.7 s with an LREM for each.
DROP = """
local wanted, left, found, last = {}, #ARGV, 0, redis.call('LLEN', KEYS[1]) - 1
for _, id in ipairs(ARGV) do wanted[id] = true end
while left > found and last >= 0 do
  local first = math.max(last - 999, 0)
  local ids = redis.call('LRANGE', KEYS[1], first, last)
  for i = #ids, 1, -1 do
    if wanted[ids[i]] then
      redis.call('LSET', KEYS[1], first + i - 1, '')
      wanted[ids[i]], found = nil, found + 1
    end
  end
  last = first - 1
end
if found > 0 then redis.call('LREM', KEYS[1], -found, '') end
"""
