-- wrk: POST /callback with 100 ids, /sms with a message, or /invitations/CODE
-- with an address, in turn a few hundred different bodies.
-- The first thread's last line is for bench.py.
local requests = {}

local function ids_body()
   local ids = {}
   for i = 1, 100 do
      ids[i] = math.random(0, 9999999)
   end
   return '{"object_ids": [' .. table.concat(ids, ", ") .. "]}"
end

local function message_body()
   return string.format(
      '{"phone_number": "+1%09d", "content": "Your parcel %d is on its way. ' ..
      'It comes between %d and %d o\'clock."}', math.random(0, 999999999),
      math.random(0, 9999999), math.random(8, 12), math.random(13, 18))
end

local function address_body()
   return string.format('{"Email": "person%d@example.com"}',
      math.random(0, 9999999))
end

local function body_of(path)
   if path == "/sms" then
      return message_body
   end
   return path:find("^/invitations/") and address_body or ids_body
end

-- Not before: wrk has the Host header from here on.
function init()
   math.randomseed(42)
   wrk.headers["Content-Type"] = "application/json"
   local body = body_of(wrk.path)
   for k = 1, 256 do
      requests[k] = wrk.format("POST", nil, nil, body())
   end
end

local at = 0
function request()
   at = at % #requests + 1
   return requests[at]
end

local threads = {}
refused = 0
function setup(thread)
   threads[#threads + 1] = thread
end

function response(status)
   if status ~= 202 then
      refused = refused + 1
   end
end

function done(summary, latency)
   local errors = summary.errors
   local count = 0
   for _, thread in ipairs(threads) do
      count = count + thread:get("refused")
   end
   io.write(string.format(
      'JSON {"requests": %d, "seconds": %.6f, "refused": %d, "broken": %d, ' ..
      '"p50_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f}\n',
      summary.requests, summary.duration / 1e6, count,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
      latency.max / 1e3))
end
