-- Change overrides: all the given fields of a tenant at once, and with them the version that workers look at.
--
-- KEYS    [1] the overrides, a hash: field:tenant → JSON {value, by, at, until}; [2] their version
-- ARGV    [1] who changes them, as JSON  [2] for how many ms, or -1 to stay
--         [3…] pairs of a name in the hash and its value as JSON; an empty value takes the override back
-- Output  {how many of the named ones held before}
-- What has expired is cleared on the way.

local function ends(text)
  local ok, entry = pcall(cjson.decode, text)
  return ok and type(entry) == 'table' and tonumber(entry['until']) or nil
end

-- The first write: where it fails, nothing has changed. The version follows the clock, so that a server that has lost
-- changes, in a restart or a failover, does not have one twice.
local version = call('INCR', KEYS[2])
call('SET', KEYS[2], string.format('%.0f', max(version, clock[1] * 1000000 + clock[2])))
local found = call('HGETALL', KEYS[1])
for i = 1, #found, 2 do
  local until_ms = ends(found[i + 1])
  if until_ms and until_ms <= now then call('HDEL', KEYS[1], found[i]) end
end

local before = 0
for i = 3, #ARGV, 2 do before = before + call('HEXISTS', KEYS[1], ARGV[i]) end

local until_ms = tonumber(ARGV[2]) < 0 and 'null' or string.format('%.0f', now + ARGV[2])
for i = 3, #ARGV, 2 do
  local name, value = ARGV[i], ARGV[i + 1]
  if value == '' then
    call('HDEL', KEYS[1], name)
  else
    local at = string.format('%.0f', now)
    call('HSET', KEYS[1], name,
      '{"value":' .. value .. ',"by":' .. ARGV[1] .. ',"at":' .. at .. ',"until":' .. until_ms .. '}')
  end
end
return {before}
