-- Begins a new log with its first entry, in the place of another one or of none.
--
-- KEYS  1 the log's description (hash)   2 the new log (stream)   3 the old log, or the new one again
-- ARGV  1 the id of the log to replace ("" for none)   2 the new log's id   3 the first entry's position
--       4 its bytes   5 the channel   6 the collections that the log follows   7 "1" when older history is void
--       8 PUBLISH or SPUBLISH
-- Answers an empty text, or why nothing was written.

local present = redis.call("HGET", KEYS[1], "log") or ""
if present ~= ARGV[1] then
    return "there is another log"
end
redis.call("XADD", KEYS[2], ARGV[3], "e", ARGV[4])
redis.call("HSET", KEYS[1], "log", ARGV[2], "bytes", #ARGV[4], "collections", ARGV[6], "void", ARGV[7])
if KEYS[3] ~= KEYS[2] then
    redis.call("DEL", KEYS[3])
end
redis.call(ARGV[8], ARGV[5], ARGV[4])
return ""
