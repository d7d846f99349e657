#!lua flags=allow-oom
-- Home has written the feeds of a detached task.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  processes (HASH)
-- ARGV[1]  process
-- Returns 1; 0 when the process is not home any more (nothing is noted). Calling it again does no harm.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 or redis.call('HGET', KEYS[1], 'state') ~= 'storing' then
    return 0
end
redis.call('HSET', KEYS[1], 'feeds', 'written')
return 1
