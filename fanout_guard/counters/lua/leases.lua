-- Leases: one sorted set; a member is 'entries:lease' with its expiry as score; '=' keeps minus the total, so that
-- the set and its total live and die together. The lease is written as core.model.Lease writes it: flags, id, and the
-- digests of document and idempotency key where it has them. Everybody's set has the id alone, which is a lease too.

local function open_leases()
  local sets = {}             -- by key

  -- Take out some of the dead: bounded work, doubled each time that it was not enough.
  local function bury(leases)
    local AT_MOST = 2000
    local gone, total = leases.gone, leases.total
    local before = #gone
    local dead = call('ZRANGEBYSCORE', leases.key, '(0', now, 'LIMIT', before, max(AT_MOST, before))
    for i = 1, #dead do
      total = total - (string.match(dead[i], '^%d+') or 0) -- a member that somebody else wrote is none of the total
      gone[before + i] = dead[i]
    end
    leases.total, leases.more = max(total, 0), #dead >= AT_MOST
  end

  -- The leases of a key: their total, the members to remove, {expiry, member, …} to add and the last expiry of those;
  -- written if there is `added`. With `living` the dead are taken out, as only decisions do: they report how many.
  local function at(key, living)
    local leases = sets[key]
    if leases then return leases end
    local total = max(-(call('ZSCORE', key, '=') or 0), 0)
    leases = {key = key, total = total, gone = {}, more = false, told = 0, added = nil, last = 0}
    if living then bury(leases) end
    sets[key] = leases
    return leases
  end

  -- How the leases stand: used, needed, wait, reset. All the dead are out for a `look`, and before anybody is refused.
  local function reading(leases, entries, cap, look)
    while leases.more and (look or leases.total + entries > cap) do bury(leases) end
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

  -- The set outlives its last lease, and lives for a minute, so that a short lease which nobody returned is still found
  -- dead, and counted.
  local function write(key, gone, added, total, last)
    local SPARE_MS = 2000     -- it outlives it by half of this at least
    local UNPACKED = 4000     -- Lua has room for twice as many arguments
    if total > 0 then call('ZADD', key, -total, '=', unpack(added)) end
    -- After ZADD, since one call may renew a lease and then release it; also where the whole set is deleted, so that a
    -- user without the right to ZREM is told at once. DEL comes last: while a slot is being moved, a node refuses every
    -- command on a key that is gone.
    for i = 1, #gone, UNPACKED do
      call('ZREM', key, unpack(gone, i, math.min(i + UNPACKED - 1, #gone)))
    end
    if total == 0 then
      call('DEL', key)
    elseif added[1] then
      local lives = max(last - now + SPARE_MS, RECORD_MS)
      if call('PTTL', key) < lives - SPARE_MS / 2 then call('PEXPIRE', key, lives) end
    end
  end

  local function write_all()
    for key, leases in pairs(sets) do
      if leases.added then write(key, leases.gone, leases.added, leases.total, leases.last) end
    end
  end

  return {at = at, reading = reading, add = add, write_all = write_all}
end
