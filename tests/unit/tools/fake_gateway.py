#!/usr/bin/env python3
"""A stand-in for gateway and cluster, right or wrong as told: proves that holdfast-bench's checks can fail.

One process, one dictionary, no durability. It answers the routes that holdfast-bench uses, on one port
for both listeners. --fault NAME plants one fault:

    oversell        grants one unit more than there is
    undersell       says SOLD_OUT while one unit is left
    forget          acknowledges every 17th order and keeps nothing of it
    phantom         keeps an order that nobody was told of
    twice           a retried key makes a second order
    charge          a late payment is kept: the order stays expired
    early           takes orders before the opening
    rights          gives out one right more than the limit
    flaky-twice     both: seen only by who retries
    flaky           no fault: every 7th request is dropped before or after it took effect

Prints "listening PORT" and serves until its standard input ends.
"""
import argparse
import asyncio
import datetime
import itertools
import json
import sys
import time

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def order_id(n):
    value, text = n << 22, ""
    for _ in range(13):
        text, value = ALPHABET[value & 31] + text, value >> 5
    return text


def to_ms(text):
    return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def to_text(ms):
    moment = datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


class Shop:
    def __init__(self, fault):
        self.fault = fault
        self.skus, self.sales, self.orders, self.keys, self.payments = {}, {}, {}, {}, {}
        self.numbers = itertools.count(1)
        self.placed = 0

    def now(self):
        now = int(time.time() * 1000)
        for order in self.orders.values():
            if order["status"] == "pending_payment" and order["pay_by_ms"] <= now:
                self.move(order, "expired")
        return now

    def move(self, order, status):
        sku = self.skus[order["lines"][0]["sku"]]
        quantity = order["lines"][0]["quantity"]
        before = {"pending_payment": "reserved", "paid": "sold"}.get(order["status"])
        after = {"pending_payment": "reserved", "paid": "sold"}.get(status)
        sku[before or "available"] -= quantity
        sku[after or "available"] += quantity
        order["status"] = status

    def problem(self, status, code):
        return status, {"type": "/problems/" + code.lower().replace("_", "-"), "code": code}

    def once(self, key, body, do):
        """The stored answer under a key, or a new one."""
        if key in self.keys and not (self.fault.endswith("twice") and body.get("lines")):
            return (*self.keys[key], True)
        answer = do()
        self.keys[key] = answer
        return (*answer, False)

    def place(self, body):
        now = self.now()
        sale = self.sales.get(body["sale_id"])
        if sale is None:
            return self.problem(404, "NOT_FOUND")
        if now < sale["opens_ms"] and self.fault != "early":
            return self.problem(409, "SALE_NOT_OPEN")
        if sale["eligibility_required"] and body["user_id"] not in sale["rights"]:
            return self.problem(403, "NOT_ELIGIBLE")
        live = [o for o in sale["orders"].get(body["user_id"], ()) if o["status"] in ("pending_payment", "paid")]
        if len(live) >= sale["orders_per_user_max"] and not self.fault.endswith("twice"):
            return self.problem(409, "ORDER_LIMIT_REACHED")
        line = body["lines"][0]
        sku = self.skus[line["sku"]]
        floor = {"oversell": -1, "undersell": 1}.get(self.fault, 0)
        if sku["available"] - line["quantity"] < floor:
            return self.problem(409, "SOLD_OUT")
        number = next(self.numbers)
        price = sale["prices"][line["sku"]]
        order = {"order_id": order_id(number), "sale_id": body["sale_id"], "user_id": body["user_id"],
                 "status": "pending_payment", "amount": price * line["quantity"], "currency": sale["currency"],
                 "lines": [line], "pay_by_ms": now + sale["payment_timeout_ms"]}
        self.placed += 1
        if self.fault == "forget" and self.placed % 17 == 0:
            return 201, {"order_id": order["order_id"], "status": "pending_payment", "amount": order["amount"]}
        sku["available"] -= line["quantity"]
        sku["reserved"] += line["quantity"]
        self.orders[order["order_id"]] = order
        sale["orders"].setdefault(body["user_id"], []).append(order)
        if self.fault == "phantom" and self.placed == 5:
            self.place({**body, "user_id": next(u for u in sale["rights"] if u not in sale["orders"])})
        return 201, {k: order[k] for k in ("order_id", "status", "amount", "currency")}

    def pay(self, body):
        self.now()
        order = self.orders.get(body["order_id"])
        if order is None:
            return self.problem(404, "NOT_FOUND")
        if order["status"] == "pending_payment":
            self.move(order, "paid")
        elif order["status"] == "expired" and self.fault != "charge":
            free = self.skus[order["lines"][0]["sku"]]["available"]
            if free >= order["lines"][0]["quantity"]:
                self.move(order, "paid")
            else:
                order["status"] = "refund_due"
        return 200, {"order_id": order["order_id"], "status": order["status"]}

    def show_sale(self, sale):
        now = self.now()
        orders = [o for mine in sale["orders"].values() for o in mine]
        count = lambda *statuses: sum(o["status"] in statuses for o in orders)
        return 200, {"id": sale["id"], "phase": "open" if now >= sale["opens_ms"] else "scheduled",
                     "opens_at": to_text(sale["opens_ms"]),
                     "eligibilities_granted": len(sale["rights"]), "orders_placed": len(orders),
                     "orders_paid": count("paid"), "orders_cancelled": 0,
                     "orders_expired": count("expired", "refund_due", "refunded"),
                     "offers": [{"sku": s, **self.skus[s]} for s in sale["prices"]]}

    def list_orders(self, query):
        self.now()
        found = sorted((o for o in self.orders.values() if o["sale_id"] == query["sale_id"]),
                       key=lambda o: o["order_id"])
        found = [o for o in found if o["order_id"] > query.get("cursor", "")]
        limit = int(query["limit"])
        page = {"items": found[:limit]}
        if len(found) > limit:
            page["next_cursor"] = found[limit - 1]["order_id"]
        return 200, page

    def answer(self, method, path, query, headers, body):
        """(status, body, replayed)"""
        parts = path.strip("/").split("/")[1:]
        key = headers.get("idempotency-key", "").strip('"')
        if method == "GET" and parts[0] == "orders" and len(parts) == 2:
            self.now()
            return 200, self.orders[parts[1]], False
        if method == "GET" and parts[0] == "orders":
            return (*self.list_orders(query), False)
        if method == "GET":
            return (*self.show_sale(self.sales[parts[1]]), False)
        if parts[0] == "orders" and len(parts) == 1:
            return self.once(key, body, lambda: self.place(body))
        if parts[0] == "orders" and parts[2] == "refund":
            order = self.orders[parts[1]]
            if order["status"] == "refund_due":
                order["status"] = "refunded"
            return 200, order, False
        if parts[0] == "payments":
            return self.once("pay " + headers["webhook-id"], body, lambda: self.pay(body))
        if parts[0] == "skus" and method == "PUT":
            self.skus.setdefault(parts[1], {"available": 0, "reserved": 0, "sold": 0})
            return 201, {}, False
        if parts[0] == "skus":
            self.skus[parts[1]]["available"] += 0 if key in self.keys else body["delta"]
            self.keys[key] = 201, {}
            return 201, {}, False
        if parts[0] == "sales" and method == "PUT":
            self.sales[parts[1]] = {**body, "id": parts[1], "rights": set(), "orders": {},
                                    "opens_ms": to_ms(body["opens_at"]),
                                    "prices": {o["sku"]: o["unit_price"] for o in body["offers"]}}
            return 201, {}, False
        sale, user = self.sales[parts[1]], body["user_id"]
        if user not in sale["rights"] and len(sale["rights"]) >= sale["eligibility_limit"] + (self.fault == "rights"):
            return (*self.problem(409, "ELIGIBILITY_EXHAUSTED"), False)
        sale["rights"].add(user)
        return 201, {"granted": True}, False


class Connection(asyncio.Protocol):
    requests = 0

    def __init__(self, shop):
        self.shop, self.bytes = shop, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.bytes += data
        while b"\r\n\r\n" in self.bytes:
            head, _, rest = self.bytes.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (l.partition(":") for l in lines[1:])}
            size = int(headers.get("content-length", 0))
            if len(rest) < size:
                return
            self.bytes = rest[size:]
            self.serve(lines[0], headers, rest[:size])

    def serve(self, line, headers, body):
        method, target, _ = line.split(" ")
        path, _, query = target.partition("?")
        pairs = dict(p.split("=", 1) for p in query.split("&") if p)
        Connection.requests += 1
        drop = self.shop.fault.startswith("flaky") and Connection.requests % 7 == 0 and method == "POST"
        if drop and Connection.requests % 2:
            self.transport.abort()
            return
        status, answer, replayed = self.shop.answer(method, path, pairs, headers, json.loads(body) if body else {})
        if drop:
            self.transport.abort()
            return
        text = json.dumps(answer, separators=(",", ":")).encode()
        self.transport.write(f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
                             f"{'Idempotency-Replayed: true' if replayed else 'Holdfast-Time: ' + to_text(int(time.time() * 1000))}\r\n"
                             f"Content-Length: {len(text)}\r\n\r\n".encode() + text)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--fault", default="")
    arguments = parser.parse_args()
    shop = Shop(arguments.fault)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(shop), "127.0.0.1", 0, backlog=1024)
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


asyncio.run(main())
