#!lua
-- Append lines to a task's log, and cut its oldest ones when it holds too many.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  log (STREAM)
-- ARGV[1]  lines, signed
-- ARGV[2]  their number
-- ARGV[3]  lines kept at most; at least the newest entry is kept
-- ARGV[4]  bytes kept at most; the same
-- Returns 1; 0 when there is no such task (nothing is written).
local task = redis.call('HMGET', KEYS[1], 'state', 'log_keep')
if not task[1] or task[1] == 'finished' then
    return 0
end
if ARGV[2] == '0' then
    return 1
end
local first = redis.call('HINCRBY', KEYS[1], 'log_lines', ARGV[2]) - ARGV[2]
redis.call('XADD', KEYS[2], '*', 'first', first, 'n', ARGV[2], 'lines', ARGV[1])
local kept = redis.call('HINCRBY', KEYS[1], 'log_kept', ARGV[2])
local bytes = redis.call('HINCRBY', KEYS[1], 'log_bytes', #ARGV[1])
local most, most_bytes = tonumber(task[2]) or tonumber(ARGV[3]), tonumber(ARGV[4])
while kept > most or bytes > most_bytes do
    local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 2)
    if #oldest < 2 then
        break
    end
    local n = tonumber(oldest[1][2][4]) or 0 -- none of ours
    redis.call('XDEL', KEYS[2], oldest[1][1])
    kept = redis.call('HINCRBY', KEYS[1], 'log_kept', -n)
    bytes = redis.call('HINCRBY', KEYS[1], 'log_bytes', -#(oldest[1][2][6] or ''))
end
return 1
