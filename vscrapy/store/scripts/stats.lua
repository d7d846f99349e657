#!lua flags=no-writes
-- A task's stats, at one moment.
--
-- KEYS[1]  stats (HASH)
-- KEYS[2]  the last commit of each process (HASH): _commits.lua
-- KEYS[3]  stat values (HASH)
-- KEYS[4]  task record (HASH)
-- Returns {counted, commits, values, enqueued, filtered}: counted: stat, number, ...; commits: process, commit, ...;
-- values: process, JSON, ...;
-- enqueued, filtered: what the frontier has counted itself.
local own = redis.call('HMGET', KEYS[4], 'enqueued', 'filtered')
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3]), own[1] or '0',
    own[2] or '0'}
