"""The history for another checker: Porcupine (or any that takes calls and returns) with a small model.

    porcupine.export(directory, out)        # out: a JSONL file; returns {partition: operations}

One line an event, in order of time:

    {"partition": "stock", "client": 3, "id": 17, "kind": "call", "t": 123, "input": {"op": "place", …}}
    {"partition": "stock", "client": 3, "id": 17, "kind": "return", "t": 456, "output": {"code": "OK", …}}

Partitions are independent objects: "stock" (all SKUs and orders), "lease NAME" each. The log index is left out on
purpose: that checker must find an order by itself, from times alone, where the witness check is given one; so it is
exponential, and for short histories. ../porcupine/model.go is the model, README.md there says what it knows.

A call that is answered twice under one key is one operation, from the first call to the first return. What was never
answered has no return: it may happen at any time, or never. Expiry has no caller: it is an operation of client -1
that may take effect from the order's placing to the end. Reads with consistency=local are left out: they may tell
of the past. Refusals that the small model does not know are exported, and it takes them for no change.
"""
import json
import pathlib

from check.verdict import Case

STOCK_OPS = ("sku_put", "adjust", "place", "cancel", "pay", "refund", "read_sku")
INPUT = ("sku", "delta", "lines", "order", "amount", "restock", "name", "owner", "token", "ttl_ms")
OUTPUT = ("code", "order", "state", "stock", "token", "expires_ms")


def partition(op, fields):
    if op.startswith("lease_"):
        return "lease " + fields["name"]
    return "stock" if op in STOCK_OPS else None


def _operation(name, client, number, called, returned, fields, said):
    """The one or two events."""
    what = {"partition": name, "client": client, "id": number}
    events = [{**what, "kind": "call", "t": called,
               "input": {"op": fields["op"], **{k: fields[k] for k in INPUT if k in fields}}}]
    if returned is not None:
        events.append({**what, "kind": "return", "t": returned, "output": {k: said[k] for k in OUTPUT if k in said}})
    return events


def events_of(case):
    effects, _, doubtful = case.gathered()
    events, placed = [], {}
    for e in effects:
        name = partition(e.op, e.fields)
        if name is not None:
            events += _operation(name, e.calls[0].client, e.fields["id"], e.called, e.returned, e.fields, e.said)
        if e.op == "place" and e.ok:
            placed[e.said["order"]] = e
    for call in doubtful:
        name = partition(call.op, call.fields)
        if name is not None:
            events += _operation(name, call.client, call.id, call.t, None, call.fields, {})
    for call in case.history.calls:
        if call.op == "read_sku" and call.get("consistency") == "strong" and call.code == "OK":
            events += _operation("stock", call.client, call.id, call.t, call.t_ret, call.fields, call.answer)
    number = max((c.id for c in case.history.calls), default=0)
    for order in expired(case):
        if order in placed:
            number += 1
            e = placed[order]
            events += _operation("stock", -1, number, e.called, case.history.end + 1, {"op": "expire", "order": order},
                                 {"code": "OK"})
    events.sort(key=lambda e: (e["t"], e["kind"] == "return"))
    return events


def expired(case):
    """Orders that expired, by the outbox, or without one by their state in the end."""
    final = case.final or {}
    if final.get("postgres"):
        return sorted({e["aggregateid"] for e in final["postgres"]["outbox"] if e["type"] == "order.expired"})
    return sorted(number for number, o in (final.get("orders") or {}).items()
                  if o["status"] in ("expired", "refund_due") or o["version"] > {"paid": 2, "refunded": 3}.get(o["status"], 9))


def export(directory, out):
    """Writes the file; returns {partition: how many operations}."""
    events = events_of(Case.load(pathlib.Path(directory)))
    counts = {}
    with open(out, "w", encoding="utf-8") as f:
        for e in events:
            if e["kind"] == "call":
                counts[e["partition"]] = counts.get(e["partition"], 0) + 1
            f.write(json.dumps(e, separators=(",", ":")) + "\n")
    return counts
