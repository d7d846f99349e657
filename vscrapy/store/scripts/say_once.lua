#!lua
-- May this be said in the task's log? The first one who asks for the same may; asking again gives the same answer.
--
-- KEYS[1]  task record (HASH)
-- ARGV[1]  what is to be said
-- ARGV[2]  who asks
-- Returns 1; 0 when another one says it, or there is no such task.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
local field = 'said:' .. ARGV[1]
redis.call('HSETNX', KEYS[1], field, ARGV[2])
return redis.call('HGET', KEYS[1], field) == ARGV[2] and 1 or 0
