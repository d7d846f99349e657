#!lua flags=allow-oom
-- A worker's heartbeat; it learns which workers are past their deadline.
--
-- When no heartbeat at all came for a while, Redis was away, not the workers: nobody is reaped until all had
-- time to come back.
--
-- KEYS[1]  workers (ZSET)
-- KEYS[2]  the worker's record (HASH)
-- KEYS[3]  the worker's processes (SET)
-- KEYS[4]  pulse (HASH)
-- ARGV[1]  name
-- ARGV[2]  token
-- ARGV[3]  time to live without a heartbeat (ms)
-- ARGV[4]  silence of all after which nobody is reaped for one time to live (ms)
-- ARGV[5]  life of the record (s)
-- ARGV[6+] field, value ... of the record
-- Returns {1, names past their deadline ...}, at most 5, and none that spoke another protocol: its like knows what it
-- held. With 2 instead of 1 when it is to finish and end (drain.lua); {0} when another agent has the name now, or the
-- entry is gone.
-- include: clock
local worker = redis.call('HMGET', KEYS[2], 'token', 'drain')
if worker[1] ~= ARGV[2] or not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    return {0}
end
local answer = worker[2] == ARGV[2] and 2 or 1
redis.call('ZADD', KEYS[1], now_ms() + ARGV[3], ARGV[1])
redis.call('HSET', KEYS[2], 'seen_ms', now_ms(), unpack(ARGV, 6))
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('EXPIRE', KEYS[3], ARGV[5])
local pulse = redis.call('HMGET', KEYS[4], 'last_ms', 'grace_until_ms')
local last_ms, grace_until_ms = tonumber(pulse[1]) or 0, tonumber(pulse[2]) or 0
if now_ms() - last_ms > tonumber(ARGV[4]) then
    grace_until_ms = now_ms() + ARGV[3]
end
redis.call('HSET', KEYS[4], 'last_ms', now_ms(), 'grace_until_ms', grace_until_ms)
if now_ms() < grace_until_ms then
    return {answer}
end
local found = {answer}
local own, prefix = redis.call('HGET', KEYS[2], 'protocol'), string.sub(KEYS[2], 1, #KEYS[2] - #ARGV[1])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms(), 'LIMIT', 0, 100)) do
    local protocol = redis.call('HGET', prefix .. name, 'protocol')
    if (not protocol or protocol == own) and #found < 6 then
        found[#found + 1] = name
    end
end
return found
