"""A naive shop, written from docs/refusals.md and docs/http-api.md, to be compared with the engine's answers.

    m = Model()
    for answer, changes in m.outcomes(call, index, earliest_ms, latest_ms):
        undo = m.apply(changes); …; m.undo(undo)

Shares no code with the engine: dictionaries, no limits of memory, no log, no expiry of its own (the witness check
decides when an order ends, because it knows from the answers what time it may have been). What a call's answer
must be is a dict of the fields of a return (history.py); what it changes is a list of (table, key, value), applied
and undone as one. Nothing is ever changed otherwise.

Left out, refused by sale_put here so that nobody relies on it: strikes, denials, ratios of eligibility, windows
that open or close during a run.
"""
import calendar
import collections
import json

PENDING, PAID, CANCELLED, EXPIRED, REFUND_DUE, REFUNDED = \
    "pending_payment", "paid", "cancelled", "expired", "refund_due", "refunded"
LIVE = (PENDING, PAID)  # what counts against the limits of a user

Order = collections.namedtuple("Order", "sale user items amount status pay_by version changed")
Lease = collections.namedtuple("Lease", "owner token expires")
Offer = collections.namedtuple("Offer", "price most allowance")

UNIDENTIFYING = ("id", "client", "ev", "t", "key", "repeat_of", "late_ns")


def content(fields):
    """What makes a call with a key the same or another: everything but who sent it, when, under which key."""
    return json.dumps({k: v for k, v in fields.items() if k not in UNIDENTIFYING}, sort_keys=True)


def year(text):
    return int(text[:4])


class Sale:
    """Never changed after it was put; its state (open, paused, closed) is in Model.states."""

    def __init__(self, d):
        for name in ("strikes_max", "eligibility_ratio_permille", "eligibility_opens_at", "eligibility_closes_at"):
            if d.get(name):
                raise ValueError(f"the model of the witness check does not know {name}")
        if year(d["opens_at"]) > 2025 or year(d["closes_at"]) < 2100:
            raise ValueError("the model of the witness check wants sales that are open all the time")
        self.currency = d["currency"]
        self.timeout_ms = d.get("payment_timeout_ms", 900_000)
        self.late = d.get("late_payment", "accept_if_available")
        self.orders_max = d.get("orders_per_user_max", 1)
        self.units_max = d.get("units_per_user_max", 0)
        self.rights_needed = d.get("eligibility_required", False)
        self.rights_max = d.get("eligibility_limit", 0)
        self.offers = {o["sku"]: Offer(o["unit_price"], o.get("units_per_order_max", 1_000_000),
                                       o.get("oversell_allowance", 0)) for o in d["offers"]}


def summed(lines):
    """[(sku, units, number of the line that names it first)], in order of mention."""
    units, first = {}, {}
    for number, (sku, quantity) in enumerate(lines, 1):
        units[sku] = units.get(sku, 0) + quantity
        first.setdefault(sku, number)
    return [(sku, n, first[sku]) for sku, n in units.items()]


class Model:
    def __init__(self):
        self.stock = {}     # sku -> (available, reserved, sold)
        self.received = {}  # sku -> units, net
        self.sales = {}     # sale -> Sale
        self.states = {}    # sale -> open | paused | closed
        self.rights = {}    # (sale, user) -> True
        self.granted = {}   # sale -> how many rights are given out
        self.used = {}      # (sale, user) -> (orders, units), live or paid
        self.orders = {}    # id -> Order
        self.leases = {}    # name -> Lease or None
        self.tokens = {"last": 0}

    # ---- changing ----

    @staticmethod
    def apply(changes):
        """Returns what undo() takes."""
        before = [(table, key, table.get(key)) for table, key, _ in changes]
        for table, key, value in changes:
            table[key] = value
        return before

    @staticmethod
    def undo(before):
        for table, key, value in reversed(before):
            if value is None:
                table.pop(key, None)
            else:
                table[key] = value

    def _moved(self, items, available, reserved, sold):
        """Changes of stock: so many of each of the items' units (factors)."""
        out = []
        for sku, n in items:
            a, r, s = self.stock[sku]
            out.append((self.stock, sku, (a + available * n, r + reserved * n, s + sold * n)))
        return out

    def _counted(self, order, sign):
        key = (order.sale, order.user)
        orders, units = self.used.get(key, (0, 0))
        return [(self.used, key, (orders + sign, units + sign * sum(n for _, n in order.items)))]

    def _status(self, number, order, status, index):
        return [(self.orders, number, order._replace(status=status, version=order.version + 1, changed=index))]

    def expire(self, number, index):
        """The changes when a pending order's time is up: its units come back."""
        order = self.orders[number]
        return self._moved(order.items, 1, -1, 0) + self._counted(order, -1) + \
            self._status(number, order, EXPIRED, index)

    # ---- calls ----

    def outcomes(self, call, index, earliest_ms, latest_ms, said):
        """[(answer, changes)]: more than one where only the unknown exact time decides. call: fields. The time of
        the batch is in earliest_ms..latest_ms. said: the recorded answer, for what the engine may choose (the
        number of an order or token) and the checks on that choice."""
        return getattr(self, "_" + call["op"])(call, index, earliest_ms, latest_ms, said)

    def _answer(self, code, changes=(), sku=None, **fields):
        """The stock that the answer tells is that after the changes."""
        if sku is not None:
            after = self.stock[sku]
            for table, key, value in changes:
                if table is self.stock and key == sku:
                    after = value
            fields["stock"] = {sku: list(after)}
        return [({"code": code, **fields}, list(changes))]

    def _place(self, call, index, earliest, latest, said):
        sale, user, lines = self.sales.get(call["sale"]), call["user"], call["lines"]
        if sale is None:
            return self._answer("NOT_FOUND", subject="sale")
        for number, (sku, _) in enumerate(lines, 1):
            if sku not in self.stock or sku not in sale.offers:
                return self._answer("NOT_FOUND", subject="sku", line=number)
        first = lines[0][0]
        state = self.states[call["sale"]]
        if state != "open":
            return self._answer("SALE_CLOSED" if state == "closed" else "SALE_PAUSED", sku=first)
        wanted = summed(lines)
        for sku, units, line in wanted:
            if units > sale.offers[sku].most:
                return self._answer("QUANTITY_LIMIT", sku=first, limit=sale.offers[sku].most, line=line)
        if sale.rights_needed and not self.rights.get((call["sale"], user)):
            return self._answer("NOT_ELIGIBLE", sku=first)
        total = sum(n for _, n, _ in wanted)
        orders, had = self.used.get((call["sale"], user), (0, 0))
        if orders >= sale.orders_max or (sale.units_max and had + total > sale.units_max):
            return self._answer("ORDER_LIMIT_REACHED", sku=first)
        for sku, units, line in wanted:
            available = self.stock[sku][0]
            if available - units < -sale.offers[sku].allowance:
                return self._answer("SOLD_OUT", sku=sku, line=line, available=available)
        items = tuple((sku, n) for sku, n, _ in wanted)
        amount = sum(sale.offers[sku].price * n for sku, n in items)
        created = said.get("created_ms")
        order = Order(call["sale"], user, items, amount, PENDING,
                      None if created is None else created + sale.timeout_ms, 1, index)
        number = said.get("order") or ("nobody knows", call["id"])
        changes = self._moved(items, -1, 1, 0) + self._counted(order, 1) + [(self.orders, number, order)]
        if number in self.orders:
            return self._answer("OK", order="a new one, not one that is there")
        return self._answer("OK", changes, first, order=number, amount=amount, state=PENDING, pay_by_ms=order.pay_by)

    def _known(self, call, earliest):
        """(order, None) or (None, the refusal)."""
        order = self.orders.get(call["order"])
        if order is None:
            return None, self._answer("NOT_FOUND", subject="order")
        if order.status == PENDING and order.pay_by is not None and order.pay_by <= earliest:
            return None, self._answer("an answer as of an order that has expired", sku=order.items[0][0])
        return order, None

    def _cancel(self, call, index, earliest, latest, said):
        order, refusal = self._known(call, earliest)
        if order is None:
            return refusal
        first = order.items[0][0]
        if order.status != PENDING:
            return self._answer("ORDER_NOT_CANCELLABLE", sku=first, order_status=order.status)
        changes = self._moved(order.items, 1, -1, 0) + self._counted(order, -1) + \
            self._status(call["order"], order, CANCELLED, index)
        return self._answer("OK", changes, first, state=CANCELLED)

    def _pay(self, call, index, earliest, latest, said):
        order, refusal = self._known(call, earliest)
        if order is None:
            return refusal
        first, sale, number = order.items[0][0], self.sales[order.sale], call["order"]
        if order.status not in (PENDING, EXPIRED):
            return self._answer("ORDER_NOT_PAYABLE", sku=first, order_status=order.status)
        if (call["amount"], call["currency"]) != (order.amount, sale.currency):
            return self._answer("AMOUNT_MISMATCH", sku=first, amount=order.amount)
        if order.status == PENDING:
            changes = self._moved(order.items, 0, -1, 1) + self._status(number, order, PAID, index)
            return self._answer("OK", changes, first, state=PAID)
        free = sale.late == "accept_if_available" and all(
            self.stock[sku][0] - n >= -(sale.offers[sku].allowance if sku in sale.offers else 0)
            for sku, n in order.items)
        if free:
            changes = self._moved(order.items, -1, 0, 1) + self._counted(order, 1) + \
                self._status(number, order, PAID, index)
            return self._answer("OK", changes, first, state=PAID)
        return self._answer("OK", self._status(number, order, REFUND_DUE, index), first, state=REFUND_DUE)

    def _refund(self, call, index, earliest, latest, said):
        order = self.orders.get(call["order"])
        if order is None:
            return self._answer("NOT_FOUND", subject="order")
        first, number = order.items[0][0], call["order"]
        if order.status not in (PAID, REFUND_DUE):
            return self._answer("ORDER_NOT_REFUNDABLE", sku=first, order_status=order.status)
        changes = self._status(number, order, REFUNDED, index)
        if order.status == PAID:
            changes += self._counted(order, -1)
            changes += self._moved(order.items, 1 if call["restock"] else 0, 0, -1)
            if not call["restock"]:
                changes += [(self.received, sku, self.received[sku] - n) for sku, n in order.items]
        return self._answer("OK", changes, first, state=REFUNDED)

    def _grant(self, call, index, earliest, latest, said):
        name, key = call["sale"], (call["sale"], call["user"])
        sale = self.sales.get(name)
        if sale is None:
            return self._answer("NOT_FOUND", subject="sale")
        if self.rights.get(key):
            return self._answer("OK", existed=True)
        if self.states[name] != "open":
            return self._answer("SALE_CLOSED" if self.states[name] == "closed" else "SALE_PAUSED")
        given = self.granted.get(name, 0)
        if sale.rights_max and given >= sale.rights_max:
            return self._answer("ELIGIBILITY_EXHAUSTED")
        return self._answer("OK", [(self.rights, key, True), (self.granted, name, given + 1)], existed=False)

    def _revoke(self, call, index, earliest, latest, said):
        name, key = call["sale"], (call["sale"], call["user"])
        if name not in self.sales:
            return self._answer("NOT_FOUND", subject="sale")
        if not self.rights.get(key):
            return self._answer("NOT_FOUND", subject="eligibility")
        return self._answer("OK", [(self.rights, key, False), (self.granted, name, self.granted[name] - 1)])

    def _sku_put(self, call, index, earliest, latest, said):
        if call["sku"] in self.stock:
            return self._answer("STALE_VERSION")
        return self._answer("OK", [(self.stock, call["sku"], (0, 0, 0)), (self.received, call["sku"], 0)], version=1)

    def _adjust(self, call, index, earliest, latest, said):
        sku, delta = call["sku"], call["delta"]
        if sku not in self.stock:
            return self._answer("NOT_FOUND", subject="sku")
        a, r, s = self.stock[sku]
        if delta < 0 and a + delta < 0:
            return self._answer("INSUFFICIENT_STOCK", sku=sku)
        return self._answer("OK", [(self.stock, sku, (a + delta, r, s)),
                                   (self.received, sku, self.received[sku] + delta)], sku)

    def _sale_put(self, call, index, earliest, latest, said):
        if call["sale"] in self.sales:
            return self._answer("STALE_VERSION")
        sale = Sale(call["definition"])
        return self._answer("OK", [(self.sales, call["sale"], sale), (self.states, call["sale"], "open")], version=1)

    def _control(self, call, state):
        before = self.states.get(call["sale"])
        if before is None:
            return self._answer("NOT_FOUND", subject="sale")
        if before == "closed" and state != "closed":
            return self._answer("SALE_CLOSED")
        return self._answer("OK", [(self.states, call["sale"], state)])

    def _sale_pause(self, call, *_):
        return self._control(call, "paused")

    def _sale_resume(self, call, *_):
        return self._control(call, "open")

    def _sale_close(self, call, *_):
        return self._control(call, "closed")

    # ---- leases: whether one is alive depends on the time, which may be known between two bounds only ----

    def _alive(self, name, earliest, latest):
        """The possible leases of that name: [Lease], [None], or both."""
        lease = self.leases.get(name)
        if lease is None or lease.expires <= earliest:
            return [None]
        return [lease] if lease.expires > latest else [lease, None]

    def _lease_acquire(self, call, index, earliest, latest, said):
        out, expires = [], said.get("expires_ms")
        for lease in self._alive(call["name"], earliest, latest):
            if lease is not None and lease.owner != call["owner"]:
                out += self._answer("LEASE_HELD", expires_ms=lease.expires)
                continue
            token = lease.token if lease is not None else said.get("token")
            if lease is None and (token is None or token <= self.tokens["last"]):
                out += self._answer("OK", token=f"more than {self.tokens['last']}")
                continue
            changes = [(self.leases, call["name"], Lease(call["owner"], token, expires)),
                       (self.tokens, "last", max(token, self.tokens["last"]))]
            out += self._answer("OK", changes, token=token)
        return out

    def _held(self, call, earliest, latest, change):
        out = []
        for lease in self._alive(call["name"], earliest, latest):
            if lease is None:
                out += self._answer("NOT_FOUND", subject="lease")
            elif (lease.owner, lease.token) != (call["owner"], call["token"]):
                out += self._answer("STALE_FENCING_TOKEN")
            else:
                out += change(lease)
        return out

    def _lease_renew(self, call, index, earliest, latest, said):
        return self._held(call, earliest, latest, lambda lease: self._answer(
            "OK", [(self.leases, call["name"], lease._replace(expires=said.get("expires_ms")))], token=lease.token))

    def _lease_release(self, call, index, earliest, latest, said):
        return self._held(call, earliest, latest, lambda lease: self._answer(
            "OK", [(self.leases, call["name"], None)]))

    # ---- reads: of the state after the batch of their index ----

    def read(self, call):
        """The answer to a read now."""
        if call["op"] == "read_sku":
            sku = call["sku"]
            if sku not in self.stock:
                return {"code": "NOT_FOUND", "subject": "sku"}
            return {"code": "OK", "stock": {sku: list(self.stock[sku])}, "received": self.received[sku]}
        order = self.orders.get(call["order"])
        if order is None:
            return {"code": "NOT_FOUND", "subject": "order"}
        return {"code": "OK", "state": order.status, "version": order.version, "changed_index": order.changed}


def utc_ms(text):
    """PostgreSQL's and our own RFC 3339 times, in UTC, to ms."""
    date, clock = text.replace(" ", "T").split("T")
    for end in ("Z", "+00:00", "+00"):
        clock = clock.removesuffix(end)
    seconds, _, fraction = clock.partition(".")
    numbers = [int(n) for n in date.split("-") + seconds.split(":")]
    return calendar.timegm((*numbers, 0, 0, 0)) * 1000 + int((fraction + "000")[:3])
