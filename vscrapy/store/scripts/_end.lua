-- Shared: the end of a task, and the life of what is kept of it.

-- The last process has left (or there never was one): free the frontier, write the end record.
local function end_task(task_key, prefix, ttl_s, buckets)
    local time = redis.call('TIME')
    redis.call('HSET', task_key, 'state', 'finished', 'queued', 0, 'leased', 0,
        'ended_ms', time[1] * 1000 + math.floor(time[2] / 1000))
    for _, slot in ipairs(redis.call('SMEMBERS', prefix .. 'slots')) do
        for _, queue in ipairs(redis.call('ZRANGE', prefix .. 'queues:' .. slot, 0, -1)) do
            redis.call('UNLINK', prefix .. 'queue:' .. slot .. ':' .. queue)
        end
        redis.call('UNLINK', prefix .. 'queues:' .. slot, prefix .. 'holders:' .. slot, prefix .. 'held:' .. slot,
            prefix .. 'waiters:' .. slot)
    end
    for bucket = 0, buckets - 1 do
        redis.call('UNLINK', prefix .. 'seen:' .. bucket)
    end
    redis.call('UNLINK', prefix .. 'ready', prefix .. 'active', prefix .. 'slots', prefix .. 'processes',
        prefix .. 'facts', prefix .. 'fact_versions', prefix .. 'limits', prefix .. 'contended',
        prefix .. 'starved', prefix .. 'released', prefix .. 'locals', prefix .. 'counts')
    local ended = redis.call('HMGET', task_key, 'reason', 'exit_code')
    redis.call('XADD', prefix .. 'log', '*', 'end',
        cjson.encode({reason = ended[1], exit_code = tonumber(ended[2])}))
    for _, name in ipairs({'task', 'job', 'stats', 'stat_values', 'counts', 'failures', 'log', 'items', 'files'}) do
        redis.call('EXPIRE', prefix .. name, ttl_s)
    end
end
