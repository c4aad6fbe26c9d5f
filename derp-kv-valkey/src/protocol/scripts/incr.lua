-- ARGV: the increment, and the TTL of a new counter in milliseconds or ''.
-- Time stands still inside a script: -2 is an absent key, and value and expiry are of one moment.
local left = redis.call('PTTL', KEYS[1])
if left == -2 then
    if ARGV[2] == '' then
        redis.call('SET', KEYS[1], ARGV[1])
    else
        redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    end
    return { ARGV[1], redis.call('PTTL', KEYS[1]) }
end
local sum = redis.call('INCRBY', KEYS[1], ARGV[1])
-- A Lua number is a double: from 2^53 on only the text has all digits.
if sum <= -9007199254740992 or sum >= 9007199254740992 then
    sum = redis.call('GET', KEYS[1])
end
return { sum, left }
