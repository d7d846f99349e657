-- Shared: the fingerprints that a task has seen. Each is a place, four hexadecimal digits, and an integer of 64 bits, in
-- one string.
--
-- The first ones stand in one set: a commit asks it about all of its requests at once. When there are too many, all move,
-- in one go, to sets of integers by the last three digits of their place. Such a set of up to 512 integers is compact
-- (set-max-intset-entries): 8 bytes each. So when these are nearly full, they stay as they are, and what is new from
-- then on goes into more of them, by all four digits.
local FIRST_MOST, SEEN_MOST = 4096, 1600000

-- Was it seen, of a task that has seen so many?
local function was_seen(prefix, n_seen, fingerprint)
    if n_seen < FIRST_MOST then
        return redis.call('SISMEMBER', prefix .. 'first', fingerprint) == 1
    end
    local place, member = string.sub(fingerprint, 1, 4), string.sub(fingerprint, 5)
    return redis.call('SISMEMBER', prefix .. 'seen:' .. string.sub(place, 2), member) == 1
        or (n_seen >= SEEN_MOST and redis.call('SISMEMBER', prefix .. 'wide:' .. place, member) == 1)
end

-- Note those that come first; for each: was it new? And how many were.
local function see_first(prefix, fingerprints)
    local first, are_new, news, met = prefix .. 'first', {}, {}, {}
    for from = 1, #fingerprints, 1000 do
        local known = redis.call('SMISMEMBER', first, unpack(fingerprints, from, math.min(from + 999, #fingerprints)))
        for at, is_known in ipairs(known) do
            local fingerprint = fingerprints[from + at - 1]
            if is_known == 0 and not met[fingerprint] then
                met[fingerprint] = true
                are_new[from + at - 1] = true
                news[#news + 1] = fingerprint
            end
        end
    end
    for from = 1, #news, 1000 do
        redis.call('SADD', first, unpack(news, from, math.min(from + 999, #news)))
    end
    return are_new, #news
end

local function move_first(prefix)
    for _, fingerprint in ipairs(redis.call('SMEMBERS', prefix .. 'first')) do
        redis.call('SADD', prefix .. 'seen:' .. string.sub(fingerprint, 2, 4), string.sub(fingerprint, 5))
    end
    redis.call('UNLINK', prefix .. 'first')
end

-- Note those of a task that has seen so many; for each: was it new? And how many were.
local function see(prefix, n_seen, fingerprints)
    if n_seen < FIRST_MOST then
        local are_new, n_new = see_first(prefix, fingerprints)
        if n_seen + n_new >= FIRST_MOST then
            move_first(prefix)
        end
        return are_new, n_new
    end
    local are_new, n_new, sets, sub = {}, 0, prefix .. 'seen:', string.sub
    for at = 1, #fingerprints do
        local fingerprint, is_new = fingerprints[at], 0
        local set, member = sets .. sub(fingerprint, 2, 4), sub(fingerprint, 5)
        if n_seen < SEEN_MOST then
            is_new = redis.call('SADD', set, member)
        elseif redis.call('SISMEMBER', set, member) == 0 then
            is_new = redis.call('SADD', prefix .. 'wide:' .. sub(fingerprint, 1, 4), member)
        end
        are_new[at] = is_new == 1
        n_new = n_new + is_new
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
    if n_seen < FIRST_MOST then
        redis.call('UNLINK', prefix .. 'first')
    else
        forget('seen:', 3)
    end
    if n_seen >= SEEN_MOST then
        forget('wide:', 4)
    end
    redis.call('HDEL', task_key, 'seen')
end
