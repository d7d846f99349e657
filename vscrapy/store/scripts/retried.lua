#!lua flags=allow-oom
-- Requests that failed for good run as a new task, which has been made: take them off the list.
--
-- KEYS[1]  record of the task that has ended (HASH)
-- KEYS[2]  its requests that failed for good (STREAM)
-- ARGV[1]  id of the new task
-- Returns 1; 0 when it was done already (nothing is done).
local task = redis.call('HMGET', KEYS[1], 'retry_taskid', 'retry_numbers')
if task[1] ~= ARGV[1] then
    return 0
end
for _, number in ipairs(cjson.decode(task[2])) do
    redis.call('XDEL', KEYS[2], number .. '-0')
end
redis.call('HDEL', KEYS[1], 'retry_taskid', 'retry_numbers')
return 1
