-- `SmoothStep` of derp-kv-core tells what is kept, and this does what its `apply` does.
-- ARGV: the increment and the tolerance of each limit (9 bytes each), the number of the write, and of
-- a refund one more. A Lua number is a double: a time is a pair of milliseconds and nanoseconds,
-- which never rounds.
local key, limits, refund = KEYS[1], ARGV[1], ARGV[3]
local call, unpack, pack = redis.call, struct.unpack, struct.pack
-- No key lasts longer, in milliseconds.
local LONGEST = 3153600000000
local value, left = call('GET', key), -2
local last, age, age_ns = 0, 0, 0
if value then
    left = call('PTTL', key)
    last = #value
    if last < 15 or string.byte(value) ~= 71 or (left >= 0 and last % 9 ~= 6) then
        return { value, left, 0 }
    end
    -- Without an expiry nobody can tell its age: it counts as absent. The core's nanoseconds, which
    -- have 64 bits, end at 18446744073709 ms and 551615 ns.
    local ttl = unpack('>I6', value, 10)
    if left < 0 then
        last = 0
    elseif ttl > 18446744073709 then
        if left <= 18446744073709 then
            age, age_ns = 18446744073709 - left, 551615
        end
    elseif ttl > left then
        age = ttl - left
    end
elseif refund then
    return { false, left, 1 }
end

local kept, lasts, at = '', 1, 16
local owes = not refund
for limit = 1, #limits, 18 do
    local cost, cost_ns, most, most_ns = unpack('>I6I3I6I3', limits, limit)
    -- What is owed, and whether that is more than this limit tolerates, because it was lowered.
    local all, all_ns, lowered = 0, 0, false
    if at < last then
        all, all_ns = unpack('>I6I3', value, at)
        at = at + 9
        if all_ns > 999999 then
            local carry = math.floor(all_ns / 1000000)
            all, all_ns = all + carry, all_ns - carry * 1000000
        end
        if all >= LONGEST then
            all, all_ns = LONGEST, 0
        end
        lowered = all > most or all == most and all_ns > most_ns
        all, all_ns = all - age, all_ns - age_ns
        if all_ns < 0 then
            all, all_ns = all - 1, all_ns + 1000000
        end
        if all < 0 then
            all, all_ns = 0, 0
        end
    end
    if refund then
        all, all_ns = all - cost, all_ns - cost_ns
        if all_ns < 0 then
            all, all_ns = all - 1, all_ns + 1000000
        end
        if all < 0 then
            all, all_ns = 0, 0
        end
        owes = owes or all > 0 or all_ns > 0
    else
        -- A lowered limit owed its tolerance at the write: a call passes once it is paid for since.
        if lowered and (cost > age or cost == age and cost_ns > age_ns) then
            return { value, left, 0 }
        end
        all, all_ns = all + cost, all_ns + cost_ns
        if all_ns > 999999 then
            all, all_ns = all + 1, all_ns - 1000000
        end
        if not lowered and (all > most or all == most and all_ns > most_ns) then
            return { value, left, 0 }
        end
        if all >= LONGEST then
            all, all_ns = LONGEST, 0
        end
    end
    local ends = all_ns > 0 and all + 1 or all
    if ends > lasts then
        lasts = ends
    end
    if #limits == 18 and owes then
        -- The usual case, with no string on the way that the server has to hash.
        call('SET', key, 'G' .. ARGV[2] .. pack('>I6I6I3', lasts, all, all_ns), 'PX', lasts)
        return { value, left, 1 }
    end
    kept = kept .. pack('>I6I3', all, all_ns)
end
if owes then
    call('SET', key, 'G' .. ARGV[2] .. pack('>I6', lasts) .. kept, 'PX', lasts)
else
    call('DEL', key)
end
return { value, left, 1 }
