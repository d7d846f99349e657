#!lua
-- Take a place in a task for one more crawl process, if the task needs one.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  processes (HASH)
-- KEYS[3]  processes that find nothing to lease although requests wait (SET)
-- KEYS[4]  the last commit of each process (HASH)
-- ARGV[1]  process, unique on this Redis
-- ARGV[2]  its worker's name
-- ARGV[3]  protocol version that the worker speaks
-- ARGV[4]  time after which it is too late (ms): the worker has given the place back, without an answer; 0: never
-- ARGV[5]  the task's key prefix
-- Returns the process's number in the task (1 for the first); 0: not needed, or too late; -1: another protocol version.
-- include: clock
-- include: need
-- include: polite
-- include: commits

-- A repeated call, its reply was lost: the place is taken, whatever has become of the task since.
local record = redis.call('HGET', KEYS[2], ARGV[1])
if record then
    return cjson.decode(record).number
end
if tonumber(ARGV[4]) > 0 and now_ms() > tonumber(ARGV[4]) then
    return 0
end
local need = needs_process(KEYS[1], KEYS[3], ARGV[3])
if need < 1 then
    return need
end
local number = redis.call('HINCRBY', KEYS[1], 'process_seq', 1)
redis.call('HSET', KEYS[2], ARGV[1], cjson.encode({worker = ARGV[2], number = number,
    claimed_ms = now_ms()}))
redis.call('HSET', KEYS[4], ARGV[1], pack_commit(0, 0, false, ''))
redis.call('HINCRBY', KEYS[1], 'processes', 1)
redis.call('HSET', KEYS[1], 'state', 'running', 'promised_until_ms', 0)
expect(read_limits(KEYS[1]), ARGV[5], ARGV[1])
return number
