#!lua flags=allow-oom
-- Remove what is kept of a task that has ended.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  items (STREAM)
-- KEYS[3]  final stats (STRING)
-- KEYS[4+] the other keys that are kept of it
-- ARGV[1]  '1': also when items are there that nobody has fetched, or its sender may still be at work
-- ARGV[2]  time that a sender has after the end to say that it is through (ms)
-- Returns 'removed'; 'gone' (there is no such task), 'live' (it has not ended), 'items' (there are some that were
-- not fetched), 'home' (its sender may still be at work on what it got): nothing is done.
local task = redis.call('HMGET', KEYS[1], 'state', 'fetched', 'sender_timeout_ms', 'ended_ms')
if not task[1] then
    return 'gone'
end
if task[1] ~= 'finished' then
    return 'live'
end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
if ARGV[1] ~= '1' then
    if last and last[1] ~= task[2] then
        return 'items'
    end
    local time = redis.call('TIME')
    local since_ms = time[1] * 1000 + time[2] / 1000 - (tonumber(task[4]) or 0)
    if tonumber(task[3]) > 0 and redis.call('EXISTS', KEYS[3]) == 0 and since_ms < tonumber(ARGV[2]) then
        return 'home'
    end
end
redis.call('UNLINK', unpack(KEYS))
return 'removed'
