-- Appends a batch of entries to the log and publishes it, or does nothing at all.
--
-- KEYS  1 the log's description (hash)   2 the log (stream)
-- ARGV  1 the log's id   2 the position that the log must end at   3 most entries to keep   4 most bytes to keep
--       5 the channel   6 PUBLISH or SPUBLISH   then, for each entry, its position and its bytes; positions are written <ts>-<ordinal>
-- Answers an empty text, or why nothing was written.
--
-- Everything is checked before the first write, because an error in a script undoes nothing. A Redis above its memory
-- limit refuses the first XADD and none after it.

local function later(a, b)
    local a_ts, a_ordinal = a:match("^(%d+)-(%d+)$")
    local b_ts, b_ordinal = b:match("^(%d+)-(%d+)$")
    -- As text: a number here is a double, which does not hold 64 bits.
    if a_ts ~= b_ts then
        if #a_ts ~= #b_ts then return #a_ts > #b_ts end
        return a_ts > b_ts
    end
    return tonumber(a_ordinal) > tonumber(b_ordinal)
end

if redis.call("HGET", KEYS[1], "log") ~= ARGV[1] then
    return "there is another log"
end
local newest = redis.call("XREVRANGE", KEYS[2], "+", "-", "COUNT", 1)
if #newest == 0 then
    return "the log is gone"
end
if newest[1][1] ~= ARGV[2] then
    return "the log ends at " .. newest[1][1]
end
local last = ARGV[2]
for i = 7, #ARGV, 2 do
    if not later(ARGV[i], last) then
        return ARGV[i] .. " is not after " .. last
    end
    last = ARGV[i]
end

local bytes = tonumber(redis.call("HGET", KEYS[1], "bytes"))
local batch = {}
for i = 7, #ARGV, 2 do
    redis.call("XADD", KEYS[2], ARGV[i], "e", ARGV[i + 1])
    bytes = bytes + #ARGV[i + 1]
    batch[#batch + 1] = ARGV[i + 1]
end
local length = redis.call("XLEN", KEYS[2])
while length > 1 and (length > tonumber(ARGV[3]) or bytes > tonumber(ARGV[4])) do
    local oldest = redis.call("XRANGE", KEYS[2], "-", "+", "COUNT", 1)[1]
    redis.call("XDEL", KEYS[2], oldest[1])
    bytes = bytes - #oldest[2][2]
    length = length - 1
end
redis.call("HSET", KEYS[1], "bytes", bytes)
-- Last: what a worker hears of is in the log already, so a gap can always be repaired.
redis.call(ARGV[6], ARGV[5], table.concat(batch))
return ""
