#!lua
-- A task that was submitted before all was known about it is as its sender wants it: its spiders may open.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  log (STREAM): gets an entry without lines, which wakes the processes that wait for this
-- Returns the task's state; '' when there is no such task.
if redis.call('HDEL', KEYS[1], 'provisional') == 1 then
    redis.call('XADD', KEYS[2], '*', 'first', redis.call('HGET', KEYS[1], 'log_lines') or 0, 'n', 0, 'lines', '[]',
        'confirmed', 1)
end
return redis.call('HGET', KEYS[1], 'state') or ''
