-- Decide a batch of circulations: each charges every cap that applies, or nothing.
--
-- KEYS    per request, in this order, those that its flags name:
--         record, document, rates, leases, idempotency; the global leases are KEYS[1] where ARGV[2] is 1.
--         A record's key ends with the id of the decision.
-- ARGV    [1] msgpack: caps, each {document cap, window ms, {limit, window ms, …}, inflight cap, global cap}
--         [2] 1 if KEYS[1] holds the global leases
--         [3] the requests, each packed as which caps (2 bytes, from 1), flags (1), entries (8), lease ms (8)
--             flags: 1 record (without it: look only) | 2 document | 4 rates | 8 leases | 16 idempotency | 32 global |
--             64 it has sites
--         [4…] the sites of each request that has some
-- Output  msgpack: per request {status, expired leases, used, needed, wait ms, reset ms, …four per policy}
--         status: 0 refused, 1 charged (or would be), 2 charged before by this id, 3 undone before it came,
--                 4 repeats a counted idempotency key; {-1, error} where only this request failed

local GLOBAL = ARGV[2] == '1' and KEYS[1]
local REQUEST, REQUEST_BYTES = '<I2BI8I8', 19
local ID = -16                -- an id is so many characters
local KEY_AT_MOST_MS = 86400000

local has = bit.band
local documents, rates, leases -- opened when a request needs them
local caps, entries, lease_ms, sites -- those of the request that is being decided

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

-- Note under the idempotency key whose charge it stands for, or one holder more.
local function hold_key(key, shared, noted, id, lasts)
  if shared then
    shared[1] = shared[1] + 1
    call('SET', key, cmsgpack.pack(shared), 'PX', max(call('PTTL', key), 1))
  elseif lasts > 0 then
    noted[5] = tag_of(id)
    table.insert(noted, 1, 1)
    call('SET', key, cmsgpack.pack(noted), 'PX', min(lasts, KEY_AT_MOST_MS))
  end
end

local function decide(record_key, document_key, rates_key, leases_key, shared_key, global_key)
  local repeats = shared_key and call('GET', shared_key)
  local charged = repeats and 0 or entries
  local out, fits = {repeats and 4 or 1, 0}, true

  local view, total
  if document_key then
    documents = documents or open_documents()
    view, total = documents.read(document_key, caps[2]), #sites / 8
    if not repeats then documents.compare(view, sites) end
    local needed = repeats and 0 or total - view.known
    fits = note(out, caps[1], documents.reading(view, needed, caps[1], caps[2]))
  end
  local state, limits
  if rates_key then
    rates = rates or open_rates()
    state, limits = rates.at(rates_key), caps[3]
    for i = 1, #limits, 2 do
      fits = note(out, limits[i], rates.reading(state, charged, limits[i], limits[i + 1])) and fits
    end
  end
  local own, global
  if leases_key or global_key then
    leases = leases or open_leases()
    own, global = leases_key and leases.at(leases_key), global_key and leases.at(global_key)
    if own and not own.told then out[2], own.told = #own.dead, true end
    if own and caps[4] >= 0 then fits = note(out, caps[4], leases.reading(own, entries, caps[4])) and fits end
    if global and caps[5] >= 0 then fits = note(out, caps[5], leases.reading(global, entries, caps[5])) and fits end
  end
  if not fits then
    local record = record_key and call('GET', record_key)
    if record then return known_id(out, record) end
    out[1] = 0
    if record_key and view then documents.stay(document_key, view, caps[2]) end
    return out
  end
  if not record_key then return out end

  local noted = {now, charged, 0, state and state[1] or 0, (own or global) and entries or 0}
  local lasts = 0
  if state and not repeats then lasts = rates.note(noted, state, limits) end
  local shared = repeats and cmsgpack.unpack(repeats)
  if shared then noted[6] = shared[6] end -- whose charge this repeats
  -- The record comes first: where it stands already, nothing is charged again.
  local kept_ms = max(RECORD_MS, lease_ms)
  local fresh = call('SET', record_key, cmsgpack.pack(noted), 'PX', kept_ms, 'NX')
  if not fresh then return known_id(out, call('GET', record_key)) end
  if state and not repeats then rates.charge(state, noted, #limits / 2, entries) end
  if not (view or own or global or shared_key) then return out end

  local id = string.sub(record_key, ID)
  if view and not repeats then
    documents.charge(document_key, view, total, id, caps[2], kept_ms)
    lasts = max(lasts, bucket_end(now, caps[2] / 2) + caps[2] - now)
  end
  if own or global then
    local member, expiry = leases.member(id, entries), now + lease_ms
    if own then leases.add(own, member, entries, expiry) end
    if global then leases.add(global, member, entries, expiry) end
  end
  if shared_key then hold_key(shared_key, shared, noted, id, lasts) end
  return out
end

local at = GLOBAL and 2 or 1
local function take(flags, one)
  if has(flags, one) == 0 then return nil end
  at = at + 1
  return KEYS[at - 1]
end

local answers, all_caps, next_sites = {}, cmsgpack.unpack(ARGV[1]), 4
local requests = ARGV[3]
for from = 1, #requests, REQUEST_BYTES do
  local which, flags
  which, flags, entries, lease_ms = struct.unpack(REQUEST, requests, from)
  caps, sites = all_caps[which], ''
  if flags >= 64 then
    sites, next_sites = ARGV[next_sites], next_sites + 1
  end
  local record, document, of_rates = take(flags, 1), take(flags, 2), take(flags, 4)
  local of_leases, shared = take(flags, 8), take(flags, 16)
  local global = has(flags, 32) ~= 0 and GLOBAL or nil
  local ok, answer = pcall(decide, record, document, of_rates, of_leases, shared, global)
  answers[#answers + 1] = ok and answer or failed(answer)
end
if rates then rates.write_all() end
if leases then leases.write_all() end
return cmsgpack.pack(answers)
