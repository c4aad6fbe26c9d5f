-- Time stands still inside a script: value and expiry are of one moment.
local value = redis.call('GET', KEYS[1])
if not value then
    return false
end
return { value, redis.call('PTTL', KEYS[1]) }
