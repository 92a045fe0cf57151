-- Rates: {epoch, last charge, window, configured, {end, entries, end, entries, …}, window, configured, {…}, …}; ends
-- ascend. `configured` is the last charge at which the window was configured: charges go on counting in it for its own
-- length after that, so that it knows them where it comes back.

local function open_rates()
  local states = {}           -- by key; a state's [0], never written, says how it was changed
  local windows

  local function at(key)
    local state = states[key]
    if not state then
      local raw = call('GET', key)
      state = raw and cmsgpack.unpack(raw) or {now * 1000 + clock[2] % 1000, 0, nil, nil, nil}
      states[key] = state
    end
    return state
  end

  local function add(buckets, ends, entries)
    local n = #buckets
    if n > 0 and buckets[n - 1] == ends then
      buckets[n] = buckets[n] + entries
    else
      buckets[n + 1], buckets[n + 2] = ends, entries
    end
  end

  -- What few calls meet: windows that free, come and go.
  local function open_windows()
    local windows = {}

    -- The buckets that still count.
    function windows.live(buckets, window)
      local live = {}
      for j = 1, #buckets, 2 do
        if now < buckets[j] + window then
          live[#live + 1] = buckets[j]
          live[#live + 1] = buckets[j + 1]
        end
      end
      return live
    end

    -- Count in the window at `own` what has passed it by, as far as the longest other window knows it: as if at `now` at
    -- the latest, and in buckets of its own, so that no number of changes makes more of them.
    function windows.catch_up(state, own)
      local window, live = state[own], state[own + 2]
      local since = #live > 0 and state[own + 1] + window or 0
      local longest, source = 0, {}
      for i = 3, #state, 3 do
        local complete = state[2] < state[i + 1] + state[i]
        if complete and i ~= own and state[i] > longest then longest, source = state[i], state[i + 2] end
      end
      for j = 1, #source, 2 do
        if source[j] > since and now < source[j] + math.min(window, longest) then
          local ends = bucket_end(math.min(source[j], now) - 1, window / 20)
          add(live, max(live[#live - 1] or 0, ends), source[j + 1])
          state[own + 1] = state[2]
          state[0] = state[0] or 'caught up' -- written also where it is refused: a new "now" would never pass
        end
      end
    end

    local function drop(state, i)
      for _ = 1, 3 do table.remove(state, i) end
    end

    -- Drop the windows that count nothing and have missed charges.
    function windows.drop_dead(state)
      for i = #state - 2, 3, -3 do
        local window, buckets = state[i], state[i + 2]
        local counts = buckets[1] and now < buckets[#buckets - 1] + window
        if not counts and state[2] >= state[i + 1] + window then drop(state, i) end
      end
    end

    -- Drop the shortest windows that are not configured any more, down to `most` in all.
    function windows.drop_most(state, most)
      while #state > 2 + 3 * most do
        local shortest
        for i = 3, #state, 3 do
          if state[i + 1] < state[2] and not (shortest and state[i] > state[shortest]) then shortest = i end
        end
        if not shortest then return end
        drop(state, shortest)
      end
    end

    return windows
  end

  -- The live buckets of a window, which knows every charge from then on, and its place in the state.
  local function buckets_of(state, window)
    local i = 3
    while state[i] and state[i] ~= window do i = i + 3 end
    local buckets = state[i + 2]
    if not buckets then
      buckets = {}
      state[i], state[i + 1], state[i + 2] = window, 0, buckets
    elseif buckets[1] and now >= buckets[1] + window then
      windows = windows or open_windows()
      buckets = windows.live(buckets, window)
      state[i + 2] = buckets
    end
    if state[2] >= state[i + 1] + window then
      windows = windows or open_windows()
      windows.catch_up(state, i)
    end
    return buckets, i
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

  -- Note which bucket of which window a charge goes to, from noted[6] on: the newest, also where the clock went back.
  -- First of the windows configured, then of those that were; returns how long the former count.
  local function note(state, noted, limits)
    local n, lasts = 5, 0
    for i = 2, #limits, 2 do
      local window = limits[i]
      local buckets = buckets_of(state, window)
      local ends = max(buckets[#buckets - 1] or 0, bucket_end(now, window / 20))
      lasts = max(lasts, ends + window - now)
      noted[n + 1], noted[n + 2] = window, ends
      n = n + 2
    end
    if #state == 2 + #limits / 2 * 3 then return lasts end
    local configured = {}
    for i = 2, #limits, 2 do configured[limits[i]] = true end
    for i = 3, #state, 3 do
      local window = state[i]
      if not configured[window] and now < state[i + 1] + window then
        local buckets = buckets_of(state, window)
        noted[n + 1], noted[n + 2] = window, max(buckets[#buckets - 1] or 0, bucket_end(now, window / 20))
        n = n + 2
      end
    end
    return lasts
  end

  -- Charge the buckets noted.
  local function charge(state, noted, limits, entries)
    local charged_at = max(state[2], now)
    for j = 6, #noted, 2 do
      local i = 3
      while state[i] ~= noted[j] do i = i + 3 end
      add(state[i + 2], noted[j + 1], entries)
      if j < 6 + #limits then state[i + 1] = charged_at end
    end
    state[2] = charged_at
    state[0] = 'charged'
  end

  local function write(key, state)
    local WINDOWS = 8 -- more than this many of a tenant: those of before go, the shortest first
    local last, dead = 0, false
    for i = 3, #state, 3 do
      local window, buckets = state[i], state[i + 2]
      local frees = (buckets[#buckets - 1] or -window) + window
      last = max(last, frees)
      dead = dead or now >= frees and state[2] >= state[i + 1] + window
    end
    local charged = state[0] == 'charged'
    state[0] = nil
    if dead or #state > 2 + 3 * WINDOWS then
      windows = windows or open_windows()
      windows.drop_dead(state)
      if charged then windows.drop_most(state, WINDOWS) end
    end
    keep(key, cmsgpack.pack(state), last)
  end

  local function write_all()
    for key, state in pairs(states) do
      if state[0] then write(key, state) end
    end
  end

  return {at = at, reading = reading, note = note, charge = charge, write_all = write_all}
end
