"""What the gateway does over time: order, waiting, repetition, overload, loss of the node, the end.

    gateway_behaviour.py GATEWAY NODE [NAME …]        only the tests with these names
"""
import json
import os
import random
import re
import signal
import sys
import time
import traceback

import harness  # noqa: F401
import gateway_harness

SEED = int(os.environ.get("SEED", "1"))


def order_body(user, sku="A", quantity=1):
    return json.dumps({"sale_id": "open", "user_id": user,
                       "lines": [{"sku": sku, "quantity": quantity}]}).encode()


def order_request(stage, user, key, **headers):
    return stage.request_bytes("POST", "/v1/orders", order_body(user),
                               {**stage.authorization("backend"), "Idempotency-Key": key, **headers})


def eventually(what, check):
    end = time.monotonic() + gateway_harness.PATIENCE_S
    while not check():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def stock(stage, sku):
    s = stage.expect(200, "GET", f"/v1/skus/{sku}?consistency=strong", who="viewer").json
    assert s["available"] + s["reserved"] + s["sold"] == s["received"]
    return s


def test_pipelined_burst_is_answered_in_order(stage):
    wire = gateway_harness.Wire(stage.ports["public"])
    count = 300  # more than --pipeline-max
    wire.send(b"".join(order_request(stage, f"burst{i}", f"burst-{i}") for i in range(count)))
    ids = []
    for i in range(count):
        answer = wire.read()
        assert answer.status == 201 and answer.json["user_id"] == f"burst{i}", answer.body
        ids.append(answer.json["order_id"])
    assert len(set(ids)) == count
    wire.close()


def test_slow_and_fast_requests_keep_their_order(stage):
    wire = gateway_harness.Wire(stage.ports["public"])
    wire.send(order_request(stage, "mixed", "mixed-1")
              + stage.request_bytes("GET", "/livez")
              + stage.request_bytes("GET", "/v1/order-requests/never?wait=1", None,
                                    stage.authorization("backend"))
              + stage.request_bytes("GET", "/livez")
              + order_request(stage, "mixed", "mixed-1"))
    assert [wire.read().status for _ in range(5)] == [201, 200, 404, 200, 201]
    wire.close()


def test_bytes_one_at_a_time(stage):
    wire = gateway_harness.Wire(stage.ports["public"])
    for byte in order_request(stage, "drip", "drip-1"):
        wire.send(bytes([byte]))
    first = wire.read()
    assert first.status == 201
    wire.send(order_request(stage, "drip", "drip-1"))
    assert wire.read().body == first.body
    wire.close()


def test_continue(stage):
    wire = gateway_harness.Wire(stage.ports["public"])
    head, body = order_request(stage, "polite", "polite-1", Expect="100-continue").split(b"\r\n\r\n", 1)
    wire.send(head + b"\r\n\r\n")
    while b"\r\n\r\n" not in wire.buffer:
        wire._more()
    assert wire.buffer.startswith(b"HTTP/1.1 100 "), wire.buffer
    wire.send(body)
    assert wire.read().status == 201
    wire.close()


def test_chunked_body(stage):
    body = order_body("chunky")
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 7]), body[i:i + 7])
                      for i in range(0, len(body), 7)) + b"0\r\n\r\n"
    wire = gateway_harness.Wire(stage.ports["public"])
    wire.send(stage.request_bytes("POST", "/v1/orders", chunks, {
        **stage.authorization("backend"), "Idempotency-Key": "chunky-1",
        "Transfer-Encoding": "chunked"}) + stage.request_bytes("GET", "/livez"))
    assert wire.read().status == 201 and wire.read().status == 200
    wire.close()


def test_asynchronous_order(stage):
    headers = {"Prefer": "respond-async"}
    body = order_body("later")
    accepted = stage.expect(202, "POST", "/v1/orders", body, who="backend", key="later-1", headers=headers)
    assert accepted.headers["location"] == "/v1/order-requests/later-1"
    assert accepted.headers["preference-applied"] == "respond-async"
    done = stage.expect(200, "GET", accepted.headers["location"] + "?wait=30", who="backend")
    assert done.json["state"] == "placed", done.body
    again = stage.expect(201, "POST", "/v1/orders", body, who="backend", key="later-1")
    assert again.json["order_id"] == done.json["order_id"]
    assert again.headers["idempotency-replayed"] == "true"
    assert stage.expect(404, "GET", accepted.headers["location"], who="backend2").code == "NOT_FOUND"
    stage.expect(202, "POST", "/v1/orders", order_body("later", "C"), who="backend", key="later-2",
                 headers=headers)
    refused = stage.expect(200, "GET", "/v1/order-requests/later-2?wait=30", who="backend")
    assert refused.json["state"] == "refused" and refused.json["problem"]["code"] == "SOLD_OUT"
    waited = stage.expect(201, "POST", "/v1/orders", order_body("later"), who="backend", key="later-3",
                          headers={"Prefer": "respond-async, wait=30"})
    assert waited.json["user_id"] == "later"


def test_pages(stage):
    placed = {stage.place("open", "pager", f"page-{i}").json["order_id"] for i in range(23)}
    seen, path = [], "/v1/orders?limit=4&user_id=pager&consistency=strong"
    for _ in range(200):
        answer = stage.expect(200, "GET", path, who="backend")
        assert len(answer.json["items"]) <= 4
        seen += [o["order_id"] for o in answer.json["items"]]
        if "next_cursor" not in answer.json:
            assert "link" not in answer.headers
            break
        path = re.fullmatch(r'<(.*)>; rel="next"', answer.headers["link"])[1]
    assert sorted(seen) == sorted(placed), (len(seen), len(placed))
    own = stage.expect(200, "GET", "/v1/orders?consistency=strong", who="user:pager").json["items"]
    assert {o["order_id"] for o in own} <= placed


def test_reading_what_was_written(stage):
    for i in range(50):
        written = stage.place("open", "reader", f"ryw-{i}")
        index = written.headers["holdfast-log-index"]
        read = stage.expect(200, "GET", f"/v1/orders/{written.json['order_id']}?min_index={index}",
                            who="user:reader")
        assert int(read.headers["holdfast-log-index"]) >= int(index)
        assert read.json["created_index"] == int(index)


def test_etags(stage):
    sale = stage.expect(200, "GET", "/v1/sales/calm")
    tag = sale.headers["etag"]
    for value, status in ((tag, 304), (f'"x", {tag}', 304), ("W/" + tag, 304), ("*", 304), ('"x"', 200)):
        answer = stage.expect(status, "GET", "/v1/sales/calm", headers={"If-None-Match": value})
        assert answer.headers["etag"] == tag and (status == 200) == bool(answer.body)
    assert stage.place("calm", "anyone", "calm-1", sku="D").status == 201
    changed = stage.expect(200, "GET", "/v1/sales/calm?consistency=strong", headers={"If-None-Match": tag})
    assert changed.headers["etag"] != tag and changed.json["version"] == sale.json["version"]
    body = {"title": "calm", "currency": "EUR", "opens_at": "2020-01-01T00:00:00Z",
            "closes_at": "2120-01-01T00:00:00Z", "offers": [{"sku": "D", "unit_price": 250}]}
    put = stage.expect(200, "PUT", "/v1/sales/calm", body, who="admin", listener="admin",
                       headers={"If-Match": tag})  # a sold unit is no conflict
    assert put.headers["etag"] == f'"{sale.json["version"] + 1}"'
    stage.expect(412, "PUT", "/v1/sales/calm", body, who="admin", listener="admin",
                 headers={"If-Match": tag})


def test_head(stage):
    got = stage.expect(200, "GET", "/v1/sales/open")
    head = stage.expect(200, "HEAD", "/v1/sales/open")
    assert head.headers["content-length"].isdigit() and not head.body and got.body


def test_slow_reader_harms_nobody(stage):
    wire = gateway_harness.Wire(stage.ports["public"])
    request = stage.request_bytes("GET", "/openapi.json")
    count = 400  # some 25 MB of answers, more than any socket buffer
    wire.socket.settimeout(0.2)
    sent = b""
    try:
        for i in range(count):
            wire.send(request)
            sent += request
    except (TimeoutError, BlockingIOError):
        pass
    wire.socket.settimeout(gateway_harness.PATIENCE_S)
    for i in range(20):
        assert stage.call("GET", "/livez").status == 200
    sizes = {len(wire.read().body) for _ in range(len(sent) // len(request))}
    assert len(sizes) == 1
    wire.close()


def test_callers_that_vanish(stage):
    for i in range(50):
        wire = gateway_harness.Wire(stage.ports["public"])
        wire.send(order_request(stage, f"gone{i}", f"gone-{i}") * 3)
        wire.socket.close()
    for i in range(50):
        answer = stage.place("open", f"gone{i}", f"gone-{i}")
        assert answer.status == 201, answer.body
    eventually("requests of callers that vanished are still held",
               lambda: metric(stage, "holdfast_http_requests_in_flight") == 1)


def metric(stage, name):
    page = stage.expect(200, "GET", "/metrics", listener="admin").body.decode()
    found = re.search(rf"^{re.escape(name)} ([0-9.e+]+)$", page, re.M)
    assert found, f"no {name} in the metrics"
    return float(found[1])


def test_metrics(stage):
    page = stage.expect(200, "GET", "/metrics", listener="admin").body.decode()
    families = set()
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            assert line.split()[2] not in families, line
            families.add(line.split()[2])
        elif not line.startswith("#"):
            sample = re.fullmatch(r'([a-z_]+)(\{[^}]*\}|\{([a-z]+="([^"\\]|\\.)*",?)*\})? [0-9.e+-]+|'
                                  r'[a-z_]+\{.*\} (\+Inf|[0-9.e+-]+)', line)
            assert sample, line
    for name in ("holdfast_build_info", "holdfast_http_requests_total", "holdfast_orders_total",
                 "holdfast_http_request_duration_seconds", "holdfast_http_connections",
                 "holdfast_shed_total", "holdfast_has_leader", "holdfast_idempotency_replays_total"):
        assert name in families, f"no {name}"
    assert "stage" not in page and "alice" not in page, "a user is in a label"


def test_noise(stage):
    rng = random.Random(SEED)
    good = order_request(stage, "noise", "noise-1")
    for i in range(400):
        data = bytearray(good * rng.randint(1, 3))
        for _ in range(rng.randint(1, 6)):
            kind = rng.randint(0, 3)
            at = rng.randrange(len(data))
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at:at + rng.randint(1, 20)]
            elif kind == 2:
                data[at:at] = rng.choice([b"\r\n", b"\n", b"\0", b"Content-Length: 5\r\n", b"{", b'"', b"%"])
            else:
                data[at:at] = rng.randbytes(rng.randint(1, 40))
            if not data:
                data = bytearray(b"x")
        wire = gateway_harness.Wire(stage.ports["public"])
        try:
            wire.send(bytes(data))
            wire.end()
            left = wire.at_end()
            assert not left or left.startswith(b"HTTP/1.1 "), (i, left)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            wire.close()
    assert stage.call("GET", "/livez").status == 200


def test_idle_connection_is_closed(stage):
    stage.restart("--idle-timeout", "300ms")
    wire = gateway_harness.Wire(stage.ports["public"])
    wire.send(stage.request_bytes("GET", "/livez"))
    assert wire.read().status == 200
    assert wire.at_end() == b""
    wire.close()


def test_limits(stage):
    stage.restart("--connections-max", "4", "--requests-max", "2")
    wires = [gateway_harness.Wire(stage.ports["public"]) for _ in range(4)]
    for w in wires:
        w.send(stage.request_bytes("GET", "/livez"))
        assert w.read().status == 200
    fifth = gateway_harness.Wire(stage.ports["public"])
    assert fifth.at_end() == b""
    wait = stage.request_bytes("GET", "/v1/order-requests/none?wait=60", None,
                               stage.authorization("backend"))
    wires[0].send(wait)
    wires[1].send(wait)

    def third_is_refused():
        wires[2].send(stage.request_bytes("GET", "/livez"))
        return wires[2].read().code == "QUEUE_FULL"
    eventually("a request beyond --requests-max is run", third_is_refused)
    assert wires[2].at_end() == b""
    for w in wires:
        w.close()


def test_same_bytes_after_a_restart(stage):
    first = stage.place("open", "constant", "constant-1")
    refused = stage.place("open", "constant", "constant-2", sku="C")
    stage.restart()
    for key, sku, before in (("constant-1", "A", first), ("constant-2", "C", refused)):
        again = stage.place("open", "constant", key, sku=sku)
        assert (again.status, again.body) == (before.status, before.body)
        assert again.headers["idempotency-replayed"] == "true"
        assert again.headers["holdfast-origin-index"] == before.headers["holdfast-log-index"]
        assert int(again.headers["holdfast-log-index"]) > int(before.headers["holdfast-log-index"])


def test_outcome_unknown_is_settled_by_the_key(stage):
    before = stock(stage, "A")
    stage.node.child.send_signal(signal.SIGSTOP)
    try:
        unknown = stage.call("POST", "/v1/orders", order_body("patient"), who="backend", key="patient-1",
                             headers={"Prefer": "wait=1"})
        assert (unknown.status, unknown.code) in ((504, "OUTCOME_UNKNOWN"), (503, "NO_LEADER")), unknown.body
        assert unknown.headers["retry-after"] == "1"
    finally:
        stage.node.child.send_signal(signal.SIGCONT)
    settled = []

    def placed():
        settled.append(stage.place("open", "patient", "patient-1"))
        return settled[-1].status == 201
    eventually("the order is never placed", placed)
    assert stage.place("open", "patient", "patient-1").body == settled[-1].body
    after = stock(stage, "A")
    assert after["reserved"] == before["reserved"] + 1, "not exactly one order"


def test_no_node(stage):
    if os.path.basename(stage.node_path) == "fake_node":
        return  # it keeps nothing
    first = stage.place("open", "steady", "steady-1")
    stage.node.stop(signal.SIGKILL)
    eventually("readyz stays ready without a node", lambda: stage.call("GET", "/readyz").status == 503)
    refused = stage.call("POST", "/v1/orders", order_body("steady"), who="backend", key="steady-2",
                         headers={"Prefer": "wait=1"})
    assert (refused.status, refused.code) == (503, "NO_LEADER"), refused.body
    assert int(refused.headers["retry-after"]) >= 1 and refused.json["retry_after_ms"] > 0
    read = stage.call("GET", "/v1/sales/open", headers={"Prefer": "wait=1"})
    assert (read.status, read.code) == (503, "NO_LEADER"), read.body
    assert stage.call("GET", "/livez").status == 200
    stage.start_node()
    stage.wait_ready()
    again = stage.place("open", "steady", "steady-1")
    assert (again.status, again.body) == (201, first.body), "an acknowledged order is gone"
    assert stage.place("open", "steady", "steady-2").status == 201


def test_orders_wait_for_a_leader(stage):
    if os.path.basename(stage.node_path) == "fake_node":
        return
    stage.node.stop(signal.SIGKILL)
    wire = gateway_harness.Wire(stage.ports["public"])
    wire.send(order_request(stage, "waiting", "waiting-1", Prefer="wait=60"))
    stage.start_node()
    assert wire.read().status == 201  # taken before there was a leader
    wire.close()
    stage.wait_ready()


def test_end_finishes_what_was_taken(stage):
    idle = gateway_harness.Wire(stage.ports["public"])
    idle.send(stage.request_bytes("GET", "/readyz"))
    assert idle.read().status == 200
    busy = gateway_harness.Wire(stage.ports["public"])
    stage.node.child.send_signal(signal.SIGSTOP)
    try:
        busy.send(order_request(stage, "last", "last-1", Prefer="wait=60"))
        eventually("the request does not run",
                   lambda: metric(stage, "holdfast_http_requests_in_flight") >= 2)
        stage.gateway.child.send_signal(signal.SIGTERM)
        stage.gateway.wait_for("draining")
        assert idle.at_end() == b""

        def refuses():
            try:
                gateway_harness.Wire(stage.ports["public"]).close()
                return False
            except ConnectionRefusedError:
                return True
        eventually("it goes on accepting", refuses)
        assert stage.gateway.child.poll() is None, "it ended before its last answer"
    finally:
        stage.node.child.send_signal(signal.SIGCONT)
    answer = busy.read()
    assert answer.status == 201 and answer.headers["connection"] == "close", answer.body
    assert busy.at_end() == b""
    assert stage.gateway.child.wait(gateway_harness.PATIENCE_S) == 0
    stage.start_gateway()
    stage.wait_ready()
    assert stage.place("open", "last", "last-1").body == answer.body


def test_not_ready_before_the_end(stage):
    stage.restart("--drain-delay", "60s")
    stage.gateway.child.send_signal(signal.SIGTERM)
    stage.gateway.wait_for("draining")
    answer = stage.call("GET", "/readyz?verbose")
    assert answer.status == 503 and b"[-]serving" in answer.body
    assert stage.place("open", "lastminute", "lastminute-1").status == 201
    stage.gateway.child.send_signal(signal.SIGTERM)  # a second signal
    assert stage.gateway.child.wait(gateway_harness.PATIENCE_S) == 128 + signal.SIGTERM


def prepare(stage):
    stage.put_sku("A", 100000)
    stage.put_sku("C", 0)
    stage.put_sku("D", 100)
    stage.put_sale("open", ["A", "C"])
    stage.put_sale("calm", ["D"])


class RestartingStage(gateway_harness.Stage):
    changed = False  # the gateway runs with options of a test's own

    def restart(self, *options):
        self.changed = bool(options)
        self.gateway.stop()
        self.start_gateway(*options)
        self.wait_ready()


def run(gateway, node, only):
    tests = {n[5:]: f for n, f in globals().items() if n.startswith("test_")}
    unknown = set(only) - set(tests)
    assert not unknown, f"no such test: {unknown}"
    failed = []
    stage = RestartingStage(gateway, node)
    try:
        stage.start_node()
        stage.start_gateway()
        stage.wait_ready()
        prepare(stage)
        for name, test in tests.items():
            if only and name not in only:
                continue
            if stage.changed or stage.gateway.child.poll() is not None:
                stage.restart()
            try:
                test(stage)
                print("ok", name)
            except Exception:  # any failure of one test lets the others run
                failed.append(name)
                print("FAILED", name)
                traceback.print_exc(file=sys.stdout)
    finally:
        wrong = stage.close()
    for line in wrong:
        print("FAILED", line)
    print(f"{len(failed)} failed; again: SEED={SEED} {' '.join(sys.argv[:3])} {' '.join(failed)}")
    return 1 if failed or wrong else 0


if __name__ == "__main__":
    sys.exit(gateway_harness.main(run))
