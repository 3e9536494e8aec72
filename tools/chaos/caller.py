"""One client of a cluster: a call of the history as an HTTP request, its answer as a return of the history.

Owns: connections, what an answer means (docs/problems.md): 2xx ok; 4xx refused; 503 and 500: nothing happened;
504, a reset, silence: in doubt. Refuses: to decide whether to ask again (workload.py does).
Happy path: request(call) -> perform(request) -> Attempt. Not thread-safe: one Caller a client.
"""
import calendar
import http.client
import json
import re
import socket
import time

OK, REFUSED, NOTHING, DOUBT = "ok", "refused", "nothing", "doubt"
INDEX = "holdfast-log-index"


def time_ms(text):
    """RFC 3339 in UTC with milliseconds, as every answer has it."""
    found = re.fullmatch(r"(\d+)-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{3})Z", text)
    if not found:
        raise ValueError(f"no time: {text!r}")
    numbers = [int(g) for g in found.groups()]
    return calendar.timegm((*numbers[:6], 0, 0, 0)) * 1000 + numbers[6]


class Attempt:
    """What one attempt gave. kind: OK | REFUSED | NOTHING | DOUBT."""
    __slots__ = ("kind", "code", "http", "fields")

    def __init__(self, kind, code, status=0, fields=None):
        self.kind, self.code, self.http, self.fields = kind, code, status, fields or {}


class Request:
    __slots__ = ("method", "path", "body", "who", "listener", "key", "headers", "event")

    def __init__(self, method, path, body=None, who="backend", listener="public", key=None, headers=None, event=None):
        self.method, self.path, self.who, self.listener, self.key = method, path, who, listener, key
        self.body = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        self.headers = headers or {}
        self.event = event  # a payment event's id: signed anew at each attempt


def request(call):
    """The HTTP request of a call's fields (history.py lists them)."""
    op, key = call["op"], call.get("key")

    def admin(method, path, body=None, **headers):
        return Request(method, path, body, "admin", "admin", key, {k.replace("_", "-"): v for k, v in headers.items()})

    def read(path):
        query = f"?consistency={call['consistency']}"
        if call.get("min_index"):
            query += f"&min_index={call['min_index']}"
        return Request("GET", path + query)

    if op == "place":
        return Request("POST", "/v1/orders", {"sale_id": call["sale"], "user_id": call["user"], "lines": [
            {"sku": sku, "quantity": quantity} for sku, quantity in call["lines"]]}, key=key)
    if op == "pay":
        body = {"type": "payment.succeeded", "order_id": call["order"], "amount": call["amount"],
                "currency": call["currency"]}
        return Request("POST", "/v1/payments/events", body, who=None, event=key)
    if op == "cancel":
        return Request("POST", f"/v1/orders/{call['order']}/cancel", key=key)
    if op == "refund":
        return admin("POST", f"/v1/orders/{call['order']}/refund", {"restock": call["restock"]})
    if op == "grant":
        return Request("POST", f"/v1/sales/{call['sale']}/eligibilities", {"user_id": call["user"]}, key=key)
    if op == "revoke":
        return Request("DELETE", f"/v1/sales/{call['sale']}/eligibilities/{call['user']}", key=key)
    if op == "lease_acquire":
        return Request("POST", "/v1/leases", {k: call[k] for k in ("name", "owner", "ttl_ms")}, key=key)
    if op == "lease_renew":
        return Request("POST", f"/v1/leases/{call['name']}/renew",
                       {"owner": call["owner"], "fencing_token": call["token"], "ttl_ms": call["ttl_ms"]}, key=key)
    if op == "lease_release":
        return Request("DELETE", f"/v1/leases/{call['name']}?owner={call['owner']}&fencing_token={call['token']}",
                       key=key)
    if op == "adjust":
        return admin("POST", f"/v1/skus/{call['sku']}/adjustments", {"delta": call["delta"]})
    if op == "sku_put":
        return admin("PUT", f"/v1/skus/{call['sku']}", {"title": call["title"]}, If_None_Match="*")
    if op == "sale_put":
        return admin("PUT", f"/v1/sales/{call['sale']}", call["definition"], If_None_Match="*")
    if op in ("sale_pause", "sale_resume", "sale_close"):
        return admin("POST", f"/v1/sales/{call['sale']}/{op[5:]}")
    if op == "read_sku":
        return read(f"/v1/skus/{call['sku']}")
    if op == "read_order":
        return read(f"/v1/orders/{call['order']}")
    raise ValueError(op)


def witness_sku(call, order_skus, body):
    """Whose stock Holdfast-Stock tells: the command's SKU, or that of the first line of its order; of an order
    that found a line sold out, that line's."""
    if call["op"] == "adjust":
        return call["sku"]
    if call["op"] == "place":
        line = body.get("line") if body.get("code") == "SOLD_OUT" else None
        return call["lines"][line - 1 if line else 0][0]
    return order_skus.get(call.get("order"))


def fields_of(call, headers, body, order_skus):
    """What the answer says, in the words of a history. Raises KeyError or ValueError when it is not what
    docs/http-api.md promises."""
    out, op = {}, call["op"]
    if headers.get("idempotency-replayed") == "true":
        out["replayed"] = True
        out["reply_index"] = int(headers[INDEX])
        out["index"] = int(headers["holdfast-origin-index"])
    else:
        out["index"] = int(headers[INDEX])
    if "holdfast-stock" in headers:
        sku = witness_sku(call, order_skus, body)
        if sku is not None:
            out["stock"] = {sku: [int(n) for n in headers["holdfast-stock"].split("/")]}
    code = body.get("code")
    if code is not None:
        for name in ("line", "available", "limit", "subject", "order_status", "amount"):
            if name in body:
                out[name] = body[name]
        if "expires_at" in body:
            out["expires_ms"] = time_ms(body["expires_at"])
        return out
    if op == "place":
        out.update(order=body["order_id"], amount=body["amount"], created_ms=time_ms(body["created_at"]),
                   pay_by_ms=time_ms(body["pay_by"]), state=body["status"])
    elif op in ("pay", "cancel", "refund"):
        out["state"] = body["status"]
    elif op in ("lease_acquire", "lease_renew"):
        out.update(token=body["fencing_token"], expires_ms=time_ms(body["expires_at"]))
    elif op == "read_sku":
        out["stock"] = {body["id"]: [body["available"], body["reserved"], body["sold"]]}
        out["received"] = body["received"]
    elif op == "read_order":
        out.update(state=body["status"], version=body["version"], changed_index=body["changed_index"])
    elif op in ("sku_put", "sale_put"):
        out["version"] = body.get("version", 1)
    return out


class Caller:
    """cluster: see workload.py. order_skus: order id -> SKU of its first line, shared by all callers."""

    ERRORS = (OSError, http.client.HTTPException)  # what a network may do

    def __init__(self, cluster, order_skus, number=0):
        """number: which of several gateways it begins with."""
        self.cluster, self.order_skus, self.gateway = cluster, order_skus, number
        self.connections = {}

    def ports(self):
        """Of the gateway in turn: {"public": …, "admin": …}."""
        gateways = getattr(self.cluster, "gateways", None)
        return gateways[self.gateway % len(gateways)].ports if gateways else self.cluster.stage.ports

    def close(self):
        """Ends the connections; the next are to the next gateway, if there are several."""
        self.gateway += 1
        for connection, _ in self.connections.values():
            connection.close()
        self.connections = {}

    def _connection(self, listener, timeout):
        port = self.ports()[listener]
        there = self.connections.get(listener)
        if there is not None and there[1] == port:
            there[0].timeout = timeout
            if there[0].sock is not None:
                there[0].sock.settimeout(timeout)
            return there[0], there[0].sock is not None
        if there is not None:
            there[0].close()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self.connections[listener] = (connection, port)
        return connection, False

    def _headers(self, r):
        stage = self.cluster.stage
        headers = dict(r.headers)
        if r.who is not None:
            headers["Authorization"] = "Bearer " + stage.keys[r.who]
        if r.key is not None:
            headers["Idempotency-Key"] = f'"{r.key}"'
        if r.body is not None:
            headers["Content-Type"] = "application/json"
        if r.event is not None:
            headers.update(stage.signature(r.event, r.body))
        return headers

    def perform(self, call, r, timeout):
        """One attempt. Never raises for what a network or a server may do."""
        try:
            connection, used = self._connection(r.listener, timeout)
            if not used:
                connection.connect()
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as e:
            self.close()
            return Attempt(NOTHING, f"no connection: {type(e).__name__}")
        try:
            connection.request(r.method, r.path, r.body, self._headers(r))
            answer = connection.getresponse()
            data = answer.read()
        except self.ERRORS as e:
            self.close()
            return Attempt(DOUBT, type(e).__name__)
        headers = {k.lower(): v for k, v in answer.getheaders()}
        return self.judge(call, answer.status, headers, data)

    def judge(self, call, status, headers, data):
        try:
            body = json.loads(data) if data else {}
            code = body.get("code", "OK" if status < 300 else f"HTTP_{status}")
            if status == 504:
                return Attempt(DOUBT, code, status)
            if status >= 500:
                return Attempt(NOTHING, code, status)
            if status == 408:
                return Attempt(NOTHING, code, status)
            fields = fields_of(call, headers, body, self.order_skus)
        except (KeyError, ValueError, AttributeError, TypeError) as e:
            # An answer that cannot be read says nothing about what happened.
            return Attempt(DOUBT, f"unreadable answer: HTTP {status}: {e!r}", status)
        if call["op"] == "grant" and status == 200:
            fields["existed"] = True
        return Attempt(OK if status < 300 else REFUSED, code, status, fields)


def sleep_until(moment, stopping):
    """Until time.monotonic() is there, or stopping is set. True: it is there."""
    left = moment - time.monotonic()
    return left <= 0 or not stopping.wait(left)
