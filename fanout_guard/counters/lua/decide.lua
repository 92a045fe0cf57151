-- Decide a batch of circulations: each charges every cap that applies, or nothing.
--
-- KEYS    per request, in this order, those that its flags name:
--         record, document, rates, leases, idempotency; the global leases are KEYS[1] where ARGV[2] is 1
-- ARGV    [1] msgpack: array of requests
--             {flags, id, entries, has sites, document cap, window ms, {limit, window ms, …}, inflight cap,
--              global cap, lease ms}
--             flags: 1 record (without it: look only) | 2 document | 4 rates | 8 leases | 16 idempotency | 32 global
--         [2] 1 if KEYS[1] holds the global leases
--         [3…] the sites of each request that has some
-- Output  per request {status, expired leases, used, needed, wait ms, reset ms, …four per policy}
--         status: 0 refused, 1 charged (or would be), 2 charged before by this id, 3 undone before it came,
--                 4 repeats a counted idempotency key; {-1, error} where only this request failed

local GLOBAL = ARGV[2] == '1' and KEYS[1]
local rates_of, leases_of = {}, {}

local function rates_at(key)
  local state = rates_of[key]
  if not state then
    state = read_rates(key)
    rates_of[key] = state
  end
  return state
end

local function leases_at(key)
  local leases = leases_of[key]
  if not leases then
    leases = read_leases(key)
    leases_of[key] = leases
  end
  return leases
end

-- How many of `sites` a document's sections hold already; notes each section's share in `overlap`.
local function compare(sections, sites)
  for _, s in ipairs(sections) do s.overlap = 0 end
  for _, s in ipairs(sections) do
    if s.sites == sites then
      s.overlap = s.count
      return s.count, nil, nil
    end
  end
  if #sections == 0 or sites == '' then return 0, nil, nil end
  local values, known, seen = doubles(sites, 1, #sites / 8, {}), 0, {}
  for i = 1, #values do seen[values[i]] = 1 end
  for _, s in ipairs(sections) do
    local theirs, overlap = doubles(s.sites, 1, s.count, {}), 0
    for i = 1, s.count do
      if seen[theirs[i]] then
        overlap = overlap + 1
        seen[theirs[i]] = 2
      end
    end
    s.values, s.overlap = theirs, overlap
    known = known + overlap
  end
  return known, values, seen
end

-- Milliseconds until enough sections have freed for the circulation to fit.
local function document_wait(sections, used, needed, cap, window)
  table.sort(sections, function(a, b) return a.ends < b.ends end)
  for _, s in ipairs(sections) do
    used = used - s.count
    needed = needed + s.overlap
    if used + needed <= cap then return s.ends + window - now end
  end
  return 0
end

local function document_reading(r, sections, used, known)
  local count, cap, window = #r[4] / 8, r[5], r[6]
  local needed, wait, reset = count - known, 0, 0
  for _, s in ipairs(sections) do
    local frees = s.ends + window - now
    if reset == 0 or frees < reset then reset = frees end
  end
  if needed > 0 and used + needed > cap then wait = document_wait(sections, used, needed, cap, window) end
  return used, needed, wait, reset
end

local function rate_reading(buckets, entries, limit, window)
  local used, wait, reset = 0, 0, 0
  for i = 2, #buckets, 2 do
    used = used + buckets[i]
    if reset == 0 and used > 0 then reset = buckets[i - 1] + window - now end
  end
  local over = used + entries - limit
  if entries > 0 and over > 0 then
    for i = 1, #buckets, 2 do
      over = over - buckets[i + 1]
      if over <= 0 then
        wait = buckets[i] + window - now
        break
      end
    end
  end
  return used, entries, wait, reset
end

local function lease_reading(leases, entries, cap)
  local used = leases.total
  local wait = (entries > 0 and used + entries > cap) and 1000 or 0
  return used, entries, wait, used > 0 and 1000 or 0
end

local function fold(sections, before)
  for _, s in ipairs(sections) do
    if s.tag ~= SHARED and s.at < before then s.tag = SHARED end
  end
  local kept, shared = {}, {}
  for _, s in ipairs(sections) do
    local same = s.tag == SHARED and shared[s.ends]
    if same then
      same.sites, same.count, same.at = same.sites .. s.sites, same.count + s.count, max(same.at, s.at)
    else
      kept[#kept + 1] = s
      if s.tag == SHARED then shared[s.ends] = s end
    end
  end
  return kept
end

-- Count the sites now: known ones move to this generation as shared, new ones get this decision's tag.
local function charge_document(key, sections, r, known, values, seen)
  local sites, window = r[4], r[6]
  local ends = bucket_end(now, window / 2)
  local kept, again, fresh = {}, '', sites
  for _, s in ipairs(sections) do
    if s.overlap == s.count and s.sites == sites and s.tag == SHARED and s.ends == ends then
      redis.call('PEXPIRE', key, ends + window - now)
      return
    elseif s.overlap == 0 then
      kept[#kept + 1] = s
    elseif s.overlap < s.count then
      local rest = {}
      for i = 1, s.count do
        if not seen[s.values[i]] then rest[#rest + 1] = s.values[i] end
      end
      s.sites, s.count = packed(rest), #rest
      kept[#kept + 1] = s
    end
  end
  if known * 8 == #sites then
    again, fresh = sites, ''
  elseif known > 0 then
    local old, new = {}, {}
    for i = 1, #values do
      local v = values[i]
      if seen[v] == 2 then old[#old + 1] = v else new[#new + 1] = v end
    end
    again, fresh = packed(old), packed(new)
  end
  if again ~= '' then
    kept[#kept + 1] = {at = now, ends = ends, tag = SHARED, count = #again / 8, sites = again}
  end
  if fresh ~= '' then
    kept[#kept + 1] = {at = now, ends = ends, tag = tag_of(r[2]), count = #fresh / 8, sites = fresh}
  end
  local before = #kept > SECTIONS and now - max(RECORD_MS, r[10]) or 0
  if #kept > 1 then kept = fold(kept, before) end
  write_document(key, kept, window)
end

local function add_lease(leases, id, entries, expiry)
  leases.total = leases.total + entries
  leases.last = max(leases.last, expiry)
  leases.changed = true
  local add = leases.add
  add[#add + 1] = expiry
  add[#add + 1] = member_of(id, entries)
end

local function decide(r, keys)
  local flags, id, entries, lease_ms = r[1], r[2], r[3], r[10]
  local record, status = keys.record and ask('GET', keys.record), 1
  if record then status = record == 'x' and 3 or 2 end
  local repeats = status == 1 and keys.idempotency and ask('GET', keys.idempotency)
  if repeats then status = 4 end
  local charged = status == 1 and entries or 0
  local out, expired, fits = {status, 0}, 0, true

  local function read(cap, used, needed, wait, reset)
    if needed > 0 and used + needed > cap then fits = false end
    out[#out + 1], out[#out + 2], out[#out + 3], out[#out + 4] = used, needed, wait, reset
  end

  local sections, known, values, seen
  if keys.document then
    local live
    sections, live = read_document(keys.document, r[6])
    if status == 1 then
      known, values, seen = compare(sections, r[4])
    else
      known = #r[4] / 8
    end
    read(r[5], document_reading(r, sections, live, known))
  end
  local state = keys.rates and rates_at(keys.rates)
  if state then
    for i = 1, #r[7], 2 do
      read(r[7][i], rate_reading(rate_buckets(state, r[7][i + 1]), charged, r[7][i], r[7][i + 1]))
    end
  end
  local held = (status == 1 or status == 4) and entries or 0
  local leases = keys.leases and leases_at(keys.leases)
  if leases then
    expired, leases.counted = leases.counted and 0 or #leases.dead, true
    if r[8] >= 0 then read(r[8], lease_reading(leases, held, r[8])) end
  end
  local global = keys.global and leases_at(keys.global)
  if global then
    if not leases then expired, global.counted = global.counted and 0 or #global.dead, true end
    if r[9] >= 0 then read(r[9], lease_reading(global, held, r[9])) end
  end
  out[2] = expired
  if not fits then
    out[1] = 0
    return out
  end
  if not keys.record or status == 2 or status == 3 then return out end

  local epoch = state and state[1] or 0
  local noted = {now, charged, 0, epoch, (leases or global) and entries or 0}
  local lasts = 0
  for i = 2, state and status == 1 and #r[7] or 0, 2 do
    local window = r[7][i]
    local ends = add_to_bucket(rate_buckets(state, window), bucket_end(now, window / 20), entries)
    lasts = max(lasts, ends + window - now)
    noted[#noted + 1] = window
    noted[#noted + 1] = ends
    state.changed = true
  end
  if keys.document and status == 1 then
    charge_document(keys.document, sections, r, known, values, seen)
    lasts = max(lasts, bucket_end(now, r[6] / 2) + r[6] - now)
  end
  if leases then add_lease(leases, id, entries, now + lease_ms) end
  if global then add_lease(global, id, entries, now + lease_ms) end
  local shared = repeats and cmsgpack.unpack(repeats)
  if shared then noted[6] = shared[6] end -- whose charge this repeats
  redis.call('SET', keys.record, cmsgpack.pack(noted), 'PX', max(RECORD_MS, lease_ms))
  if keys.idempotency then
    if shared then
      shared[1] = shared[1] + 1
      redis.call('SET', keys.idempotency, cmsgpack.pack(shared), 'PX', max(redis.call('PTTL', keys.idempotency), 1))
    elseif lasts > 0 then
      noted[5] = tag_of(id)
      table.insert(noted, 1, 1)
      redis.call('SET', keys.idempotency, cmsgpack.pack(noted), 'PX', min(lasts, 86400000))
    end
  end
  return out
end

local at = GLOBAL and 2 or 1
local function take(flags, bit)
  if floor(flags / bit) % 2 == 0 then return nil end
  at = at + 1
  return KEYS[at - 1]
end

local answers = {}
for i, r in ipairs(requests(4)) do
  local flags = r[1]
  local keys = {
    record = take(flags, 1),
    document = take(flags, 2),
    rates = take(flags, 4),
    leases = take(flags, 8),
    idempotency = take(flags, 16),
    global = floor(flags / 32) % 2 == 1 and GLOBAL or nil,
  }
  local ok, answer = pcall(decide, r, keys)
  answers[i] = ok and answer or {-1, type(answer) == 'table' and answer.failed or tostring(answer)}
end
for key, state in pairs(rates_of) do
  if state.changed then
    state.changed = nil
    write_rates(key, state)
  end
end
for key, leases in pairs(leases_of) do
  if leases.changed then write_leases(key, leases) end
end
return answers
