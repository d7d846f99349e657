#!lua
-- A task that was submitted before all was known about it is as its sender wants it: its spiders may open.
--
-- KEYS[1]  task record (HASH)
-- Returns the task's state; '' when there is no such task.
redis.call('HDEL', KEYS[1], 'provisional')
return redis.call('HGET', KEYS[1], 'state') or ''
