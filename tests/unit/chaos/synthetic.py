"""Good histories from a seed, without a cluster: clients, a queue, batches, lost answers, expiry, PostgreSQL's tables.

    lines, final, run = synthetic.make(seed, calls=200)      # what history.jsonl, final.json, run.json would hold
    synthetic.py SEED CALLS DIR                              # writes them: how long does a check of so many take?

The answers are the model's, so this says nothing about the model (the recorded run does): it makes histories of every
shape, so that what is then spoilt in them must be found. Virtual time; nothing here depends on this machine.
"""
import datetime
import heapq
import json
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tools/chaos"))

from check.effects import order_number  # noqa: E402
from check.model import PENDING, Model, content  # noqa: E402
from check.outbox import event_id  # noqa: E402
from check.postgres import shard_of  # noqa: E402

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
EPOCH_MS = 1_800_000_000_000
CLUSTER = "0b4f6f5c-3a1d-4e2b-9c77-5d1f00aa77e1"
SHARDS = 4
NODES = 3
LATE_MS = 800
SKUS, USERS = ["A", "B", "C"], [f"u{n}" for n in range(6)]


def rfc3339(ms):
    moment = datetime.datetime.fromtimestamp(ms // 1000, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03d}Z"


def order_text(index, position, shard):
    number = index << 22 | position << 10 | shard
    text = ""
    for _ in range(13):
        text, number = ALPHABET[number & 31] + text, number >> 5
    return text


class World:
    def __init__(self, seed, calls):
        self.random = random.Random(seed)
        self.calls_left, self.lines, self.model = calls, [], Model()
        self.t, self.index, self.ids, self.sequence = 0, 1, 0, 0
        self.keys, self.created, self.changed = {}, {}, {}   # key -> (content, answer, index); order -> ms
        self.outbox, self.payments, self.last_rights = [], [], {}
        self.tokens, self.repeats, self.orders, self.deadlines = 0, [], [], []
        self.waiting = []   # calls that are in the queue: dicts
        self.free = list(range(1, 7))
        self.ends = []      # (t, call line, answer): answers under way

    def ms(self):
        return EPOCH_MS + self.t // 1_000_000

    # ---- asking ----

    def ask(self, client, **fields):
        self.ids += 1
        line = {"id": self.ids, "client": client, "ev": "call", "t": self.t, **fields}
        if not fields["op"].startswith("read_"):
            line.setdefault("key", f"k{self.ids}")
        self.lines.append(line)
        self.waiting.append({"line": line, "attempts": 1})
        return line

    def draw(self, client):
        r = self.random
        order = r.choice(self.orders[-12:]) if self.orders else None
        if self.repeats and r.random() < 0.06:
            return dict(r.choice(self.repeats))
        kinds = ["place"] * 6 + ["read_sku"] * 3 + ["grant", "revoke", "adjust", "lease", "lease", "sale"]
        if order:
            kinds += ["pay"] * 4 + ["cancel", "refund", "refund", "read_order"]
        kind = r.choice(kinds)
        if kind == "place":
            return {"op": "place", "sale": r.choice(["open", "open", "late", "rights"]), "user": r.choice(USERS),
                    "lines": [[r.choice(SKUS), r.randint(1, 2)] for _ in range(r.choice([1, 1, 2, 4]))]}
        if kind == "pay":
            amount = self.model.orders[order].amount + (r.random() < 0.05)
            return {"op": "pay", "order": order, "amount": amount, "currency": "EUR"}
        if kind == "cancel":
            return {"op": "cancel", "order": order}
        if kind == "refund":
            return {"op": "refund", "order": order, "restock": r.random() < 0.5}
        if kind in ("grant", "revoke"):
            return {"op": kind, "sale": "rights", "user": r.choice(USERS)}
        if kind == "adjust":
            return {"op": "adjust", "sku": r.choice(SKUS), "delta": r.choice([-6, -3, 2, 3])}
        if kind == "sale":
            return {"op": r.choice(["sale_pause", "sale_resume"]), "sale": "rights"} if client == 1 else \
                {"op": "grant", "sale": "rights", "user": r.choice(USERS)}
        if kind == "lease":
            name, owner = r.choice(["l1", "l2"]), f"o{client}"
            held = self.model.leases.get(name)
            if held and r.random() < 0.6:
                op = r.choice(["lease_renew", "lease_release"])
                return {"op": op, "name": name, "owner": held.owner if r.random() < 0.8 else owner,
                        "token": held.token, **({"ttl_ms": 300} if op == "lease_renew" else {})}
            return {"op": "lease_acquire", "name": name, "owner": owner, "ttl_ms": r.choice([50, 200])}
        consistency = r.choice(["strong", "local"])
        what = {"op": kind, "consistency": consistency}
        what.update({"sku": r.choice(SKUS)} if kind == "read_sku" else {"order": order})
        if consistency == "local":
            what["min_index"] = self.index - r.randint(0, 2)
        return what

    # ---- a batch ----

    def event(self, kind, aggregate, index, **payload):
        self.sequence += 1
        payload.update(occurred_at=rfc3339(self.now), log_index=index, sequence=self.sequence)
        order = kind.startswith(("order.", "payment."))
        shard = shard_of(payload["user"], SHARDS)
        self.outbox.append({"id": event_id(CLUSTER, self.sequence), "aggregatetype": "order" if order else "eligibility",
                            "aggregateid": aggregate, "type": kind, "payload": payload, "shard": shard,
                            "log_index": index, "sequence": self.sequence})

    def order_event(self, kind, number, **more):
        o = self.model.orders[number]
        self.event(kind, number, self.index, order=number, status=o.status, version=o.version, user=o.user,
                   sale=o.sale, amount=o.amount, **more)

    def expire(self):
        while self.deadlines and self.deadlines[0][0] <= self.now:
            _, number = heapq.heappop(self.deadlines)
            if self.model.orders[number].status != PENDING:
                continue
            self.model.apply(self.model.expire(number, self.index))
            self.changed[number] = self.now
            self.order_event("order.expired", number)

    def decide(self, line, position):
        """The answer of a write in the batch at self.index."""
        text, key = content(line), line["key"]
        if key in self.keys:
            known, answer, origin = self.keys[key]
            if known != text:
                return {"code": "IDEMPOTENCY_KEY_REUSED", "index": self.index}
            again = {k: v for k, v in answer.items() if k != "stock"}
            stock = answer.get("stock")
            if stock and answer["code"] != "SOLD_OUT":
                again["stock"] = {s: list(self.model.stock[s]) for s in stock}
            return {**again, "index": origin, "reply_index": self.index, "replayed": True}
        said, op = {}, line["op"]
        if op == "place":
            said = {"order": order_text(self.index, position, shard_of(line["user"], SHARDS)), "created_ms": self.now}
        elif op in ("lease_acquire", "lease_renew"):
            said = {"token": self.tokens + 1, "expires_ms": self.now + line["ttl_ms"]}
        expected, changes = self.model.outcomes(line, self.index, self.now, self.now, said)[0]
        self.model.apply(changes)
        answer = {k: v for k, v in expected.items() if v is not None}
        if answer["code"] == "OK":
            if op == "place":
                answer["created_ms"] = self.now
            elif op in ("lease_acquire", "lease_renew"):
                answer["expires_ms"] = said["expires_ms"]
                self.tokens = max(self.tokens, answer["token"])
            if answer.get("existed") is False:
                del answer["existed"]
        self.tell(line, answer)
        self.keys[key] = (text, answer, self.index)
        return {**answer, "index": self.index}

    def tell(self, line, answer):
        """Events and rows of what just happened."""
        op, ok = line["op"], answer["code"] == "OK"
        rejected = op == "pay" and answer["code"] in ("ORDER_NOT_PAYABLE", "AMOUNT_MISMATCH")
        number = answer.get("order") if op == "place" else line.get("order")
        if op in ("pay", "cancel", "refund", "place") and ok:
            self.changed[number] = self.now
            if op == "place":
                self.created[number] = self.now
                self.orders.append(number)
                heapq.heappush(self.deadlines, (self.model.orders[number].pay_by, number))
            kind = "placed" if op == "place" else answer["state"]
            self.order_event(f"order.{kind}", number, **({"payment": line["key"]} if op == "pay" else {}))
        if rejected:
            self.order_event("payment.rejected", number, payment=line["key"])
        if op == "pay" and (ok or rejected):
            self.payments.append({"payment_id": line["key"], "order_id": order_number(number), "amount": line["amount"],
                                  "currency": line["currency"], "log_index": self.index,
                                  "outcome": "rejected" if rejected else answer["state"], "sequence": self.sequence})
        if op in ("grant", "revoke") and ok and not answer.get("existed"):
            self.event("eligibility." + ("granted" if op == "grant" else "revoked"), f"{line['sale']}/{line['user']}",
                       self.index, granted=op == "grant", user=line["user"], sale=line["sale"])

    def batch(self):
        """Some of the queue becomes a batch; its answers are on their way, or lost."""
        r = self.random
        r.shuffle(self.waiting)
        size = r.randint(1, 5)
        taken, self.waiting = self.waiting[:size], self.waiting[size:]
        rest = [w for w in taken if w["line"]["op"].startswith("read_")]
        writes = [w for w in taken if w not in rest]
        self.now = self.ms()
        if writes:
            self.index += r.choice([1, 1, 2])
            self.expire()
        for position, w in enumerate(writes):
            answer = self.decide(w["line"], position)
            if r.random() < 0.06 and w["attempts"] < 3:  # the answer is lost: asked again
                w["attempts"] += 1
                w["doubtful"] = True
                self.waiting.append(w)
            else:
                self.ends.append((self.t + r.randint(100_000, 3_000_000), w, answer))
        for w in rest:
            answer = {k: v for k, v in self.model.read(w["line"]).items()}
            self.ends.append((self.t + r.randint(100_000, 3_000_000), w, {**answer, "index": self.index}))

    def deliver(self, until):
        self.ends.sort(key=lambda e: e[0])
        while self.ends and self.ends[0][0] <= until:
            t, w, answer = self.ends.pop(0)
            line = w["line"]
            code = answer.pop("code")
            out = {"id": line["id"], "ev": "ret", "t": t, "status": "ok" if code == "OK" else "refused", "code": code,
                   "attempts": w["attempts"], **answer}
            if w.get("doubtful"):
                out["doubtful"] = True
            self.lines.append(out)
            self.free.append(line["client"])
            if "key" in line and self.random.random() < 0.1:
                self.repeats.append({k: v for k, v in line.items() if k not in ("id", "client", "ev", "t")})
        self.t = until

    def run(self):
        r = self.random
        offers = [{"sku": s, "unit_price": 100 + n} for n, s in enumerate(SKUS)]
        far = {"opens_at": "2020-01-01T00:00:00Z", "closes_at": "2120-01-01T00:00:00Z", "currency": "EUR", "offers": offers}
        setup = [{"op": "sku_put", "sku": s, "title": s} for s in SKUS] + \
            [{"op": "adjust", "sku": s, "delta": r.randint(8, 30)} for s in SKUS] + \
            [{"op": "sale_put", "sale": "open", "definition": {**far, "orders_per_user_max": 99,
                                                               "payment_timeout_ms": 86_400_000}},
             {"op": "sale_put", "sale": "late", "definition": {**far, "orders_per_user_max": 99,
                                                               "payment_timeout_ms": 60}},
             {"op": "sale_put", "sale": "rights", "definition": {**far, "eligibility_required": True,
                                                                 "eligibility_limit": 3, "orders_per_user_max": 2,
                                                                 "units_per_user_max": 5,
                                                                 "payment_timeout_ms": 86_400_000}}]
        self.note("setup", phase="setup")
        for fields in setup:
            self.ask(0, **fields)
            while self.waiting:
                self.batch()
            self.deliver(self.t + 4_000_000)
        self.free = list(range(1, 7))
        self.note("load", phase="load", leader=1)
        fault = None
        while self.calls_left or self.waiting or self.ends:
            if self.calls_left and self.free and r.random() < 0.7:
                self.calls_left -= 1
                client = self.free.pop(r.randrange(len(self.free)))
                self.ask(client, **self.draw(client))
            if self.waiting and r.random() < 0.6:
                self.batch()
            self.deliver(self.t + r.randint(50_000, 3_000_000))
            if fault is None and self.calls_left < 120:
                fault = {"ev": "fault", "kind": "kill", "target": "n1"}
                self.lines.append({**fault, "phase": "start", "t": self.t})
            elif fault and self.calls_left == 60 and "ended" not in fault:
                fault["ended"] = True
                self.lines.append({"ev": "fault", "kind": "kill", "target": "n1", "phase": "end", "t": self.t})
        if fault and "ended" not in fault:
            self.lines.append({"ev": "fault", "kind": "kill", "target": "n1", "phase": "end", "t": self.t})
        self.note("settle", phase="settle")
        self.t += LATE_MS * 1_000_000
        self.now = self.ms()
        self.index += 1
        self.expire()

    def note(self, text, **fields):
        self.lines.append({"ev": "note", "t": self.t, "text": text, **fields})

    # ---- the end ----

    def final(self):
        m, prices = self.model, {s: 100 + n for n, s in enumerate(SKUS)}
        orders, rows, lines = {}, [], []
        for number, o in m.orders.items():
            items = [{"sku": s, "quantity": n, "unit_price": prices[s]} for s, n in o.items]
            common = {"status": o.status, "version": o.version, "amount": o.amount, "currency": "EUR",
                      "sale_id": o.sale, "user_id": o.user, "created_index": self.placed_at(number),
                      "changed_index": o.changed, "created_at": rfc3339(self.created[number]),
                      "changed_at": rfc3339(self.changed[number]), "pay_by": rfc3339(o.pay_by)}
            orders[number] = {"order_id": number, "lines": items, **common}
            shard, n = shard_of(o.user, SHARDS), order_number(number)
            rows.append({"id": n, "shard": shard, **common})
            lines += [{"order_id": n, "shard": shard, "line": i, **x} for i, x in enumerate(items, 1)]
        rights = {f"{s}/{u}": g for (s, u), g in m.rights.items()}
        granted = [{"sale_id": s, "user_id": u, "granted": g, "shard": shard_of(u, SHARDS)}
                   for (s, u), g in m.rights.items()]
        marks = [{"shard": s, "sequence": max([e["sequence"] for e in self.outbox if e["shard"] == s], default=0)}
                 for s in range(SHARDS)]
        skus = {s: {"id": s, "available": a, "reserved": r, "sold": d, "received": m.received[s], "oversell_allowance": 0}
                for s, (a, r, d) in m.stock.items()}
        audit = [{"check": c, "subject": f"node {n}", "ok": True, "detail": "good"}
                 for c in ("digest", "invariants", "conservation") for n in range(1, NODES + 1)]
        audit += [{"check": "stock equal", "subject": "all nodes", "ok": True, "detail": "good"},
                  {"check": "orders", "subject": "PostgreSQL", "ok": True, "detail": "good"}]
        return {"errors": [], "skus": skus, "orders": orders, "rights": rights, "leases": [], "sales": {},
                "nodes": {str(n): {"id": n, "digest": "d1e51d32edac5c24"} for n in range(1, NODES + 1)},
                "audit": {"exit": 0, "rows": audit, "stderr": ""},
                "postgres": {"cluster": {"cluster_id": CLUSTER, "shards": SHARDS}, "orders": rows, "order_lines": lines,
                             "eligibilities": granted, "payments": self.payments, "outbox": self.outbox,
                             "watermark": marks}}

    @staticmethod
    def placed_at(number):
        return order_number(number) >> 22


def make(seed, calls=200):
    world = World(seed, calls)
    world.run()
    return world.lines, world.final(), {"seed": seed, "nodes": NODES}


if __name__ == "__main__":
    SEED, CALLS, DIRECTORY = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
    LINES, FINAL, RUN = make(SEED, CALLS)
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    (DIRECTORY / "history.jsonl").write_text("".join(json.dumps(x) + "\n" for x in LINES))
    (DIRECTORY / "final.json").write_text(json.dumps(FINAL))
    (DIRECTORY / "run.json").write_text(json.dumps(RUN))
