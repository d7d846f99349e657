-- Shared: moving requests between the frontier's queues and leases.

-- Put payloads at the far end of a queue (as new), or back at the end they are taken from.
local function push(prefix, slot, queue, payloads, is_returned, is_lifo)
    local command = 'RPUSH'
    if is_returned and not is_lifo then
        command = 'LPUSH'
    end
    local waiting = 0
    for from = 1, #payloads, 1000 do
        waiting = redis.call(command, prefix .. 'queue:' .. slot .. ':' .. queue,
            unpack(payloads, from, math.min(from + 999, #payloads)))
    end
    if waiting > #payloads then -- others wait in it, so it and its slot are known already
        return
    end
    local priority = tonumber((string.gsub(queue, 's$', '')))
    redis.call('ZADD', prefix .. 'queues:' .. slot, -priority, queue)
    redis.call('SADD', prefix .. 'slots', slot)
    redis.call('ZADD', prefix .. 'ready', redis.call('HGET', prefix .. 'active', slot) or 0, slot)
end

-- A slot has this many leased requests more (or fewer).
local function count_active(prefix, slot, delta)
    local active = redis.call('HINCRBY', prefix .. 'active', slot, delta)
    redis.call('ZADD', prefix .. 'ready', 'XX', active, slot)
end

-- Split a leased request into its slot, its queue and its payload.
local function parts(leased)
    local first = string.find(leased, '\n', 1, true)
    local second = string.find(leased, '\n', first + 1, true)
    return string.sub(leased, 1, first - 1), string.sub(leased, first + 1, second - 1),
        string.sub(leased, second + 1)
end

-- Is this queue popped at its new end?
local function is_queue_lifo(task_key, queue)
    local field = 'lifo'
    if string.sub(queue, -1) == 's' then
        field = 'start_lifo'
    end
    return redis.call('HGET', task_key, field) == '1'
end
