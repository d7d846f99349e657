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
local time = redis.call('TIME')
-- It waits for its next process from now on.
redis.call('HSET', KEYS[1], 'state', state, 'waits_since_ms',
    string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000)))
return {1, state}
