"""Clients of a cluster under test, and what they write down.

    w = Workload(cluster, Options(kind="mixed", clients=8, seed=7), history)
    w.prepare()            # SKUs, sales, stock: recorded too
    w.start()              # threads run until stop()
    … faults …
    w.stop()               # no new calls; those in doubt go on being asked again
    left = w.settle(60)    # after the heal: until every call has its answer; how many have none
    w.collect(directory)   # final.json: what the cluster and PostgreSQL hold in the end, for the checkers

cluster: needs .stage.ports {"public", "admin"} or several .gateways with .ports, .stage.keys,
.stage.signature(event, body), .ctl(…). Ports are read anew at each connection, so that a gateway may be replaced;
a client whose attempt got no answer goes to the next gateway.

Owns: which call comes next (from the seed and what came before), and asking again until an answer is sure.
Happy path of a client: a kind of call is drawn → its line is written → attempts under its key until the outcome
is known → its return is written → what it learnt (an order, a token) may feed later calls of any client.
Failure modes: no answer. The client asks again every RETRY_S, for as long as the workload runs; settle() ends
that. Two runs with one seed ask the same kinds of things, not the same sequence: answers differ in time.
"""
import collections
import dataclasses
import random
import threading
import time

import collect
from caller import DOUBT, NOTHING, OK, REFUSED, Caller, request, sleep_until

RETRY_S = 0.03          # between attempts; drawn between this and twice it
READ_PATIENCE_S = 10.0  # a read has no outcome that could be in doubt: it is given up
ORDERS_KEPT = 4000      # orders that later calls may name
CURRENCY = "EUR"
SALE_LONG, SALE_SHORT, SALE_REFUND, SALE_RIGHTS, SALE_LIMITS = "long", "short", "short-refund", "rights", "limits"
SHORT_SALES = (SALE_SHORT, SALE_REFUND)

# kind -> weights of what a client does next
MIXES = {
    "orders-hot": {"place_hot": 1},                               # one SKU, one unit an order
    "orders-many": {"place_many": 1},                             # 1-16 lines, repeated SKUs
    "payments": {"place_short": 8, "pay": 5, "cancel": 2, "refund": 2, "pay_late": 2},
    "eligibilities": {"grant": 5, "revoke": 1, "place_rights": 4},
    "leases": {"lease": 1},                                       # acquire, renew, release, with tokens
    "reads": {"place_hot": 2, "place_many": 1, "read_strong": 4, "read_local": 4, "read_order": 2},
    "adjustments": {"adjust": 3, "place_many": 4, "place_limits": 2, "read_strong": 1, "pause": 1},
}
MIXES["mixed"] = {name: sum(m.get(name, 0) for m in MIXES.values()) for mix in list(MIXES.values()) for name in mix}
KINDS = tuple(MIXES)


@dataclasses.dataclass
class Options:
    kind: str = "mixed"
    clients: int = 8               # threads
    rate: float = 0                # calls/s over all clients; 0: closed loop, each waits for its answer
    pause_s: float = 0.0           # closed loop: between two calls of a client
    seed: int = 1
    skus: int = 8
    units: int = 1_000_000         # of each SKU at the start; small: sold out within the run
    users: int = 64
    payment_timeout_ms: int = 2000 # of the sales with short deadlines: orders expire within a run
    attempt_s: float = 6.0         # of one HTTP attempt
    give_up_s: float = 0           # of one call; 0: never while the workload runs
    repeat_share: float = 0.02     # of settled writes: asked once more under the same key

    def __post_init__(self):
        if self.kind not in MIXES:
            raise ValueError(f"no workload {self.kind!r}: {', '.join(KINDS)}")


class Workload:
    """history: a history.Writer, open. cluster: healthy at prepare()."""

    def __init__(self, cluster, options, history):
        self.cluster, self.options, self.history = cluster, options, history
        self.lock = threading.Lock()
        self.stopping = threading.Event()    # no new calls
        self.giving_up = threading.Event()   # no new attempts
        self.orders = collections.deque(maxlen=ORDERS_KEPT)  # dicts: id, sale, amount, pay_by_ms, user
        self.late = collections.deque(maxlen=ORDERS_KEPT)    # (moment, order): to be paid after its time
        self.order_skus = {}                 # order id -> SKU of its first line
        self.tally = collections.Counter()
        self.broken = []                     # what a client died of: a bug of this tool
        self.skus = [f"sku-{i}" for i in range(max(2, options.skus))]
        self.key_stem = f"{options.seed}-{int(time.time() * 1000):x}"
        self.threads = []

    # ---- the life of it ----

    def prepare(self):
        """Makes what is sold. Raises when it cannot."""
        client = Client(self, 0)
        self.history.note("setup", phase="setup")
        far = {"opens_at": "2020-01-01T00:00:00Z", "closes_at": "2120-01-01T00:00:00Z", "currency": CURRENCY}
        for sku in self.skus:
            client.must("sku_put", sku=sku, title=sku)
            client.must("adjust", sku=sku, delta=self.options.units)

        def offers(**changes):
            return [{"sku": s, "unit_price": 100 + 10 * i, **changes} for i, s in enumerate(self.skus[:64])]
        short = {"orders_per_user_max": 1_000_000, "payment_timeout_ms": self.options.payment_timeout_ms}
        for sale, more in (
                (SALE_LONG, {"orders_per_user_max": 1_000_000, "payment_timeout_ms": 86_400_000, "offers": offers()}),
                (SALE_SHORT, {**short, "late_payment": "accept_if_available", "offers": offers()}),
                (SALE_REFUND, {**short, "late_payment": "refund", "offers": offers()}),
                (SALE_RIGHTS, {"eligibility_required": True, "eligibility_limit": max(2, self.options.users * 3 // 4),
                               "orders_per_user_max": 5, "payment_timeout_ms": 86_400_000, "offers": offers()}),
                (SALE_LIMITS, {"orders_per_user_max": 3, "units_per_user_max": 5, "payment_timeout_ms": 86_400_000,
                               "offers": offers(units_per_order_max=3, oversell_allowance=2)})):
            client.must("sale_put", sale=sale, definition={**far, "title": sale, **more})
        client.caller.close()

    def start(self):
        """Starts the clients; returns at once."""
        self.history.note("load", phase="load")
        begun = time.monotonic()
        for number in range(1, self.options.clients + 1):
            thread = threading.Thread(target=self._run, args=(number, begun), daemon=True, name=f"client-{number}")
            self.threads.append(thread)
            thread.start()

    def _run(self, number, begun):
        client = Client(self, number)
        try:
            client.run(begun)
        except Exception as e:  # a client that dies would leave an open call: the run must say why
            self.broken.append(f"client {number}: {e!r}")
            self.history.note(f"client {number} broke: {e!r}")
        finally:
            client.caller.close()

    def stop(self):
        """No new calls. Returns at once; calls in doubt are still asked again."""
        self.stopping.set()

    def settle(self, timeout_s=60):
        """Waits until every call has returned; what has not by then returns `unknown`. Returns their number.
        Then waits, within the same time, until orders with short deadlines have ended."""
        self.stop()
        self.history.note("settle", phase="settle")
        end = time.monotonic() + timeout_s
        for thread in self.threads:
            thread.join(max(0.0, end - time.monotonic()))
        self.giving_up.set()
        for thread in self.threads:
            thread.join(2 * self.options.attempt_s + 5)
        left = self.tally["unknown"] + len(self.history.open)
        if not left:
            collect.wait_for_deadlines(self.cluster, SHORT_SALES, max(10.0, end - time.monotonic()))
        self.history.note(f"settled: {left} calls without an answer", unsettled=left)
        return left

    def counts(self):
        """{"calls", "ok", "refused", "unknown", "open", "attempts", "not_done"}: for progress."""
        with self.lock:
            out = {name: self.tally[name] for name in ("calls", "ok", "refused", "unknown", "attempts")}
        out["open"] = len(self.history.open)
        return out

    def collect(self, directory, postgres_url=None):
        """Writes directory/final.json (collect.py has its form). The cluster must be healed."""
        return collect.write(self.cluster, directory, postgres_url)


class Client:
    """A thread's: what it knows, and how it asks."""

    def __init__(self, workload, number):
        self.w, self.number = workload, number
        self.random = random.Random(f"{workload.options.seed}/{number}")
        self.caller = Caller(workload.cluster, workload.order_skus, number)
        self.index = 0       # the highest log index it was told
        self.keys = 0
        self.leases = {}     # name -> token that it believes to hold
        self.stale = []      # (name, token) that it held once
        self.settled = collections.deque(maxlen=64)  # calls to repeat
        mix = MIXES[workload.options.kind]
        self.choices, self.weights = list(mix), list(mix.values())

    # ---- asking ----

    def call(self, op, **fields):
        """One call until its outcome is known. Returns the last Attempt; its kind is OK or REFUSED when it is
        known, else DOUBT, or NOTHING: it is known that nothing has happened."""
        w, options = self.w, self.w.options
        is_read = op.startswith("read_")
        if not is_read and "key" not in fields:
            self.keys += 1
            fields["key"] = f"{self.number}-{self.keys}-{w.key_stem}"
        r = request({"op": op, **fields})
        call = {"op": op, **{k: v for k, v in fields.items() if k not in ("late_ns",)}}
        number = w.history.call(self.number, op, **fields)
        w.tally["calls"] += 1
        begun, attempts, doubtful = time.monotonic(), 0, False
        patience = READ_PATIENCE_S if is_read else options.give_up_s
        while True:
            attempts += 1
            a = self.caller.perform(call, r, options.attempt_s)
            doubtful = doubtful or a.kind == DOUBT
            if a.kind in (OK, REFUSED):
                break
            if w.giving_up.is_set() or (is_read and w.stopping.is_set()) or \
                    (patience and time.monotonic() - begun > patience):
                break
            w.giving_up.wait(RETRY_S * (1 + self.random.random()))
        self._learn(call, a)
        status = a.kind if a.kind in (OK, REFUSED) else "unknown" if doubtful and not is_read else "refused"
        with w.lock:
            w.tally[status] += 1
            w.tally["attempts"] += attempts
        extra = {"attempts": attempts, "http": a.http, **a.fields}
        if doubtful:
            extra["doubtful"] = True
        w.history.ret(number, status, a.code, **extra)
        return a

    def _learn(self, call, a):
        """Before the return is written, so that whoever reads of the order knows its SKU."""
        index = max(a.fields.get("index", 0), a.fields.get("reply_index", 0))
        self.index = max(self.index, index)
        if call["op"] == "place" and a.kind == OK:
            order = {"id": a.fields["order"], "sale": call["sale"], "amount": a.fields["amount"],
                     "user": call["user"]}
            self.w.order_skus[order["id"]] = call["lines"][0][0]
            with self.w.lock:
                self.w.orders.append(order)
                if call["sale"] in SHORT_SALES and self.random.random() < 0.3:
                    self.w.late.append((time.monotonic() + self.w.options.payment_timeout_ms / 1000 * 1.2, order))

    def must(self, op, **fields):
        for _ in range(200):
            a = self.call(op, **fields)
            if a.kind == OK:
                return a
            if a.kind == REFUSED:
                break
            time.sleep(0.1)
        raise RuntimeError(f"{op} {fields}: {a.code}")

    # ---- what comes next ----

    def run(self, begun):
        w, options = self.w, self.w.options
        period = options.clients / options.rate if options.rate else 0
        due = begun + period * self.number / max(1, options.clients)
        while not w.stopping.is_set():
            late_ns = None
            if period:
                if not sleep_until(due, w.stopping):
                    break
                late_ns = max(0, int((time.monotonic() - due) * 1e9))
                due += period
            self.step(late_ns)
            if not period and options.pause_s and w.stopping.wait(options.pause_s):
                break

    def step(self, late_ns=None):
        more = {} if late_ns is None else {"late_ns": late_ns}
        if self.settled and self.random.random() < self.w.options.repeat_share:
            op, fields = self.random.choice(self.settled)
            if op == "place" and self.random.random() < 0.2:  # the key of another content
                fields = {**fields, "lines": [*fields["lines"][:15], [self.random.choice(self.w.skus), 1]]}
            self.call(op, **fields, **more)
            return
        made = getattr(self, "_" + self.random.choices(self.choices, self.weights)[0])()
        if made is None:
            made = self._place_hot() if "place_hot" in self.choices else self._fallback()
        op, fields, then = (*made, None)[:3]
        a = self.call(op, **fields, **more)
        if then is not None:
            then(a)
        if a.kind in (OK, REFUSED) and not op.startswith("read_") and "index" in a.fields:
            fields.setdefault("key", f"{self.number}-{self.keys}-{self.w.key_stem}")
            self.settled.append((op, fields))

    def _fallback(self):
        return self._place_short()

    def _user(self):
        return f"user-{self.random.randrange(self.w.options.users)}"

    def _lines(self, most, quantity):
        return [[self.random.choice(self.w.skus), self.random.randint(1, quantity)]
                for _ in range(self.random.randint(1, most))]

    def _place_hot(self):
        return "place", {"sale": SALE_LONG, "user": self._user(), "lines": [[self.w.skus[0], 1]]}

    def _place_many(self):
        most = self.random.choice((1, 2, 4, 16))
        return "place", {"sale": SALE_LONG, "user": self._user(), "lines": self._lines(most, 3)}

    def _place_short(self):
        return "place", {"sale": self.random.choice(SHORT_SALES), "user": self._user(), "lines": self._lines(3, 2)}

    def _place_rights(self):
        return "place", {"sale": SALE_RIGHTS, "user": self._user(), "lines": self._lines(2, 2)}

    def _place_limits(self):
        return "place", {"sale": SALE_LIMITS, "user": self._user(), "lines": self._lines(3, 2)}

    def _order(self, sales=None):
        """A recent order, of whichever client; orders are acted upon by several at once."""
        with self.w.lock:
            orders = self.w.orders
            for _ in range(8 if orders else 0):
                order = orders[-1 - int(len(orders) * self.random.random() ** 3)]
                if sales is None or order["sale"] in sales:
                    return order
        return None

    def _payment(self, order):
        amount = order["amount"] + (1 if self.random.random() < 0.03 else 0)
        return "pay", {"order": order["id"], "amount": amount, "currency": CURRENCY}

    def _pay(self):
        order = self._order()
        return order and self._payment(order)

    def _pay_late(self):
        with self.w.lock:
            if not self.w.late or self.w.late[0][0] > time.monotonic():
                return None
            order = self.w.late.popleft()[1]
        return self._payment(order)

    def _cancel(self):
        order = self._order()
        return order and ("cancel", {"order": order["id"]})

    def _refund(self):
        order = self._order()
        return order and ("refund", {"order": order["id"], "restock": self.random.random() < 0.6})

    def _grant(self):
        return "grant", {"sale": SALE_RIGHTS, "user": self._user()}

    def _revoke(self):
        return "revoke", {"sale": SALE_RIGHTS, "user": self._user()}

    def _adjust(self):
        up = self.random.random() < 0.5
        delta = self.random.randint(1, 20) if up else -self.random.randint(1, 25)
        return "adjust", {"sku": self.random.choice(self.w.skus), "delta": delta}

    def _pause(self):
        if self.number != 1:
            return None  # two in one batch would leave open which came last
        verb = "sale_resume" if self.random.random() < 0.6 else "sale_pause"
        return verb, {"sale": SALE_LIMITS}

    def _read_strong(self):
        return "read_sku", {"sku": self.random.choice(self.w.skus), "consistency": "strong"}

    def _read_local(self):
        fields = {"sku": self.random.choice(self.w.skus), "consistency": "local"}
        if self.index and self.random.random() < 0.8:
            fields["min_index"] = self.index
        return "read_sku", fields

    def _read_order(self):
        order = self._order()
        if order is None:
            return None
        strong = self.random.random() < 0.5
        fields = {"order": order["id"], "consistency": "strong" if strong else "local"}
        if not strong:
            # An order of another client may be younger than anything this one was told.
            fields["min_index"] = max(self.index, 1)
        return "read_order", fields

    def _lease(self):
        owner = f"owner-{self.number}"
        if self.stale and self.random.random() < 0.1:
            name, token = self.random.choice(self.stale)
            return "lease_renew", {"name": name, "owner": owner, "token": token, "ttl_ms": 500}
        if self.leases and self.random.random() < 0.6:
            name = self.random.choice(sorted(self.leases))
            token = self.leases[name]
            if self.random.random() < 0.5:
                def renewed(a):
                    if a.kind == REFUSED:
                        self._lost(name)
                return "lease_renew", {"name": name, "owner": owner, "token": token,
                                       "ttl_ms": self.random.choice((200, 800, 3000))}, renewed
            return "lease_release", {"name": name, "owner": owner, "token": token}, lambda a: self._lost(name)
        name = f"lock-{self.random.randrange(4)}"

        def acquired(a):
            if a.kind == OK:
                self.leases[name] = a.fields["token"]
        return "lease_acquire", {"name": name, "owner": owner,
                                 "ttl_ms": self.random.choice((100, 400, 1500))}, acquired

    def _lost(self, name):
        token = self.leases.pop(name, None)
        if token is not None:
            self.stale = [*self.stale, (name, token)][-8:]


__all__ = ["KINDS", "Options", "Workload", "NOTHING"]
