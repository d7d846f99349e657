#!lua
-- A crawl process has read its project and is about to open its spider.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  processes (HASH)
-- KEYS[3]  limits of special slots (HASH)
-- KEYS[4]  facts (HASH)
-- KEYS[5]  log (STREAM): gets an entry without lines, by which home knows that its spider may open, too
-- ARGV[1]  process
-- ARGV[2]  requests that it can have in flight
-- ARGV[3]  1: queues are LIFO, 0: FIFO
-- ARGV[4]  the same for start requests
-- ARGV[5]  most concurrent downloads of a slot, in the whole task; 0: not kept
-- ARGV[6]  delay between two downloads of a slot (ms)
-- ARGV[7+] slot, 'most:delay_ms', slot, ... of special slots
-- Returns {status, state, reason, stop mode, start, elapsed, spider state}; status: 'ok', 'fenced', 'gone'; start: -1 when another process runs start() or it is
-- exhausted, else the number of its outputs that are committed already; elapsed: time since the first process joined
-- (ms); spider state: the fact 'state', or ''. Or {'wait', id of the log's last entry}: the sender has not confirmed the
-- task, and nothing is done; ask again when more has come there.
-- include: clock
local task = redis.call('HMGET', KEYS[1],
    'state', 'reason', 'stop_mode', 'start', 'start_owner', 'start_done', 'provisional')
if not task[1] then
    return {'gone'}
end
local record = redis.call('HGET', KEYS[2], ARGV[1])
if not record then
    return {'fenced'}
end
if task[7] and task[1] ~= 'stopping' then
    local last = redis.call('XREVRANGE', KEYS[5], '+', '-', 'COUNT', 1)
    return {'wait', last[1] and last[1][1] or '0-0'}
end
record = cjson.decode(record)
if not record.crawls then
    record.crawls = true -- until it closes: see closing.lua
    redis.call('HSET', KEYS[2], ARGV[1], cjson.encode(record))
    redis.call('HINCRBY', KEYS[1], 'crawling', 1)
end
redis.call('HSET', KEYS[1], 'capacity', ARGV[2], 'lifo', ARGV[3], 'start_lifo', ARGV[4],
    'polite_most', ARGV[5], 'polite_delay_ms', ARGV[6], 'polite_special', ARGV[7] and 1 or 0)
for at = 7, #ARGV, 2 do
    redis.call('HSET', KEYS[3], ARGV[at], ARGV[at + 1])
end
local start = -1
if task[4] == 'waiting' or task[4] == 'lost' or (task[4] == 'running' and task[5] == ARGV[1]) then
    redis.call('HSET', KEYS[1], 'start', 'running', 'start_owner', ARGV[1])
    start = tonumber(task[6])
end
redis.call('HSETNX', KEYS[1], 'opened_ms', string.format('%d', now_ms()))
redis.call('XADD', KEYS[5], '*', 'first', redis.call('HGET', KEYS[1], 'log_lines') or 0, 'n', 0, 'lines', '[]',
    'joined', ARGV[1])
return {'ok', task[1], task[2], task[3], start, now_ms() - tonumber(redis.call('HGET', KEYS[1], 'opened_ms')),
    redis.call('HGET', KEYS[4], 'state') or ''}
