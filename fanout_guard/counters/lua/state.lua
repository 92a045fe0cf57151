-- What every script shares: time, errors, and how long a value is kept.
-- A script is this text, then the kinds of state that it touches, then one operation. Reads are protected, so that a
-- key of the wrong type fails only the request that met it; writes come last and only on keys that were read, so that
-- none of them can fail half-way.
-- A server makes every function anew in each call, with a cell for every local that it shares with others: half of what
-- a small call costs. So a kind of state is opened only where a call needs it, and what is rarely needed only then.
--
-- What stands at the key of a record, msgpack; the pairs name the bucket of each rate window that took the charge:
--   a charge             {entries charged, and refunded, epoch of the rates, entries leased, window, bucket end, …}
--   a repeat of a charge {0, 0, epoch of the rates, entries leased, tag of the charge}
--   refunded as a whole  {entries charged, the same, epoch of the rates, 0, false}
--   undone before it came: the text x
-- At an idempotency key: {how many decisions hold the charge, entries charged, 0, epoch of the rates, tag of the
-- charge, window, bucket end, …}. A charge's tag, which a document's sections have too, is the first half of its id.

if not redis.REDIS_VERSION_NUM then redis.replicate_commands() end -- before 7.0, writes after TIME need it

local RECORD_MS = 60000       -- how long a decision is remembered, unless its lease lives longer
local call, max = redis.call, math.max

local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- The answer to a request that met an error, in a script's own words where it was the script's.
local function failed(problem)
  return {-1, type(problem) == 'table' and problem.err or tostring(problem)}
end

-- The end of the bucket of `width` ms that holds `at`: in whole ms, so that a wait is never told too short.
local function bucket_end(at, width)
  return math.ceil((math.floor(at / width) + 1) * width)
end

-- Keep a value until `last`, when nothing in it counts any more.
local function keep(key, value, last)
  if last > now then
    call('SET', key, value, 'PX', last - now)
  else
    call('DEL', key)
  end
end
