-- Leases: one sorted set; a member is 'entries:id' with its expiry as score; '=' keeps minus the total, so that
-- the set and its total live and die together.

local function open_leases()
  local sets = {}             -- by key

  local function read(key)
    local EXPIRE_AT_MOST = 2000 -- dead leases cleared by one call: bounded work
    local dead = {}
    if call('ZCOUNT', key, '(0', now) > 0 then -- cheaper than a range, which mostly has nothing in it
      dead = call('ZRANGEBYSCORE', key, '(0', now, 'LIMIT', 0, EXPIRE_AT_MOST)
    end
    local total = -(call('ZSCORE', key, '=') or 0)
    for i = 1, #dead do total = total - string.match(dead[i], '^%d+') end
    return {total = max(total, 0), dead = dead, added = nil, last = 0, changed = #dead > 0}
  end

  local function at(key)
    local leases = sets[key]
    if not leases then
      leases = read(key)
      sets[key] = leases
    end
    return leases
  end

  -- How the leases stand: used, needed, wait, reset.
  local function reading(leases, entries, cap)
    local used = leases.total
    local wait = (entries > 0 and used + entries > cap) and 1000 or 0
    return used, entries, wait, used > 0 and 1000 or 0
  end

  local function member(id, entries)
    return string.format('%d:%s', entries, id)
  end

  local function add(leases, name, entries, expiry)
    leases.total = leases.total + entries
    leases.last = max(leases.last, expiry)
    leases.changed = true
    local added = leases.added
    if added then
      added[#added + 1] = expiry
      added[#added + 1] = name
    else
      leases.added = {expiry, name}
    end
  end

  local function write(key, leases)
    local SPARE_MS = 2000     -- the set outlives its last lease by half of this at least
    local added = leases.added or {}
    if #leases.dead > 0 then call('ZREM', key, unpack(leases.dead)) end
    if leases.total == 0 and #added == 0 then
      call('DEL', key)
      return
    end
    call('ZADD', key, -leases.total, '=', unpack(added))
    local lives = leases.last - now + SPARE_MS
    if call('PTTL', key) < lives - SPARE_MS / 2 then call('PEXPIRE', key, lives) end
  end

  local function write_all()
    for key, leases in pairs(sets) do
      if leases.changed then write(key, leases) end
    end
  end

  return {read = read, at = at, reading = reading, member = member, add = add, write = write, write_all = write_all}
end
