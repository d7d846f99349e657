#!lua
-- The one step that ends leases: new requests, items, stats and acknowledgements together; and, in the same
-- round trip, leases on the next requests.
--
-- A call is repeated with the same number when its reply was lost: it is then not done again, and the
-- process's leases are returned instead, and the duplicates of then.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  processes (HASH)
-- KEYS[3]  the process's leases (HASH)
-- KEYS[4]  items (STREAM)
-- KEYS[5]  stats (HASH)
-- KEYS[6]  stat values (HASH)
-- KEYS[7]  facts (HASH)
-- KEYS[8]  fact versions (ZSET)
-- KEYS[9]  what each worker has done (HASH)
-- KEYS[10] requests that failed for good (STREAM)
-- ARGV[1]  the task's key prefix; queues and seen sets are named from it
-- ARGV[2]  process
-- ARGV[3]  number of this commit, 1, 2, 3 ...
-- ARGV[4]  new leases wanted; with other processes, at most this one's part of what waits is given
-- ARGV[5]  stats that were set, as JSON; '': as before
-- ARGV[6]  version of the facts that the process knows
-- ARGV[7]  1: count the duplicates, as Scrapy's own filter does
-- ARGV[8]  number of new facts; then for each: id, value
-- next     number of shares that the process has come down to; then for each: slot, share
-- next     number of slots with downloads that may have no lease; then for each: slot, number of downloads, 0: none more
-- next     number of what the task counts otherwise, -1: nobody asks; then for each: name, operation ('+'; '=':
--            it begins anew), number
-- next     number of counted stats; then for each: name, operation ('+', 'max', 'min'), number
-- next     failed requests kept at most; number of new ones; then for each:
--            lease id; '': it cannot be put back
--            signed failure
--            payload to put back, '': as leased
-- next     number of results; then for each:
--            what: 'done' (acknowledge), 'part' (early flush), 'back' (not run, give back),
--                  'start' (outputs of start()), 'started' (start() is exhausted), 'feed' (no parent)
--            lease id, or the count of start outputs
--            signed batch of items, or ''
--            number of items in it
--            number of requests; then for each: slot, queue, place among the seen sets, seen member or '' (no
--            filter), payload; an empty payload is a request that stays on its process: slot is then the name of its
--            claim, queue 'claim' (it begins) or 'settled' (it is done)
-- Returns {status, state, reason, stop mode, queued, leased, is idle, duplicates, leases, version, facts,
--          shares, is start() lost?, counts, held, suspect}
--   status: 'ok'; 'replayed'; 'fenced'; 'gone'
--   duplicates: indexes (from 0, over all requests of the call) that were filtered
--   leases: id, slot LF queue LF payload, id, ...
--   version, facts: what the whole task knows now, and what of it is new to the process: id, value, id, ...
--   shares: concurrency that the process may use: of slots that it got leases of, or named with downloads and need not
--     wait for, and of slots in which others wait (0: its turn is over): slot, share, slot, ...
--   held: 1: too many items wait to be fetched; 2: and this process is the one that says so; 0: no
--   suspect: the lease that runs alone, if one of these does; '': none
--   counts: what the whole task has counted, where that was asked for: name, number, name, ...
-- include: queues
-- include: polite
-- include: need
-- include: suspects
-- include: seen

-- 0: the crawl goes on; 1: it is held, for too many items wait to be fetched; 2: and this process is to say so.
local function find_held_state(task_key, process)
    if not are_items_many(task_key) then
        redis.call('HDEL', task_key, 'held_told_by')
        return 0
    end
    redis.call('HSETNX', task_key, 'held_told_by', process)
    return redis.call('HGET', task_key, 'held_told_by') == process and 2 or 1
end

-- Count one stat. A script is not rolled back, so no stat may end it: what cannot be counted is left as it was.
local function count_stat(key, name, operation, number)
    if operation == '+' then
        -- HINCRBY refuses where a float stands already, and beyond 64 bits.
        if not string.find(number, '^-?%d+$')
            or type(redis.pcall('HINCRBY', key, name, number)) ~= 'number' then
            redis.pcall('HINCRBYFLOAT', key, name, number)
        end
        return
    end
    local new, old = tonumber(number), tonumber(redis.call('HGET', key, name))
    if new and new == new and (not old or (operation == 'max' and new > old) or (operation == 'min' and new < old)) then
        redis.call('HSET', key, name, number)
    end
end

-- A request that stays on its process: seen only when it is done, so that a process that dies leaves no page out.
-- Returns false when it is a duplicate.
local function claim_local(prefix, is_full, claim, place, member, process)
    local owner = redis.call('HGET', prefix .. 'locals', claim)
    if (owner and owner ~= process) or (member ~= '' and was_seen(prefix, is_full, place, member)) then
        return false
    end
    redis.call('HSET', prefix .. 'locals', claim, process)
    return true
end

-- It is done. Returns true when it was not seen before.
local function settle_local(prefix, is_full, claim, place, member)
    redis.call('HDEL', prefix .. 'locals', claim)
    return member ~= '' and see(prefix, is_full, place, member)
end

-- A worker has done so much more.
local function count_work(key, worker, counts)
    for what, n in pairs(counts) do
        if n ~= 0 then
            redis.call('HINCRBY', key, what .. ' ' .. worker, string.format('%d', n))
        end
    end
end

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
-- A commit that was answered is missing: this server has lost its last moments (a crash, a failover). What the
-- process holds is not what stands here; it must begin anew, or its leases here would never end.
if tonumber(ARGV[3]) > record.seq + 1 then
    return {'fenced'}
end
local time = redis.call('TIME')
local now_ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
local now = tonumber(now_ms)
local limits, shares, needs = read_limits(task_key), {}, {}
local duplicates, leases, status, is_counting, held_state = {}, {}, 'ok', false, 0

if tonumber(ARGV[3]) <= record.seq then
    status = 'replayed'
    held_state = find_held_state(task_key, process)
    duplicates = record.duplicates or duplicates
    leases = redis.call('HGETALL', KEYS[3])
    local slots = redis.call('HKEYS', prefix .. 'needs:' .. process)
    for at = 2, #leases, 2 do
        slots[#slots + 1] = parts(leases[at])
    end
    for _, slot in ipairs(slots) do
        local share = share_of(prefix, slot, process)
        if share then
            shares[#shares + 1] = slot
            shares[#shares + 1] = share
        end
    end
else
    record.seq = tonumber(ARGV[3])
    record.duplicates = nil
    redis.call('HSET', KEYS[2], process, cjson.encode(record))
    if ARGV[5] ~= '' then
        redis.call('HSET', KEYS[6], process, ARGV[5])
    end
    local at = 9
    for _ = 1, tonumber(ARGV[8]) do
        -- Of a fact whose name begins so, the first word stands, and whoever comes later is told of that.
        if string.sub(ARGV[at], 1, 6) ~= 'first:' or redis.call('HEXISTS', KEYS[7], ARGV[at]) == 0 then
            local version = redis.call('HINCRBY', task_key, 'fact_version', 1)
            redis.call('HSET', KEYS[7], ARGV[at], ARGV[at + 1])
            redis.call('ZADD', KEYS[8], version, ARGV[at])
        end
        at = at + 2
    end
    local lowered = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, lowered do
        lower_share(limits, prefix, ARGV[at], process, tonumber(ARGV[at + 1]), now)
        at = at + 2
    end
    -- Before the results, which end leases: who goes on downloading keeps its share.
    for index = 1, tonumber(ARGV[at]) do
        needs[index] = {slot = ARGV[at + 2 * index - 1], demand = tonumber(ARGV[at + 2 * index])}
        note_need(limits, prefix, needs[index].slot, process, needs[index].demand, now)
    end
    at = at + 1 + 2 * #needs
    local others = tonumber(ARGV[at])
    at = at + 1
    is_counting = others >= 0
    for _ = 1, others do
        redis.call(ARGV[at + 1] == '=' and 'HSET' or 'HINCRBY', prefix .. 'closing', ARGV[at], ARGV[at + 2])
        at = at + 3
    end
    local counted, n_errors = tonumber(ARGV[at]), 0
    at = at + 1
    for _ = 1, counted do
        local name, operation, number = ARGV[at], ARGV[at + 1], ARGV[at + 2]
        at = at + 3
        count_stat(KEYS[5], name, operation, number)
        if name == 'log_count/ERROR' and operation == '+' then
            n_errors = n_errors + tonumber(number)
        end
    end

    -- Before the results, which end the leases.
    local most, failed = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    at = at + 2
    for _ = 1, failed do
        add_failure(KEYS[10], task_key, ARGV[at] ~= '' and redis.call('HGET', KEYS[3], ARGV[at]), ARGV[at + 1],
            ARGV[at + 2])
        at = at + 3
    end
    if failed > 0 then
        trim_failures(KEYS[10], task_key, most)
    end

    local groups, order, backs, index, queued, leased, acknowledged, items = {}, {}, {}, 0, 0, 0, 0, 0
    -- Of the slots in which leases end: how many the process has left.
    local held_of = {}
    -- What the scheduler counts: here, for a process that dies after this could not tell it any more.
    local enqueued, filtered = 0, 0
    local is_full, n_seen = is_seen_full(task_key), 0
    local has_started, is_cleared = false, false
    local results = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, results do
        local what, id, batch, n_items, n_requests =
            ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
        at = at + 5
        if batch ~= '' then
            local sum = redis.call('HINCRBY', task_key, 'items_bytes', #batch)
            redis.call('XADD', KEYS[4], '*', 'n', n_items, 'items', batch, 'sum', sum)
            items = items + n_items
        end
        for _ = 1, n_requests do
            local slot, queue, place, member, payload =
                ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
            at = at + 5
            local is_new = true
            if payload == '' then
                if queue == 'settled' then
                    n_seen = n_seen + (settle_local(prefix, is_full, slot, place, member) and 1 or 0)
                else
                    is_new = claim_local(prefix, is_full, slot, place, member, process)
                end
            elseif member ~= '' then
                is_new = see(prefix, is_full, place, member)
                filtered = filtered + (is_new and 0 or 1)
                n_seen = n_seen + (is_new and 1 or 0)
            end
            if not is_new then
                duplicates[#duplicates + 1] = index
            elseif payload ~= '' then
                enqueued = enqueued + 1
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
                held_of[slot] = count_held(limits, prefix, slot, process, -1, now)
                local is_suspect = record.suspect == id
                if is_suspect then
                    record.suspect, is_cleared = nil, true
                end
                if what == 'done' then
                    acknowledged = acknowledged + 1
                    if is_suspect then
                        clear(prefix, payload)
                    end
                elseif is_suspect then
                    suspect(prefix, task_key, held)
                    queued = queued + 1
                else
                    backs[#backs + 1] = {tonumber(id), slot, queue, payload}
                    queued = queued + 1
                end
            end
        elseif what == 'start' then
            redis.call('HINCRBY', task_key, 'start_done', id)
            has_started = true
        elseif what == 'started' then
            has_started = true
            redis.call('HSET', task_key, 'start', 'done', 'start_owner', '')
        end
    end
    count_seen(task_key, n_seen)
    for name, number in pairs({['scheduler/enqueued'] = enqueued, ['scheduler/enqueued/memory'] = enqueued,
        ['dupefilter/filtered'] = ARGV[7] == '1' and filtered or 0}) do
        if number > 0 then
            count_stat(KEYS[5], name, '+', string.format('%d', number))
        end
    end
    -- What yield.lua asks: since when has the process brought its task on?
    local is_first = not record.done_ms and (acknowledged > 0 or has_started)
    record.done_ms = record.done_ms or (is_first and now or nil)
    if #duplicates > 0 then
        record.duplicates = duplicates
    end
    if is_first or is_cleared or #duplicates > 0 then
        redis.call('HSET', KEYS[2], process, cjson.encode(record))
    end
    -- The last leased first: so they come out in their old order.
    table.sort(backs, function(one, other) return one[1] > other[1] end)
    for _, back in ipairs(backs) do
        push(prefix, back[2], back[3], {back[4]}, true, is_queue_lifo(task_key, back[3]))
    end
    for _, name in ipairs(order) do
        local group = groups[name]
        push(prefix, group[1], group[2], group[3], false)
    end

    for _, need in ipairs(needs) do
        local share = need.demand > 0 and meet_need(limits, prefix, need.slot, process, need.demand, now)
        if share then
            shares[#shares + 1] = need.slot
            shares[#shares + 1] = share
        end
    end

    local wanted = tonumber(ARGV[4])
    held_state = find_held_state(task_key, process)
    if state ~= 'running' or held_state > 0 then
        wanted = 0
    end
    local flags = redis.call('HMGET', task_key, 'lifo', 'start_lifo', 'lease_seq', 'suspects', 'suspect_runner')
    local lease_seq, n_suspects, granted = tonumber(flags[3]), tonumber(flags[4]) or 0, 0
    if record.suspect then
        wanted = 0
    elseif n_suspects > 0 and wanted > 0 and is_runner(task_key, KEYS[2], process, flags[5]) then
        wanted = 0
        -- It gets one when it has nothing else in hand, and may use its slot.
        for _ = 1, redis.call('HLEN', KEYS[3]) == 0 and n_suspects or 0 do
            local held = redis.call('LPOP', prefix .. 'suspects')
            local slot = parts(held)
            local share = take_share(limits, prefix, slot, process, now)
            if share then
                lease_seq = lease_seq + 1
                record.suspect = tostring(lease_seq)
                redis.call('HSET', KEYS[2], process, cjson.encode(record))
                redis.call('HSET', KEYS[3], lease_seq, held)
                redis.call('HINCRBY', task_key, 'suspects', -1)
                leases = {record.suspect, held}
                count_active(prefix, slot, 1)
                count_held(limits, prefix, slot, process, 1, now)
                if share > 0 then
                    shares[#shares + 1] = slot
                    shares[#shares + 1] = share
                end
                queued, leased, granted = queued - 1, leased + 1, 1
                break
            end
            redis.call('RPUSH', prefix .. 'suspects', held)
        end
    elseif n_suspects == 0 and flags[5] == process then
        redis.call('HDEL', task_key, 'suspect_runner')
    end
    -- Of little, each process gets its part, for who asks first cannot do it all the sooner: so nobody is without
    -- work while another has some in hand, at the begin of a crawl and at its end.
    local n_processes = wanted > 1 and redis.call('HLEN', KEYS[2]) or 1
    if n_processes > 1 then
        local waiting = tonumber(redis.call('HGET', task_key, 'queued')) + queued
        wanted = math.max(1, math.min(wanted, math.ceil(waiting / n_processes)))
    end
    -- The slots with the fewest leases first; those that this process has a share of.
    local open, open_of, active = {}, {}, {}
    if wanted > 0 then
        local ready = redis.call('ZRANGE', prefix .. 'ready', 0, 199, 'WITHSCORES')
        for at = 1, #ready, 2 do
            local slot = ready[at]
            active[slot] = tonumber(ready[at + 1])
            local share = take_share(limits, prefix, slot, process, now)
            if share then
                open[#open + 1] = slot
                open_of[slot] = true
                if share > 0 then
                    shares[#shares + 1] = slot
                    shares[#shares + 1] = share
                end
                if #open >= wanted then
                    break
                end
            end
        end
    end
    while wanted > 0 and #open > 0 do
        local take = 1
        if #open == 1 then
            take = wanted
        end
        local least = math.huge
        for _, slot in ipairs(open) do
            least = math.min(least, active[slot])
        end
        local turn, still_open = {}, {}
        for _, slot in ipairs(open) do
            local which = active[slot] == least and turn or still_open
            which[#which + 1] = slot
        end
        for _, slot in ipairs(turn) do
            if wanted <= 0 then
                break
            end
            local queue = redis.call('ZRANGE', prefix .. 'queues:' .. slot, 0, 0)[1]
            local list = prefix .. 'queue:' .. slot .. ':' .. queue
            local is_lifo = flags[1] == '1'
            if string.sub(queue, -1) == 's' then
                is_lifo = flags[2] == '1'
            end
            local payloads = redis.call(is_lifo and 'RPOP' or 'LPOP', list, math.min(take, wanted))
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
            count_active(prefix, slot, #payloads)
            active[slot] = active[slot] + #payloads
            count_held(limits, prefix, slot, process, #payloads, now)
            wanted = wanted - #payloads
            granted = granted + #payloads
            queued = queued - #payloads
            leased = leased + #payloads
            if redis.call('EXISTS', list) == 1 then
                still_open[#still_open + 1] = slot
            else
                redis.call('ZREM', prefix .. 'queues:' .. slot, queue)
                if redis.call('EXISTS', prefix .. 'queues:' .. slot) == 1 then
                    still_open[#still_open + 1] = slot
                else
                    redis.call('ZREM', prefix .. 'ready', slot)
                    forget_waiters(prefix, slot)
                end
            end
        end
        open = still_open
    end
    -- Where nothing waits, nobody asks for leases; but those whom others leave behind go on with all of the slot.
    for slot, held in pairs(held_of) do
        local share = not open_of[slot] and grow_share(limits, prefix, slot, process, held, now)
        if share then
            shares[#shares + 1] = slot
            shares[#shares + 1] = share
        end
    end
    -- A share without a lease or a need is nobody's.
    for at = #shares - 1, 1, -2 do
        if redis.call('HEXISTS', prefix .. 'held:' .. shares[at], process) == 0
            and redis.call('HEXISTS', prefix .. 'needs:' .. process, shares[at]) == 0 then
            redis.call('HDEL', prefix .. 'holders:' .. shares[at], process)
            table.remove(shares, at + 1)
            table.remove(shares, at)
        end
    end
    -- A process that finds nothing although requests wait: the task shall not grow.
    if granted > 0 then
        redis.call('SREM', prefix .. 'starved', process)
    elseif wanted > 0 and redis.call('EXISTS', prefix .. 'ready') == 1 then
        redis.call('SADD', prefix .. 'starved', process)
    end
    for _, part in ipairs(asked_for(limits, prefix, process, now)) do
        shares[#shares + 1] = part
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
    count_work(KEYS[9], record.worker, {done = acknowledged, failed = failed, errors = n_errors,
        items = items})
end

-- The end is counted: nothing waits, nothing is leased or stays on a process, start() is exhausted. One process is
-- told.
local task = redis.call('HMGET', task_key, 'queued', 'leased', 'start', 'idle_owner', 'reason', 'stop_mode')
local is_idle = 0
if tonumber(task[1]) == 0 and tonumber(task[2]) == 0 and task[3] == 'done' and state == 'running'
    and redis.call('EXISTS', prefix .. 'locals') == 0 then
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
    version, facts, shares, redis.call('HGET', task_key, 'start') == 'lost' and 1 or 0,
    is_counting and redis.call('HGETALL', prefix .. 'closing') or {}, held_state,
    record.suspect or ''}
