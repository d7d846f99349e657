-- Shared: the fingerprints that a task has seen, in sets of integers.
--
-- A set of up to 512 integers is compact (set-max-intset-entries): 8 bytes each. So when the first sets are nearly
-- full, they stay as they are, and what is new from then on goes into more of them.
-- A fingerprint's place among them is its first two bytes, in hexadecimal digits; the first sets go by the last three.
local SEEN_MOST = 1600000

-- Do the first sets take no more, of a task that has seen so many?
local function is_seen_full(n_seen)
    return (tonumber(n_seen) or 0) >= SEEN_MOST
end

-- Was it seen?
local function was_seen(prefix, is_full, place, member)
    return redis.call('SISMEMBER', prefix .. 'seen:' .. string.sub(place, 2), member) == 1
        or (is_full and redis.call('SISMEMBER', prefix .. 'wide:' .. place, member) == 1)
end

-- Note that it was seen; false: it had been.
local function see(prefix, is_full, place, member)
    if not is_full then
        return redis.call('SADD', prefix .. 'seen:' .. string.sub(place, 2), member) == 1
    end
    return redis.call('SISMEMBER', prefix .. 'seen:' .. string.sub(place, 2), member) == 0
        and redis.call('SADD', prefix .. 'wide:' .. place, member) == 1
end

-- Forget all.
local function forget_seen(task_key, prefix)
    local function forget(name, n_digits)
        local format = prefix .. name .. '%0' .. n_digits .. 'x'
        for from = 0, 16 ^ n_digits - 1, 512 do
            local keys = {}
            for place = from, from + 511 do
                keys[#keys + 1] = string.format(format, place)
            end
            redis.call('UNLINK', unpack(keys))
        end
    end
    forget('seen:', 3)
    if is_seen_full(redis.call('HGET', task_key, 'seen')) then
        forget('wide:', 4)
    end
    redis.call('HDEL', task_key, 'seen')
end
