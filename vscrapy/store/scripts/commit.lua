#!lua
-- The one step that ends leases: new requests, items, stats and acknowledgements together; and, in the same
-- round trip, leases on the next requests.
--
-- A call is repeated with the same number when its reply was lost: it is then not done again, and the
-- process's leases are returned instead.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  processes (HASH)
-- KEYS[3]  the process's leases (HASH)
-- KEYS[4]  items (STREAM)
-- KEYS[5]  stats (HASH)
-- KEYS[6]  stat values (HASH)
-- KEYS[7]  facts (HASH)
-- KEYS[8]  fact versions (ZSET)
-- ARGV[1]  the task's key prefix; queues and seen sets are named from it
-- ARGV[2]  process
-- ARGV[3]  number of this commit, 1, 2, 3 ...
-- ARGV[4]  new leases wanted
-- ARGV[5]  stats that were set, as JSON; '': as before
-- ARGV[6]  version of the facts that the process knows
-- ARGV[7]  number of new facts; then for each: id, value
-- next     number of counted stats; then for each: name, operation ('+', 'max', 'min'), number
-- next     number of results; then for each:
--            what: 'done' (acknowledge), 'part' (early flush), 'back' (not run, give back),
--                  'start' (outputs of start()), 'started' (start() is exhausted), 'feed' (no parent)
--            lease id, or the count of start outputs
--            signed batch of items, or ''
--            number of items in it
--            number of requests; then for each: slot, queue, seen bucket, seen member or '' (no filter),
--            payload
-- Returns {status, state, reason, stop mode, queued, leased, is idle, duplicates, leases, version, facts}
--   status: 'ok'; 'replayed'; 'fenced'; 'gone'
--   duplicates: indexes (from 0, over all requests of the call) that were filtered
--   leases: id, slot LF queue LF payload, id, ...
--   version, facts: what the whole task knows now, and what of it is new to the process: id, value, id, ...
-- include: queues
local task_key, prefix, process = KEYS[1], ARGV[1], ARGV[2]
local state = redis.call('HGET', task_key, 'state')
if not state then
    return {'gone'}
end
local record = redis.call('HGET', KEYS[2], process)
if not record then
    return {'fenced'}
end
record = cjson.decode(record)
local duplicates, leases, status = {}, {}, 'ok'

if tonumber(ARGV[3]) <= record.seq then
    status = 'replayed'
    leases = redis.call('HGETALL', KEYS[3])
else
    record.seq = tonumber(ARGV[3])
    redis.call('HSET', KEYS[2], process, cjson.encode(record))
    if ARGV[5] ~= '' then
        redis.call('HSET', KEYS[6], process, ARGV[5])
    end
    local at = 8
    for _ = 1, tonumber(ARGV[7]) do
        local version = redis.call('HINCRBY', task_key, 'fact_version', 1)
        redis.call('HSET', KEYS[7], ARGV[at], ARGV[at + 1])
        redis.call('ZADD', KEYS[8], version, ARGV[at])
        at = at + 2
    end
    local counted = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, counted do
        local name, operation, number = ARGV[at], ARGV[at + 1], ARGV[at + 2]
        at = at + 3
        if operation == '+' then
            if string.find(number, '^-?%d+$') then
                redis.call('HINCRBY', KEYS[5], name, number)
            else
                redis.call('HINCRBYFLOAT', KEYS[5], name, number)
            end
        else
            local old = tonumber(redis.call('HGET', KEYS[5], name))
            if not old or (operation == 'max' and tonumber(number) > old)
                or (operation == 'min' and tonumber(number) < old) then
                redis.call('HSET', KEYS[5], name, number)
            end
        end
    end

    local groups, order, filtered, index, queued, leased, acknowledged = {}, {}, {}, 0, 0, 0, 0
    local results = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, results do
        local what, id, batch, n_items, n_requests =
            ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
        at = at + 5
        if batch ~= '' then
            redis.call('XADD', KEYS[4], '*', 'n', n_items, 'items', batch)
        end
        for _ = 1, n_requests do
            local slot, queue, bucket, member, payload =
                ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
            at = at + 5
            if member ~= '' and redis.call('SADD', prefix .. 'seen:' .. bucket, member) == 0 then
                duplicates[#duplicates + 1] = index
            else
                local name = slot .. '\n' .. queue
                if not groups[name] then
                    groups[name] = {slot, queue, {}}
                    order[#order + 1] = name
                end
                local payloads = groups[name][3]
                payloads[#payloads + 1] = payload
                queued = queued + 1
            end
            index = index + 1
        end
        if what == 'done' or what == 'back' then
            local held = redis.call('HGET', KEYS[3], id)
            if held then
                redis.call('HDEL', KEYS[3], id)
                local slot, queue, payload = parts(held)
                leased = leased - 1
                count_active(prefix, slot, -1)
                if what == 'back' then
                    push(prefix, slot, queue, {payload}, true, is_queue_lifo(task_key, queue))
                    queued = queued + 1
                else
                    acknowledged = acknowledged + 1
                end
            end
        elseif what == 'start' then
            redis.call('HINCRBY', task_key, 'start_done', id)
        elseif what == 'started' then
            redis.call('HSET', task_key, 'start', 'done', 'start_owner', '')
        end
    end
    for _, name in ipairs(order) do
        local group = groups[name]
        push(prefix, group[1], group[2], group[3], false)
    end

    local wanted = tonumber(ARGV[4])
    if state ~= 'running' then
        wanted = 0
    end
    local flags = redis.call('HMGET', task_key, 'lifo', 'start_lifo', 'lease_seq')
    local lease_seq = tonumber(flags[3])
    while wanted > 0 do
        local slots = redis.call('ZRANGE', prefix .. 'ready', 0, 1)
        local slot = slots[1]
        if not slot then
            break
        end
        local take = 1
        if not slots[2] then
            take = wanted
        end
        local queue = redis.call('ZRANGE', prefix .. 'queues:' .. slot, 0, 0)[1]
        local list = prefix .. 'queue:' .. slot .. ':' .. queue
        local is_lifo = flags[1] == '1'
        if string.sub(queue, -1) == 's' then
            is_lifo = flags[2] == '1'
        end
        local payloads = redis.call(is_lifo and 'RPOP' or 'LPOP', list, take)
        local held = {}
        for _, payload in ipairs(payloads) do
            lease_seq = lease_seq + 1
            local value = slot .. '\n' .. queue .. '\n' .. payload
            held[#held + 1] = lease_seq
            held[#held + 1] = value
            leases[#leases + 1] = tostring(lease_seq)
            leases[#leases + 1] = value
        end
        redis.call('HSET', KEYS[3], unpack(held))
        if redis.call('EXISTS', list) == 0 then
            redis.call('ZREM', prefix .. 'queues:' .. slot, queue)
            if redis.call('EXISTS', prefix .. 'queues:' .. slot) == 0 then
                redis.call('ZREM', prefix .. 'ready', slot)
            end
        end
        count_active(prefix, slot, #payloads)
        wanted = wanted - #payloads
        queued = queued - #payloads
        leased = leased + #payloads
    end
    redis.call('HSET', task_key, 'lease_seq', lease_seq)
    if queued ~= 0 then
        redis.call('HINCRBY', task_key, 'queued', queued)
    end
    if leased ~= 0 then
        redis.call('HINCRBY', task_key, 'leased', leased)
    end
    if acknowledged > 0 then
        redis.call('HSET', task_key, 'crashes', 0)
    end
end

-- The end is counted: nothing waits, nothing is leased, start() is exhausted. One process is told.
local task = redis.call('HMGET', task_key, 'queued', 'leased', 'start', 'idle_owner', 'reason', 'stop_mode')
local is_idle = 0
if tonumber(task[1]) == 0 and tonumber(task[2]) == 0 and task[3] == 'done' and state == 'running' then
    local owner = task[4]
    if owner == '' or redis.call('HEXISTS', KEYS[2], owner) == 0 then
        redis.call('HSET', task_key, 'idle_owner', process)
        owner = process
    end
    if owner == process then
        is_idle = 1
    end
elseif task[4] ~= '' then
    redis.call('HSET', task_key, 'idle_owner', '')
end

local version, facts = tonumber(redis.call('HGET', task_key, 'fact_version') or 0), {}
if version > tonumber(ARGV[6]) then
    local ids = redis.call('ZRANGEBYSCORE', KEYS[8], '(' .. ARGV[6], '+inf')
    for _, id in ipairs(ids) do
        facts[#facts + 1] = id
        facts[#facts + 1] = redis.call('HGET', KEYS[7], id)
    end
end
return {status, state, task[5], task[6], tonumber(task[1]), tonumber(task[2]), is_idle, duplicates, leases,
    version, facts}
