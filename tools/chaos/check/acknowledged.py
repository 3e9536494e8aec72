"""What was acknowledged is there in the end: every order that somebody was told of, as it was told, in the state
that its last acknowledged command gave it; every right that was granted last and not revoked; and no order that
nobody was told of, unless a call is in doubt.

Knows no stock and no model: only what each answer promised.
"""

# An acknowledged state may change without a call only by time.
BY_TIME = {"pending_payment": ("expired",)}


def check(case, result):
    final = case.final
    if final is None or final.get("orders") is None:
        if final is None:
            return result.skip("no final.json: the end of the run was not recorded")
        result.wrong("the orders could not be read in the end")
        return None
    effects, _, doubtful = case.gathered()
    effects.sort(key=lambda e: e.index)
    _orders(effects, doubtful, final["orders"], result)
    if final.get("rights") is not None:
        _rights(effects, doubtful, final["rights"], result)
    return None


def _orders(effects, doubtful, orders, result):
    in_doubt = {c.get("order") for c in doubtful if c.op != "place"}
    placed, states, told = {}, {}, {}
    for e in effects:
        if e.op == "place" and e.ok:
            number = e.said["order"]
            if number in placed:
                result.wrong(f"two calls were told of one order: {placed[number]} and {e}")
            placed[number] = e
        if e.op in ("place", "pay", "cancel", "refund") and e.ok:
            number = e.said["order"] if e.op == "place" else e.fields["order"]
            index = states.get(number, (0,))[0]
            if e.index == index and number in told:  # one batch: either may have been last
                states[number] = (index, states[number][1] | {e.said["state"]})
            else:
                states[number] = (e.index, {e.said["state"]})
            told[number] = e
    for number, e in placed.items():
        result.looked_at += 1
        end = orders.get(number)
        if end is None:
            result.wrong(f"an acknowledged order is lost: {e}")
            continue
        _same(e, end, result)
        allowed = set(states[number][1])
        for state in states[number][1]:
            allowed.update(BY_TIME.get(state, ()))
        if end["status"] not in allowed and number not in in_doubt:
            result.wrong(f"order {number} is {end['status']} in the end; last acknowledged: {told[number]}")
    unsure = any(c.op == "place" for c in doubtful)
    for number in orders.keys() - placed.keys():
        if not unsure:
            result.wrong(f"order {number} is there in the end, and nobody was told of it")
    for number in told.keys() - placed.keys():
        if not unsure:
            result.wrong(f"{told[number]}: of an order that nobody placed")


def _same(e, end, result):
    units = {}
    for sku, quantity in e.fields["lines"]:
        units[sku] = units.get(sku, 0) + quantity
    has = {line["sku"]: line["quantity"] for line in end["lines"]}
    wanted = (e.fields["sale"], e.fields["user"], e.said["amount"], units, e.index)
    if wanted != (end["sale_id"], end["user_id"], end["amount"], has, end["created_index"]) \
            or len(has) != len(end["lines"]):
        result.wrong(f"an order is there otherwise than it was acknowledged: {e}; now {end}")


def _rights(effects, doubtful, rights, result):
    last, again = {}, set()
    for e in effects:
        if e.op in ("grant", "revoke") and e.ok:
            name = f"{e.fields['sale']}/{e.fields['user']}"
            if name in last and last[name].index == e.index:
                again.add(name)  # one batch: the order of the two is not told
            else:
                again.discard(name)
            last[name] = e
    unsure = {f"{c.get('sale')}/{c.get('user')}" for c in doubtful if c.op in ("grant", "revoke")} | again
    for name, e in last.items():
        result.looked_at += 1
        if name not in unsure and bool(rights.get(name)) != (e.op == "grant"):
            result.wrong(f"{name} is {'' if rights.get(name) else 'not '}granted in the end; last: {e}")
    for name, granted in rights.items():
        if granted and name not in last and name not in unsure:
            result.wrong(f"{name} is granted in the end, and nobody was told of it")
