#!lua flags=allow-oom
-- Shares for downloads that no commit speaks of: those of home, and those of a crawl process whose commits are refused.
--
-- Calling it again, with the same words or newer ones, does no harm.
--
-- KEYS[1]  task record (HASH)
-- KEYS[2]  processes (HASH)
-- KEYS[3]  limits of special slots (HASH)
-- ARGV[1]  the task's key prefix
-- ARGV[2]  process: 'home', or a crawl process
-- ARGV[3]  most concurrent downloads of a slot, in the whole task: for when no crawl process has joined yet; 0: as it is
-- ARGV[4]  delay between two downloads of a slot (ms): as well
-- ARGV[5]  number of special slots: as well; then for each: slot, 'most:delay_ms'
-- next     number of shares that the process has come down to; then for each: slot, share
-- next     number of slots with downloads; then for each: slot, number of downloads, 0: none any more
-- Returns {status, shares}; status: 'ok'; 'alone': nobody else downloads for the task any more; shares: as commit.lua
--   has them, and 0 for a slot that must wait.
-- include: clock
-- include: polite
local task_key, prefix, process = KEYS[1], ARGV[1], ARGV[2]
local state = redis.call('HGET', task_key, 'state')
if not state or state == 'finished' or state == 'storing' or state == 'suspended' then
    return {'alone', {}}
end
if process ~= 'home' and redis.call('HEXISTS', KEYS[2], process) == 0 then
    return {'ok', {}}
end
local at = 6 + 2 * tonumber(ARGV[5])
if ARGV[3] ~= '0' and redis.call('HEXISTS', task_key, 'polite_most') == 0 then
    redis.call('HSET', task_key, 'polite_most', ARGV[3], 'polite_delay_ms', ARGV[4],
        'polite_special', ARGV[5] ~= '0' and 1 or 0)
    for special = 6, at - 1, 2 do
        redis.call('HSET', KEYS[3], ARGV[special], ARGV[special + 1])
    end
end
local limits, shares, needs = read_limits(task_key), {}, {}
local lowered = tonumber(ARGV[at])
for index = 1, lowered do
    lower_share(limits, prefix, ARGV[at + 2 * index - 1], process, tonumber(ARGV[at + 2 * index]))
end
at = at + 1 + 2 * lowered
for index = 1, tonumber(ARGV[at]) do
    local slot, demand = ARGV[at + 2 * index - 1], tonumber(ARGV[at + 2 * index])
    note_need(limits, prefix, slot, process, demand)
    if demand > 0 then
        needs[#needs + 1] = {slot = slot, demand = demand}
    end
end
for _, need in ipairs(needs) do
    shares[#shares + 1] = need.slot
    shares[#shares + 1] = meet_need(limits, prefix, need.slot, process, need.demand) or 0
end
for _, part in ipairs(asked_for(limits, prefix, process)) do
    shares[#shares + 1] = part
end
return {'ok', shares}
