-- Rates: {epoch, last charge, window, configured, {end, entries, end, entries, …}, window, configured, {…}, …}; ends
-- ascend. `configured` is the last charge at which the window was configured: it is charged on for its own length after
-- that, so that it still has those charges if it is configured again.

local function open_rates()
  local states = {}           -- by key; a state's [0], never written, says how it was changed
  local windows, open_windows -- opened when a window frees, comes or goes

  local function at(key)
    local state = states[key]
    if not state then
      local raw = call('GET', key)
      state = raw and cmsgpack.unpack(raw) or {now * 1000 + clock[2] % 1000, 0, nil, nil, nil}
      -- A foreign text, which msgpack reads as a number, fails this request alone; kept in `states`, it would fail all
      -- of them in write_all.
      if raw and (type(state) ~= 'table' or #state % 3 ~= 2) then error('WRONGTYPE: no rates') end
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

  -- The live buckets of a window, with the charges that it had missed.
  local function buckets_of(state, window)
    local i = 3
    while state[i] and state[i] ~= window do i = i + 3 end
    local buckets = state[i + 2]
    if not buckets then
      buckets = {}
      state[i], state[i + 1], state[i + 2] = window, 0, buckets
    elseif buckets[1] and now >= buckets[1] + window then
      if not windows then open_windows() end
      buckets = windows.live(buckets, window)
      state[i + 2] = buckets
    end
    if buckets[1] and buckets[#buckets - 1] > now + window / 20 + 1 then
      if not windows then open_windows() end
      buckets = windows.set_back(state, i)
    end
    if state[2] >= state[i + 1] + window then
      if not windows then open_windows() end
      windows.catch_up(state, i)
    end
    return buckets
  end

  local function note(noted, buckets, window)
    local n, ends = #noted, bucket_end(now, window / 20)
    noted[n + 1], noted[n + 2] = window, max(buckets[#buckets - 1] or 0, ends)
    return ends
  end

  function open_windows()
    windows = {}

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

    -- The clock went back: charges now ahead of it count from now, or they would count for longer than allowed.
    function windows.set_back(state, own)
      local buckets, kept, ahead = state[own + 2], {}, 0
      local ends = bucket_end(now, state[own] / 20)
      for j = 1, #buckets, 2 do
        if buckets[j] < ends then
          add(kept, buckets[j], buckets[j + 1])
        else
          ahead = ahead + buckets[j + 1]
        end
      end
      add(kept, ends, ahead)
      state[own + 2], state[0] = kept, state[0] or 'set back' -- written also where it is refused, as below
      return kept
    end

    -- Count in the window at `own` the charges that it missed, as another window has them that did not: the one with the
    -- finest buckets that is long enough, else the longest. None counts from later than `now`, and all in buckets of its
    -- own, so that no number of changes makes more of them.
    function windows.catch_up(state, own)
      local window, live = state[own], state[own + 2]
      local since = #live > 0 and state[own + 1] + window or 0
      local best, source = 0, {}
      for i = 3, #state, 3 do
        local other, complete = state[i], state[2] < state[i + 1] + state[i]
        local better = best < window and other > best or other >= window and other < best
        if complete and i ~= own and better then best, source = other, state[i + 2] end
      end
      for j = 1, #source, 2 do
        if source[j] > since and now < source[j] + math.min(window, best) then
          local ends = bucket_end(math.min(source[j], now) - 1, window / 20)
          add(live, max(live[#live - 1] or 0, ends), source[j + 1])
          state[own + 1] = state[2]
          state[0] = state[0] or 'caught up' -- written also where it is refused, or each try would take a later now
        end
      end
    end

    -- Milliseconds until buckets with `over` entries in all have freed.
    function windows.wait(buckets, over, window)
      for i = 1, #buckets, 2 do
        over = over - buckets[i + 1]
        if over <= 0 then return buckets[i] + window - now end
      end
      return 0
    end

    -- Note the buckets of the windows that were configured.
    function windows.note_others(state, limits, noted)
      local configured = {}
      for i = 2, #limits, 2 do configured[limits[i]] = true end
      for i = 3, #state, 3 do
        local window = state[i]
        if not configured[window] and now < state[i + 1] + window then
          state[i + 2] = windows.live(state[i + 2], window)
          note(noted, state[i + 2], window)
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

  end

  -- Append to `out` how each window configured stands: used, needed, wait, reset. Append to `noted` which bucket of
  -- which window takes the charge: the newest, also where the clock went back; first of the windows configured, then of
  -- those that were. Returns whether all caps fit, and for how long the charge counts.
  local function read(key, limits, entries, out, noted)
    local state, fits, lasts = at(key), true, 0
    noted[3] = state[1]
    for l = 1, #limits, 2 do
      local limit, window = limits[l], limits[l + 1]
      local buckets = buckets_of(state, window)
      local used, wait, reset = 0, 0, 0
      for i = 2, #buckets, 2 do
        used = used + buckets[i]
        if reset == 0 and used > 0 then reset = buckets[i - 1] + window - now end
      end
      local ends, n = note(noted, buckets, window), #out
      if reset == 0 and entries > 0 then reset = ends + window - now end
      if entries > 0 and used + entries > limit then
        if not windows then open_windows() end
        fits, wait = false, windows.wait(buckets, used + entries - limit, window)
      end
      out[n + 1], out[n + 2], out[n + 3], out[n + 4] = used, entries, wait, reset
      lasts = max(lasts, noted[#noted] + window - now)
    end
    if #state > 2 + #limits / 2 * 3 then
      if not windows then open_windows() end
      windows.note_others(state, limits, noted)
    end
    return fits, lasts
  end

  -- Charge the buckets noted.
  local function charge(key, limits, entries, noted)
    local state = at(key)
    local charged_at = max(state[2], now)
    for j = 5, #noted, 2 do
      local i = 3
      while state[i] ~= noted[j] do i = i + 3 end
      add(state[i + 2], noted[j + 1], entries)
      if j < 5 + #limits then state[i + 1] = charged_at end
    end
    state[2] = charged_at
    state[0] = 'charged'
  end

  local function write_all()
    for key, state in pairs(states) do
      if state[0] then
        local WINDOWS = 8     -- more than this many of a tenant: those of before go, the shortest first
        local last, dead, charged = 0, false, state[0] == 'charged'
        for i = 3, #state, 3 do
          local window, buckets = state[i], state[i + 2]
          local frees = (buckets[#buckets - 1] or -window) + window
          last = max(last, frees)
          dead = dead or now >= frees and state[2] >= state[i + 1] + window
        end
        state[0] = nil
        if dead or #state > 2 + 3 * WINDOWS then
          if not windows then open_windows() end
          windows.drop_dead(state)
          if charged then windows.drop_most(state, WINDOWS) end
        end
        keep(key, cmsgpack.pack(state), last)
      end
    end
  end

  return {at = at, read = read, charge = charge, write_all = write_all}
end
