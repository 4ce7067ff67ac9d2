-- Ask a served index one query after another, driven by wrk (Debian's package `wrk`); answers of other statuses
-- than 200 are counted, latencies are those of all answers.
-- QUERIES: a TSV of `id text`; INDEX: the index or alias to search, else `demo`.
-- Example: QUERIES=queries/ja.test.tsv wrk -t1 -c8 -d10 -s benchmarks/wrk_search.lua http://127.0.0.1:8080

local path = "/v1/indexes/" .. (os.getenv("INDEX") or "demo") .. "/search"
local headers = { ["Content-Type"] = "application/json" }
local bodies, last = {}, 0

local function quoted(text)
  return '"' .. text:gsub('[%c"\\]', function(character)
    return string.format("\\u%04x", character:byte())
  end) .. '"'
end

for line in io.lines((assert(os.getenv("QUERIES"), "QUERIES names a TSV of queries"))) do
  local text = assert(line:match("^[^\t]*\t(.*)$"), "not `id text`, separated by a tab: " .. line)
  bodies[#bodies + 1] = '{"k":10,"query":' .. quoted(text) .. "}"
end

function request()
  last = last % #bodies + 1
  return wrk.format("POST", path, headers, bodies[last])
end

function done(summary, latency)
  io.write(string.format(
    '{"answered_a_second": %.1f, "p50_ms": %.1f, "p99_ms": %.1f, "not_200": %d, "broken": %d}\n',
    (summary.requests - summary.errors.status) / (summary.duration / 1e6),
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
