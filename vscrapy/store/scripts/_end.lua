-- Shared: the end of a task, and the life of what is kept of it.

-- All is done: write the end record.
local function finish_task(task_key, prefix, ttl_s)
    local time = redis.call('TIME')
    redis.call('HSET', task_key, 'state', 'finished',
        'ended_ms', string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000)))
    redis.call('UNLINK', prefix .. 'processes', prefix .. 'commits')
    local ended = redis.call('HMGET', task_key, 'reason', 'exit_code')
    redis.call('XADD', prefix .. 'log', '*', 'end',
        cjson.encode({reason = ended[1], exit_code = tonumber(ended[2])}))
    for _, name in ipairs({'task', 'job', 'stats', 'stat_values', 'counts', 'failures', 'log', 'items', 'files'}) do
        redis.call('EXPIRE', prefix .. name, ttl_s)
    end
    return 'finished'
end

-- A task with a job directory is kept, for the same command to go on with; not when all is done, nor when nothing
-- could be crawled.
local function is_to_be_kept(task_key)
    local task = redis.call('HMGET', task_key, 'job_dir', 'reason')
    return task[1] and task[1] ~= '' and task[2] ~= 'finished' and task[2] ~= 'failed'
end

-- No process is left, and the frontier stays; home goes as well.
local function suspend_task(task_key, prefix)
    local time = redis.call('TIME')
    for _, slot in ipairs(redis.call('HKEYS', prefix .. 'needs:home')) do
        redis.call('HDEL', prefix .. 'holders:' .. slot, 'home')
        redis.call('UNLINK', prefix .. 'waiters:' .. slot)
        redis.call('SREM', prefix .. 'contended', slot)
    end
    redis.call('UNLINK', prefix .. 'needs:home')
    redis.call('HSET', task_key, 'state', 'suspended', 'idle_owner', '',
        'ended_ms', string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000)))
    redis.call('UNLINK', prefix .. 'processes', prefix .. 'starved', prefix .. 'refusals', prefix .. 'commits')
    local ended = redis.call('HMGET', task_key, 'reason', 'exit_code')
    redis.call('XADD', prefix .. 'log', '*', 'end',
        cjson.encode({reason = ended[1], exit_code = tonumber(ended[2])}))
    return 'suspended'
end

-- Feeds that are for home to write: not after a forced end, nor where nothing was crawled.
local function has_feeds(task_key, prefix)
    local task = redis.call('HMGET', task_key, 'feeds', 'process_seq', 'stop_mode', 'reason')
    return task[1] == 'wanted' and tonumber(task[2]) > 0 and task[3] ~= 'forced'
        and (task[4] ~= 'failed' or redis.call('EXISTS', prefix .. 'items') == 1)
end

-- The last process has left (or there never was one): free the frontier; then home writes the feeds, or the task
-- has ended; or keep all of it. Returns the state.
local function end_task(task_key, prefix, ttl_s)
    if is_to_be_kept(task_key) then
        return suspend_task(task_key, prefix)
    end
    redis.call('HSET', task_key, 'queued', 0, 'leased', 0)
    for _, slot in ipairs(redis.call('SMEMBERS', prefix .. 'slots')) do
        for _, queue in ipairs(redis.call('ZRANGE', prefix .. 'queues:' .. slot, 0, -1)) do
            redis.call('UNLINK', prefix .. 'queue:' .. slot .. ':' .. queue)
        end
        redis.call('UNLINK', prefix .. 'queues:' .. slot, prefix .. 'holders:' .. slot, prefix .. 'held:' .. slot,
            prefix .. 'waiters:' .. slot)
    end
    forget_seen(task_key, prefix)
    redis.call('UNLINK', prefix .. 'ready', prefix .. 'active', prefix .. 'slots', prefix .. 'processes',
        prefix .. 'facts', prefix .. 'fact_versions', prefix .. 'limits', prefix .. 'contended',
        prefix .. 'starved', prefix .. 'released', prefix .. 'locals', prefix .. 'closing',
        prefix .. 'suspects', prefix .. 'deaths', prefix .. 'needs:home', prefix .. 'refusals')
    if has_feeds(task_key, prefix) then
        redis.call('HSET', task_key, 'state', 'storing', 'feeds', 'waiting')
        return 'storing'
    end
    return finish_task(task_key, prefix, ttl_s)
end
