#!lua flags=allow-oom
-- An attached sender's sign of life.
--
-- KEYS[1]  task record (HASH)
-- Returns {state, processes, process_seq}; {} when there is no such task.
local task = redis.call('HMGET', KEYS[1], 'state', 'processes', 'process_seq')
if not task[1] then
    return {}
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'sender_ms', time[1] * 1000 + math.floor(time[2] / 1000))
return {task[1], tonumber(task[2]), tonumber(task[3])}
