-- Shared: which processes may download from a downloader slot, and how much each, so that the site sees no more
-- than one "scrapy crawl" would send.
--
-- A process that has leases of a slot is one of its holders, with a share of the slot's concurrency; the shares
-- never add up to more than the slot's most. A slot with a delay has one holder at a time. Who finds no share
-- waits for one; holders are then asked for less, and say when they have come down to it.

-- The task's limits: most concurrent downloads of a slot (0: not kept), delay (ms), are there special slots?
local function read_limits(task_key)
    local fields = redis.call('HMGET', task_key, 'polite_most', 'polite_delay_ms', 'polite_special')
    return {most = tonumber(fields[1]) or 0, delay_ms = tonumber(fields[2]) or 0, special = fields[3] == '1'}
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

local function sum_of(values)
    local sum = 0
    for _, value in ipairs(values) do
        sum = sum + tonumber(value)
    end
    return sum
end

local function stop_waiting(prefix, slot, process)
    redis.call('SREM', prefix .. 'waiters:' .. slot, process)
    if redis.call('EXISTS', prefix .. 'waiters:' .. slot) == 0 then
        redis.call('SREM', prefix .. 'contended', slot)
    end
end

-- The process's share of the slot, taken now if it has none and there is one; nil: it must wait.
local function take_share(limits, prefix, slot, process, now_ms)
    local most, delay_ms = limits_of(limits, prefix, slot)
    if most == 0 then
        return 0
    end
    local holders = prefix .. 'holders:' .. slot
    local share = tonumber(redis.call('HGET', holders, process) or nil)
    if share and (share >= most or redis.call('SISMEMBER', prefix .. 'contended', slot) == 1) then
        return share
    end
    local shares = redis.call('HVALS', holders)
    local free = most - sum_of(shares)
    if share then
        share = share + free
    elseif delay_ms > 0 then
        if #shares > 0 then
            return nil
        end
        local released = redis.call('HGET', prefix .. 'released', slot)
        if released then
            local at_ms, by = string.match(released, '^(%d+) (.*)$')
            if by ~= process and now_ms < tonumber(at_ms) + delay_ms then
                return nil
            end
        end
        share = most
    else
        local waiters = redis.call('SCARD', prefix .. 'waiters:' .. slot)
            - redis.call('SISMEMBER', prefix .. 'waiters:' .. slot, process)
        if free <= 0 then
            redis.call('SADD', prefix .. 'waiters:' .. slot, process)
            redis.call('SADD', prefix .. 'contended', slot)
            return nil
        end
        share = free
        if #shares > 0 or waiters > 0 then
            share = math.min(free, math.max(1, math.floor(most / (#shares + 1 + waiters))))
        end
        stop_waiting(prefix, slot, process)
    end
    redis.call('HSET', holders, process, share)
    return share
end

-- The process has come down to a smaller share.
local function lower_share(prefix, slot, process, share)
    local now = redis.call('HGET', prefix .. 'holders:' .. slot, process)
    if now and tonumber(share) < tonumber(now) then
        redis.call('HSET', prefix .. 'holders:' .. slot, process, share)
    end
end

-- The shares that the process should come down to, because others wait: slot, share, slot, ...
local function asked_for(limits, prefix, process)
    local asked = {}
    for _, slot in ipairs(redis.call('SMEMBERS', prefix .. 'contended')) do
        local share = tonumber(redis.call('HGET', prefix .. 'holders:' .. slot, process) or nil)
        if share then
            local most = limits_of(limits, prefix, slot)
            local all = redis.call('HLEN', prefix .. 'holders:' .. slot)
                + redis.call('SCARD', prefix .. 'waiters:' .. slot)
            local fair = math.max(1, math.floor(most / all))
            if fair < share then
                asked[#asked + 1] = slot
                asked[#asked + 1] = fair
            end
        end
    end
    return asked
end

-- The process has this many leases of the slot more (or fewer); without one it is not a holder any more.
local function count_held(limits, prefix, slot, process, delta, now_ms)
    if redis.call('HINCRBY', prefix .. 'held:' .. slot, process, delta) <= 0 then
        redis.call('HDEL', prefix .. 'held:' .. slot, process)
        if redis.call('HDEL', prefix .. 'holders:' .. slot, process) == 1 then
            local _, delay_ms = limits_of(limits, prefix, slot)
            if delay_ms > 0 then
                redis.call('HSET', prefix .. 'released', slot, now_ms .. ' ' .. process)
            end
        end
    end
end

-- Nothing waits in the slot any more: nobody waits for a share of it.
local function forget_waiters(prefix, slot)
    redis.call('UNLINK', prefix .. 'waiters:' .. slot)
    redis.call('SREM', prefix .. 'contended', slot)
end
