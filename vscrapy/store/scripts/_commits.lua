-- Shared: the last commit of each crawl process, in one value, which the next one replaces. In it, with a space after each:
-- its number; when the process first brought its task on (ms), 0: not yet; 1: it finds nothing to lease although requests
-- wait; a digit for each of its requests, 1: it was a duplicate, '' where none was; and what the process has counted since
-- that was last added up, which is done when it has become long, and when the process is no more.
--
-- What it has counted: changes that follow each other; each is: bytes of its name, operation ('+', 'max', 'min';
-- 'worker': '+', of what its worker has done), number, name, with a space between them (vscrapy/store/stat_changes.py).

-- Number, time, is it starved, duplicates, and where what was counted begins.
local function parse_commit(value)
    local number, done_ms, is_starved, duplicates, at = string.match(value, '^(%d+) (%d+) ([01]) ([01]*) ()')
    return tonumber(number), tonumber(done_ms), is_starved == '1', duplicates, at
end

-- The same, without what was counted.
local function pack_commit(number, done_ms, is_starved, duplicates)
    return string.format('%d %d %d ', number, done_ms, is_starved and 1 or 0) .. duplicates .. ' '
end

-- Count one stat. A script is not rolled back, so no stat may end it: what cannot be counted is left as it was.
local function count_stat(key, name, operation, number)
    if operation == '+' then
        -- HINCRBY refuses floats, new or old, and what goes beyond 64 bits.
        if type(redis.pcall('HINCRBY', key, name, number)) ~= 'number' then
            redis.pcall('HINCRBYFLOAT', key, name, number)
        end
        return
    end
    local new, old = tonumber(number), tonumber(redis.call('HGET', key, name))
    if new and new == new and (not old or (operation == 'max' and new > old) or (operation == 'min' and new < old)) then
        redis.call('HSET', key, name, number)
    end
end

-- Add up what was counted, from there on.
local function add_up(prefix, worker, changes, at)
    while true do
        local size, operation, number, from = string.match(changes, '^(%d+) (%S+) (%S+) ()', at)
        if not size then
            return
        end
        at = from + size
        local name = string.sub(changes, from, at - 1)
        if operation == 'worker' then
            count_stat(prefix .. 'counts', name .. ' ' .. worker, '+', number)
        else
            count_stat(prefix .. 'stats', name, operation, number)
        end
    end
end

-- The process is no more.
local function add_up_last(prefix, process, worker)
    local commit = redis.call('HGET', prefix .. 'commits', process)
    if commit then
        redis.call('HDEL', prefix .. 'commits', process)
        local _, _, _, _, at = parse_commit(commit)
        add_up(prefix, worker, commit, at)
    end
end
