#!lua flags=allow-oom
-- A task's items have been fetched up to here; with a take they are dropped, and their room is free.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  items (STREAM)
-- ARGV[1]  id of the last entry that was fetched
-- ARGV[2]  '1': drop what was fetched
-- Returns 1; 0 when there is no such task.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
redis.call('HSET', KEYS[1], 'fetched', ARGV[1])
local last = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])[1]
if ARGV[2] == '1' and last then
    redis.call('HSET', KEYS[1], 'items_dropped_bytes', last[2][6] or 0)
    redis.call('XTRIM', KEYS[2], 'MINID', ARGV[1])
    redis.call('XDEL', KEYS[2], ARGV[1])
end
return 1
