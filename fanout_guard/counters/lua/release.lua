-- End a batch of leases; or let them end at another time. A charge that never had entries in flight has no lease but
-- its record, which says until when it can be refunded.
--
-- KEYS    per request: record, leases and, unless the lease ends, refunded sites; the global leases are KEYS[1] where
--         ARGV[2] is 1
-- ARGV    [1] msgpack: the requests: {lease} ends it; with {lease, lease ms, exact} it ends that long from now, exactly
--             where exact is 1, else not before
--         [2] 1 if KEYS[1] holds the global leases
-- Output  per request 1; 0 where the lease was to end and is over, which it need not be in another slot; -1 where there
--         is none; {-1, error} where only this request failed

local GLOBAL = ARGV[2] == '1' and KEYS[1]
local leases = open_leases()
local expiries = {} -- by set and member

local function expiry_of(key, set, member)
  local known = expiries[set] or {}
  expiries[set] = known
  local expiry = known[member]
  if not expiry then
    expiry = tonumber(call('ZSCORE', key, member) or 0)
    known[member] = expiry
  end
  return expiry > now and expiry or nil
end

local function finish(set, member, entries)
  set.total, set.added = max(set.total - entries, 0), set.added or {}
  set.gone[#set.gone + 1] = member
  expiries[set][member] = 0
end

-- Whether there is something to refund and never was a lease; of a record, that is the entries charged, refunded and
-- leased. A repeat of an idempotency key charged none itself.
local function unleased(charge)
  return charge[4] == 0 and charge[5] ~= false and (charge[1] == 0 or charge[2] < charge[1])
end

local function settle(record_key, lease_key, refunded_key, lease, lease_ms, exact)
  local record = call('GET', record_key)
  if not record or record == 'x' then return -1 end
  local charge = cmsgpack.unpack(record)
  local entries, found = charge[4], lease_ms and (unleased(charge) and 1 or -1) or 0
  for _, key in ipairs({lease_key, GLOBAL or nil}) do
    local set, member = leases.at(key), member_of(key == GLOBAL and without_digests(lease) or lease, entries)
    local expiry = expiry_of(key, set, member)
    if expiry then
      found = 1
      if not lease_ms then
        finish(set, member, entries)
      else
        expiry = exact == 1 and now + lease_ms or max(expiry, now + lease_ms)
        expiries[set][member] = expiry
        leases.add(set, member, 0, expiry)
      end
    end
  end
  if found == 1 and lease_ms and lease_ms > call('PTTL', record_key) then
    call('PEXPIRE', record_key, lease_ms)
    call('PEXPIRE', refunded_key, lease_ms) -- else its sites could be refunded once more
  end
  return found
end

local answers, at = {}, GLOBAL and 2 or 1
for i, r in ipairs(cmsgpack.unpack(ARGV[1])) do
  local ok, answer = pcall(settle, KEYS[at], KEYS[at + 1], KEYS[at + 2], unpack(r))
  answers[i] = ok and answer or failed(answer)
  at = at + (r[2] and 3 or 2)
end
leases.write_all()
return answers
