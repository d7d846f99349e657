-- Shared: requests that were in hand when their process died. Any of them may have killed it, so they run alone: one
-- process of the task, the runner, has one of them at a time and nothing else. What kills its process again and
-- again joins the requests that failed for good; the others are cleared by being done.

-- Note a request that failed for good, under the next number.
local function add_failure(key, task_key, held, failure, payload)
    local number = redis.call('HINCRBY', task_key, 'failures_seq', 1)
    local entry = {'failure', failure}
    if held then
        local slot, queue, leased = parts(held)
        entry = {'failure', failure, 'slot', slot, 'queue', queue, 'payload', payload ~= '' and payload or leased}
    end
    redis.call('XADD', key, string.format('%d-0', number), unpack(entry))
end

-- Keep no more than this of those.
local function trim_failures(key, task_key, most)
    redis.call('HINCRBY', task_key, 'failures_dropped', redis.call('XTRIM', key, 'MAXLEN', most))
end

-- Put a lease among the suspects.
local function suspect(prefix, task_key, held)
    redis.call('RPUSH', prefix .. 'suspects', held)
    redis.call('HINCRBY', task_key, 'suspects', 1)
end

-- One more process has died with this request in hand; how many have.
local function count_death(prefix, payload)
    return redis.call('HINCRBY', prefix .. 'deaths', redis.sha1hex(payload), 1)
end

-- The request was done, or given up.
local function clear(prefix, payload)
    redis.call('HDEL', prefix .. 'deaths', redis.sha1hex(payload))
end

-- Is the process the runner? It becomes it if there is none.
local function is_runner(task_key, processes_key, process, runner)
    if runner and runner ~= process and redis.call('HEXISTS', processes_key, runner) == 1 then
        return false
    end
    redis.call('HSET', task_key, 'suspect_runner', process)
    return true
end
