-- Decide a batch of circulations: each charges every cap that applies, or nothing.
--
-- KEYS    per request, in this order, those that its flags name:
--         record, document, rates, leases, idempotency; the global leases are KEYS[1] where ARGV[2] is 1
-- ARGV    [1] msgpack: {requests, caps}
--             a request is {which caps, flags, id, entries, has sites, lease ms}
--             caps are {document cap, window ms, {limit, window ms, …}, inflight cap, global cap}
--             flags: 1 record (without it: look only) | 2 document | 4 rates | 8 leases | 16 idempotency | 32 global
--         [2] 1 if KEYS[1] holds the global leases
--         [3…] the sites of each request that has some
-- Output  msgpack: per request {status, expired leases, used, needed, wait ms, reset ms, …four per policy}
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
  local count, cap, window = #r[5] / 8, r.caps[1], r.caps[2]
  local needed, wait, reset = count - known, 0, 0
  for _, s in ipairs(sections) do
    local frees = s.ends + window - now
    if reset == 0 or frees < reset then reset = frees end
  end
  if reset == 0 and needed > 0 then reset = bucket_end(now, window / 2) + window - now end
  if needed > 0 and used + needed > cap then wait = document_wait(sections, used, needed, cap, window) end
  return used, needed, wait, reset
end

local function rate_reading(buckets, entries, limit, window)
  local used, wait, reset = 0, 0, 0
  for i = 2, #buckets, 2 do
    used = used + buckets[i]
    if reset == 0 and used > 0 then reset = buckets[i - 1] + window - now end
  end
  if reset == 0 and entries > 0 then reset = bucket_end(now, window / 20) + window - now end
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

-- Append the bucket of each window to charge: of those configured, and of those that were; how long the former count.
local function note_buckets(noted, state, limits)
  local lasts = 0
  for i = 2, #limits, 2 do
    local window = limits[i]
    local ends = open_bucket(state[state.at[window] + 2], window) -- found when it was read
    lasts = max(lasts, ends + window - now)
    noted[#noted + 1] = window
    noted[#noted + 1] = ends
  end
  if #state == 2 + #limits / 2 * 3 then return lasts end
  local configured = {}
  for i = 2, #limits, 2 do configured[limits[i]] = true end
  for at = 3, #state, 3 do
    local window = state[at]
    if not configured[window] and now < state[at + 1] + window then
      noted[#noted + 1] = window
      noted[#noted + 1] = open_bucket(rate_buckets(state, window), window)
    end
  end
  return lasts
end

-- Charge the buckets noted, the first of them those of the `rates` numbers configured.
local function charge_rates(state, noted, rates, entries)
  state[2] = max(state[2], now)
  for i = 6, #noted, 2 do
    local at = state.at[noted[i]]
    add_to_bucket(state[at + 2], noted[i + 1], entries)
    if i < 6 + rates then state[at + 1] = state[2] end
  end
  state.changed, state.charged = true, true
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
  local sites, window = r[5], r.caps[2]
  local ends = bucket_end(now, window / 2)
  local kept, again, fresh = {}, '', sites
  for _, s in ipairs(sections) do
    if s.overlap == s.count and s.sites == sites and s.tag == SHARED and s.ends == ends then
      redis.call('SETRANGE', key, s.offset, struct.pack('<I6', now))
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
    kept[#kept + 1] = {at = now, ends = ends, tag = tag_of(r[3]), count = #fresh / 8, sites = fresh}
  end
  local before = #kept > SECTIONS and now - max(RECORD_MS, r[6]) or 0
  if #kept > 1 then kept = fold(kept, before) end
  write_document(key, kept, window)
end

-- A refusal charges nothing, but where the window has grown the sites must be known for as long as they count now.
local function keep_document(key, sections, window)
  local last = 0
  for _, s in ipairs(sections) do last = max(last, s.ends + window) end
  if last > 0 and redis.call('PTTL', key) < last - now then redis.call('PEXPIRE', key, last - now) end
end

local function add_lease(leases, id, entries, expiry)
  leases.total = leases.total + entries
  leases.last = max(leases.last, expiry)
  leases.changed = true
  local add = leases.add
  add[#add + 1] = expiry
  add[#add + 1] = member_of(id, entries)
end

-- Append one policy's reading; whether the circulation is within its cap.
local function note(out, cap, used, needed, wait, reset)
  local n = #out
  out[n + 1], out[n + 2], out[n + 3], out[n + 4] = used, needed, ceil(wait), ceil(reset)
  return needed == 0 or used + needed <= cap
end

-- The answer where the script knows the id already: it was charged, or undone before it came.
local function known_id(out, record)
  out[1] = record == 'x' and 3 or 2
  for i = 4, #out, 4 do out[i] = 0 end
  return out
end

local function decide(r, record_key, document_key, rates_key, leases_key, shared_key, global_key)
  local id, entries, lease_ms = r[3], r[4], r[6]
  local repeats = shared_key and ask('GET', shared_key)
  local status, charged = 1, entries
  if repeats then status, charged = 4, 0 end
  local out, fits = {status, 0}, true

  local sections, known, values, seen
  if document_key then
    local live
    sections, live = read_document(document_key, r.caps[2])
    if repeats then
      known = #r[5] / 8
    else
      known, values, seen = compare(sections, r[5])
    end
    fits = note(out, r.caps[1], document_reading(r, sections, live, known))
  end
  local state = rates_key and rates_at(rates_key)
  local rates = state and #r.caps[3] or 0
  for i = 1, rates, 2 do
    local limit, window = r.caps[3][i], r.caps[3][i + 1]
    fits = note(out, limit, rate_reading(rate_buckets(state, window), charged, limit, window)) and fits
  end
  local leases = leases_key and leases_at(leases_key)
  if leases then
    if not leases.counted then out[2], leases.counted = #leases.dead, true end
    if r.caps[4] >= 0 then fits = note(out, r.caps[4], lease_reading(leases, entries, r.caps[4])) and fits end
  end
  local global = global_key and leases_at(global_key)
  if global and r.caps[5] >= 0 then fits = note(out, r.caps[5], lease_reading(global, entries, r.caps[5])) and fits end
  if not fits then
    local record = record_key and ask('GET', record_key)
    if record then return known_id(out, record) end
    out[1] = 0
    if record_key and sections then keep_document(document_key, sections, r.caps[2]) end
    return out
  end
  if not record_key then return out end

  local noted = {now, charged, 0, state and state[1] or 0, (leases or global) and entries or 0}
  local lasts = 0
  if state and not repeats then lasts = note_buckets(noted, state, r.caps[3]) end
  local shared = repeats and cmsgpack.unpack(repeats)
  if shared then noted[6] = shared[6] end -- whose charge this repeats
  -- The record comes first: where it stands already, nothing is charged again.
  local fresh = redis.call('SET', record_key, cmsgpack.pack(noted), 'PX', max(RECORD_MS, lease_ms), 'NX')
  if not fresh then return known_id(out, ask('GET', record_key)) end
  if state and not repeats then charge_rates(state, noted, rates, entries) end
  if document_key and not repeats then
    charge_document(document_key, sections, r, known, values, seen)
    lasts = max(lasts, bucket_end(now, r.caps[2] / 2) + r.caps[2] - now)
  end
  if leases then add_lease(leases, id, entries, now + lease_ms) end
  if global then add_lease(global, id, entries, now + lease_ms) end
  if shared then
    shared[1] = shared[1] + 1
    redis.call('SET', shared_key, cmsgpack.pack(shared), 'PX', max(redis.call('PTTL', shared_key), 1))
  elseif shared_key and lasts > 0 then
    noted[5] = tag_of(id)
    table.insert(noted, 1, 1)
    redis.call('SET', shared_key, cmsgpack.pack(noted), 'PX', min(lasts, 86400000))
  end
  return out
end

local at = GLOBAL and 2 or 1
local has = bit.band
local function take(flags, one)
  if has(flags, one) == 0 then return nil end
  at = at + 1
  return KEYS[at - 1]
end

local answers = {}
local batch, caps = requests(5)
for i, r in ipairs(batch) do
  local flags = r[2]
  r.caps = caps[r[1]]
  local record, document, rates = take(flags, 1), take(flags, 2), take(flags, 4)
  local leases, shared = take(flags, 8), take(flags, 16)
  local global = has(flags, 32) ~= 0 and GLOBAL or nil
  local ok, answer = pcall(decide, r, record, document, rates, leases, shared, global)
  answers[i] = ok and answer or failed(answer)
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
return cmsgpack.pack(answers)
