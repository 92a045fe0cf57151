-- Documents: sections, each a head {when, tag of who added the sites, count} and the sites, 8 bytes each; no site is in
-- two of them.

local function open_documents()
  local SHARED = '\0\0\0\0\0\0\0\0' -- the tag of sites that more than one circulation has counted
  local matching              -- opened when there are lists to compare

  -- Note in the view which of its sites the sections hold: how many are known and stay, the texts of those that leave
  -- their sections and of the fresh ones, and each section's overlap.
  local function compare(view, ends)
    local sites = view.sites
    for i = 1, #view do
      local s = view[i]
      s.stays = s.tag == SHARED and s.ends == ends -- where its sites would move to
    end
    for i = 1, #view do
      local s = view[i]
      if s.count == view.total and string.sub(view.raw, s.from, s.from + #sites - 1) == sites then
        view.known, view.staying, view.again, s.overlap = s.count, s.stays and s.count or 0, {sites}, s.count
        return
      end
    end
    matching = matching or open_sites()
    matching.compare(view, sites)
  end

  -- The sections that still count, beside the sites of a circulation.
  local function read(key, window, sites)
    local raw = call('GET', key) or ''
    local view = {
      raw = raw, sites = sites, total = #sites / 8, used = 0, known = 0, staying = 0, again = nil,
      fresh = nil, back = false,
    }
    local from = 1
    while from < #raw do
      local at, tag, count = struct.unpack(HEAD, raw, from)
      if at > now then at, view.back = now, true end -- the clock went back
      local ends = bucket_end(at, window / 2)
      from = from + HEAD_BYTES
      if now < ends + window then
        view[#view + 1] = {at = at, ends = ends, tag = tag, count = count, from = from, overlap = 0}
        view.used = view.used + count
      end
      from = from + count * 8
    end
    if view[1] and sites ~= '' then compare(view, bucket_end(now, window / 2)) end
    return view
  end

  -- How the document stands: used, needed, wait, reset.
  local function reading(view, needed, cap, window)
    local wait, reset, used = 0, 0, view.used
    for i = 1, #view do -- known sites count from now on: a section without others gives no room when it would have
      local s, frees = view[i], view[i].ends + window - now
      if s.overlap < s.count and (reset == 0 or frees < reset) then reset = frees end
    end
    if reset == 0 and view.total > 0 then reset = bucket_end(now, window / 2) + window - now end
    if needed == 0 then return used, 0, 0, reset end
    if used + needed > cap then -- until enough sections have freed for the circulation to fit
      table.sort(view, function(a, b) return a.ends < b.ends end)
      local left, missing = used, needed
      for _, s in ipairs(view) do
        left, missing = left - s.count, missing + s.overlap
        if left + missing <= cap then
          wait = s.ends + window - now
          break
        end
      end
    end
    return used, needed, wait, reset
  end

  -- What is left of a document's sections, and how they are written.
  local function open_sections()
    local sections = {}

    -- Those that stay as they are, and what is left of those that shared some sites with the circulation.
    function sections.remaining(view)
      local kept = {}
      for _, s in ipairs(view) do
        if s.stays and s.overlap > 0 then s.at, s.overlap, s.rest = now, 0, nil end
        if s.overlap < s.count then
          s.texts = s.rest or {string.sub(view.raw, s.from, s.from + s.count * 8 - 1)}
          s.count = s.count - s.overlap
          kept[#kept + 1] = s
        end
      end
      return kept
    end

    -- Join the shared sections that free together; where there are too many, all counted before `before` become shared,
    -- and where there are far too many, the older half: each costs every decision some microseconds.
    function sections.fold(found, before)
      local MANY, MOST = 32, 512 -- sections of a document
      local crowded, kept, shared = #found > MANY, {}, {}
      if #found > MOST then before = max(before, found[MOST / 2].at) end
      for _, s in ipairs(found) do
        if crowded and s.at < before then s.tag = SHARED end
        local same = s.tag == SHARED and shared[s.ends]
        if same then
          same.count, same.at = same.count + s.count, max(same.at, s.at)
          for _, text in ipairs(s.texts) do same.texts[#same.texts + 1] = text end
        else
          kept[#kept + 1] = s
          if s.tag == SHARED then shared[s.ends] = s end
        end
      end
      return kept
    end

    function sections.write(key, kept, window)
      local texts, last = {}, 0
      for _, s in ipairs(kept) do
        texts[#texts + 1] = struct.pack(HEAD, s.at, s.tag, s.count)
        for _, text in ipairs(s.texts) do texts[#texts + 1] = text end
        last = max(last, s.ends + window)
      end
      keep(key, table.concat(texts), last)
    end

    return sections
  end

  -- Note in the sections that count from now, where they are kept, that they do.
  local function stamp(key, view)
    for _, s in ipairs(view) do
      if s.at == now then call('SETRANGE', key, s.from - HEAD_BYTES - 1, struct.pack('<I6', now)) end
    end
  end

  -- Count the sites now: known ones move to this generation as shared, new ones get this decision's tag. They can be
  -- refunded for `refund_ms`.
  local function charge(key, view, id, window, refund_ms)
    local ends, tag = bucket_end(now, window / 2), string.sub(id, 1, 8)
    if #view == 0 then
      keep(key, struct.pack(HEAD, now, tag, view.total) .. view.sites, ends + window)
    elseif view.staying == view.total then
      for _, s in ipairs(view) do
        if s.overlap > 0 then s.at = now end
      end
      stamp(key, view)
      call('PEXPIRE', key, ends + window - now)
    else
      local sections = open_sections()
      local kept, moving, fresh = sections.remaining(view), view.known - view.staying, view.total - view.known
      if moving > 0 then
        kept[#kept + 1] = {at = now, ends = ends, tag = SHARED, count = moving, texts = view.again}
      end
      if fresh > 0 then
        kept[#kept + 1] = {at = now, ends = ends, tag = tag, count = fresh, texts = view.fresh}
      end
      sections.write(key, sections.fold(kept, now - refund_ms), window)
    end
  end

  -- What a refusal, a repeat or a look does: it charges nothing, but where the window has grown, the sites must be kept
  -- for as long as they count now.
  local function stay(key, view, window)
    local last = 0
    if view.back then stamp(key, view) end -- or it would count from a later now each time
    for _, s in ipairs(view) do last = max(last, s.ends + window) end
    if last > 0 and call('PTTL', key) < last - now then call('PEXPIRE', key, last - now) end
  end

  return {read = read, reading = reading, charge = charge, stay = stay}
end
