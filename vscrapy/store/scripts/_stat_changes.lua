-- Shared: what a crawl process has counted. All that it has counted since it was last added up stands in one value, which
-- each of its commits replaces; it is added up when it has become long, and when the process is no more.
--
-- Changes follow each other; each is: bytes of its name, operation ('+', 'max', 'min'; 'worker': '+', of what its
-- worker has done), number, name, with a space between them (vscrapy/store/stat_changes.py).

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

local function add_up(prefix, worker, changes)
    local at = 1
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
    local changes = redis.call('HGET', prefix .. 'stat_changes', process)
    if changes then
        redis.call('HDEL', prefix .. 'stat_changes', process)
        add_up(prefix, worker, changes)
    end
end
