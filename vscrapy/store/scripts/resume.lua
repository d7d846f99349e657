#!lua flags=allow-oom
-- Let a paused task go on.
--
-- KEYS[1]  task record (HASH)
-- Returns {changed, state}: changed is 1 when it was paused; state is '' when there is no such task.
local task = redis.call('HMGET', KEYS[1], 'state', 'process_seq')
if task[1] ~= 'paused' then
    return {0, task[1] or ''}
end
-- One that never had a process is queued again.
local state = tonumber(task[2]) > 0 and 'running' or 'queued'
redis.call('HSET', KEYS[1], 'state', state)
return {1, state}
