-- Members of the sets of leases, for what finds a lease again; decide.lua makes them as these do.

local function member_of(lease, entries)
  return string.format('%d:%s', entries, lease)
end

-- How everybody's leases have it.
local function without_digests(lease)
  return '0' .. string.sub(lease, 2, 17)
end
