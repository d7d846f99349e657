#!lua
-- Take the place of home in a detached task that has been crawled and has feeds to write, if nobody has it.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  processes (HASH)
-- ARGV[1]  process, unique on this Redis
-- ARGV[2]  its worker's name
-- ARGV[3]  protocol version that the worker speaks
-- ARGV[4]  time after which it is too late (ms): the worker has given the place back, without an answer; 0: never
-- Returns the process's number in the task; 0: not needed now, or too late; -1: another protocol version.
-- include: need
local record = redis.call('HGET', KEYS[2], ARGV[1])
if record then -- a repeated call, its reply was lost
    return cjson.decode(record).number
end
local time = redis.call('TIME')
if tonumber(ARGV[4]) > 0 and time[1] * 1000 + time[2] / 1000 > tonumber(ARGV[4]) then
    return 0
end
local need = needs_home(KEYS[1], ARGV[3])
if need < 1 then
    return need
end
local number = redis.call('HINCRBY', KEYS[1], 'process_seq', 1)
redis.call('HSET', KEYS[2], ARGV[1], cjson.encode({worker = ARGV[2], number = number}))
redis.call('HSET', KEYS[1], 'feeds', 'writing', 'processes', 1, 'promised_until_ms', 0)
redis.call('HINCRBY', KEYS[1], 'feeds_tries', 1)
return number
