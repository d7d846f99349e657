#!lua
-- A crawl process of another task would give its slot to this task: only one at a time does.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  the task's processes that find nothing to lease although requests wait (SET)
-- ARGV[1]  who frees a slot, unique on this Redis
-- ARGV[2]  processes that the task was seen to have
-- ARGV[3]  protocol version that the worker speaks
-- ARGV[4]  life of the promise (ms), which also ends with the next place that is taken; 0: take the promise back
-- Returns 1: promised (or taken back); 0: the task has a promise already, or needs no slot now.
-- include: clock
-- include: need
local task = redis.call('HMGET', KEYS[1], 'processes', 'promised_by', 'promised_until_ms')
local is_ours = task[2] == ARGV[1]
if tonumber(ARGV[4]) == 0 then
    if is_ours then
        redis.call('HSET', KEYS[1], 'promised_until_ms', 0)
    end
    return 1
end
local is_needed = needs_process(KEYS[1], KEYS[2], ARGV[3]) == 1 or needs_home(KEYS[1], ARGV[3]) == 1
if not is_needed or task[1] ~= ARGV[2] or (now_ms() < (tonumber(task[3]) or 0) and not is_ours) then
    return 0
end
redis.call('HSET', KEYS[1], 'promised_by', ARGV[1], 'promised_until_ms', string.format('%d', now_ms() + ARGV[4]))
return 1
