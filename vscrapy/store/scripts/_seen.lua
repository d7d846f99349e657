-- Shared: the fingerprints that a task has seen. Each is a place, four hexadecimal digits, and an integer of 64 bits, in
-- one string.
--
-- The first ones stand in one set: a commit asks it about all of its requests at once. All others stand in sets of
-- integers, by the last three digits of their place. Such a set of up to 512 integers is compact
-- (set-max-intset-entries): 8 bytes each. So when these are nearly full, they stay as they are, and what is new from
-- then on goes into more of them, by all four digits.
local FIRST_MOST, SEEN_MOST = 8192, 1600000

local function split_seen(fingerprint)
    return string.sub(fingerprint, 1, 4), string.sub(fingerprint, 5)
end

-- Was it seen, of a task that has seen so many?
local function was_seen(prefix, n_seen, fingerprint)
    if redis.call('SISMEMBER', prefix .. 'first', fingerprint) == 1 then
        return true
    end
    local place, member = split_seen(fingerprint)
    return n_seen >= FIRST_MOST and (redis.call('SISMEMBER', prefix .. 'seen:' .. string.sub(place, 2), member) == 1
        or (n_seen >= SEEN_MOST and redis.call('SISMEMBER', prefix .. 'wide:' .. place, member) == 1))
end

-- Note one that is not in the first set, and is to stand beyond it; false: it had been seen.
local function see_beyond(prefix, n_seen, fingerprint)
    local place, member = split_seen(fingerprint)
    local set = prefix .. 'seen:' .. string.sub(place, 2)
    if n_seen < SEEN_MOST then
        return redis.call('SADD', set, member) == 1
    end
    return redis.call('SISMEMBER', set, member) == 0 and redis.call('SADD', prefix .. 'wide:' .. place, member) == 1
end

-- Note those of a task that has seen so many; for each: was it new? And how many were.
local function see(prefix, n_seen, fingerprints)
    local first, are_new, news, met, n_new = prefix .. 'first', {}, {}, {}, 0
    for from = 1, #fingerprints, 1000 do
        local known = redis.call('SMISMEMBER', first, unpack(fingerprints, from, math.min(from + 999, #fingerprints)))
        for at, is_known in ipairs(known) do
            local fingerprint = fingerprints[from + at - 1]
            local is_new = is_known == 0 and not met[fingerprint]
            met[fingerprint] = true
            if is_new and n_seen + n_new >= FIRST_MOST then
                is_new = see_beyond(prefix, n_seen + n_new, fingerprint)
            elseif is_new then
                news[#news + 1] = fingerprint
            end
            are_new[from + at - 1] = is_new
            n_new = n_new + (is_new and 1 or 0)
        end
    end
    for from = 1, #news, 1000 do
        redis.call('SADD', first, unpack(news, from, math.min(from + 999, #news)))
    end
    return are_new, n_new
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
    local n_seen = tonumber(redis.call('HGET', task_key, 'seen')) or 0
    redis.call('UNLINK', prefix .. 'first')
    if n_seen >= FIRST_MOST then
        forget('seen:', 3)
    end
    if n_seen >= SEEN_MOST then
        forget('wide:', 4)
    end
    redis.call('HDEL', task_key, 'seen')
end
