"""Events: each once, with a stable id, in order within its order, and each from something that was answered.

The relay does not exist yet, so what would be delivered is read from the outbox table (final.json). When it does,
its deliveries are compared with the same list.

- id = event_id(cluster, sequence), computed here again; sequences run without holes; log indexes grow with them.
- Of one order: placed first, versions 1, 2, 3 …, each status one that may follow the one before, the last that of
  the order now.
- Every acknowledged command that makes an event has exactly that event, at its log index; every event but an
  expiry comes from an acknowledged command, or from a call in doubt.
"""

NEXT = {None: {"order.placed"}, "order.placed": {"order.paid", "order.cancelled", "order.expired"},
        "order.paid": {"order.refunded"}, "order.cancelled": set(), "order.refunded": set(),
        "order.expired": {"order.paid", "order.refund_due"}, "order.refund_due": {"order.refunded"}}
STATUS = {"order.placed": "pending_payment", "order.paid": "paid", "order.cancelled": "cancelled",
          "order.expired": "expired", "order.refund_due": "refund_due", "order.refunded": "refunded"}


def event_id(cluster_id, sequence):
    """docs/sql-schema.md: a UUID of version 8 of 60 bits of the cluster id and the sequence."""
    h = cluster_id.replace("-", "")
    h = h[:12] + "8" + h[12:15] + f"{sequence & 0x3FFFFFFFFFFFFFFF | 1 << 63:016x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def check(case, result):
    if case.final is None:
        return result.skip("no final.json: the end of the run was not recorded")
    tables = case.final.get("postgres")
    if tables is None:
        if any(e.startswith("postgres:") for e in case.final.get("errors", ())):
            result.wrong("PostgreSQL could not be read in the end")
            return None
        return result.not_here("this run had no PostgreSQL, hence no outbox")
    result.note("no relay in this run: what would be delivered is read from the outbox")
    events = sorted(tables["outbox"], key=lambda e: e["sequence"])
    _ids(events, (tables.get("cluster") or {}).get("cluster_id"), result)
    _chains(events, case.final.get("orders") or {}, result)
    _causes(case, events, result)
    return None


def _ids(events, cluster_id, result):
    ids, before, index = set(), 0, 0
    for e in events:
        result.looked_at += 1
        if e["id"] in ids:
            result.wrong(f"the event id {e['id']} is there twice")
        ids.add(e["id"])
        if e["sequence"] != before + 1:
            result.wrong(f"event {before} is followed by event {e['sequence']}")
        if e["log_index"] < index:
            result.wrong(f"event {e['sequence']} is of log index {e['log_index']}, the one before of {index}")
        if cluster_id and e["id"] != event_id(cluster_id, e["sequence"]):
            result.wrong(f"event {e['sequence']} has the id {e['id']}, not {event_id(cluster_id, e['sequence'])}")
        p = e["payload"]
        if (p.get("sequence"), p.get("log_index")) != (e["sequence"], e["log_index"]):
            result.wrong(f"event {e['sequence']}: its payload speaks of another: {p}")
        before, index = e["sequence"], e["log_index"]


def _chains(events, orders, result):
    last = {}
    for e in events:
        name, kind, p = e["aggregateid"], e["type"], e["payload"]
        if e["aggregatetype"] != "order":
            _right(e, last, result)
            continue
        if p.get("order") != name:
            result.wrong(f"event {e['sequence']} of order {name} tells of {p.get('order')}")
        before, version = last.get(name, (None, 0))
        if kind == "payment.rejected":  # changes nothing
            if p["version"] != version:
                result.wrong(f"event {e['sequence']}: {name} at version {p['version']}, it was {version}")
            continue
        if kind not in NEXT.get(before, ()):
            result.wrong(f"event {e['sequence']}: {kind} of {name} after {before}")
        if p["version"] != version + 1 or p["status"] != STATUS.get(kind):
            result.wrong(f"event {e['sequence']}: {kind} of {name} says version {p['version']}, {p['status']}, after "
                         f"version {version}")
        last[name] = (kind, p["version"])
    for number, o in orders.items():
        kind, version = last.get(number, (None, 0))
        if (STATUS.get(kind), version) != (o["status"], o["version"]):
            result.wrong(f"the events of {number} end at {kind}, version {version}; it is {o['status']}, version "
                         f"{o['version']}")


def _right(e, last, result):
    name, granted = "right " + e["aggregateid"], e["type"] == "eligibility.granted"
    if e["type"] not in ("eligibility.granted", "eligibility.revoked") or e["payload"]["granted"] != granted:
        result.wrong(f"event {e['sequence']}: {e['type']}: {e['payload']}")
    if last.get(name, False) == granted:
        result.wrong(f"event {e['sequence']}: {e['type']} of {e['aggregateid']} twice in a row")
    last[name] = granted


def _expected(e):
    """(type, aggregate) of the event that this command must have made, or None."""
    if e.op == "place" and e.ok:
        return "order.placed", e.said["order"]
    if e.op == "pay":
        if e.ok:
            return "order." + e.said["state"], e.fields["order"]
        return ("payment.rejected", e.fields["order"]) if e.code in ("ORDER_NOT_PAYABLE", "AMOUNT_MISMATCH") else None
    if e.op == "cancel" and e.ok:
        return "order.cancelled", e.fields["order"]
    if e.op == "refund" and e.ok:
        return "order.refunded", e.fields["order"]
    if e.op == "grant" and e.ok and not e.said.get("existed"):
        return "eligibility.granted", f"{e.fields['sale']}/{e.fields['user']}"
    if e.op == "revoke" and e.ok:
        return "eligibility.revoked", f"{e.fields['sale']}/{e.fields['user']}"
    return None


def _causes(case, events, result):
    effects, _, doubtful = case.gathered()
    wanted = {}
    for e in effects:
        expected = _expected(e)
        if expected is not None:
            wanted.setdefault((*expected, e.index, e.key if e.op == "pay" else None), []).append(e)
    unsure = {"place": {"order.placed"}, "pay": {"order.paid", "order.refund_due", "payment.rejected"},
              "cancel": {"order.cancelled"}, "refund": {"order.refunded"}, "grant": {"eligibility.granted"},
              "revoke": {"eligibility.revoked"}}
    allowed = set().union(*(unsure.get(c.op, set()) for c in doubtful)) | {"order.expired"}
    for event in events:
        p = event["payload"]
        name = (event["type"], event["aggregateid"], event["log_index"], p.get("payment"))
        if wanted.get(name):
            cause = wanted[name].pop()
            if cause.op == "place" and (p["amount"], p["user"], p["sale"]) != \
                    (cause.said["amount"], cause.fields["user"], cause.fields["sale"]):
                result.wrong(f"event {event['sequence']} tells of another order: {p}; {cause}")
        elif event["type"] not in allowed:
            result.wrong(f"an event that no answer tells of: {event['sequence']}, {name}")
    for name, left in wanted.items():
        for e in left:
            result.wrong(f"no event {name} for {e}")
