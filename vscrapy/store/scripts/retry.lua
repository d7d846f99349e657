#!lua
-- Put requests that failed for good back into their task's frontier; for a task that has ended, say which task runs
-- them instead.
--
-- Of a task that has ended nothing is moved here: it is noted which requests run as which new task, that one is
-- made (submit.lua), and then retried.lua takes them off the list. Whoever finds the note carries it out, so
-- nothing runs twice and nothing is lost when that is cut short.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  requests that failed for good (STREAM)
-- ARGV[1]  the task's key prefix; queues are named from it
-- ARGV[2]  id of the task that is to run them, if this one has ended; 0: none was made
-- ARGV[3+] numbers of the requests; those that are not in the list, or cannot be put back, are left out
-- Returns {what, taskid, numbers}
--   what: 'back': they are in the frontier; 'new': the note is made, or was there already, for the task taskid and
--     these numbers; 'stopping': nothing was done; 'ended': nothing was done, a new task is needed; 'gone': there is no such task
-- include: queues
local task = redis.call('HMGET', KEYS[1], 'state', 'retry_taskid', 'retry_numbers')
local state = task[1]
if not state then
    return {'gone', '', {}}
end
if state == 'stopping' or state == 'storing' then
    return {'stopping', '', {}}
end
if task[2] then
    return {'new', task[2], cjson.decode(task[3])}
end
if state == 'finished' and ARGV[2] == '0' then
    return {'ended', '', {}}
end
local numbers = {}
for at = 3, #ARGV do
    local id = ARGV[at] .. '-0'
    local found = redis.call('XRANGE', KEYS[2], id, id)[1]
    if found and #found[2] > 2 then
        numbers[#numbers + 1] = ARGV[at]
        if state ~= 'finished' then
            push(ARGV[1], found[2][4], found[2][6], {found[2][8]}, false)
            redis.call('XDEL', KEYS[2], id)
        end
    end
end
if #numbers > 0 and state == 'finished' then
    redis.call('HSET', KEYS[1], 'retry_taskid', ARGV[2], 'retry_numbers', cjson.encode(numbers))
    return {'new', ARGV[2], numbers}
end
if #numbers > 0 then
    redis.call('HINCRBY', KEYS[1], 'queued', #numbers)
    redis.call('HSET', KEYS[1], 'idle_owner', '')
end
return {'back', '', numbers}
