#!lua
-- May a crawl process leave, so that another task gets its slot? If so, it counts as leaving from now on.
--
-- Not when it would leave too few of its task behind; nor when its task would lose what only it has, which is
-- requests that stay on it. A turn lasts at least twice as long as it took to come to the first request that was
-- finished, or the first output of start() that was new: what others repeat, who read start() on, is at most half.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  processes (HASH)
-- KEYS[3]  requests that stay on a process: claim -> process (HASH)
-- KEYS[4]  the last commit of each process (HASH)
-- ARGV[1]  process
-- ARGV[2]  processes of its task that must stay; 0: its turn is over, or its task is paused
-- ARGV[3]  1: not if it runs start(), another can go
-- ARGV[4]  1: it has had so many turns that it may go without having finished anything
-- ARGV[5]  the task that gets its slot
-- ARGV[6]  time that a process counts as leaving; then it does not seem to have heard (ms)
-- Returns 1; 0: it stays.
-- include: clock
-- include: commits
local task = redis.call('HMGET', KEYS[1], 'state', 'start', 'start_owner', 'max_processes')
local record = redis.call('HGET', KEYS[2], ARGV[1])
if not record or (task[1] ~= 'running' and task[1] ~= 'paused') then
    return 0
end
local stay = 0
for _, other in ipairs(redis.call('HVALS', KEYS[2])) do
    if now_ms() >= (cjson.decode(other).leaves_until_ms or 0) then
        stay = stay + 1
    end
end
record = cjson.decode(record)
if now_ms() < (record.leaves_until_ms or 0) then -- perhaps a repeated call, its reply was lost
    return record.leaves_for == ARGV[5] and 1 or 0
end
local least = tonumber(ARGV[2])
if stay - 1 < least then
    return 0
end
for _, owner in ipairs(redis.call('HVALS', KEYS[3])) do
    if owner == ARGV[1] then
        return 0
    end
end
if least > 0 and task[2] == 'running' and task[3] == ARGV[1] and ARGV[3] == '1' then
    return 0
end
if least == 0 then
    if task[4] == '1' then -- its user wants one process, with all that its spider remembers
        return 0
    end
    local is_start_to_do = task[2] ~= 'done' and (task[3] == ARGV[1] or task[3] == '')
    local _, done_ms = parse_commit(redis.call('HGET', KEYS[4], ARGV[1]))
    if task[1] == 'running' and done_ms == 0 and (is_start_to_do or ARGV[4] == '0') then
        return 0
    end
    if task[1] == 'running' and done_ms > 0 and now_ms() - done_ms < done_ms - (record.claimed_ms or done_ms) then
        return 0
    end
end
record.leaves_for, record.leaves_until_ms = ARGV[5], now_ms() + tonumber(ARGV[6])
redis.call('HSET', KEYS[2], ARGV[1], cjson.encode(record))
return 1
