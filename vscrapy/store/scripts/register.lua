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
-- include: clock
local deadline = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
if deadline and deadline > now_ms() and redis.call('HGET', KEYS[2], 'token') ~= ARGV[2] then
    return 0
end
-- What a dead worker of another protocol held is for its like to give back, which finds it under another name.
local former, own, processes = redis.call('HGET', KEYS[2], 'protocol'), '', KEYS[2] .. ':processes'
for at = 5, #ARGV, 2 do
    if ARGV[at] == 'protocol' then
        own = ARGV[at + 1]
    end
end
if former and former ~= own and redis.call('EXISTS', processes) == 1 then
    local suffix = '-protocol-' .. former
    local heir = KEYS[2] .. suffix
    redis.call('SUNIONSTORE', heir .. ':processes', heir .. ':processes', processes)
    redis.call('UNLINK', processes)
    redis.call('HSET', heir, 'protocol', former, 'token', '')
    redis.call('EXPIRE', heir, ARGV[4])
    redis.call('EXPIRE', heir .. ':processes', ARGV[4])
    redis.call('ZADD', KEYS[1], deadline or now_ms(), ARGV[1] .. suffix)
end
redis.call('ZADD', KEYS[1], now_ms() + ARGV[3], ARGV[1])
redis.call('HSET', KEYS[2], 'token', ARGV[2], 'since_ms', now_ms(), 'seen_ms', now_ms(), unpack(ARGV, 5))
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
