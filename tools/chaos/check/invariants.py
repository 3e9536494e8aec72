"""Units are neither made nor lost: what every node holds in the end.

- Each SKU: available + reserved + sold = received, reserved and sold not negative; and received is what the
  acknowledged adjustments and write-offs make of it, reserved and sold are what the orders say.
- Digests equal at one log index on every node that was asked; every node answered.
- `holdfastctl audit` says so of every node, too: its full scan, its conservation, its own reading.
"""

NODE_CHECKS = ("digest", "invariants", "conservation", "stock equal")


def check(case, result):
    final = case.final
    if final is None:
        return result.skip("no final.json: the end of the run was not recorded")
    for text in final.get("errors", ()):
        result.wrong(f"the end could not be read: {text}")
    skus, orders = final.get("skus", {}), final.get("orders", {})
    _conservation(skus, orders, result)
    _received(case, skus, orders, result)
    _nodes(final, case.run.get("nodes"), result)
    _audit(final.get("audit"), result)
    return None


def _conservation(skus, orders, result):
    held = {sku: {"reserved": 0, "sold": 0} for sku in skus}
    for number, o in orders.items():
        part = {"pending_payment": "reserved", "paid": "sold"}.get(o["status"])
        for line in o["lines"] if part else ():
            if line["sku"] in held:
                held[line["sku"]][part] += line["quantity"]
            else:
                result.wrong(f"order {number} holds units of {line['sku']}, which is not there")
    for sku, s in skus.items():
        result.looked_at += 1
        if s["available"] + s["reserved"] + s["sold"] != s["received"]:
            result.wrong(f"{sku}: {s['available']} available + {s['reserved']} reserved + {s['sold']} sold is not "
                         f"{s['received']} received")
        if s["reserved"] < 0 or s["sold"] < 0 or s["available"] < -s.get("oversell_allowance", 0):
            result.wrong(f"{sku}: {s['available']}/{s['reserved']}/{s['sold']}: less than there can be")
        for part in ("reserved", "sold"):
            if s[part] != held[sku][part]:
                result.wrong(f"{sku}: {s[part]} {part}, its orders say {held[sku][part]}")


def _received(case, skus, orders, result):
    """From the history alone: what came in, less what was taken out and what refunds wrote off."""
    effects, _, doubtful = case.gathered()
    if any(c.op in ("adjust", "refund") for c in doubtful):
        result.note("received is not recounted: adjustments or refunds are in doubt")
        return
    expected = {}
    refunds = []
    for e in effects:
        if e.ok and e.op == "adjust":
            expected[e.fields["sku"]] = expected.get(e.fields["sku"], 0) + e.fields["delta"]
        elif e.ok and e.op == "refund" and not e.fields["restock"]:
            refunds.append(e)
    owed = {e.fields["order"] for e in effects if e.op == "pay" and e.said.get("state") == "refund_due"}
    for e in refunds:
        order = orders.get(e.fields["order"])
        for line in order["lines"] if order and e.fields["order"] not in owed else ():
            expected[line["sku"]] = expected.get(line["sku"], 0) - line["quantity"]
    for sku, s in skus.items():
        if expected.get(sku, 0) != s["received"]:
            result.wrong(f"{sku}: {s['received']} received, the acknowledged adjustments and write-offs make "
                         f"{expected.get(sku, 0)}")


def _nodes(final, count, result):
    nodes = final.get("nodes") or {}
    digests = {n.get("digest") for n in nodes.values()}
    result.looked_at += len(nodes)
    if not nodes:
        result.wrong("no node's digest was read")
    elif len(digests) > 1 or None in digests:
        result.wrong("nodes differ: " + ", ".join(f"node {k}: {n.get('digest')}" for k, n in nodes.items()))
    if isinstance(count, int) and count != len(nodes):
        result.wrong(f"{len(nodes)} nodes answered, {count} are members")


def _audit(audit, result):
    if not audit or not audit["rows"]:
        result.wrong("holdfastctl audit gave no answer" + (f": {audit['stderr']}" if audit else ""))
        return
    seen = set()
    for row in audit["rows"]:
        if row["check"] in NODE_CHECKS:
            seen.add(row["check"])
            result.looked_at += 1
            if row["ok"] is not True:
                result.wrong(f"audit: {row['check']} of {row['subject']}: {row['detail']}")
    for missing in set(NODE_CHECKS) - seen:
        result.wrong(f"audit did not check: {missing}")
