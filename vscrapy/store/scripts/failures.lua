#!lua flags=no-writes
-- The requests of a task that failed for good, without what would be put back.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  requests that failed for good (STREAM)
-- Returns {dropped, entries}: how many older ones are not kept; for each entry its number, the signed failure, and
-- 1 when it can be put back: number, failure, 1, number, ...
local entries = {}
for _, found in ipairs(redis.call('XRANGE', KEYS[2], '-', '+')) do
    entries[#entries + 1] = string.match(found[1], '^%d+')
    entries[#entries + 1] = found[2][2]
    entries[#entries + 1] = #found[2] > 2 and 1 or 0
end
return {tonumber(redis.call('HGET', KEYS[1], 'failures_dropped') or 0), entries}
