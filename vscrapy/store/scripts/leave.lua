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
-- ARGV[4]  crashes in a row without one finished request that end the task; counted are those of processes that came
--          after the last one
-- ARGV[5]  life of what is kept (s)
-- ARGV[6]  time that the task does not grow after a process that found nothing to do has left (ms)
-- ARGV[7]  how often the feeds are tried
-- ARGV[8]  wait after the first try that was no crash (ms); it doubles with each
-- ARGV[9]  signed failure, for a request that is given up; '': nobody knows what the process died of
-- ARGV[10] how often processes die with a request in hand until it is given up
-- ARGV[11] failed requests kept at most
-- Returns {left, state}: left is 1 when the process was in the task.
-- include: clock
-- include: queues
-- include: polite
-- include: seen
-- include: end
-- include: suspects
-- include: commits
local task_key, prefix, process, how = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local state = redis.call('HGET', task_key, 'state')
if not state then
    return {0, 'gone'}
end
local record = redis.call('HGET', KEYS[2], process)
if not record then
    return {0, state}
end
redis.call('HDEL', KEYS[2], process)
record = cjson.decode(record)
add_up_last(prefix, process, record.worker)
if record.crawls then
    redis.call('HINCRBY', task_key, 'crawling', -1)
end
local limits = read_limits(task_key)
forget_needs(limits, prefix, process)
for _, slot in ipairs(redis.call('SMEMBERS', prefix .. 'contended')) do
    stop_waiting(prefix, slot, process)
end
if redis.call('SREM', prefix .. 'starved', process) == 1 then
    redis.call('HSET', task_key, 'grow_after_ms', string.format('%d', now_ms() + ARGV[6]))
end
local locals = redis.call('HGETALL', prefix .. 'locals')
for at = 1, #locals, 2 do
    if locals[at + 1] == process then
        redis.call('HDEL', prefix .. 'locals', locals[at])
    end
end
local held, ids, values, given_up = redis.call('HGETALL', KEYS[3]), {}, {}, 0
for at = 1, #held, 2 do
    ids[#ids + 1] = tonumber(held[at])
    values[ids[#ids]] = held[at + 1]
end
-- The last leased first: so they come out in their old order. A large hash has none.
table.sort(ids, function(one, other) return one > other end)
for _, id in ipairs(ids) do
    local slot, queue, payload = parts(values[id])
    count_active(prefix, slot, -1)
    count_held(limits, prefix, slot, process, -1)
    if how == 'crashed' and ARGV[9] ~= '' then
        if count_death(prefix, payload) < tonumber(ARGV[10]) then
            suspect(prefix, task_key, values[id])
        else
            clear(prefix, payload)
            add_failure(prefix .. 'failures', task_key, values[id], ARGV[9], '')
            given_up = given_up + 1
        end
    elseif record.suspect == tostring(id) then
        suspect(prefix, task_key, values[id])
    else
        push(prefix, slot, queue, {payload}, true, is_queue_lifo(task_key, queue))
    end
end
redis.call('UNLINK', KEYS[3])
if #ids > 0 then -- Redis 7.0 writes -0 as '-0', and HINCRBY does not take it.
    redis.call('HINCRBY', task_key, 'queued', #ids - given_up)
    redis.call('HINCRBY', task_key, 'leased', -#ids)
end
if given_up > 0 then
    trim_failures(prefix .. 'failures', task_key, ARGV[11])
    redis.call('HINCRBY', prefix .. 'stats', 'vscrapy/requests_given_up', given_up)
    redis.call('HSET', task_key, 'crashes', 0)
end
local processes = redis.call('HINCRBY', task_key, 'processes', -1)
if processes == 0 then
    redis.call('HSET', task_key, 'waits_since_ms', string.format('%d', now_ms()))
end
local task = redis.call('HMGET', task_key, 'start', 'start_owner', 'idle_owner')
if task[1] == 'running' and task[2] == process then
    redis.call('HSET', task_key, 'start', 'lost', 'start_owner', '')
end
if task[3] == process then
    redis.call('HSET', task_key, 'idle_owner', '')
end
if state == 'running' or state == 'paused' then
    if how == 'failed' then
        redis.call('HSET', task_key, 'state', 'stopping', 'reason', 'failed', 'exit_code', 1)
        state = 'stopping'
    elseif how == 'crashed' and given_up == 0
        and record.number > tonumber(redis.call('HGET', task_key, 'crash_seq') or 0) then
        -- Those that were there at the last crash may have died of the same accident: no more than that one.
        redis.call('HSET', task_key, 'crash_seq', redis.call('HGET', task_key, 'process_seq'))
        if redis.call('HINCRBY', task_key, 'crashes', 1) >= tonumber(ARGV[4]) then
            redis.call('HSET', task_key, 'state', 'stopping', 'reason', 'crashed', 'exit_code', 1)
            state = 'stopping'
        end
    end
end
if state == 'stopping' and processes == 0 then
    state = end_task(task_key, prefix, ARGV[5])
elseif state == 'storing' then
    local feeds = redis.call('HMGET', task_key, 'feeds', 'feeds_tries', 'stop_mode')
    local tries = tonumber(feeds[2])
    if feeds[1] ~= 'written' and feeds[3] ~= 'forced' and tries < tonumber(ARGV[7]) then
        local wait_ms = how == 'crashed' and 0 or ARGV[8] * 2 ^ (tries - 1)
        redis.call('HSET', task_key, 'feeds', 'waiting', 'feeds_after_ms', string.format('%d', now_ms() + wait_ms))
    else
        if feeds[1] ~= 'written' then
            redis.call('HSET', task_key, 'feeds', 'failed')
        end
        state = finish_task(task_key, prefix, ARGV[5])
    end
end
return {1, state}
