#!lua
-- Create a task, queued.
--
-- KEYS[1]  task record (HASH), must not exist
-- KEYS[2]  job (STRING)
-- ARGV[1]  the signed job
-- ARGV[2]  sender's timeout (ms); 0: detached
-- ARGV[3]  the task's key prefix; queues are named from it
-- ARGV[4]  number of requests that wait from the beginning, instead of start(); then for each: slot, queue, payload
-- next     field, value, field, value ... of the record
-- Returns 1; 0 when the task exists already (a repeated call: nothing is done).
-- include: clock
-- include: queues
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 0
end
local n_requests, at = tonumber(ARGV[4]), 5
for _ = 1, n_requests do
    push(ARGV[3], ARGV[at], ARGV[at + 1], {ARGV[at + 2]}, false)
    at = at + 3
end
-- A value of more than 64 bytes (hash-max-listpack-value) makes the record a hash table, in which a field is found
-- without a look at the forty others; each commit asks for twenty.
redis.call('HSET', KEYS[1], 'table', string.rep('-', 65), unpack(ARGV, at))
redis.call('HSET', KEYS[1],
    'state', 'queued', 'reason', '', 'exit_code', 0, 'stop_mode', '', 'created_ms', now_ms(),
    'sender_ms', now_ms(), 'sender_timeout_ms', ARGV[2],
    'queued', n_requests, 'leased', 0, 'lease_seq', 0, 'processes', 0, 'process_seq', 0, 'crawling', 0,
    'capacity', 16,
    'start', n_requests > 0 and 'done' or 'waiting', 'start_owner', '', 'start_done', 0, 'idle_owner', '', 'crashes', 0,
    'log_lines', 0, 'log_kept', 0, 'feeds_tries', 0, 'tally', '0 0 0 0 0')
redis.call('SET', KEYS[2], ARGV[1])
return 1
