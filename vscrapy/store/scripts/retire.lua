#!lua flags=allow-oom
-- Take a worker off the list: at its own end, or when it is past its deadline and its processes have left.
--
-- KEYS[1]  workers (ZSET)
-- KEYS[2]  the worker's record (HASH)
-- KEYS[3]  the worker's processes (SET)
-- ARGV[1]  name
-- ARGV[2]  token of the agent that ends; '' when reaped
-- Returns 1; 0 when it is alive (again), or the name is another agent's.
-- include: clock
if ARGV[2] == '' then
    local deadline = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
    if deadline and deadline > now_ms() then
        return 0
    end
elseif redis.call('HGET', KEYS[2], 'token') ~= ARGV[2] then
    return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('UNLINK', KEYS[2], KEYS[3])
return 1
