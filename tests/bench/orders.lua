-- wrk's orders for a holdfast gateway: each under its own key, by its own user. The other yardstick beside
-- holdfast-bench: what drives the nginx ceiling drives us, too.
--     SALE=… SKU=… API_KEY=… wrk -s orders.lua URL      (without SALE: the constant answer of nginx)
local sale, sku, key = os.getenv("SALE") or "s1", os.getenv("SKU") or "sku", os.getenv("API_KEY")
local run = string.format("w%d-%d", os.time(), math.random(1, 1000000000))
local n, failed = 0, 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
if key then wrk.headers["Authorization"] = "Bearer " .. key end
request = function()
    n = n + 1
    wrk.headers["Idempotency-Key"] = '"' .. run .. "-" .. n .. '"'
    return wrk.format(nil, "/v1/orders", nil, '{"sale_id":"' .. sale .. '","user_id":"u' .. n % 1000000 ..
        '","lines":[{"sku":"' .. sku .. '","quantity":1}]}')
end
done = function(summary, latency)
    local e = summary.errors
    io.write(string.format('RESULT {"rate":%.1f,"p50_ms":%.3f,"p99_ms":%.3f,"p999_ms":%.3f,"errors":%d}\n',
        summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        latency:percentile(99.9) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
