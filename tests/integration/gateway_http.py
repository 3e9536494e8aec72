"""Runs the table http_cases.json against a real gateway and a real node.

    gateway_http.py GATEWAY NODE [NAME …]        only the cases with these names

Each case is one connection. Its fields:
    name        what is shown when it fails
    to          "public" (default) or "admin"
    as          who asks: admin, backend, viewer, payments, user:NAME, expired:NAME, forged:NAME, …
    do          "METHOD /path"
    json, body  the body: as JSON, or as text (latin-1: "\\u00ff" is the byte 0xFF); "pad:N" is N bytes
    key         Idempotency-Key
    headers     more header fields; null leaves one out that would be there
    sign        payment events: {"event", "offset": seconds, "change": what is altered after signing}
    raw         instead of all that: the very bytes of the connection (latin-1); half: true ends the
                sending side after them
    expect      [status, code, field]; code and field null when there are none. For raw: a list of those
    closed      true: the gateway closes the connection after the last answer
    has, lacks  header fields that must (with a value, or null) or must not be there
    body_has    members the answer's JSON must have
    same_as     name of an earlier case whose answer must have the same status and body, byte for byte
$NAME in path, body and headers is what the stage calls that: $order, $paid, $expired, $foreign, …
"""
import json
import os
import sys
import time

import harness  # noqa: F401
import gateway_harness


def set_the_stage(stage):
    """Everything the cases speak of. Returns the values of their $names."""
    stage.put_sku("A", 1000)
    stage.put_sku("B", 2)
    stage.put_sku("C", 0)
    stage.put_sale("open", ["A", "B", "C"])
    stage.put_sale("limited", ["A"], orders_per_user_max=1,
                   offers=[{"sku": "A", "unit_price": 100, "units_per_order_max": 3}])
    stage.put_sale("future", ["A"], opens_at="2100-01-01T00:00:00Z")
    stage.put_sale("past", ["A"])
    stage.expect(200, "POST", "/v1/sales/past/close", who="admin", listener="admin")
    stage.put_sale("paused", ["A"])
    stage.expect(200, "POST", "/v1/sales/paused/pause", who="admin", listener="admin")
    stage.put_sale("members", ["A"], eligibility_required=True, eligibility_limit=1,
                   eligibility_opens_at="2020-01-01T00:00:00Z", eligibility_closes_at="2110-01-01T00:00:00Z")
    stage.expect(201, "POST", "/v1/sales/members/eligibilities", {"user_id": "member"}, who="backend")
    stage.put_sale("brief", ["A"], payment_timeout_ms=1, late_payment="refund")
    stage.expect(201, "PUT", "/v1/denylist/denied", {"reason": "resells"}, who="admin", listener="admin")
    names = {}
    for name, sale, user in (("order", "open", "alice"), ("paid", "open", "alice"),
                             ("foreign", "open", "bob"), ("cancelled", "open", "alice"),
                             ("expired", "brief", "alice")):
        answer = stage.place(sale, user, "stage-" + name)
        assert answer.status == 201, answer.body
        names[name] = answer.json["order_id"]
        names["index"] = answer.headers["holdfast-log-index"]
    assert stage.pay(names["paid"], "stage-paid", 250).status == 200
    stage.expect(200, "POST", f"/v1/orders/{names['cancelled']}/cancel", who="backend")
    lease = stage.expect(201, "POST", "/v1/leases", {"name": "lock", "owner": "me", "ttl_ms": 3600000},
                         who="backend", key="stage-lease")
    names["token"] = str(lease.json["fencing_token"])
    end = time.monotonic() + gateway_harness.PATIENCE_S
    while stage.expect(200, "GET", f"/v1/orders/{names['expired']}?consistency=strong",
                       who="backend").json["status"] != "expired":
        assert time.monotonic() < end, "an unpaid order does not expire"
        time.sleep(0.02)
    return names


def fill(value, names):
    if isinstance(value, str):
        for name in sorted(names, key=len, reverse=True):
            value = value.replace("$" + name, names[name])
        return value
    if isinstance(value, list):
        return [fill(v, names) for v in value]
    if isinstance(value, dict):
        return {k: fill(v, names) for k, v in value.items()}
    return value


def body_of(case):
    if "json" in case:
        return json.dumps(case["json"]).encode()
    body = case.get("body")
    if body is None:
        return None
    if body.startswith("pad:"):
        return b"{" + b" " * (int(body[4:]) - 2) + b"}"
    return body.encode("latin-1")


def bytes_of(stage, case):
    if "raw" in case:
        return case["raw"].encode("latin-1")
    method, path = case["do"].split(" ", 1)
    body = body_of(case)
    headers = dict(stage.authorization(case.get("as")))
    if "key" in case:
        headers["Idempotency-Key"] = case["key"]
    if "sign" in case:
        sign = case["sign"]
        change = sign.get("change")
        headers.update(stage.signature(sign["event"], body + (b" " if change == "body" else b""),
                                       sign.get("offset", 0),
                                       **({"secret": b"x" * 32} if change == "secret" else {})))
        if change == "id":
            headers["webhook-id"] += "x"
        elif change == "time":
            headers["webhook-timestamp"] = str(int(headers["webhook-timestamp"]) + 1)
        elif change == "signature":
            headers["webhook-signature"] = "v1,AAAA" + headers["webhook-signature"][7:]
    headers.update(case.get("headers", {}))
    return stage.request_bytes(method, path, body, headers)


def check(case, answer, expected):
    status, code, field = (list(expected) + [None, None])[:3]
    got = [answer.status, answer.code, (answer.json or {}).get("field")
           if isinstance(answer.json, dict) else None]
    if status >= 400:
        assert got == [status, code, field], f"{got}, expected {[status, code, field]}: {answer.body!r}"
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["type"] == "/problems/" + code.lower().replace("_", "-")
        assert answer.json["status"] == status and answer.json["title"]
    else:
        assert answer.status == status, f"{answer.status}, expected {status}: {answer.body!r}"
    assert answer.headers["x-request-id"] and answer.headers["holdfast-log-index"].isdigit()
    if status == 503:
        assert int(answer.headers["retry-after"]) >= 1


def run_case(stage, case, answers):
    wire = gateway_harness.Wire(stage.ports[case.get("to", "public")])
    try:
        wire.send(bytes_of(stage, case))
        if case.get("half"):
            wire.end()
        several = "raw" in case
        head_only = not several and case["do"].startswith("HEAD")
        for expected in case["expect"] if several else [case["expect"]]:
            answer = wire.read(head_only)
            check(case, answer, expected)
        for name, value in case.get("has", {}).items():
            got = answer.headers.get(name.lower())
            assert got is not None and (value is None or got == value), f"{name}: {got!r}"
        for name in case.get("lacks", []):
            assert name.lower() not in answer.headers, f"{name} is there"
        for name, value in case.get("body_has", {}).items():
            assert name in answer.json and answer.json[name] == value, f"{name}: {answer.body!r}"
        if "same_as" in case:
            before = answers[case["same_as"]]
            assert (before.status, before.body) == (answer.status, answer.body), \
                f"{before.body!r} became {answer.body!r}"
        if case.get("closed"):
            assert wire.at_end() == b"", "something comes after the last answer"
        answers[case["name"]] = answer
    finally:
        wire.close()


def run(gateway, node, only):
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "http_cases.json"),
              encoding="utf-8") as f:
        cases = json.load(f)
    assert len({c["name"] for c in cases}) == len(cases), "two cases have the same name"
    stage = gateway_harness.Stage(gateway, node, ("--head-timeout", "1s", "--body-timeout", "1s"))
    failed = []
    ran = 0
    try:
        stage.start_node()
        stage.start_gateway()
        stage.wait_ready()
        names = set_the_stage(stage)
        answers = {}
        for case in cases:
            if only and case["name"] not in only:
                continue
            ran += 1
            try:
                run_case(stage, fill(case, names), answers)
            except (AssertionError, EOFError, OSError, ValueError, KeyError) as e:
                failed.append(f"{case['name']}: {type(e).__name__} {e}")
            assert stage.call("GET", "/livez").status == 200, f"dead after {case['name']}"
    finally:
        failed += stage.close()
    for line in failed:
        print("FAILED", line)
    print(f"{ran} cases, {len(failed)} failures; again: {' '.join(sys.argv)}")
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(gateway_harness.main(run))
