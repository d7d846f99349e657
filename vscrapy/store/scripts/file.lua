#!lua
-- Send home a file that a crawl process has written.
--
-- KEYS[1]  processes (HASH)
-- KEYS[2]  files (STREAM)
-- ARGV[1]  process
-- ARGV[2]  the signed file
-- Returns 1; 0 when the process is not in the task any more (nothing is written).
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
    return 0
end
redis.call('XADD', KEYS[2], '*', 'file', ARGV[2])
return 1
