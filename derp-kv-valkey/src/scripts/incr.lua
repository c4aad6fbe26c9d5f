-- ARGV: the increment, and the TTL of a new counter in milliseconds or ''.
-- The sum is read back as text: a Lua number is a double and loses digits above 2^53.
if redis.call('EXISTS', KEYS[1]) == 0 then
    if ARGV[2] == '' then
        redis.call('SET', KEYS[1], ARGV[1])
    else
        redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    end
else
    redis.call('INCRBY', KEYS[1], ARGV[1])
end
return { redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]) }
