"""What a bug of holdfast, or of a checker's reader, would leave in a history: each spoils a good one in one way.

    @spoils("witness")
    def a_wrong_stock_by_one(run): …       # changes run in place; returns False when the run has no place for it

run: Run, with the lines of history.jsonl, final.json and run.json as they are loaded, and a random.Random. The
decorator names the checkers of which at least one must fail; the first is the one that is meant to.
"""
import copy
import random

ALL = {}


def spoils(*checkers):
    def keep(function):
        ALL[function.__name__] = (checkers, function)
        return function
    return keep


class Run:
    def __init__(self, lines, final, run, seed=0):
        self.lines, self.final, self.run = copy.deepcopy(lines), copy.deepcopy(final), copy.deepcopy(run)
        self.random = random.Random(seed)
        self.calls = {x["id"]: x for x in self.lines if x["ev"] == "call"}
        self.rets = {x["id"]: x for x in self.lines if x["ev"] == "ret"}

    def find(self, op=None, **said):
        """(call, ret) pairs with this op and these fields of the answer, first answers only, in order of return."""
        ops = (op,) if isinstance(op, str) else op
        for x in self.lines:
            if x["ev"] == "ret" and not x.get("replayed"):
                call = self.calls[x["id"]]
                if (ops is None or call["op"] in ops) and all(x.get(k) == v for k, v in said.items()):
                    yield call, x

    def one(self, op=None, where=lambda call, ret: True, **said):
        found = [pair for pair in self.find(op, **said) if where(*pair)]
        return self.random.choice(found) if found else (None, None)

    def drop(self, number):
        self.lines[:] = [x for x in self.lines if x.get("id") != number]

    @property
    def sql(self):
        return self.final["postgres"]


def keyless(run):
    """Was its key ever used again? Then a change of one answer is found sooner; take the others."""
    counts = {}
    for c in run.calls.values():
        counts[c.get("key")] = counts.get(c.get("key"), 0) + 1
    return lambda call, ret: counts[call.get("key")] == 1


# ---- answers that do not fit together ----

@spoils("witness")
def two_answers_swapped(run):
    placed = list(run.find("place", code="OK"))
    pairs = [(a, b) for (_, a), (_, b) in zip(placed, placed[1:]) if a.get("stock") and b.get("stock") and a["stock"] != b["stock"]]
    if not pairs:
        return False
    a, b = run.random.choice(pairs)
    a["stock"], b["stock"] = b["stock"], a["stock"]


@spoils("witness")
def a_wrong_stock_by_one(run):
    _, ret = run.one("place", lambda c, r: r.get("stock"), code="OK")
    next(iter(ret["stock"].values()))[0] += 1


@spoils("witness")
def a_wrong_stock_in_a_refusal(run):
    _, ret = run.one(None, lambda c, r: r.get("stock") and r["status"] == "refused")
    next(iter(ret["stock"].values()))[1] += 1


@spoils("witness")
def a_repetition_that_tells_another_stock(run):
    found = [x for x in run.rets.values() if x.get("replayed") and x.get("stock") and x["code"] == "OK"]
    if not found:
        return False
    next(iter(run.random.choice(found)["stock"].values()))[2] += 1


@spoils("witness")
def sold_out_although_there_was_some(run):
    _, ret = run.one("place", keyless(run), code="OK")
    ret.update(status="refused", code="SOLD_OUT", line=1, available=0)
    for name in ("order", "amount", "created_ms", "pay_by_ms", "state"):
        ret.pop(name, None)


@spoils("witness")
def sold_although_there_was_none(run):
    call, ret = run.one("place", keyless(run), code="SOLD_OUT")
    from synthetic import order_text
    ret.update(status="ok", code="OK", order=order_text(ret["index"], 77, 0), amount=100, created_ms=1, pay_by_ms=2,
               state="pending_payment")


@spoils("witness")
def paid_twice(run):
    _, ret = run.one("pay", keyless(run), code="ORDER_NOT_PAYABLE")
    ret.update(status="ok", code="OK", state="paid")


@spoils("witness")
def cancelled_although_paid(run):
    _, ret = run.one("cancel", keyless(run), code="ORDER_NOT_CANCELLABLE")
    ret.update(status="ok", code="OK", state="cancelled")


@spoils("witness")
def one_right_too_many(run):
    _, ret = run.one("grant", keyless(run), code="ELIGIBILITY_EXHAUSTED")
    if ret is None:
        return False
    ret.update(status="ok", code="OK")


@spoils("witness")
def a_right_granted_twice(run):
    _, ret = run.one("grant", keyless(run), code="OK", existed=True)
    del ret["existed"]


@spoils("witness")
def an_order_without_the_right(run):
    _, ret = run.one("place", keyless(run), code="NOT_ELIGIBLE")
    ret.update(code="SOLD_OUT", line=1, available=0)


@spoils("witness")
def another_amount(run):
    _, ret = run.one("place", code="OK")
    ret["amount"] += 1


@spoils("witness")
def a_deadline_moved(run):
    _, ret = run.one("place", lambda c, r: "pay_by_ms" in r, code="OK")
    ret["pay_by_ms"] += 1000


# ---- time and order ----

@spoils("witness")
def an_index_before_a_call_that_had_returned(run):
    found = [(c, r) for c, r in run.find(None) if "key" in c and "index" in r]
    later = [(c, r) for c, r in found if sum(1 for _, x in found if x["t"] < c["t"]) > 5]
    call, ret = run.random.choice(later)
    ret["index"] = max(x["index"] for _, x in found if x["t"] < call["t"])


@spoils("witness")
def a_stale_strong_read(run):
    found = [(c, r) for c, r in run.find(("read_sku", "read_order")) if c["consistency"] == "strong" and c["t"] > 0]
    told = [r for c, r in run.find(None) if "key" in c and "index" in r]
    found = [(c, r) for c, r in found if any(x["t"] < c["t"] for x in told)]
    call, ret = run.random.choice(found)
    ret["index"] = max(x["index"] for x in told if x["t"] < call["t"]) - 1


@spoils("witness")
def a_strong_read_of_the_past(run):
    """Its index is new, what it tells is old: as an old leader would answer."""
    by_sku = {}
    for call, ret in run.find("read_sku"):
        if call["consistency"] == "strong":
            before = by_sku.get(call["sku"])
            if before is not None and before["stock"] != ret["stock"]:
                ret["stock"], ret["received"] = before["stock"], before["received"]
                return None
            by_sku[call["sku"]] = ret
    return False


@spoils("witness")
def a_local_read_older_than_asked_for(run):
    call, ret = run.one("read_sku", lambda c, r: c.get("min_index", 0) > 1, consistency=None)
    if call is None:
        call, ret = run.one(("read_sku", "read_order"), lambda c, r: c.get("min_index", 0) > 1)
    ret["index"] = call["min_index"] - 1


@spoils("witness")
def a_read_of_another_order_state(run):
    _, ret = run.one("read_order", code="OK")
    ret["state"] = "cancelled" if ret["state"] != "cancelled" else "paid"


@spoils("witness")
def time_goes_back(run):
    found = list(run.find("place", code="OK"))
    _, ret = found[len(found) // 2]
    ret["created_ms"] -= 3_600_000
    ret["pay_by_ms"] = ret.get("pay_by_ms", 0) - 3_600_000


@spoils("witness")
def expired_before_its_time(run):
    if not any(x["ev"] == "ret" and x["code"] == "OK" for x in run.lines):
        return False
    for e in run.sql["outbox"]:
        if e["type"] == "order.expired":
            placed = next(x for x in run.sql["outbox"] if x["type"] == "order.placed" and x["aggregateid"] == e["aggregateid"])
            e["log_index"] = e["payload"]["log_index"] = placed["log_index"] + 1
            return None
    return False


# ---- keys ----

@spoils("witness")
def two_orders_for_one_key(run):
    found = [x for x in run.rets.values() if x.get("replayed") and x.get("order")]
    if not found:
        return False
    ret = run.random.choice(found)
    others = [r["order"] for _, r in run.find("place", code="OK") if r["order"] != ret["order"]]
    ret["order"] = run.random.choice(others)


@spoils("witness")
def another_answer_under_one_key(run):
    found = [x for x in run.rets.values() if x.get("replayed") and x["status"] == "refused"]
    if not found:
        return False
    run.random.choice(found)["code"] = "SALE_CLOSED"


@spoils("witness")
def done_again_under_one_key(run):
    found = [x for x in run.rets.values() if x.get("replayed") and x["code"] == "OK"]
    ret = run.random.choice(found)
    del ret["replayed"]
    ret["index"] = ret.pop("reply_index")


@spoils("witness")
def two_keys_one_order(run):
    placed = list(run.find("place", code="OK"))
    (_, a), (_, b) = placed[0], placed[-1]
    b["order"] = a["order"]


@spoils("witness")
def an_id_of_another_index(run):
    _, ret = run.one("place", code="OK")
    from synthetic import order_text
    ret["order"] = order_text(ret["index"] + 1, 0, 0)


@spoils("witness", "acknowledged")
def an_effect_nobody_was_told_of(run):
    call, _ = run.one("place", keyless(run), code="OK")
    run.drop(call["id"])


@spoils("witness")
def a_command_that_left_no_trace(run):
    """Acknowledged in the history, unknown to the state: the adjustment of before is gone."""
    call, ret = run.one("adjust", keyless(run), code="OK")
    sku = call["sku"]
    call["delta"] += 1
    ret["stock"] = {sku: [ret["stock"][sku][0] + 1, *ret["stock"][sku][1:]]} if "stock" in ret else None


# ---- the end ----

@spoils("invariants")
def a_unit_too_many(run):
    run.random.choice(list(run.final["skus"].values()))["available"] += 1


@spoils("invariants")
def a_unit_duplicated_consistently(run):
    sku = run.random.choice(list(run.final["skus"].values()))
    sku["available"] += 1
    sku["received"] += 1


@spoils("invariants")
def a_unit_moved(run):
    sku = run.random.choice([s for s in run.final["skus"].values() if s["reserved"]])
    sku["reserved"] -= 1
    sku["available"] += 1


@spoils("invariants")
def nodes_that_differ(run):
    run.random.choice(list(run.final["nodes"].values()))["digest"] = "0000000000000000"


@spoils("invariants")
def a_node_that_did_not_answer(run):
    run.final["nodes"].popitem()


@spoils("invariants")
def a_violation_that_audit_found(run):
    next(r for r in run.final["audit"]["rows"] if r["check"] == "invariants")["ok"] = False


@spoils("invariants")
def an_audit_that_did_not_look(run):
    run.final["audit"]["rows"] = [r for r in run.final["audit"]["rows"] if r["check"] != "invariants"]


@spoils("acknowledged")
def an_acknowledged_order_dropped(run):
    run.final["orders"].pop(run.random.choice(sorted(run.final["orders"])))


@spoils("acknowledged")
def an_order_back_in_an_earlier_state(run):
    run.random.choice([o for o in run.final["orders"].values() if o["status"] in ("paid", "cancelled")])["status"] = \
        "pending_payment"


@spoils("acknowledged")
def an_order_with_other_lines(run):
    run.random.choice(list(run.final["orders"].values()))["lines"][0]["quantity"] += 1


@spoils("acknowledged")
def an_order_of_another_user(run):
    run.random.choice(list(run.final["orders"].values()))["user_id"] += "x"


@spoils("acknowledged")
def an_order_nobody_placed(run):
    from synthetic import order_text
    o = copy.deepcopy(next(iter(run.final["orders"].values())))
    run.final["orders"][order_text(99_999, 0, 0)] = o


@spoils("acknowledged")
def a_right_lost(run):
    granted = [k for k, v in run.final["rights"].items() if v]
    if not granted:
        return False
    del run.final["rights"][run.random.choice(granted)]


# ---- leases ----

LEASE_OPS = ("lease_acquire", "lease_renew", "lease_release")


def acquired(run):
    """Acquisitions that gave a new token, in order of index."""
    seen, out = set(), []
    for call, ret in sorted(run.find("lease_acquire", code="OK"), key=lambda p: (p[1]["index"], p[1]["token"])):
        if ret["token"] not in seen:
            seen.add(ret["token"])
            out.append((call, ret))
    return out


@spoils("leases")
def a_token_given_twice(run):
    got = acquired(run)
    pairs = [(a, b) for a, b in zip(got, got[1:]) if a[0]["owner"] != b[0]["owner"]]
    if not pairs:
        return False
    (_, a), (_, b) = run.random.choice(pairs)
    b["token"] = a["token"]


@spoils("leases")
def a_token_that_shrank(run):
    got = acquired(run)
    if len(got) < 3:
        return False
    got[-1][1]["token"] = 0


@spoils("leases")
def two_holders_at_a_time(run):
    """The first holder's time is made longer than the second waited for it."""
    by_name, alone = {}, keyless(run)
    for call, ret in acquired(run):
        before = by_name.get(call["name"])
        if before and before[0]["owner"] != call["owner"] and alone(*before) and not any(
                c["name"] == call["name"] and r is not before[1] and before[1]["index"] <= r["index"] <= ret["index"]
                and r["code"] == "OK" and r is not ret for c, r in run.find(LEASE_OPS)):
            before[0]["ttl_ms"] += 60_000
            before[1]["expires_ms"] += 60_000
            return None
        by_name[call["name"]] = (call, ret)
    return False


# ---- PostgreSQL ----

@spoils("postgres")
def a_missing_row(run):
    run.sql["orders"].pop(run.random.randrange(len(run.sql["orders"])))


@spoils("postgres")
def a_row_twice(run):
    run.sql["orders"].append(run.random.choice(run.sql["orders"]))


@spoils("postgres")
def a_row_that_is_behind(run):
    row = run.random.choice([r for r in run.sql["orders"] if r["version"] > 1])
    row["status"], row["version"] = "pending_payment", 1


@spoils("postgres")
def a_line_changed(run):
    run.random.choice(run.sql["order_lines"])["quantity"] += 1


@spoils("postgres")
def a_line_missing(run):
    run.sql["order_lines"].pop()


@spoils("postgres")
def a_payment_without_a_row(run):
    run.sql["payments"].pop()


@spoils("postgres")
def a_payment_twice(run):
    run.sql["payments"].append(run.random.choice(run.sql["payments"]))


@spoils("postgres")
def a_right_without_a_row(run):
    granted = [r for r in run.sql["eligibilities"] if r["granted"]]
    if not granted:
        return False
    run.sql["eligibilities"].remove(granted[0])


@spoils("postgres")
def a_watermark_behind(run):
    run.random.choice([w for w in run.sql["watermark"] if w["sequence"] > 1])["sequence"] = 0


@spoils("postgres")
def a_row_in_another_shard(run):
    row = run.random.choice(run.sql["orders"])
    row["shard"] = (row["shard"] + 1) % run.sql["cluster"]["shards"]


@spoils("postgres")
def an_audit_that_is_red(run):
    run.final["audit"]["exit"] = 1


# ---- the outbox ----

@spoils("outbox")
def a_doubled_event(run):
    run.sql["outbox"].append(run.random.choice(run.sql["outbox"]))


@spoils("outbox")
def a_doubled_event_with_its_own_id(run):
    from check.outbox import event_id
    e = copy.deepcopy(run.random.choice(run.sql["outbox"]))
    e["sequence"] = e["payload"]["sequence"] = max(x["sequence"] for x in run.sql["outbox"]) + 1
    e["log_index"] = e["payload"]["log_index"] = max(x["log_index"] for x in run.sql["outbox"])
    e["id"] = event_id(run.sql["cluster"]["cluster_id"], e["sequence"])
    run.sql["outbox"].append(e)


@spoils("outbox")
def a_missing_event(run):
    run.sql["outbox"].pop(run.random.randrange(len(run.sql["outbox"])))


@spoils("outbox")
def a_missing_last_event(run):
    """No hole tells of it."""
    run.sql["outbox"].remove(max(run.sql["outbox"], key=lambda e: e["sequence"]))


@spoils("outbox")
def an_id_that_is_not_stable(run):
    e = run.random.choice(run.sql["outbox"])
    e["id"] = e["id"][:-1] + ("0" if e["id"][-1] != "0" else "1")


@spoils("outbox")
def events_of_an_order_out_of_order(run):
    by_order = {}
    for e in run.sql["outbox"]:
        by_order.setdefault(e["aggregateid"], []).append(e)
    events = run.random.choice([v for v in by_order.values() if len(v) > 1 and v[0]["type"] == "order.placed"])
    a, b = events[0], events[1]
    for name in ("type", "payload", "log_index"):
        a[name], b[name] = b[name], a[name]


@spoils("outbox")
def an_event_of_another_order(run):
    placed = [e for e in run.sql["outbox"] if e["type"] == "order.placed"]
    a, b = placed[0], placed[-1]
    a["aggregateid"], b["aggregateid"] = b["aggregateid"], a["aggregateid"]


# ---- liveness ----

@spoils("liveness")
def a_call_never_settled(run):
    call, _ = run.one(None, keyless(run))
    run.lines[:] = [x for x in run.lines if not (x["ev"] == "ret" and x["id"] == call["id"])]


@spoils("liveness")
def a_call_unknown_for_good(run):
    call, ret = run.one(None, keyless(run), status="ok")
    ret.clear()
    ret.update(id=call["id"], ev="ret", t=call["t"] + 1, status="unknown", code="TimeoutError")


@spoils("liveness")
def nobody_served_after_a_heal(run):
    end = next((x for x in run.lines if x["ev"] == "fault" and x["phase"] == "end"), None)
    if end is None:
        return False
    for x in run.lines:
        if x["t"] > end["t"]:
            x["t"] += 11_000_000_000


@spoils("liveness")
def a_gap_that_no_fault_explains(run):
    start = next((x for x in run.lines if x["ev"] == "fault"), None)
    middle = start["t"] // 2 if start else run.lines[len(run.lines) // 2]["t"]
    for x in run.lines:
        if x["t"] > middle:
            x["t"] += 30_000_000_000


@spoils("liveness")
def a_client_that_broke(run):
    run.lines.append({"ev": "note", "t": run.lines[-1]["t"], "text": "client 3 broke: KeyError('x')"})
