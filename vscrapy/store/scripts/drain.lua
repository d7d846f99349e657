#!lua flags=allow-oom
-- Tell a worker to finish what it has in hand, and to end. It hears of it with its next heartbeat.
--
-- KEYS[1]  workers (ZSET)
-- KEYS[2]  the worker's record (HASH)
-- ARGV[1]  name
-- Returns 1: it is told; 2: it is ending already; 0: no live worker has the name.
-- include: clock
local deadline = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
local worker = redis.call('HMGET', KEYS[2], 'token', 'drain', 'draining')
if not deadline or deadline <= now_ms() or not worker[1] then
    return 0
end
if worker[2] == worker[1] or worker[3] == '1' then
    return 2
end
-- The token: who registers under this name later is not meant.
redis.call('HSET', KEYS[2], 'drain', worker[1])
return 1
