-- `StrictStep` of derp-kv-core tells what is kept, and this does what its `apply` does.
-- ARGV: of each limit the limit, the cost (4 bytes each), the window and the sub-window (6 bytes
-- each, in milliseconds), the number of the write, and of a refund one more. A Lua number is a double:
-- a time is a pair of milliseconds and nanoseconds, which never rounds.
local key, limits, refund = KEYS[1], ARGV[1], ARGV[3]
local call, unpack, pack, sub = redis.call, struct.unpack, struct.pack, string.sub
local value, left = call('GET', key), -2
local last, passed, passed_ns = 0, 0, 0
if value then
    left = call('PTTL', key)
    last = #value
    if last < 15 or string.byte(value) ~= 87 then
        return { value, left, 0 }
    end
    -- Without an expiry nobody can tell its age: it counts as absent. The core's nanoseconds, which
    -- have 64 bits, end at 18446744073709 ms and 551615 ns.
    local ttl = unpack('>I6', value, 10)
    if left < 0 then
        last = 0
    elseif ttl > 18446744073709 then
        if left <= 18446744073709 then
            passed, passed_ns = 18446744073709 - left, 551615
        end
    elseif ttl > left then
        passed = ttl - left
    end
elseif refund then
    return { false, left, 1 }
end

local kept, longest, at = nil, 1, 16
local counts = not refund
for limit = 1, #limits, 20 do
    local most, cost, window, own = unpack('>I4I4I6I6', limits, limit)
    local width, age, age_ns, sum, live, from = own, 0, 0, 0, 0, 0
    -- How many sub-windows are empty before the newest that was found, and how many count no more.
    local empty, gone = 0, 0
    if at <= last then
        if last - at < 19 then
            return { value, left, 0 }
        end
        width, age, age_ns, sum, live, from = unpack('>I6I6I3I4B', value, at)
        at = from + 4 * live
        if width == 0 or at > last + 1 then
            return { value, left, 0 }
        end
        age, age_ns = age + passed, age_ns + passed_ns
        if age_ns > 999999 then
            local carry = math.floor(age_ns / 1000000)
            age, age_ns = age + carry, age_ns - carry * 1000000
        end
        local rest, rest_ns = window + width, 0
        if rest > 18446744073709 then
            rest, rest_ns = 18446744073709, 551615
        end
        rest, rest_ns = rest - age, rest_ns - age_ns
        if rest_ns < 0 then
            rest, rest_ns = rest - 1, rest_ns + 1000000
        end
        local counted = 0
        if passed > window or rest < 0 then
            sum = 0
        elseif width > 18446744073709 then
            width = 18446744073709
            counted = (rest > 0 or rest_ns > 0) and 1 or 0
        else
            local over = rest % width
            counted = (rest - over) / width
            if over > 0 or rest_ns > 0 then
                counted = counted + 1
            end
        end
        if counted < live then
            for place = from + 4 * counted, at - 4, 4 do
                sum = sum - unpack('>I4', value, place)
            end
            live, gone = counted, live - counted
        end
        if live == 0 or sum <= 0 then
            width, age, age_ns, sum, live, gone = own, 0, 0, 0, 0, 0
        elseif width == own then
            local over = age % own
            empty = (age - over) / own
            age = over
        end
    end
    -- At least one counter is kept, and no more than there are sub-windows that count.
    local places = math.ceil((window + width) / width)
    if width == 18446744073709 then
        places = 1
    end
    places = math.max(1, math.min(empty + live + gone, places))
    gone = places - empty - live
    if refund then
        if cost > sum then
            cost = sum
        end
        sum = sum - cost
        -- From the oldest on, which leave first.
        local tail, upto = '', from + 4 * live - 1
        while cost > 0 and upto > from do
            local count = unpack('>I4', value, upto - 3)
            local taken = cost < count and cost or count
            cost, upto = cost - taken, upto - 4
            tail = pack('>I4', count - taken) .. tail
        end
        local found = live > 0 and sub(value, from, upto) or ''
        kept = kept or { 'W', ARGV[2], '' }
        kept[#kept + 1] = pack('>I6I6I3I4B', width, age, age_ns, sum, places)
        kept[#kept + 1] = string.rep('\0\0\0\0', empty) .. found .. tail
        kept[#kept + 1] = string.rep('\0\0\0\0', gone)
        counts = counts or sum > 0
    else
        sum = sum + cost
        if sum > most then
            return { value, left, 0 }
        end
        local newest, older = sum, ''
        if live == 0 or width ~= own then
            -- Counted with other sub-windows: all of it counts as of now.
            age, age_ns, places = 0, 0, 1
        else
            if empty == 0 then
                local a, b, c, d = string.byte(value, from, from + 3)
                newest = (((a * 256 + b) * 256 + c) * 256 + d + cost) % 4294967296
                older = sub(value, from + 4, from + 4 * live - 1)
            else
                newest = cost
                older = string.rep('\0\0\0\0', empty - 1) .. sub(value, from, from + 4 * live - 1)
            end
            if gone > 0 then
                older = older .. string.rep('\0\0\0\0', gone)
            end
        end
        if #limits == 20 then
            -- The usual case, with no string on the way that the server has to hash.
            longest = window + 1
            local head = pack(
                '>I6I6I6I3I4BI4',
                longest, own, age, age_ns, sum, places, newest
            )
            call('SET', key, 'W' .. ARGV[2] .. head .. older, 'PX', longest)
            return { value, left, 1 }
        end
        kept = kept or { 'W', ARGV[2], '' }
        kept[#kept + 1] = pack('>I6I6I3I4BI4', own, age, age_ns, sum, places, newest)
        kept[#kept + 1] = older
    end
    if sum > 0 and window >= longest then
        longest = window + 1
    end
end
if counts then
    kept[3] = pack('>I6', longest)
    call('SET', key, table.concat(kept), 'PX', longest)
else
    call('DEL', key)
end
return { value, left, 1 }
