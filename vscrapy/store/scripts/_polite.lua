-- Shared (it needs the clock): which processes may download from a downloader slot, and how much each, so that the site
-- sees no more than one "scrapy crawl" would send. Home is one of them.
--
-- A process that has leases of a slot, or a need of it (downloads there without a lease), is one of its holders, with
-- a share of the slot's concurrency; the shares never add up to more than the slot's most. A slot with a delay has one
-- holder at a time. Who finds no share, or less than is fair, waits; holders are then asked for less, and say when
-- they have come down to it. Where there is none for all, they take turns: who had its turn is asked for all of it, and
-- keeps its leases.

-- A turn's length, where others wait: so many delays, and no less than this (ms).
local TURN_DELAYS, TURN_LEAST_MS = 8, 1000
-- Who waits asks again all the time; who has not for so long (ms) does not wait any more.
local STALE_MS = 3000

-- The task's limits, of these fields of its record: most concurrent downloads of a slot (0: not kept), delay (ms), are
-- there special slots?
local function parse_limits(polite_most, polite_delay_ms, polite_special)
    return {most = tonumber(polite_most) or 0, delay_ms = tonumber(polite_delay_ms) or 0,
        special = polite_special == '1'}
end

local function read_limits(task_key)
    return parse_limits(unpack(redis.call('HMGET', task_key, 'polite_most', 'polite_delay_ms', 'polite_special')))
end

local function limits_of(limits, prefix, slot)
    if limits.special then
        local own = redis.call('HGET', prefix .. 'limits', slot)
        if own then
            local most, delay_ms = string.match(own, '^(%d+):(%d+)$')
            return tonumber(most), tonumber(delay_ms)
        end
    end
    return limits.most, limits.delay_ms
end

-- A holder's share, and since when it has had one (ms).
local function parse_share(value)
    local share, since_ms = string.match(value, '^(%d+) (%d+)$')
    return tonumber(share), tonumber(since_ms)
end

local function share_of(prefix, slot, process)
    local value = redis.call('HGET', prefix .. 'holders:' .. slot, process)
    if value then
        return parse_share(value)
    end
    return nil
end

local function set_share(prefix, slot, process, share, since_ms)
    redis.call('HSET', prefix .. 'holders:' .. slot, process, string.format('%d %d', share, since_ms))
end

local function stop_waiting(prefix, slot, process)
    if redis.call('HDEL', prefix .. 'waiters:' .. slot, process) == 1
        and redis.call('EXISTS', prefix .. 'waiters:' .. slot) == 0 then
        redis.call('SREM', prefix .. 'contended', slot)
    end
end

local function start_waiting(prefix, slot, process)
    local before = redis.call('HGET', prefix .. 'waiters:' .. slot, process)
    local since_ms = before and string.match(before, '^%d+') or now_ms()
    redis.call('HSET', prefix .. 'waiters:' .. slot, process, string.format('%d %d', since_ms, now_ms()))
    redis.call('SADD', prefix .. 'contended', slot)
end

-- Who waits for the slot: process -> since when (ms).
local function waiters_of(prefix, slot)
    local waiters = {}
    local flat = redis.call('HGETALL', prefix .. 'waiters:' .. slot)
    for at = 1, #flat, 2 do
        local since_ms, last_ms = parse_share(flat[at + 1])
        if last_ms < now_ms() - STALE_MS then
            stop_waiting(prefix, slot, flat[at])
        else
            waiters[flat[at]] = since_ms
        end
    end
    return waiters
end

local function has_other(processes, process)
    for name in pairs(processes) do
        if name ~= process then
            return true
        end
    end
    return false
end

-- The share that is fair for the process: those who can use less than an equal part leave the rest to the others.
local function fair_share(prefix, slot, process, most, waiters)
    local names = {[process] = true}
    for name in pairs(waiters) do
        names[name] = true
    end
    for _, name in ipairs(redis.call('HKEYS', prefix .. 'holders:' .. slot)) do
        names[name] = true
    end
    local is_ready = redis.call('ZSCORE', prefix .. 'ready', slot)
    local parties = {}
    for name in pairs(names) do
        local need = redis.call('HGET', prefix .. 'needs:' .. name, slot)
        local held = redis.call('HGET', prefix .. 'held:' .. slot, name)
        local demand = most
        if (need or held) and not (held and is_ready) then
            demand = math.min(most, (tonumber(need or nil) or 0) + (tonumber(held or nil) or 0))
        end
        parties[#parties + 1] = {name = name, demand = demand}
    end
    table.sort(parties, function(one, other)
        if one.demand ~= other.demand then
            return one.demand < other.demand
        end
        return one.name < other.name
    end)
    local left = most
    for at, party in ipairs(parties) do
        local part = math.max(1, math.min(party.demand, math.floor(left / (#parties - at + 1))))
        if party.name == process then
            return part
        end
        left = left - part
    end
end

-- Has one of these processes leases of the slot?
local function is_crawled(prefix, slot, processes)
    for _, name in ipairs(processes) do
        if redis.call('HEXISTS', prefix .. 'held:' .. slot, name) == 1 then
            return true
        end
    end
    return false
end

-- No share is there for the process. Who only wants leases does not wait where others have some and there is not one
-- share for each: these do it all.
local function go_without(prefix, slot, process, demand, holders, most, waiters)
    local does_wait = demand or #holders < most or not is_crawled(prefix, slot, holders)
    if not demand and #holders == 0 then
        does_wait = next(waiters)
    end
    if does_wait then
        start_waiting(prefix, slot, process)
    else
        stop_waiting(prefix, slot, process)
    end
end

-- Is it the turn of the process, with so many shares free?
local function is_next(waiters, process, free)
    local earlier = 0
    for name, since_ms in pairs(waiters) do
        local mine_ms = waiters[process]
        if name ~= process
            and (not mine_ms or since_ms < mine_ms or (since_ms == mine_ms and name < process)) then
            earlier = earlier + 1
        end
    end
    return earlier < free
end

-- May the process begin its turn in a slot with a delay, which nobody holds?
local function may_begin(prefix, slot, process, delay_ms, waiters)
    local released = redis.call('HGET', prefix .. 'released', slot)
    if released then
        local at_ms, by = string.match(released, '^(%d+) (.*)$')
        if by ~= process and now_ms() < tonumber(at_ms) + delay_ms then
            return false
        end
    end
    return is_next(waiters, process, 1)
end

-- The process's share of the slot, taken now if it has none and there is one, and more of it if there is; nil: it must
-- wait. It is for leases; with a demand, for so many downloads without one.
local function take_share(limits, prefix, slot, process, demand)
    local most, delay_ms = limits_of(limits, prefix, slot)
    if most == 0 then
        return 0
    end
    local share, since_ms = share_of(prefix, slot, process)
    if share and share >= most then
        return share
    end
    local is_contended = redis.call('SISMEMBER', prefix .. 'contended', slot) == 1
    local waiters = is_contended and waiters_of(prefix, slot) or {}
    if share and not demand and next(waiters) and not waiters[process] then
        return share
    end
    local values, others = redis.call('HGETALL', prefix .. 'holders:' .. slot), {}
    local free = most - (share or 0)
    for at = 1, #values, 2 do
        if values[at] ~= process then
            others[#others + 1] = values[at]
            free = free - parse_share(values[at + 1])
        end
    end
    local wanted, part = most, math.floor(most / (#others + 1))
    if delay_ms > 0 then
        part = 1
        if #others > 0 or not (share or may_begin(prefix, slot, process, delay_ms, waiters)) then
            free = 0
        end
    elseif not share and not is_next(waiters, process, free) then
        free = 0
    elseif (demand or not share or next(waiters)) and (#others > 0 or has_other(waiters, process)) then
        wanted = fair_share(prefix, slot, process, most, waiters)
    end
    local taken = math.min(free, wanted - (share or 0))
    if taken > 0 then
        share = (share or 0) + taken
        set_share(prefix, slot, process, share, since_ms or now_ms())
    end
    if not share then
        go_without(prefix, slot, process, demand, others, delay_ms > 0 and 1 or most, waiters)
    elseif share < part and share < math.min(wanted, fair_share(prefix, slot, process, most, waiters)) then
        start_waiting(prefix, slot, process)
    elseif is_contended then
        stop_waiting(prefix, slot, process)
    end
    return share
end

-- The process is about to come: let those who have all of a slot come down meanwhile. Not where shares are taken in
-- turns, for a turn would pass unused.
local function expect(limits, prefix, process)
    for _, slot in ipairs(redis.call('ZRANGE', prefix .. 'ready', 0, 199)) do
        local most, delay_ms = limits_of(limits, prefix, slot)
        local holders = redis.call('HLEN', prefix .. 'holders:' .. slot)
        if delay_ms == 0 and holders > 0 and holders < most then
            start_waiting(prefix, slot, process)
        end
    end
end

-- The process may use less of a slot than it has leases of it: let it have what others have left since. Returns its
-- share, if that has grown.
local function grow_share(limits, prefix, slot, process, held)
    local share = share_of(prefix, slot, process)
    if share and share < held then
        local grown = take_share(limits, prefix, slot, process)
        return grown > share and grown
    end
    return nil
end

-- The process is not a holder of the slot any more.
local function drop_share(limits, prefix, slot, process)
    if redis.call('HDEL', prefix .. 'holders:' .. slot, process) == 1 then
        local _, delay_ms = limits_of(limits, prefix, slot)
        if delay_ms > 0 then
            redis.call('HSET', prefix .. 'released', slot, string.format('%d %s', now_ms(), process))
        end
    end
end

-- The process has come down to a smaller share; 0: its turn is over.
local function lower_share(limits, prefix, slot, process, share)
    local now, since_ms = share_of(prefix, slot, process)
    if share == 0 then
        drop_share(limits, prefix, slot, process)
    elseif now and share < now then
        set_share(prefix, slot, process, share, since_ms)
    end
end

-- The shares that the process should come down to, because others wait: slot, share, slot, ...
local function asked_for(limits, prefix, process)
    local asked = {}
    for _, slot in ipairs(redis.call('SMEMBERS', prefix .. 'contended')) do
        local share, since_ms = share_of(prefix, slot, process)
        local waiters = share and waiters_of(prefix, slot) or {}
        waiters[process] = nil
        if next(waiters) then
            local most, delay_ms = limits_of(limits, prefix, slot)
            local wanted = share
            if delay_ms == 0 then
                wanted = math.min(share, fair_share(prefix, slot, process, most, waiters))
            end
            if wanted == share and now_ms() >= since_ms + math.max(TURN_DELAYS * delay_ms, TURN_LEAST_MS) then
                local values, is_oldest, n_holders = redis.call('HGETALL', prefix .. 'holders:' .. slot), true, 0
                for at = 1, #values, 2 do
                    local _, other_ms = parse_share(values[at + 1])
                    n_holders = n_holders + 1
                    waiters[values[at]] = nil
                    is_oldest = is_oldest and (other_ms > since_ms or (other_ms == since_ms and values[at] >= process))
                end
                if is_oldest and next(waiters) and (delay_ms > 0 or n_holders >= most) then
                    wanted = 0
                end
            end
            if wanted < share then
                asked[#asked + 1] = slot
                asked[#asked + 1] = wanted
            end
        end
    end
    return asked
end

-- The process has this many leases of the slot more (or fewer); with neither lease nor need it is not a holder any more.
-- Returns how many it has now.
local function count_held(limits, prefix, slot, process, delta)
    local held = redis.call('HINCRBY', prefix .. 'held:' .. slot, process, delta)
    if held <= 0 then
        redis.call('HDEL', prefix .. 'held:' .. slot, process)
        if redis.call('HEXISTS', prefix .. 'needs:' .. process, slot) == 0 then
            drop_share(limits, prefix, slot, process)
        end
    end
    return held
end

-- The process has so many downloads in the slot and perhaps no lease; 0: none any more.
local function note_need(limits, prefix, slot, process, demand)
    if demand > 0 then
        redis.call('HSET', prefix .. 'needs:' .. process, slot, demand)
        redis.call('SADD', prefix .. 'slots', slot)
        return
    end
    redis.call('HDEL', prefix .. 'needs:' .. process, slot)
    stop_waiting(prefix, slot, process)
    if redis.call('HEXISTS', prefix .. 'held:' .. slot, process) == 0 then
        drop_share(limits, prefix, slot, process)
    end
end

-- What of its need the process may use now; nil: it must wait. Others get what it has no use for.
local function meet_need(limits, prefix, slot, process, demand)
    local share = take_share(limits, prefix, slot, process, demand)
    local _, delay_ms = limits_of(limits, prefix, slot)
    if share and share > demand and delay_ms == 0 and redis.call('HLEN', prefix .. 'holders:' .. slot) > 1
        and redis.call('HEXISTS', prefix .. 'held:' .. slot, process) == 0 then
        return demand
    end
    return share
end

-- The process is no more, and neither are its needs.
local function forget_needs(limits, prefix, process)
    for _, slot in ipairs(redis.call('HKEYS', prefix .. 'needs:' .. process)) do
        note_need(limits, prefix, slot, process, 0)
    end
end

-- Nothing waits in the slot any more: nobody waits for leases of it.
local function forget_waiters(prefix, slot)
    for _, process in ipairs(redis.call('HKEYS', prefix .. 'waiters:' .. slot)) do
        if redis.call('HEXISTS', prefix .. 'needs:' .. process, slot) == 0 then
            stop_waiting(prefix, slot, process)
        end
    end
end
