-- Decide a batch of circulations: each charges every cap that applies, or nothing.
--
-- KEYS    per request, in this order, those that its flags name:
--         record, document, rates, leases, idempotency; the global leases are KEYS[1] where ARGV[2] is 1.
--         A record's key ends with the id of the decision, 16 characters; document and idempotency with their digests,
--         16 as well. They make up the lease.
-- ARGV    [1] caps, each packed as how many rates (1 byte), document cap, window ms, inflight cap, global cap (8 each),
--             and of each rate limit, window ms (8 each); -1 is no cap
--         [2] 1 if KEYS[1] holds the global leases
--         [3] the requests, each packed as which caps (2 bytes, from 1), flags (1), entries (8), lease ms (8)
--             flags: 1 record (without it: look only) | 2 document | 4 rates | 8 leases | 16 idempotency |
--             32 global, never without 8 | 64 it has sites
--         [4…] the sites of each request that has some
-- Output  msgpack: per request {status, expired leases, used, needed, wait ms, reset ms, …four per policy}
--         status: 0 refused, 1 charged (or would be), 2 charged before by this id, 3 undone before it came,
--                 4 repeats a counted idempotency key; {-1, error} where only this request failed

local documents, rates, leases -- opened when a request needs them: the script has those that its batch names

-- Append one policy's reading; whether the circulation is within its cap.
local function note(out, cap, used, needed, wait, reset)
  local n = #out
  out[n + 1], out[n + 2], out[n + 3], out[n + 4] = used, needed, wait, reset
  return needed == 0 or used + needed <= cap
end

-- Returns the answer, and what stands in the record where the script knows the id already.
local function decide(
  caps, entries, lease_ms, sites, record_key, document_key, rates_key, leases_key, shared_key, global_key
)
  local repeats = shared_key and call('GET', shared_key)
  local charged = repeats and 0 or entries
  local out, fits = {repeats and 4 or 1, 0, nil, nil, nil, nil}, true

  local view
  if document_key then
    documents = documents or open_documents()
    view = documents.read(document_key, caps[2], repeats and '' or sites)
    fits = note(out, caps[1], documents.reading(view, view.total - view.known, caps[1], caps[2]))
  end
  local noted = {charged, 0, 0, leases_key and entries or 0, nil, nil}
  local limits, lasts = caps[5], 0
  if rates_key then
    rates = rates or open_rates()
    local within
    within, lasts = rates.read(rates_key, limits, charged, out, noted)
    fits = fits and within
  end
  local own, global
  if leases_key then
    leases = leases or open_leases()
    own, global = leases.at(leases_key, true), global_key and leases.at(global_key, true)
    local look = not record_key
    if caps[3] >= 0 then
      fits = note(out, caps[3], leases.reading(own, entries, caps[3], look)) and fits
    end
    if global and caps[4] >= 0 then
      fits = note(out, caps[4], leases.reading(global, entries, caps[4], look)) and fits
    end
    if record_key then -- a look leaves the dead to the next decision, which counts them
      if #own.gone > own.told then
        out[2], own.told, own.added = #own.gone - own.told, #own.gone, own.added or {}
      end
      if global and global.gone[1] then global.added = global.added or {} end
    end
  end
  local record = not fits and record_key and call('GET', record_key)
  if view and (not fits or repeats or not record_key) and not record then
    documents.stay(document_key, view, caps[2])
  end
  if not fits then
    out[1] = 0
    return out, record
  end
  if not record_key then return out end

  local shared = repeats and cmsgpack.unpack(repeats)
  if shared then noted = {0, 0, noted[3], noted[4], shared[5]} end
  -- The record comes first: where it stands already, nothing is charged again.
  local kept_ms = max(RECORD_MS, lease_ms)
  local fresh = call('SET', record_key, cmsgpack.pack(noted), 'PX', kept_ms, 'NX')
  if not fresh then return out, call('GET', record_key) end
  if rates_key and not repeats then rates.charge(rates_key, limits, entries, noted) end

  local id = string.sub(record_key, -16)
  if view and not repeats then
    documents.charge(document_key, view, id, caps[2], kept_ms)
    lasts = max(lasts, bucket_end(now, caps[2] / 2) + caps[2] - now)
  end
  if own then
    local expiry = now + lease_ms
    local flags, document, key = 0, '', ''
    if document_key then flags, document = 2, string.sub(document_key, -16) end
    if shared_key then flags, key = flags + 4, string.sub(shared_key, -16) end
    leases.add(own, string.format('%d:%d%s%s%s', entries, flags, id, document, key), entries, expiry)
    if global then leases.add(global, string.format('%d:0%s', entries, id), entries, expiry) end
  end
  if shared then
    shared[1] = shared[1] + 1
    call('SET', shared_key, cmsgpack.pack(shared), 'PX', max(call('PTTL', shared_key), 1))
  elseif shared_key and lasts > 0 then
    noted[4] = string.sub(id, 1, 8)
    table.insert(noted, 1, 1)
    call('SET', shared_key, cmsgpack.pack(noted), 'PX', math.min(lasts, 86400000))
  end
  return out
end

-- Caps by their place: {document cap, window ms, inflight cap, global cap, {limit, window ms, …}}.
local all_caps, packed, at = {}, ARGV[1], 1
while at <= #packed do
  local count, document, window, inflight, everybody, limits
  count, document, window, inflight, everybody, at = struct.unpack('<Bi8i8i8i8', packed, at)
  limits = {nil, nil}
  for i = 1, 2 * count, 2 do
    limits[i], limits[i + 1], at = struct.unpack('<i8i8', packed, at)
  end
  all_caps[#all_caps + 1] = {document, window, inflight, everybody, limits}
end

local keys, has, everybody = KEYS, bit.band, ARGV[2] == '1'
local key, next_sites, answers = everybody and 2 or 1, 4, {}
packed = ARGV[3]
for from = 1, #packed, 19 do
  local which, flags, entries, lease_ms = struct.unpack('<I2BI8I8', packed, from)
  local record, document, of_rates, own, shared, sites
  if has(flags, 1) ~= 0 then record, key = keys[key], key + 1 end
  if has(flags, 2) ~= 0 then document, key = keys[key], key + 1 end
  if has(flags, 4) ~= 0 then of_rates, key = keys[key], key + 1 end
  if has(flags, 8) ~= 0 then own, key = keys[key], key + 1 end
  if has(flags, 16) ~= 0 then shared, key = keys[key], key + 1 end
  local global = everybody and has(flags, 32) ~= 0 and keys[1] or nil
  if flags >= 64 then sites, next_sites = ARGV[next_sites], next_sites + 1 end
  local ok, answer, known = pcall(
    decide, all_caps[which], entries, lease_ms, sites or '', record, document, of_rates, own, shared, global
  )
  if not ok then
    answer = failed(answer)
  elseif known then -- this id was charged, or undone before it came
    answer[1] = known == 'x' and 3 or 2
    for i = 4, #answer, 4 do answer[i], answer[i + 1] = 0, 0 end -- it needs nothing, and waits for nothing
  end
  answers[#answers + 1] = answer
end
if rates then rates.write_all() end
if leases then leases.write_all() end
return cmsgpack.pack(answers)
