-- End a batch of leases; or let them end at another time.
--
-- KEYS    per request: record, leases; the global leases are KEYS[1] where ARGV[2] is 1
-- ARGV    [1] msgpack: {requests}, each {id, lease ms, exact}: lease ms -1 ends the lease; otherwise it ends that
--             long from now, exactly where exact is 1, else not before
--         [2] 1 if KEYS[1] holds the global leases
-- Output  per request 1, or 0 where there was no live lease; {-1, error} where only this request failed

local GLOBAL = ARGV[2] == '1' and KEYS[1]
local sets = {}

local function leases_at(key)
  local leases = sets[key]
  if not leases then
    leases = read_leases(key)
    leases.expiry = {}
    sets[key] = leases
  end
  return leases
end

local function expiry_of(key, leases, member)
  local expiry = leases.expiry[member]
  if expiry == nil then
    expiry = tonumber(ask('ZSCORE', key, member) or 0)
    leases.expiry[member] = expiry
  end
  return expiry > now and expiry or nil
end

local function finish(leases, member, entries)
  leases.total = max(leases.total - entries, 0)
  leases.dead[#leases.dead + 1] = member
  leases.expiry[member] = 0
  leases.changed = true
end

local function move(leases, member, expiry)
  leases.expiry[member] = expiry
  leases.last = max(leases.last, expiry)
  leases.add[#leases.add + 1] = expiry
  leases.add[#leases.add + 1] = member
  leases.changed = true
end

local function settle(r, record_key, lease_key)
  local record = ask('GET', record_key)
  if not record or record == 'x' then return 0 end
  local entries, found = cmsgpack.unpack(record)[5], 0
  local member = member_of(r[1], entries)
  for _, key in ipairs({lease_key, GLOBAL or nil}) do
    local leases = leases_at(key)
    local expiry = expiry_of(key, leases, member)
    if expiry then
      found = 1
      if r[2] < 0 then
        finish(leases, member, entries)
      else
        move(leases, member, r[3] == 1 and now + r[2] or max(expiry, now + r[2]))
      end
    end
  end
  if found == 1 and r[2] > redis.call('PTTL', record_key) then redis.call('PEXPIRE', record_key, r[2]) end
  return found
end

local answers, at = {}, GLOBAL and 2 or 1
for i, r in ipairs(requests(0)) do
  local ok, answer = pcall(settle, r, KEYS[at], KEYS[at + 1])
  answers[i] = ok and answer or failed(answer)
  at = at + 2
end
for key, leases in pairs(sets) do
  if leases.changed then write_leases(key, leases) end
end
return answers
