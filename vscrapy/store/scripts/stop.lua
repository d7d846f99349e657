#!lua flags=allow-oom
-- Give a task a reason to end. The first reason stands; a later call can only make the end forced.
--
-- KEYS[1]  task record (HASH)
-- ARGV[1]  the task's key prefix
-- ARGV[2]  reason
-- ARGV[3]  mode: 'graceful', 'forced'
-- ARGV[4]  life of what is kept (s)
-- ARGV[5]  exit code
-- ARGV[6]  '1': only if there is nothing to do; the caller was told so, and requests may have been put back since
-- Returns the state after it; '' when there is no such task.
-- include: seen
-- include: end
local task_key, prefix = KEYS[1], ARGV[1]
local task = redis.call('HMGET', task_key, 'state', 'processes', 'queued', 'leased')
local state = task[1]
if not state then
    return ''
end
if state == 'finished' then
    return state
end
if ARGV[6] == '1' and (state == 'running' or state == 'paused') and task[3] + task[4] > 0 then
    return state
end
if state == 'storing' then -- home closes by itself, when the feeds are written
    if ARGV[3] ~= 'forced' then
        return state
    end
    redis.call('HSET', task_key, 'stop_mode', 'forced')
    if tonumber(task[2]) > 0 then
        return state
    end
    redis.call('HSET', task_key, 'feeds', 'failed')
    return finish_task(task_key, prefix, ARGV[4])
end
if state == 'suspended' then -- its reason stands
    redis.call('HSET', task_key, 'job_dir', '')
elseif state ~= 'stopping' then
    redis.call('HSET', task_key, 'state', 'stopping', 'reason', ARGV[2], 'stop_mode', ARGV[3],
        'exit_code', ARGV[5])
elseif ARGV[3] == 'forced' then
    redis.call('HSET', task_key, 'stop_mode', 'forced')
end
if tonumber(task[2]) == 0 then
    return end_task(task_key, prefix, ARGV[4])
end
return 'stopping'
