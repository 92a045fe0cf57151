-- Sites: what the sections of a document and a circulation have in common. A site is 8 bytes, read as a number.

local HEAD, HEAD_BYTES = '<I6c8I4', 18 -- of a section: when, tag of who added its sites, count

local function open_sites()
  local AT_ONCE = 128         -- sites read or packed by one call: each is a value on Lua's stack
  local SAMPLES = 12          -- sites of a circulation that are looked up to find those that follow alike
  local formats = {}

  local function format_of(count)
    local format = formats[count]
    if not format then
      format = '<' .. string.rep('d', count)
      formats[count] = format
    end
    return format
  end

  local function values_of(text, from, count)
    return {struct.unpack(format_of(count), text, from)}
  end

  -- Up to AT_ONCE sites as they are kept.
  local function packed(values, count)
    return struct.pack(format_of(count), unpack(values, 1, count))
  end

  -- Put the sites of a text into a set.
  local function add_to(set, text, from, count)
    while count > 0 do
      local n = math.min(count, AT_ONCE)
      local values = values_of(text, from, n)
      for i = 1, n do set[values[i]] = true end
      from, count = from + n * 8, count - n
    end
  end

  -- Move the sites that are in `set` from there to `again`, the others to `rest`, as texts; how many were moved.
  local function sift(text, from, count, set, again, rest)
    local moved, hit = 0, {}
    while count > 0 do
      local n = math.min(count, AT_ONCE)
      local values, kept, hits = values_of(text, from, n), 0, 0
      for i = 1, n do
        local site = values[i]
        if set[site] then
          set[site] = nil
          hits = hits + 1
          hit[hits] = site
        else
          kept = kept + 1
          values[kept] = site
        end
      end
      if hits > 0 then again[#again + 1] = packed(hit, hits) end
      if kept > 0 then
        rest[#rest + 1] = hits > 0 and packed(values, kept) or string.sub(text, from, from + n * 8 - 1)
      end
      from, count, moved = from + n * 8, count - n, moved + hits
    end
    return moved
  end

  -- Take the sites of a text out of `set`, as `sift` does, but note neither them nor the rest; how many there were.
  local function take(text, from, count, set)
    local taken = 0
    while count > 0 do
      local n = math.min(count, AT_ONCE)
      local values = values_of(text, from, n)
      for i = 1, n do
        local site = values[i]
        if set[site] then
          set[site] = nil
          taken = taken + 1
        end
      end
      from, count = from + n * 8, count - n
    end
    return taken
  end

  -- Where a site stands, and in which section.
  local function locate(view, site)
    local at = string.find(view.raw, site, 1, true)
    while at do
      for _, s in ipairs(view) do
        local offset = at - s.from
        if offset >= 0 and offset < s.count * 8 and offset % 8 == 0 then return at, s end
      end
      at = string.find(view.raw, site, at + 1, true)
    end
  end

  -- How many sites, at most `most`, are alike from two places on, or back from them where `way` is -1.
  local function alike(one, i, other, j, most, way)
    local n, step, growing = 0, 4, true
    while step >= 1 do
      local first = way > 0 and n or -n - step
      local last = (first + step) * 8 - 1
      if n + step <= most and
        string.sub(one, i + first * 8, i + last) == string.sub(other, j + first * 8, j + last) then
        n = n + step
        if growing then step = step * 2 end
      else
        step, growing = math.floor(step / 2), false
      end
    end
    return n
  end

  -- Lists mostly come again in their order, and equal texts cost next to nothing to compare. Finds such runs, notes
  -- them in their sections and takes those that leave theirs into `again`; returns the gaps between them,
  -- {place, count, …}, and whether it is known that the sections have none of those.
  local function match_runs(view, sites, again)
    local raw, total = view.raw, #sites / 8
    local step = max(math.floor(total / SAMPLES), 1)
    local gaps, past, next_one = {}, 0, 0 -- counted from 0: the sites done with, and the next to look up
    while next_one < total do
      local mine = next_one * 8 + 1
      local theirs, s = locate(view, string.sub(sites, mine, mine + 7))
      next_one = next_one + step
      if s then
        local before = (theirs - s.from) / 8
        local back = alike(sites, mine, raw, theirs, math.min((mine - 1) / 8 - past, before), -1)
        local count = back + alike(sites, mine, raw, theirs, math.min(total - (mine - 1) / 8, s.count - before), 1)
        local first = (mine - 1) / 8 - back
        if first > past then gaps[#gaps + 1], gaps[#gaps + 2] = past * 8 + 1, first - past end
        if not s.stays then again[#again + 1] = string.sub(sites, first * 8 + 1, (first + count) * 8) end
        s.overlap = s.overlap + count
        s.runs = s.runs or {}
        s.runs[#s.runs + 1] = {from = theirs - back * 8, count = count}
        past = first + count
        next_one = max(next_one, past)
      end
    end
    if past < total then gaps[#gaps + 1], gaps[#gaps + 2] = past * 8 + 1, total - past end
    return gaps, step == 1
  end

  -- What of a section is not in its runs: {place, count, …}.
  local function pieces_of(s)
    local pieces, from = {}, s.from
    if not s.runs then return {from, s.count} end
    local runs = s.runs
    table.sort(runs, function(a, b) return a.from < b.from end)
    runs[#runs + 1] = {from = s.from + s.count * 8, count = 0}
    for _, run in ipairs(runs) do
      if run.from > from then pieces[#pieces + 1], pieces[#pieces + 2] = from, (run.from - from) / 8 end
      from = run.from + run.count * 8
    end
    return pieces
  end

  local function texts_of(text, pieces)
    local texts = {}
    for i = 1, #pieces, 2 do
      texts[#texts + 1] = string.sub(text, pieces[i], pieces[i] + pieces[i + 1] * 8 - 1)
    end
    return texts
  end

  -- Look every other site up; what leaves its section moves to `again`. Returns the texts of those that none has, in
  -- their order: what comes again in it is found in runs.
  local function match_rest(view, sites, gaps, again)
    local set, missing = {}, 0
    for i = 1, #gaps, 2 do
      add_to(set, sites, gaps[i], gaps[i + 1])
      missing = missing + gaps[i + 1]
    end
    local unknown = missing
    for _, s in ipairs(view) do
      local moved, rest = 0, {}
      for i = 1, #s.pieces, 2 do
        local at, count = s.pieces[i], s.pieces[i + 1]
        moved = moved + (s.stays and take(view.raw, at, count, set) or sift(view.raw, at, count, set, again, rest))
      end
      if moved > 0 then s.overlap, s.rest, unknown = s.overlap + moved, rest, unknown - moved end
    end
    if unknown == missing then return texts_of(sites, gaps) end
    local texts = {}
    if unknown == 0 then return texts end
    for i = 1, #gaps, 2 do sift(sites, gaps[i], gaps[i + 1], set, texts, {}) end
    return texts
  end

  -- Note in the view which sites of a circulation the sections hold: how many are known, the texts of those that leave
  -- their sections and of the fresh ones, and each section's overlap.
  local function compare(view, sites)
    local again = {}
    local gaps, complete = match_runs(view, sites, again)
    for _, s in ipairs(view) do
      s.pieces = pieces_of(s)
      if s.runs then s.rest = texts_of(view.raw, s.pieces) end
    end
    local fresh = (complete or #gaps == 0) and texts_of(sites, gaps) or match_rest(view, sites, gaps, again)
    local staying = 0
    for _, s in ipairs(view) do
      view.known = view.known + s.overlap
      if s.stays then staying = staying + s.overlap end
    end
    if view.known == view.total and staying == 0 then again = {sites} end -- in their order
    view.staying, view.again, view.fresh = staying, again, fresh
  end

  return {compare = compare, add_to = add_to, sift = sift}
end
