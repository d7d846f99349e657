#!lua
-- Take a place in a task for one more crawl process, if the task needs one.
--
-- A task needs its first process at once, and further ones while more requests wait than the present ones
-- can take, none of them goes without, and none has left lately because it did; also when start() was lost with
-- the process that ran it.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  processes (HASH)
-- KEYS[3]  processes that find nothing to lease although requests wait (SET)
-- ARGV[1]  process, unique on this Redis
-- ARGV[2]  its worker's name
-- ARGV[3]  protocol version that the worker speaks
-- Returns the process's number in the task (1 for the first); 0: not needed; -1: another protocol version.
local task = redis.call('HMGET', KEYS[1],
    'state', 'processes', 'queued', 'capacity', 'max_processes', 'protocol', 'grow_after_ms', 'start')
local state, processes = task[1], tonumber(task[2])
-- A repeated call, its reply was lost: the place is taken, whatever has become of the task since.
local record = redis.call('HGET', KEYS[2], ARGV[1])
if record then
    return cjson.decode(record).number
end
if state ~= 'queued' and state ~= 'running' then
    return 0
end
if task[6] ~= ARGV[3] then
    return -1
end
local most = tonumber(task[5])
if most > 0 and processes >= most then
    return 0
end
local is_needed = processes == 0 or task[8] == 'lost'
if not is_needed
    and (tonumber(task[3]) <= processes * tonumber(task[4]) or redis.call('EXISTS', KEYS[3]) == 1) then
    return 0
end
local time = redis.call('TIME')
if not is_needed and time[1] * 1000 + time[2] / 1000 < (tonumber(task[7]) or 0) then
    return 0
end
local number = redis.call('HINCRBY', KEYS[1], 'process_seq', 1)
redis.call('HSET', KEYS[2], ARGV[1], cjson.encode({worker = ARGV[2], number = number, seq = 0}))
redis.call('HSET', KEYS[1], 'state', 'running', 'processes', processes + 1)
return number
