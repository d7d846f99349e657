-- Shared: the fingerprints that a task has seen, in sets of integers.
--
-- A set of up to 512 integers is compact (set-max-intset-entries): 8 bytes each. So when the first sets are nearly
-- full, they stay as they are, and what is new from then on goes into more of them.
-- Both are chosen by the first two bytes of a fingerprint, 0 to 65535.
local SEEN_SETS, SEEN_MOST, WIDE_SETS = 4096, 1600000, 65536

-- Do the first sets take no more?
local function is_seen_full(task_key)
    return (tonumber(redis.call('HGET', task_key, 'seen')) or 0) >= SEEN_MOST
end

-- Was it seen?
local function was_seen(prefix, is_full, place, member)
    return redis.call('SISMEMBER', prefix .. 'seen:' .. place % SEEN_SETS, member) == 1
        or (is_full and redis.call('SISMEMBER', prefix .. 'wide:' .. place, member) == 1)
end

-- Note that it was seen; false: it had been.
local function see(prefix, is_full, place, member)
    if not is_full then
        return redis.call('SADD', prefix .. 'seen:' .. place % SEEN_SETS, member) == 1
    end
    return redis.call('SISMEMBER', prefix .. 'seen:' .. place % SEEN_SETS, member) == 0
        and redis.call('SADD', prefix .. 'wide:' .. place, member) == 1
end

-- So many more were seen.
local function count_seen(task_key, n)
    if n > 0 then
        redis.call('HINCRBY', task_key, 'seen', n)
    end
end

-- Forget all.
local function forget_seen(task_key, prefix)
    local function forget(name, n)
        for from = 0, n - 1, 512 do
            local keys = {}
            for place = from, from + 511 do
                keys[#keys + 1] = prefix .. name .. place
            end
            redis.call('UNLINK', unpack(keys))
        end
    end
    forget('seen:', SEEN_SETS)
    if is_seen_full(task_key) then
        forget('wide:', WIDE_SETS)
    end
    redis.call('HDEL', task_key, 'seen')
end
