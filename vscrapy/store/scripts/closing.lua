#!lua
-- A crawl process has committed all that it did, and closes its spider as soon as the others of its task have, too.
-- Calling it again only looks.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  processes (HASH)
-- ARGV[1]  process
-- Returns {status, state, stop mode, others}; status: 'ok', 'fenced', 'gone'; others: processes that still crawl.
local task = redis.call('HMGET', KEYS[1], 'state', 'stop_mode', 'crawling')
if not task[1] then
    return {'gone'}
end
local record = redis.call('HGET', KEYS[2], ARGV[1])
if not record then
    return {'fenced'}
end
record = cjson.decode(record)
local others = tonumber(task[3])
if record.crawls then
    record.crawls = nil
    redis.call('HSET', KEYS[2], ARGV[1], cjson.encode(record))
    others = redis.call('HINCRBY', KEYS[1], 'crawling', -1)
end
return {'ok', task[1], task[2], others}
