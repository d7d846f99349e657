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
-- KEYS[5]  the last commit of each process (HASH): _commits.lua
-- KEYS[6]  stat values (HASH)
-- KEYS[7]  facts (HASH)
-- KEYS[8]  fact versions (ZSET)
-- KEYS[9]  requests that failed for good (STREAM)
-- ARGV[1]  the task's key prefix; queues and seen sets are named from it
-- ARGV[2]  process
-- ARGV[3]  number of this commit, 1, 2, 3 ...
-- ARGV[4]  new leases wanted; with other processes, at most this one's part of what waits is given
-- ARGV[5]  stats that were set, as JSON; '': as before
-- ARGV[6]  version of the facts that the process knows
-- ARGV[7]  1: count the duplicates, as Scrapy's own filter does
-- ARGV[8]  what the process has counted and is not added up yet (_commits.lua)
-- ARGV[9]  1: add it up
-- ARGV[10] number of new facts; then for each: id, value
-- next     number of shares that the process has come down to; then for each: slot, share
-- next     number of slots with downloads that may have no lease; then for each: slot, number of downloads, 0: none more
-- next     number of what the task counts otherwise, -1: nobody asks; then for each: name, operation ('+'; '=':
--            it begins anew), number
-- next     pages, scraped items and logged errors since the last commit
-- next     failed requests kept at most; number of new ones; then for each:
--            lease id; '': it cannot be put back
--            signed failure
--            payload to put back, '': as leased
-- next     number of batches of items; then for each: signed batch, number of items in it
-- next     number of runs of requests for the same slot and queue; then for each: slot, queue, number of requests; then
--            for each: fingerprint (_seen.lua) or '' (no filter), payload; an empty payload is a request
--            that stays on its process: slot is then the name of its claim, queue 'claim' (it begins) or 'settled' (it
--            is done)
-- next     number of slots in which leases are done (acknowledged); then for each: slot, number of leases, their ids
-- next     number of other results; then for each:
--            what: 'done' (acknowledge, the slot is not known), 'part' (early flush), 'back' (not run, give back),
--                  'start' (outputs of start()), 'started' (start() is exhausted), 'feed' (no parent)
--            lease id, or the count of start outputs
-- Returns {status, state, reason, stop mode, queued, leased, is idle, duplicates, leases, version, facts,
--          shares, is start() lost?, counts, held, suspect}; nil for lists of nothing, which take the server longer
--   status: 'ok'; 'replayed'; 'fenced'; 'gone'
--   duplicates: a digit for each request of the call, in order: 1, where it was filtered; '' where none was
--   leases: id, slot LF queue LF payload, id, ...
--   version, facts: what the whole task knows now, and what of it is new to the process: id, value, id, ...
--   shares: concurrency that the process may use: of slots that it got leases of, or named with downloads and need not
--     wait for, and of slots in which others wait (0: its turn is over): slot, share, slot, ...
--   held: 1: too many items wait to be fetched; 2: and this process is the one that says so; 0: no
--   suspect: the lease that runs alone, if one of these does; '': none
--   counts: what the whole task has counted, where that was asked for: name, number, name, ...
-- include: clock
-- include: queues
-- include: polite
-- include: need
-- include: suspects
-- include: seen
-- include: commits

-- What the task's record tells of all commits: pages, items, errors, requests put in, requests filtered as seen.
local TALLY = '^(%-?%d+) (%-?%d+) (%-?%d+) (%d+) (%d+)$'

-- 0: the crawl goes on; 1: it is held, for too many items wait to be fetched; 2: and this process is to say so.
local function find_held_state(task_key, is_held, told_by, process)
    if told_by and not is_held then
        redis.call('HDEL', task_key, 'held_told_by')
    elseif is_held and not told_by then
        redis.call('HSET', task_key, 'held_told_by', process)
    end
    return not is_held and 0 or (told_by or process) == process and 2 or 1
end

-- End these leases of the process; those that it had, in order: what, id, held (slot LF queue LF payload).
local function end_leases(key, ends)
    local ended, is_ended = {}, {}
    for from = 1, #ends, 1000 do
        local ids = {}
        for at = from, math.min(from + 999, #ends) do
            ids[#ids + 1] = ends[at].id
        end
        for at, held in ipairs(redis.call('HMGET', key, unpack(ids))) do
            local lease = ends[from + at - 1]
            if held and not is_ended[lease.id] then
                is_ended[lease.id] = true
                lease.held = held
                ended[#ended + 1] = lease
            end
        end
        redis.call('HDEL', key, unpack(ids))
    end
    return ended
end

-- A request that stays on its process: seen only when it is done, so that a process that dies leaves no page out.
-- Returns false when it is a duplicate.
local function claim_local(prefix, n_seen, claim, fingerprint, process)
    local owner = redis.call('HGET', prefix .. 'locals', claim)
    if (owner and owner ~= process) or (fingerprint ~= '' and was_seen(prefix, n_seen, fingerprint)) then
        return false
    end
    redis.call('HSET', prefix .. 'locals', claim, process)
    return true
end

-- It is done. Returns 1 when it was not seen before, else 0.
local function settle_local(prefix, n_seen, claim, fingerprint)
    redis.call('HDEL', prefix .. 'locals', claim)
    if fingerprint == '' then
        return 0
    end
    local _, n_new = see(prefix, n_seen, {fingerprint})
    return n_new
end

-- Put payloads with those for the same queue; order: all queues, as they were met.
local function add_payloads(groups, order, slot, queue, payloads)
    groups[slot] = groups[slot] or {}
    local group = groups[slot][queue]
    if not group then
        group = {slot = slot, queue = queue, payloads = payloads}
        groups[slot][queue] = group
        order[#order + 1] = group
        return
    end
    for _, payload in ipairs(payloads) do
        group.payloads[#group.payloads + 1] = payload
    end
end

local task_key, prefix, process = KEYS[1], ARGV[1], ARGV[2]
-- All of the task's record that is asked for; numbers as text.
local state, start, idle_owner, crashes, before_queued, before_leased, before_seen, before_items_bytes,
    items_dropped_bytes, items_limit, held_told_by, lifo, start_lifo, before_lease_seq, before_suspects, suspect_runner,
    before_version, polite_most, polite_delay_ms, polite_special, before_tally, n_processes = unpack(redis.call('HMGET',
    task_key, 'state', 'start', 'idle_owner', 'crashes', 'queued', 'leased', 'seen', 'items_bytes',
    'items_dropped_bytes', 'items_limit', 'held_told_by', 'lifo', 'start_lifo', 'lease_seq', 'suspects', 'suspect_runner',
    'fact_version', 'polite_most', 'polite_delay_ms', 'polite_special', 'tally', 'processes'))
if not state then
    return {'gone'}
end
local last = redis.call('HGET', KEYS[5], process)
if not last then
    return {'fenced'}
end
local number, done_ms, is_starved, duplicates = parse_commit(last)
-- A commit that was answered is missing: this server has lost its last moments (a crash, a failover). What the
-- process holds is not what stands here; it must begin anew, or its leases here would never end.
if tonumber(ARGV[3]) > number + 1 then
    return {'fenced'}
end
-- The process's own record, where it is needed: only the runner's tells of a suspect.
local record
local function read_record()
    record = record or cjson.decode(redis.call('HGET', KEYS[2], process))
    return record
end
local suspect_id = suspect_runner == process and read_record().suspect or ''
local limits, shares, needs = parse_limits(polite_most, polite_delay_ms, polite_special), {}, {}
local queued, leased, version = tonumber(before_queued), tonumber(before_leased), tonumber(before_version) or 0
local items_bytes = tonumber(before_items_bytes) or 0
local leases, status, is_counting, held_state = {}, 'ok', false, 0

if tonumber(ARGV[3]) <= number then
    status = 'replayed'
    held_state = find_held_state(task_key, are_items_many(items_bytes, items_dropped_bytes, items_limit), held_told_by,
        process)
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
    -- Before all else: a script that fails half-way is not rolled back, and must not be done again.
    local kept, changes = pack_commit(ARGV[3], done_ms, is_starved, ''), ARGV[8]
    redis.call('HSET', KEYS[5], process, ARGV[9] == '1' and kept or kept .. changes)
    if ARGV[9] == '1' then
        add_up(prefix, read_record().worker, changes, 1)
        changes = ''
    end
    if ARGV[5] ~= '' then
        redis.call('HSET', KEYS[6], process, ARGV[5])
    end
    local at = 11
    for _ = 1, tonumber(ARGV[10]) do
        -- Of a fact whose name begins so, the first word stands, and whoever comes later is told of that.
        if string.sub(ARGV[at], 1, 6) ~= 'first:' or redis.call('HEXISTS', KEYS[7], ARGV[at]) == 0 then
            version = redis.call('HINCRBY', task_key, 'fact_version', 1)
            redis.call('HSET', KEYS[7], ARGV[at], ARGV[at + 1])
            redis.call('ZADD', KEYS[8], version, ARGV[at])
        end
        at = at + 2
    end
    local lowered = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, lowered do
        lower_share(limits, prefix, ARGV[at], process, tonumber(ARGV[at + 1]))
        at = at + 2
    end
    -- Before the results, which end leases: who goes on downloading keeps its share.
    local is_needed = {}
    for index = 1, tonumber(ARGV[at]) do
        is_needed[ARGV[at + 2 * index - 1]] = true
        needs[index] = {slot = ARGV[at + 2 * index - 1], demand = tonumber(ARGV[at + 2 * index])}
        note_need(limits, prefix, needs[index].slot, process, needs[index].demand)
    end
    at = at + 1 + 2 * #needs
    local others = tonumber(ARGV[at])
    at = at + 1
    is_counting = others >= 0
    for _ = 1, others do
        redis.call(ARGV[at + 1] == '=' and 'HSET' or 'HINCRBY', prefix .. 'closing', ARGV[at], ARGV[at + 2])
        at = at + 3
    end
    local n_pages, n_items, n_errors = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    at = at + 3

    -- Before the results, which end the leases.
    local most, failed = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    at = at + 2
    for _ = 1, failed do
        add_failure(KEYS[9], task_key, ARGV[at] ~= '' and redis.call('HGET', KEYS[3], ARGV[at]), ARGV[at + 1],
            ARGV[at + 2])
        at = at + 3
    end
    if failed > 0 then
        trim_failures(KEYS[9], task_key, most)
    end

    local batches = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, batches do
        items_bytes = items_bytes + #ARGV[at]
        redis.call('XADD', KEYS[4], '*', 'n', ARGV[at + 1], 'items', ARGV[at], 'sum', string.format('%d', items_bytes))
        at = at + 2
    end

    local groups, order, backs, acknowledged = {}, {}, {}, 0
    -- For each request of the call, in order: '1': it is a duplicate.
    local fates, n_requests, has_duplicates = {}, 0, false
    -- What the scheduler counts: here, for a process that dies after this could not tell it any more.
    local enqueued, filtered = 0, 0
    local n_seen, n_suspects = tonumber(before_seen) or 0, tonumber(before_suspects) or 0
    -- Runs of requests that travel, up to one that stays on its process.
    local stretch, fingerprints, n_fingerprints = {}, {}, 0
    local function add_stretch()
        local are_new, n_new = see(prefix, n_seen, fingerprints)
        n_seen, filtered = n_seen + n_new, filtered + n_fingerprints - n_new
        has_duplicates = has_duplicates or n_new < n_fingerprints
        local asked = 0
        for _, run in ipairs(stretch) do
            local payloads, n_payloads = {}, 0
            for from = run.from, run.to, 2 do
                local is_new = true
                if ARGV[from] ~= '' then
                    asked = asked + 1
                    is_new = are_new[asked]
                end
                n_requests = n_requests + 1
                fates[n_requests] = is_new and '0' or '1'
                if is_new then
                    n_payloads = n_payloads + 1
                    payloads[n_payloads] = ARGV[from + 1]
                end
            end
            if n_payloads > 0 then
                enqueued = enqueued + n_payloads
                queued = queued + n_payloads
                add_payloads(groups, order, run.slot, run.queue, payloads)
            end
        end
        stretch, fingerprints, n_fingerprints = {}, {}, 0
    end
    local runs = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, runs do
        local slot, queue, from = ARGV[at], ARGV[at + 1], at + 3
        at = from + 2 * tonumber(ARGV[at + 2])
        if ARGV[from + 1] ~= '' then
            stretch[#stretch + 1] = {slot = slot, queue = queue, from = from, to = at - 2}
            for index = from, at - 2, 2 do
                if ARGV[index] ~= '' then
                    n_fingerprints = n_fingerprints + 1
                    fingerprints[n_fingerprints] = ARGV[index]
                end
            end
        else
            add_stretch()
            for index = from, at - 2, 2 do
                local is_new = true
                if queue == 'settled' then
                    n_seen = n_seen + settle_local(prefix, n_seen, slot, ARGV[index])
                else
                    is_new = claim_local(prefix, n_seen, slot, ARGV[index], process)
                end
                n_requests = n_requests + 1
                fates[n_requests] = is_new and '0' or '1'
                has_duplicates = has_duplicates or not is_new
            end
        end
    end
    add_stretch()
    duplicates = has_duplicates and table.concat(fates) or ''

    -- Of the slots in which leases end: how many did.
    local ended_of = {}
    local slots = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, slots do
        local slot, from = ARGV[at], at + 2
        at = from + tonumber(ARGV[at + 1])
        if suspect_id ~= '' then
            for index = from, at - 1 do
                local held = ARGV[index] == suspect_id and redis.call('HGET', KEYS[3], suspect_id)
                if held then
                    local _, _, payload = parts(held)
                    clear(prefix, payload)
                    suspect_id = ''
                end
            end
        end
        local n_ended = 0
        for first = from, at - 1, 1000 do
            n_ended = n_ended + redis.call('HDEL', KEYS[3], unpack(ARGV, first, math.min(first + 999, at - 1)))
        end
        ended_of[slot] = n_ended
        acknowledged = acknowledged + n_ended
        leased = leased - n_ended
    end
    local ends, has_started = {}, false
    local results = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, results do
        local what, id = ARGV[at], ARGV[at + 1]
        at = at + 2
        if what == 'done' or what == 'back' then
            ends[#ends + 1] = {what = what, id = id}
        elseif what == 'start' then
            redis.call('HINCRBY', task_key, 'start_done', id)
            has_started = true
        elseif what == 'started' then
            has_started = true
            start = 'done'
            redis.call('HSET', task_key, 'start', 'done', 'start_owner', '')
        end
    end
    for _, lease in ipairs(end_leases(KEYS[3], ends)) do
        local slot, queue, payload = parts(lease.held)
        leased = leased - 1
        ended_of[slot] = (ended_of[slot] or 0) + 1
        local is_suspect = suspect_id == lease.id
        if is_suspect then
            suspect_id = ''
        end
        if lease.what == 'done' then
            acknowledged = acknowledged + 1
            if is_suspect then
                clear(prefix, payload)
            end
        elseif is_suspect then
            suspect(prefix, task_key, lease.held)
            n_suspects = n_suspects + 1
            queued = queued + 1
        else
            backs[#backs + 1] = {tonumber(lease.id), slot, queue, payload}
            queued = queued + 1
        end
    end
    -- What changes of the counts of a slot's leases, its own and those of the process, is written when it is known
    -- what the process gets; but who has none left is not a holder any more, and what it needs itself depends on what it
    -- has. held_of: how many it has left.
    local active_of, change_of, held_of = {}, {}, {}
    for slot, n_ended in pairs(ended_of) do
        if n_ended > 0 then
            active_of[slot] = -n_ended
            held_of[slot] = (tonumber(redis.call('HGET', prefix .. 'held:' .. slot, process)) or 0) - n_ended
            if held_of[slot] > 0 and not is_needed[slot] then
                change_of[slot] = -n_ended
            else
                count_held(limits, prefix, slot, process, -n_ended)
            end
        end
    end
    -- What yield.lua asks: since when has the process brought its task on?
    if done_ms == 0 and (acknowledged > 0 or has_started) then
        done_ms = now_ms()
    end
    -- The last leased first: so they come out in their old order.
    table.sort(backs, function(one, other) return one[1] > other[1] end)
    for _, back in ipairs(backs) do
        push(prefix, back[2], back[3], {back[4]}, true, is_queue_lifo(task_key, back[3]))
    end
    for _, group in ipairs(order) do
        push(prefix, group.slot, group.queue, group.payloads, false)
    end

    for _, need in ipairs(needs) do
        local share = need.demand > 0 and meet_need(limits, prefix, need.slot, process, need.demand)
        if share then
            shares[#shares + 1] = need.slot
            shares[#shares + 1] = share
        end
    end

    local wanted = tonumber(ARGV[4])
    held_state = find_held_state(task_key, are_items_many(items_bytes, items_dropped_bytes, items_limit), held_told_by,
        process)
    if state ~= 'running' or held_state > 0 then
        wanted = 0
    end
    local lease_seq, granted = tonumber(before_lease_seq), 0
    if suspect_id ~= '' then
        wanted = 0
    elseif n_suspects > 0 and wanted > 0 and is_runner(task_key, KEYS[2], process, suspect_runner) then
        wanted = 0
        -- It gets one when it has nothing else in hand, and may use its slot.
        for _ = 1, redis.call('HLEN', KEYS[3]) == 0 and n_suspects or 0 do
            local held = redis.call('LPOP', prefix .. 'suspects')
            local slot = parts(held)
            local share = take_share(limits, prefix, slot, process)
            if share then
                lease_seq = lease_seq + 1
                suspect_id = string.format('%d', lease_seq)
                read_record()
                redis.call('HSET', KEYS[3], lease_seq, held)
                redis.call('HINCRBY', task_key, 'suspects', -1)
                leases = {suspect_id, held}
                count_active(prefix, slot, 1)
                count_held(limits, prefix, slot, process, 1)
                if share > 0 then
                    shares[#shares + 1] = slot
                    shares[#shares + 1] = share
                end
                queued, leased, granted = queued - 1, leased + 1, 1
                break
            end
            redis.call('RPUSH', prefix .. 'suspects', held)
        end
    elseif n_suspects == 0 and suspect_runner == process then
        redis.call('HDEL', task_key, 'suspect_runner')
    end
    -- Of little, each process gets its part, for who asks first cannot do it all the sooner: so nobody is without
    -- work while another has some in hand, at the begin of a crawl and at its end.
    if wanted > 1 then
        wanted = math.max(1, math.min(wanted, math.ceil(queued / math.max(1, tonumber(n_processes)))))
    end
    -- The slots with the fewest leases first; those that this process has a share of.
    local open, open_of, active, granted_of = {}, {}, {}, {}
    if wanted > 0 then
        -- Where there are several to choose from, what has just ended counts.
        if next(active_of) and redis.call('ZRANGE', prefix .. 'ready', 1, 1)[1] then
            for slot, change in pairs(active_of) do
                count_active(prefix, slot, change)
            end
            active_of = {}
        end
        local ready = redis.call('ZRANGE', prefix .. 'ready', 0, 199, 'WITHSCORES')
        for at = 1, #ready, 2 do
            local slot = ready[at]
            active[slot] = tonumber(ready[at + 1]) + (active_of[slot] or 0)
            local share = take_share(limits, prefix, slot, process)
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
            local is_lifo = (string.sub(queue, -1) == 's' and start_lifo or lifo) == '1'
            local payloads = redis.call(is_lifo and 'RPOP' or 'LPOP', list, math.min(take, wanted))
            local held, begin = {}, slot .. '\n' .. queue .. '\n'
            for _, payload in ipairs(payloads) do
                lease_seq = lease_seq + 1
                local id, value = string.format('%d', lease_seq), begin .. payload
                held[#held + 1] = id
                held[#held + 1] = value
                leases[#leases + 1] = id
                leases[#leases + 1] = value
            end
            redis.call('HSET', KEYS[3], unpack(held))
            active[slot] = active[slot] + #payloads
            active_of[slot] = (active_of[slot] or 0) + #payloads
            change_of[slot] = (change_of[slot] or 0) + #payloads
            wanted = wanted - #payloads
            granted = granted + #payloads
            granted_of[slot] = true
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
    for slot, change in pairs(active_of) do
        if change ~= 0 then
            count_active(prefix, slot, change)
        end
    end
    for slot, change in pairs(change_of) do
        if change ~= 0 then
            count_held(limits, prefix, slot, process, change)
        end
    end
    -- Where nothing waits, nobody asks for leases; but those whom others leave behind go on with all of the slot.
    for slot, held in pairs(held_of) do
        local share = not open_of[slot] and grow_share(limits, prefix, slot, process, held)
        if share then
            shares[#shares + 1] = slot
            shares[#shares + 1] = share
        end
    end
    -- A share without a lease or a need is nobody's.
    for at = #shares - 1, 1, -2 do
        if not granted_of[shares[at]] and redis.call('HEXISTS', prefix .. 'held:' .. shares[at], process) == 0
            and redis.call('HEXISTS', prefix .. 'needs:' .. process, shares[at]) == 0 then
            redis.call('HDEL', prefix .. 'holders:' .. shares[at], process)
            table.remove(shares, at + 1)
            table.remove(shares, at)
        end
    end
    -- A process that finds nothing although requests wait: the task shall not grow.
    if granted > 0 and is_starved then
        redis.call('SREM', prefix .. 'starved', process)
        is_starved = false
    elseif granted == 0 and wanted > 0 and not is_starved and redis.call('EXISTS', prefix .. 'ready') == 1 then
        redis.call('SADD', prefix .. 'starved', process)
        is_starved = true
    end
    if record and record.suspect ~= (suspect_id ~= '' and suspect_id or nil) then
        record.suspect = suspect_id ~= '' and suspect_id or nil
        redis.call('HSET', KEYS[2], process, cjson.encode(record))
    end
    local now_kept = pack_commit(ARGV[3], done_ms, is_starved, duplicates)
    if now_kept ~= kept then
        redis.call('HSET', KEYS[5], process, now_kept .. changes)
    end
    for _, part in ipairs(asked_for(limits, prefix, process)) do
        shares[#shares + 1] = part
    end
    local fields = {}
    local function change(field, before, value)
        local text = string.format('%d', value)
        if text ~= (before or '0') then
            fields[#fields + 1] = field
            fields[#fields + 1] = text
        end
    end
    change('queued', before_queued, queued)
    change('leased', before_leased, leased)
    change('lease_seq', before_lease_seq, lease_seq)
    change('seen', before_seen, n_seen)
    change('items_bytes', before_items_bytes, items_bytes)
    if ARGV[7] ~= '1' then
        filtered = 0
    end
    if n_pages ~= 0 or n_items ~= 0 or n_errors ~= 0 or enqueued ~= 0 or filtered ~= 0 then
        local pages, items, errors, all_enqueued, all_filtered = string.match(before_tally, TALLY)
        fields[#fields + 1] = 'tally'
        fields[#fields + 1] = string.format('%d %d %d %d %d', pages + n_pages, items + n_items, errors + n_errors,
            all_enqueued + enqueued, all_filtered + filtered)
    end
    change('crashes', crashes, acknowledged > 0 and 0 or crashes)
    if #fields > 0 then
        redis.call('HSET', task_key, unpack(fields))
    end
end

-- The end is counted: nothing waits, nothing is leased or stays on a process, start() is exhausted. One process is
-- told.
local is_idle = 0
if queued == 0 and leased == 0 and start == 'done' and state == 'running'
    and redis.call('EXISTS', prefix .. 'locals') == 0 then
    local owner = idle_owner
    if owner == '' or redis.call('HEXISTS', KEYS[2], owner) == 0 then
        redis.call('HSET', task_key, 'idle_owner', process)
        owner = process
    end
    if owner == process then
        is_idle = 1
    end
elseif idle_owner ~= '' then
    redis.call('HSET', task_key, 'idle_owner', '')
end

local facts = {}
if version > tonumber(ARGV[6]) then
    local ids = redis.call('ZRANGEBYSCORE', KEYS[8], '(' .. ARGV[6], '+inf')
    for _, id in ipairs(ids) do
        facts[#facts + 1] = id
        facts[#facts + 1] = redis.call('HGET', KEYS[7], id)
    end
end
local function list(found)
    return #found > 0 and found
end
local ended = {'', ''}
if state ~= 'running' then
    ended = redis.call('HMGET', task_key, 'reason', 'stop_mode')
end
return {status, state, ended[1], ended[2], queued, leased, is_idle, duplicates, list(leases), version, list(facts),
    list(shares), start == 'lost' and 1 or 0, is_counting and redis.call('HGETALL', prefix .. 'closing'), held_state,
    suspect_id}
