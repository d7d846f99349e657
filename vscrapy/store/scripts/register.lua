#!lua
-- Enter a worker under a name that no live worker has.
--
-- KEYS[1]  workers (ZSET)
-- KEYS[2]  the worker's record (HASH)
-- ARGV[1]  name
-- ARGV[2]  token, unique to this agent
-- ARGV[3]  time to live without a heartbeat (ms)
-- ARGV[4]  life of the record (s)
-- ARGV[5+] field, value ... of the record
-- Returns 1; 0 when a live worker has the name.
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local deadline = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
if deadline and deadline > now_ms and redis.call('HGET', KEYS[2], 'token') ~= ARGV[2] then
    return 0
end
redis.call('ZADD', KEYS[1], now_ms + ARGV[3], ARGV[1])
redis.call('HSET', KEYS[2], 'token', ARGV[2], 'since_ms', now_ms, 'seen_ms', now_ms, unpack(ARGV, 5))
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
