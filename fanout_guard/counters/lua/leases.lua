-- Leases: one sorted set; a member is 'entries:id' with its expiry as score; '=' keeps minus the total, so that
-- the set and its total live and die together.

local function member_of(id, entries)
  return string.format('%d:%s', entries, id)
end

local function open_leases()
  local sets = {}             -- by key

  -- The leases of a key: their total, the dead to remove, {expiry, member, …} to add and the last expiry of those.
  local function at(key)
    local leases = sets[key]
    if leases then return leases end
    local EXPIRE_AT_MOST = 2000 -- dead leases cleared by one call: bounded work
    local dead = call('ZRANGEBYSCORE', key, '(0', now, 'LIMIT', 0, EXPIRE_AT_MOST)
    local total = -(call('ZSCORE', key, '=') or 0)
    for i = 1, #dead do total = total - string.match(dead[i], '^%d+') end
    leases = {total = max(total, 0), dead = dead, added = nil, last = 0}
    sets[key] = leases
    return leases
  end

  -- How the leases stand: used, needed, wait, reset.
  local function reading(leases, entries, cap)
    local used = leases.total
    local wait = (entries > 0 and used + entries > cap) and 1000 or 0
    return used, entries, wait, used > 0 and 1000 or 0
  end

  local function add(leases, member, entries, expiry)
    leases.total = leases.total + entries
    leases.last = max(leases.last, expiry)
    local added = leases.added
    if added then
      added[#added + 1] = expiry
      added[#added + 1] = member
    else
      leases.added = {expiry, member}
    end
  end

  local function write(key, dead, added, total, last)
    local SPARE_MS = 2000     -- the set outlives its last lease by half of this at least
    if #dead > 0 then call('ZREM', key, unpack(dead)) end
    if total == 0 and not added then
      call('DEL', key)
      return
    end
    call('ZADD', key, -total, '=', unpack(added or {}))
    local lives = last - now + SPARE_MS
    if call('PTTL', key) < lives - SPARE_MS / 2 then call('PEXPIRE', key, lives) end
  end

  local function write_all()
    for key, leases in pairs(sets) do
      if leases.added or #leases.dead > 0 then write(key, leases.dead, leases.added, leases.total, leases.last) end
    end
  end

  return {at = at, reading = reading, add = add, write_all = write_all}
end
