#!lua flags=allow-oom
-- Hold a task still: no leases are given, no process is started. What is in flight is finished.
--
-- KEYS[1]  task record (HASH)
-- Returns {changed, state}: changed is 1 when it went on until now; state is '' when there is no such task.
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'queued' and state ~= 'running' then
    return {0, state or ''}
end
redis.call('HSET', KEYS[1], 'state', 'paused')
return {1, 'paused'}
