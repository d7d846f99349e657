#!lua
-- Let a suspended task go on: queued again, with a new job, and with all that it has done and has yet to do.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  job (STRING)
-- KEYS[3]  log (STREAM)
-- KEYS[4]  stats (HASH)
-- KEYS[5]  stat values (HASH)
-- KEYS[6]  final stats (STRING)
-- KEYS[7]  counts of the workers (HASH)
-- ARGV[1]  the task's key prefix
-- ARGV[2]  the token of its job directory
-- ARGV[3]  the signed job
-- ARGV[4]  sender's timeout (ms); 0: detached
-- ARGV[5+] field, value, field, value ... of the record
-- Returns {state before, id of the log's last entry}; '' when there is no such task, or its token is another one.
-- Nothing is done unless the state is 'suspended'.
local task = redis.call('HMGET', KEYS[1], 'state', 'job_dir')
if not task[1] or task[2] ~= ARGV[2] then
    return {'', ''}
end
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)
local cursor = last[1] and last[1][1] or '0-0'
if task[1] ~= 'suspended' then
    return {task[1], cursor}
end
local time = redis.call('TIME')
local now_ms = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('HSET', KEYS[1],
    'state', 'queued', 'reason', '', 'exit_code', 0, 'stop_mode', '', 'created_ms', now_ms, 'waits_since_ms', now_ms,
    'ended_ms', 0,
    'sender_ms', now_ms, 'sender_timeout_ms', ARGV[4], 'idle_owner', '', 'crashes', 0,
    'tally', '0 0 0 0 0')
redis.call('HDEL', KEYS[1], 'opened_ms')
redis.call('SET', KEYS[2], ARGV[3])
-- The stats begin anew, and with them what is counted once.
for _, fact in ipairs(redis.call('HKEYS', ARGV[1] .. 'facts')) do
    if string.sub(fact, 1, 6) == 'first:' then
        redis.call('HDEL', ARGV[1] .. 'facts', fact)
        redis.call('ZREM', ARGV[1] .. 'fact_versions', fact)
    end
end
redis.call('UNLINK', KEYS[4], KEYS[5], KEYS[6], KEYS[7], ARGV[1] .. 'closing')
return {'suspended', cursor}
