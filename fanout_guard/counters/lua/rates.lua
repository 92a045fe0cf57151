-- Rates: {epoch, last charge, window, configured, {end, entries, end, entries, …}, window, configured, {…}, …}; ends
-- ascend. `configured` is the last charge at which the window was configured: charges go on counting in it for its own
-- length after that, so that it knows them where it comes back.

local WINDOWS = 8             -- more than this many rate windows of a tenant: those of before go, the shortest first

local function open_rates()
  local states = {}           -- by key
  local changed = {}          -- by state: whether it was charged, or only caught up

  local function read(key)
    local raw = call('GET', key)
    return raw and cmsgpack.unpack(raw) or {now * 1000 + clock[2] % 1000, 0}
  end

  local function at(key)
    local state = states[key]
    if not state then
      state = read(key)
      states[key] = state
    end
    return state
  end

  local function add_to_bucket(buckets, ends, entries)
    local n = #buckets
    if n > 0 and buckets[n - 1] == ends then
      buckets[n] = buckets[n] + entries
    else
      buckets[n + 1], buckets[n + 2] = ends, entries
    end
  end

  -- Count in the window at `own` what has passed it by, as far as the longest other window knows it: as if at `now` at
  -- the latest, and in buckets of its own, so that no number of changes makes more of them.
  local function catch_up(state, own)
    local window, live = state[own], state[own + 2]
    local since = #live > 0 and state[own + 1] + window or 0
    local longest, source = 0, {}
    for i = 3, #state, 3 do
      local complete = state[2] < state[i + 1] + state[i]
      if complete and i ~= own and state[i] > longest then longest, source = state[i], state[i + 2] end
    end
    for j = 1, #source, 2 do
      if source[j] > since and now < source[j] + min(window, longest) then
        local ends = bucket_end(min(source[j], now) - 1, window / 20)
        add_to_bucket(live, max(live[#live - 1] or 0, ends), source[j + 1])
        state[own + 1] = state[2]
        changed[state] = changed[state] or 'caught up' -- also where it is refused: a new "now" would never pass
      end
    end
  end

  local function live_of(buckets, window)
    local live = {}
    for j = 1, #buckets, 2 do
      if now < buckets[j] + window then
        live[#live + 1] = buckets[j]
        live[#live + 1] = buckets[j + 1]
      end
    end
    return live
  end

  local function index_of(state, window)
    local i = 3
    while state[i] and state[i] ~= window do i = i + 3 end
    return i
  end

  -- The live buckets of one window, which knows every charge from then on.
  local function buckets_of(state, window)
    local i = index_of(state, window)
    local buckets = state[i + 2]
    if not buckets then
      buckets = {}
      state[i], state[i + 1], state[i + 2] = window, 0, buckets
    elseif buckets[1] and now >= buckets[1] + window then
      buckets = live_of(buckets, window)
      state[i + 2] = buckets
    end
    if state[2] >= state[i + 1] + window then catch_up(state, i) end
    return buckets
  end

  -- How one window stands: used, needed, wait, reset.
  local function reading(state, entries, limit, window)
    local buckets = buckets_of(state, window)
    local used, wait, reset = 0, 0, 0
    for i = 2, #buckets, 2 do
      used = used + buckets[i]
      if reset == 0 and used > 0 then reset = buckets[i - 1] + window - now end
    end
    if entries == 0 then return used, 0, 0, reset end
    if reset == 0 then reset = bucket_end(now, window / 20) + window - now end
    local over = used + entries - limit
    if over > 0 then
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

  -- The end of the bucket that takes entries now: the newest, also where the clock went back.
  local function open_bucket(buckets, window)
    return max(buckets[#buckets - 1] or 0, bucket_end(now, window / 20))
  end

  -- Append the bucket of each window to charge: of those configured, and of those that were; how long the former count.
  local function note(noted, state, limits)
    local lasts = 0
    for i = 2, #limits, 2 do
      local window = limits[i]
      local ends = open_bucket(state[index_of(state, window) + 2], window) -- there since it was read
      lasts = max(lasts, ends + window - now)
      noted[#noted + 1] = window
      noted[#noted + 1] = ends
    end
    if #state == 2 + #limits / 2 * 3 then return lasts end
    local configured = {}
    for i = 2, #limits, 2 do configured[limits[i]] = true end
    for i = 3, #state, 3 do
      local window = state[i]
      if not configured[window] and now < state[i + 1] + window then
        noted[#noted + 1] = window
        noted[#noted + 1] = open_bucket(buckets_of(state, window), window)
      end
    end
    return lasts
  end

  -- Charge the buckets noted, the first of them those of the `configured` windows that are so now.
  local function charge(state, noted, configured, entries)
    state[2] = max(state[2], now)
    for j = 6, #noted, 2 do
      local i = index_of(state, noted[j])
      add_to_bucket(state[i + 2], noted[j + 1], entries)
      if j < 6 + 2 * configured then state[i + 1] = state[2] end
    end
    changed[state] = 'charged'
  end

  local function drop(state, i)
    for _ = 1, 3 do table.remove(state, i) end
  end

  -- Drop the shortest windows that are not configured any more, down to so many in all.
  local function drop_windows(state)
    while #state > 2 + 3 * WINDOWS do
      local shortest
      for i = 3, #state, 3 do
        if state[i + 1] < state[2] and not (shortest and state[i] > state[shortest]) then shortest = i end
      end
      if not shortest then return end
      drop(state, shortest)
    end
  end

  -- Leaves out the windows that count nothing and have missed charges.
  local function write(key, state, charged)
    local last = 0
    for i = #state - 2, 3, -3 do
      local window, buckets = state[i], state[i + 2]
      local frees = (buckets[#buckets - 1] or -window) + window
      if now < frees or state[2] < state[i + 1] + window then
        last = max(last, frees)
      else
        drop(state, i)
      end
    end
    if charged and #state > 2 + 3 * WINDOWS then drop_windows(state) end
    keep(key, cmsgpack.pack(state), last)
  end

  local function write_all()
    for key, state in pairs(states) do
      local how = changed[state]
      if how then write(key, state, how == 'charged') end
    end
  end

  return {read = read, at = at, reading = reading, note = note, charge = charge, write = write, write_all = write_all}
end
