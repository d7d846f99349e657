#!lua flags=no-writes
-- What each worker has done for a task, and what it has in hand, at one moment.
--
-- KEYS[1]  processes (HASH)
-- KEYS[2]  what each worker has done (HASH)
-- KEYS[3]  the last commit of each process (HASH): _commits.lua
-- ARGV[1]  the task's key prefix; the processes' leases are named from it
-- Returns {counts, held}: counts: 'what worker', number, ...; held: for each process its worker, its leases and its
-- last commit, worker, number, commit, ...
local processes, held = redis.call('HGETALL', KEYS[1]), {}
for at = 1, #processes, 2 do
    held[#held + 1] = cjson.decode(processes[at + 1]).worker
    held[#held + 1] = redis.call('HLEN', ARGV[1] .. 'leases:' .. processes[at])
    held[#held + 1] = redis.call('HGET', KEYS[3], processes[at]) or ''
end
return {redis.call('HGETALL', KEYS[2]), held}
