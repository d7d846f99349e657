-- Shared: is a task held; would a task take one more crawl process, or home? Each returns 1: yes; 0: no; -1: it speaks another
-- protocol.

-- Do more bytes of items wait to be fetched than the task may keep? Then it gives no leases.
local function are_items_many(bytes, dropped_bytes, limit)
    limit = tonumber(limit) or 0
    return limit > 0 and (tonumber(bytes) or 0) - (tonumber(dropped_bytes) or 0) >= limit
end

-- A task needs its first process at once, and further ones while more requests wait than the present ones can take,
-- none of them goes without (the set of those is given), and none has left lately because it did; also when start()
-- was lost with the process that ran it.
local function needs_process(task_key, starved_key, protocol)
    local task = redis.call('HMGET', task_key,
        'state', 'processes', 'queued', 'capacity', 'max_processes', 'protocol', 'grow_after_ms', 'start',
        'items_bytes', 'items_dropped_bytes', 'items_limit')
    local processes, most = tonumber(task[2]), tonumber(task[5])
    if task[1] ~= 'queued' and task[1] ~= 'running' then
        return 0
    end
    if task[6] ~= protocol then
        return -1
    end
    if most > 0 and processes >= most then
        return 0
    end
    if processes == 0 or task[8] == 'lost' then
        return 1
    end
    if tonumber(task[3]) <= processes * tonumber(task[4]) or redis.call('EXISTS', starved_key) == 1
        or are_items_many(task[9], task[10], task[11]) then
        return 0
    end
    local time = redis.call('TIME')
    return time[1] * 1000 + time[2] / 1000 < (tonumber(task[7]) or 0) and 0 or 1
end

-- A detached task that has been crawled needs home while its feeds wait to be written.
local function needs_home(task_key, protocol)
    local task = redis.call('HMGET', task_key, 'state', 'feeds', 'feeds_after_ms', 'protocol')
    if task[1] ~= 'storing' or task[2] ~= 'waiting' then
        return 0
    end
    if task[4] ~= protocol then
        return -1
    end
    local time = redis.call('TIME')
    return time[1] * 1000 + time[2] / 1000 < (tonumber(task[3]) or 0) and 0 or 1
end
