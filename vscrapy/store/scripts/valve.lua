#!lua flags=allow-oom
-- Turn the valve of a task that has not ended.
--
-- KEYS[1]  task record (HASH)
-- ARGV[1]  'auto', a level's name, 'off'
-- Returns {changed, state}: changed is 1 when it stood otherwise; state is '' when there is no such task.
local task = redis.call('HMGET', KEYS[1], 'state', 'valve')
if not task[1] or task[1] == 'finished' or (task[2] or 'auto') == ARGV[1] then
    return {0, task[1] or ''}
end
redis.call('HSET', KEYS[1], 'valve', ARGV[1])
return {1, task[1]}
