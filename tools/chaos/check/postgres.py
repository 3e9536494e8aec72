"""PostgreSQL equals the engine, row for row, after the persister has taken everything.

Compares what psql read of one snapshot with what the gateway's strong reads gave: orders, lines, eligibilities,
payments, watermarks, and the arithmetic of ids and shards. `holdfastctl audit` compares the same things with
other code; both must be content.
"""
from check.effects import order_number
from check.model import utc_ms

AUDIT_NODES = ("digest", "invariants", "conservation", "stock equal")


def shard_of(user, shards):
    """FNV-1a (32 bit) of the id modulo the number of shards: docs/sql-schema.md."""
    h = 2166136261
    for byte in user.encode():
        h = (h ^ byte) * 16777619 & 0xFFFFFFFF
    return h % shards


def check(case, result):
    final = case.final
    if final is None:
        return result.skip("no final.json: the end of the run was not recorded")
    tables = final.get("postgres")
    if tables is None:
        if any(e.startswith("postgres:") for e in final.get("errors", ())):
            result.wrong("PostgreSQL could not be read in the end")
            return None
        return result.not_here("this run had no PostgreSQL")
    cluster = tables.get("cluster")
    if not cluster:
        result.wrong("no persister has written to this database")
        return None
    shards = cluster["shards"]
    _orders(final.get("orders") or {}, tables, shards, result)
    _rights(final.get("rights") or {}, tables["eligibilities"], shards, result)
    _payments(case, tables, result)
    _watermarks(tables, shards, result)
    audit = final.get("audit") or {"exit": -1, "rows": []}
    if audit["exit"] != 0:
        result.wrong(f"holdfastctl audit ended with {audit['exit']}: {audit.get('stderr', '').strip()}")
    for row in audit["rows"]:
        if row["check"] not in AUDIT_NODES and row["ok"] is False:
            result.wrong(f"audit: {row['check']} of {row['subject']}: {row['detail']}")
        if row["subject"] == "-" or "not looked at" in row["detail"]:
            result.wrong(f"audit did not look at PostgreSQL: {row['detail']}")
    return None


def _orders(orders, tables, shards, result):
    rows, lines = {}, {}
    for row in tables["orders"]:
        if row["id"] in rows:
            result.wrong(f"order {row['id']} has two rows")
        rows[row["id"]] = row
    for line in sorted(tables["order_lines"], key=lambda x: (x["order_id"], x["line"])):
        lines.setdefault(line["order_id"], []).append(line)
    numbers = {order_number(text): text for text in orders}
    for number, text in numbers.items():
        result.looked_at += 1
        o, row = orders[text], rows.pop(number, None)
        if row is None:
            result.wrong(f"order {text} has no row")
            continue
        engine = {"status": o["status"], "version": o["version"], "amount": o["amount"], "currency": o["currency"],
                  "sale": o["sale_id"], "user": o["user_id"], "created_index": o["created_index"],
                  "changed_index": o["changed_index"], "created": utc_ms(o["created_at"]),
                  "changed": utc_ms(o["changed_at"]), "pay_by": utc_ms(o["pay_by"]),
                  "lines": [(x["sku"], x["quantity"], x["unit_price"]) for x in o["lines"]],
                  "shard": shard_of(o["user_id"], shards)}
        of_order = lines.pop(number, [])
        there = {"status": row["status"], "version": row["version"], "amount": row["amount"],
                 "currency": row["currency"], "sale": row["sale_id"], "user": row["user_id"],
                 "created_index": row["created_index"], "changed_index": row["changed_index"],
                 "created": utc_ms(row["created_at"]), "changed": utc_ms(row["changed_at"]),
                 "pay_by": utc_ms(row["pay_by"]),
                 "lines": [(x["sku"], x["quantity"], x["unit_price"]) for x in of_order], "shard": row["shard"]}
        wrong = {k: (there[k], engine[k]) for k in engine if there[k] != engine[k]}
        if wrong:
            result.wrong(f"order {text}: row and engine differ: {wrong}")
        if number & 1023 != row["shard"] or any(x["shard"] != row["shard"] for x in of_order):
            result.wrong(f"order {text} is in shard {row['shard']}, its id says {number & 1023}")
        if [x["line"] for x in of_order] != list(range(1, len(of_order) + 1)):
            result.wrong(f"order {text}: its lines are numbered {[x['line'] for x in of_order]}")
    for number in rows:
        result.wrong(f"a row of order {number}, which the engine does not know")
    for number in lines:
        result.wrong(f"lines of order {number}, which the engine does not know")


def _rights(rights, rows, shards, result):
    there = {}
    for row in rows:
        name = f"{row['sale_id']}/{row['user_id']}"
        result.looked_at += 1
        if name in there:
            result.wrong(f"the right {name} has two rows")
        there[name] = row["granted"]
        if row["shard"] != shard_of(row["user_id"], shards):
            result.wrong(f"the right {name} is in shard {row['shard']}")
    for name in rights.keys() | there.keys():
        if bool(rights.get(name)) != bool(there.get(name)):
            result.wrong(f"the right {name}: {there.get(name)} in PostgreSQL, {rights.get(name)} in the engine")


def _payments(case, tables, result):
    """Each payment event that had an effect or must be paid back: one row, with what the platform reported."""
    effects, _, doubtful = case.gathered()
    unsure = {c.key for c in doubtful if c.op == "pay"}
    outcome = {"paid": "paid", "refund_due": "refund_due"}
    wanted = {}
    for e in effects:
        if e.op != "pay":
            continue
        if e.ok:
            wanted[e.key] = (outcome[e.said["state"]], e)
        elif e.code in ("ORDER_NOT_PAYABLE", "AMOUNT_MISMATCH"):
            wanted[e.key] = ("rejected", e)
    for row in tables["payments"]:
        result.looked_at += 1
        name, e = wanted.pop(row["payment_id"], (None, None))
        if e is None:
            if row["payment_id"] not in unsure:
                result.wrong(f"a payment that nobody was told of, or a second row of it: {row}")
            continue
        want = (name, order_number(e.fields["order"]), e.fields["amount"], e.fields["currency"], e.index)
        if want != (row["outcome"], row["order_id"], row["amount"], row["currency"], row["log_index"]):
            result.wrong(f"a payment's row {row} is not what was answered: {e}")
    for name, e in wanted.values():
        result.wrong(f"a payment ({name}) has no row: {e}")


def _watermarks(tables, shards, result):
    last = {}
    for event in tables["outbox"]:
        last[event["shard"]] = max(last.get(event["shard"], 0), event["sequence"])
    marks = {row["shard"]: row for row in tables["watermark"]}
    # A shard without events gets its row when the persister first comes by; nothing is promised of it before.
    if not set(last) <= set(marks) <= set(range(shards)):
        result.wrong(f"watermarks of {len(marks)} shards, there are {shards}, {len(last)} with events")
    for shard, sequence in last.items():
        if shard in marks and marks[shard]["sequence"] < sequence:
            result.wrong(f"shard {shard}: an event {sequence} beyond the watermark {marks[shard]['sequence']}")
