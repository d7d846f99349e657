#!lua flags=allow-oom
-- A crawl process is no more, in whatever way: its leases go back, its place is free.
--
-- Called by its agent, or by any live worker when the agent is dead. Calling it again does nothing.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  processes (HASH)
-- KEYS[3]  the process's leases (HASH)
-- ARGV[1]  the task's key prefix
-- ARGV[2]  process
-- ARGV[3]  how: 'left' (by itself, at its end), 'crashed', 'failed' (no crawl at all; ends the task)
-- ARGV[4]  crashes in a row without one finished request that end the task
-- ARGV[5]  life of what is kept (s)
-- ARGV[6]  number of seen buckets
-- Returns {left, state}: left is 1 when the process was in the task.
-- include: queues
-- include: end
local task_key, prefix, process, how = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local state = redis.call('HGET', task_key, 'state')
if not state then
    return {0, 'gone'}
end
if redis.call('HDEL', KEYS[2], process) == 0 then
    return {0, state}
end
local held = redis.call('HGETALL', KEYS[3])
for at = 2, #held, 2 do
    local slot, queue, payload = parts(held[at])
    count_active(prefix, slot, -1)
    push(prefix, slot, queue, {payload}, true, is_queue_lifo(task_key, queue))
end
redis.call('UNLINK', KEYS[3])
local n_held = #held / 2
redis.call('HINCRBY', task_key, 'queued', n_held)
redis.call('HINCRBY', task_key, 'leased', -n_held)
local processes = redis.call('HINCRBY', task_key, 'processes', -1)
local task = redis.call('HMGET', task_key, 'start', 'start_owner', 'idle_owner')
if task[1] == 'running' and task[2] == process then
    redis.call('HSET', task_key, 'start', 'waiting', 'start_owner', '')
end
if task[3] == process then
    redis.call('HSET', task_key, 'idle_owner', '')
end
if state == 'running' or state == 'paused' then
    if how == 'failed' then
        redis.call('HSET', task_key, 'state', 'stopping', 'reason', 'failed', 'exit_code', 1)
        state = 'stopping'
    elseif how == 'crashed' and redis.call('HINCRBY', task_key, 'crashes', 1) >= tonumber(ARGV[4]) then
        redis.call('HSET', task_key, 'state', 'stopping', 'reason', 'crashed', 'exit_code', 1)
        state = 'stopping'
    end
end
if state == 'stopping' and processes == 0 then
    end_task(task_key, prefix, ARGV[5], ARGV[6])
    state = 'finished'
end
return {1, state}
