#!lua flags=no-writes
-- A task's stats, at one moment.
--
-- KEYS[1]  stats (HASH)
-- KEYS[2]  the last commit of each process (HASH): _commits.lua
-- KEYS[3]  stat values (HASH)
-- KEYS[4]  task record (HASH)
-- Returns {counted, commits, values, tally}: counted: stat, number, ...; commits: process, commit, ...;
-- values: process, JSON, ...;
-- tally: what the task's record has of it; nil when there is no such task.
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3]),
    redis.call('HGET', KEYS[4], 'tally')}
