-- Take a batch of charges back, whole or in part, each entry at most once.
--
-- KEYS    per request: record, refunded sites, document, rates, leases, idempotency (the last with a name that does
--         not exist where there is none); the global leases are KEYS[1] where ARGV[2] is 1
-- ARGV    [1] msgpack: the requests, each {lease, has sites, {entries per site}, undo}: without sites it is the whole
--             charge; undo 1 also keeps a decision that has not arrived yet from ever being applied
--         [2] 1 if KEYS[1] holds the global leases
--         [3…] the sites of each request that has some
-- Output  per request the entries taken back, or -1 where there is no such charge; {-1, error} where only this request
--         failed

local GLOBAL = ARGV[2] == '1' and KEYS[1]
local matching, rates = open_sites(), open_rates()

local function drop_sites(key, tag, sites)
  local raw = call('GET', key)
  if not raw then return end
  local texts, from, changed = {}, 1, false
  while from < #raw do
    local at, whose, count = struct.unpack(HEAD, raw, from)
    from = from + HEAD_BYTES
    local rest, left = {string.sub(raw, from, from + count * 8 - 1)}, count
    if whose == tag then
      changed = true
      rest, left = {}, 0
      if sites ~= '' then
        local gone = {}
        matching.add_to(gone, sites, 1, #sites / 8)
        left = count - matching.sift(raw, from, count, gone, {}, rest)
      end
    end
    if left > 0 then texts[#texts + 1] = struct.pack(HEAD, at, whose, left) .. table.concat(rest) end
    from = from + count * 8
  end
  if not changed then return end
  if #texts == 0 then
    call('DEL', key)
  else
    call('SET', key, table.concat(texts), 'KEEPTTL')
  end
end

-- `charge` has the pairs {window, bucket end, …} from `first` on.
local function drop_rates(key, epoch, charge, first, entries)
  if not charge[first] then return end
  local state = rates.at(key)
  if state[1] ~= epoch then return end -- lost or reset since: these are not our charges
  for i = 3, #state, 3 do
    for j = first, #charge, 2 do
      if charge[j] == state[i] then
        local buckets = state[i + 2]
        for b = 1, #buckets, 2 do
          if buckets[b] == charge[j + 1] then
            buckets[b + 1] = max(buckets[b + 1] - entries, 0)
            state[0] = 'refunded'
          end
        end
      end
    end
  end
end

local function lower_lease(key, lease, held, entries, whole)
  local leases = open_leases() -- anew: a request before this one may have lowered the same lease
  if key == GLOBAL then lease = without_digests(lease) end
  local set, member = leases.at(key), member_of(lease, held)
  local expiry = tonumber(call('ZSCORE', key, member) or 0)
  if expiry > now then
    local rest = whole and 0 or max(held - entries, 0)
    set.total, set.added = max(set.total - held + rest, 0), set.added or {}
    set.gone[#set.gone + 1] = member
    if rest > 0 then leases.add(set, member_of(lease, rest), 0, expiry) end
  end
  leases.write_all()
end

-- Of the sites asked for, those not refunded before, and how many entries they are.
local function first_time(key, sites, counts, ttl)
  local raw, fresh, entries = call('GET', key) or '', sites, 0
  if raw == '' then -- mostly: it is all of them, however long the list
    for i = 1, #sites / 8 do entries = entries + (counts[i] or 1) end
  else
    local before, texts = {}, {}
    matching.add_to(before, raw, 1, #raw / 8)
    for i = 1, #sites / 8 do
      local site = string.sub(sites, i * 8 - 7, i * 8)
      if not before[struct.unpack('<d', site)] then
        texts[#texts + 1] = site
        entries = entries + (counts[i] or 1)
      end
    end
    fresh = table.concat(texts)
  end
  if fresh ~= '' then call('SET', key, raw .. fresh, 'PX', ttl) end
  return fresh, entries
end

-- Without `wanted` sites it is the whole charge.
local function refund(
  lease, wanted, counts, undo, record_key, refunded_key, document_key, rates_key, lease_key, shared_key
)
  local raw = call('GET', record_key)
  if not raw or raw == 'x' then
    if undo == 1 and not raw then call('SET', record_key, 'x', 'PX', RECORD_MS) end
    return raw and 0 or -1
  end
  local whole, record = wanted == '', cmsgpack.unpack(raw)
  if record[5] == false then return 0 end -- refunded as a whole before
  local ttl = max(call('PTTL', record_key), 1)
  local charged, refunded, held = record[1], record[2], record[4]
  local tag = string.sub(lease, 2, 9)
  local shared = call('GET', shared_key)
  shared = shared and cmsgpack.unpack(shared)
  local holds = charged > 0 and tag or record[5]
  if shared and shared[5] ~= holds then shared = nil end -- the key stands for another charge by now
  local others = shared and shared[1] > 1
  if not whole and (others or refunded == charged) then return 0 end
  -- Only read so that a key of another type fails this request before anything of it is written.
  rates.at(rates_key)
  call('GET', document_key)
  for _, key in ipairs({lease_key, GLOBAL or nil}) do call('ZSCORE', key, '=') end
  local sites, entries = '', charged - refunded
  if not whole then
    local fresh
    sites, fresh = first_time(refunded_key, wanted, counts, ttl)
    entries = math.min(fresh, entries)
    if entries == 0 then return 0 end
  end
  local back, epoch, charge, first = entries, record[3], record, 5
  if shared and charged == 0 and not others then -- the last one to hold the charge that it repeats
    tag, back, epoch, charge, first = shared[5], shared[2], shared[4], shared, 6
  end
  if whole then
    record = {charged, charged, record[3], 0, false}
  else
    record[2], record[4] = refunded + entries, max(held - entries, 0)
  end
  -- The first write: where the server forbids a later one, that part is lost rather than given back twice.
  call('SET', record_key, cmsgpack.pack(record), 'PX', ttl)
  if held > 0 then
    for _, key in ipairs({lease_key, GLOBAL or nil}) do lower_lease(key, lease, held, entries, whole) end
  end
  if others then
    shared[1] = shared[1] - 1
    call('SET', shared_key, cmsgpack.pack(shared), 'KEEPTTL')
    return 0
  end
  if back > 0 then drop_rates(rates_key, epoch, charge, first, back) end
  drop_sites(document_key, tag, sites)
  if shared then call('DEL', shared_key) end
  return back
end

local answers, at, next_sites = {}, GLOBAL and 2 or 1, 3
for i, r in ipairs(cmsgpack.unpack(ARGV[1])) do
  local lease, has_sites, counts, undo = unpack(r)
  local wanted = ''
  if has_sites == 1 then wanted, next_sites = ARGV[next_sites], next_sites + 1 end
  local ok, answer = pcall(refund, lease, wanted, counts, undo, unpack(KEYS, at, at + 5))
  answers[i] = ok and answer or failed(answer)
  at = at + 6
end
rates.write_all()
return answers
