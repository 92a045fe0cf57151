-- What every script shares: time, and how each kind of state is read and written.
-- A script is this text followed by one operation. Reads are protected, so that a key of the wrong type fails only
-- the request that met it; writes come last and only on keys that were read, so that none of them can fail half-way.

if redis.replicate_commands then redis.replicate_commands() end -- before 7.0, writes after TIME need it

local RECORD_MS = 60000       -- how long a decision is remembered, unless its lease lives longer
local EXPIRE_AT_MOST = 2000   -- dead leases cleared by one call: bounded work
local SECTIONS = 32           -- more than this many sections of a document: those past refund are folded
local WINDOWS = 8             -- more than this many rate windows of a tenant: those of before go, the shortest first
local SHARED = string.rep('\0', 8) -- the tag of sites that more than one circulation has counted
local SECTION = 18            -- bytes of a section's head: when, tag, count
local floor, ceil, min, max = math.floor, math.ceil, math.min, math.max

local clock = redis.call('TIME')
local now = clock[1] * 1000 + floor(clock[2] / 1000)

-- The requests of this call; a request's sites are an argument of their own, since cmsgpack reads no binary.
local function requests(sites_field)
  local batch, next_sites = cmsgpack.unpack(ARGV[1]), 3
  local found = batch[1]
  for _, r in ipairs(found) do
    if r[sites_field] == 1 then
      r[sites_field] = ARGV[next_sites]
      next_sites = next_sites + 1
    elseif r[sites_field] == 0 then
      r[sites_field] = ''
    end
  end
  return found, batch[2]
end

-- The value of a protected call, or an error that the caller hands on.
local function ask(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then error({failed = reply.err}, 0) end
  return reply
end

-- The answer to a request that met an error, in a script's own words where it was the script's.
local function failed(problem)
  return {-1, type(problem) == 'table' and (problem.failed or problem.err) or tostring(problem)}
end

-- The end of the bucket of `width` ms that holds `at`: in whole ms, so that a wait is never told too short.
local function bucket_end(at, width)
  return math.ceil((floor(at / width) + 1) * width)
end

-- Keep a value until `last`, when nothing in it counts any more.
local function keep(key, value, last)
  if last > now then
    redis.call('SET', key, value, 'PX', last - now)
  else
    redis.call('DEL', key)
  end
end

-- Rates: {epoch, last charge, window, configured, {end, entries, end, entries, …}, window, configured, {…}, …}; ends
-- ascend. `configured` is the last charge at which the window was configured: charges go on counting in it for its own
-- length after that, so that it knows them where it comes back.
local function read_rates(key)
  local raw = ask('GET', key)
  local state = raw and cmsgpack.unpack(raw) or {now * 1000 + tonumber(clock[2]) % 1000, 0}
  state.at = {}
  return state
end

local function add_to_bucket(buckets, ends, entries)
  local n = #buckets
  if n > 0 and buckets[n - 1] == ends then
    buckets[n] = buckets[n] + entries
  else
    buckets[n + 1] = ends
    buckets[n + 2] = entries
  end
end

-- Count in the window at `at` what has passed it by, as far as the longest other window knows it: as if at `now` at
-- the latest, and in buckets of its own, so that no number of changes makes more of them.
local function catch_up(state, at)
  local window, live = state[at], state[at + 2]
  local since = #live > 0 and state[at + 1] + window or 0
  local longest, source = 0, {}
  for i = 3, #state, 3 do
    local complete = state[2] < state[i + 1] + state[i]
    if complete and i ~= at and state[i] > longest then longest, source = state[i], state[i + 2] end
  end
  for j = 1, #source, 2 do
    if source[j] > since and now < source[j] + min(window, longest) then
      local ends = bucket_end(min(source[j], now) - 1, window / 20)
      add_to_bucket(live, max(live[#live - 1] or 0, ends), source[j + 1])
      state[at + 1] = state[2]
      state.changed = true -- also where the circulation is refused: a new "now" would never pass
    end
  end
end

-- The live buckets of one window, which knows every charge from then on.
local function rate_buckets(state, window)
  local at = state.at[window]
  if at and state[2] < state[at + 1] + window then return state[at + 2] end
  at = 3
  while state[at] and state[at] ~= window do at = at + 3 end
  local live, buckets, configured = {}, state[at + 2] or {}, state[at + 1] or 0
  for j = 1, #buckets, 2 do
    if now < buckets[j] + window then
      live[#live + 1] = buckets[j]
      live[#live + 1] = buckets[j + 1]
    end
  end
  state[at], state[at + 1], state[at + 2], state.at[window] = window, configured, live, at
  if state[2] >= configured + window then catch_up(state, at) end
  return live
end

-- The end of the bucket that takes entries now: the newest, also where the clock went back.
local function open_bucket(buckets, window)
  return max(buckets[#buckets - 1] or 0, bucket_end(now, window / 20))
end

-- Drop the shortest windows that are not configured any more, down to so many in all.
local function drop_windows(state)
  while #state > 2 + 3 * WINDOWS do
    local shortest
    for i = 3, #state, 3 do
      if state[i + 1] < state[2] and not (shortest and state[i] > state[shortest]) then shortest = i end
    end
    if not shortest then return end
    for _ = 1, 3 do table.remove(state, shortest) end
  end
end

-- Leaves out the windows that count nothing and have missed charges.
local function write_rates(key, state)
  local last, charged, kept = 0, state[2], {state[1], state[2]}
  for i = 3, #state, 3 do
    local window, configured, buckets = state[i], state[i + 1], state[i + 2]
    local frees = (buckets[#buckets - 1] or -window) + window
    if now < frees or charged < configured + window then
      local n = #kept
      kept[n + 1], kept[n + 2], kept[n + 3] = window, configured, buckets
      last = max(last, frees)
    end
  end
  if state.charged then drop_windows(kept) end
  keep(key, cmsgpack.pack(kept), last)
end

-- Documents: sections, each a head {when, tag of who added the sites, count} and the sites, 8 bytes each.
local FORMATS = {}
local function format_of(count)
  local format = FORMATS[count]
  if not format then
    format = '<' .. string.rep('d', count)
    FORMATS[count] = format
  end
  return format
end

local function doubles(raw, from, count, into)
  local n = #into
  local first = from
  while count > 0 do
    local step = min(count, 128)
    local part = {struct.unpack(format_of(step), raw, first)}
    for i = 1, step do into[n + i] = part[i] end
    n, first, count = n + step, first + step * 8, count - step
  end
  return into
end

local function packed(values)
  local parts = {}
  for i = 1, #values, 128 do
    local step = min(#values - i + 1, 128)
    parts[#parts + 1] = struct.pack(format_of(step), unpack(values, i, i + step - 1))
  end
  return table.concat(parts)
end

local function tag_of(id)
  return string.sub(id, 1, 8)
end

local function section(at, tag, sites)
  return struct.pack('<I6c8I4', at, tag, #sites / 8) .. sites
end

-- The sections of a document that still count: {at, ends, tag, count, sites}.
local function read_document(key, window)
  local raw = ask('GET', key)
  local found, live = {}, 0
  if not raw then return found, 0 end
  local from = 1
  while from < #raw do
    local at, tag, count = struct.unpack('<I6c8I4', raw, from)
    local ends = bucket_end(min(at, now), window / 2)
    if now < ends + window then
      local sites = string.sub(raw, from + SECTION, from + SECTION + count * 8 - 1)
      found[#found + 1] = {at = at, ends = ends, tag = tag, count = count, sites = sites, offset = from - 1}
      live = live + count
    end
    from = from + SECTION + count * 8
  end
  return found, live
end

local function write_document(key, sections, window)
  local parts, last = {}, 0
  for _, s in ipairs(sections) do
    parts[#parts + 1] = section(s.at, s.tag, s.sites)
    last = max(last, s.ends + window)
  end
  keep(key, table.concat(parts), last)
end

-- Leases: one sorted set; a member is 'entries:id' with its expiry as score; '=' keeps minus the total, so that
-- the set and its total live and die together.
local function read_leases(key)
  local dead = ask('ZRANGEBYSCORE', key, '(0', now, 'LIMIT', 0, EXPIRE_AT_MOST)
  local total = -(tonumber(ask('ZSCORE', key, '=') or 0))
  for _, member in ipairs(dead) do total = total - tonumber(string.match(member, '^%d+')) end
  return {total = max(total, 0), dead = dead, changed = #dead > 0, add = {}, last = 0}
end

local function write_leases(key, leases)
  if #leases.dead > 0 then redis.call('ZREM', key, unpack(leases.dead)) end
  if leases.total == 0 and #leases.add == 0 then
    redis.call('DEL', key)
    return
  end
  redis.call('ZADD', key, -leases.total, '=', unpack(leases.add))
  if redis.call('PTTL', key) < leases.last - now + 1000 then
    redis.call('PEXPIRE', key, leases.last - now + 1000)
  end
end

local function member_of(id, entries)
  return string.format('%d:', entries) .. id
end
