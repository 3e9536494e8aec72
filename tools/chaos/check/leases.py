"""Locks: never two holders, fencing tokens only grow.

By log index and by the cluster's time, which every acquisition and renewal tells (expires_at - ttl). Needs nothing
of the rest of the model; commands of one batch are told apart by their tokens.
"""
import collections



def check(case, result):
    effects, _, doubtful = case.gathered()
    by_name, given = collections.defaultdict(list), {}
    for e in effects:
        if e.op.startswith("lease_"):
            by_name[e.fields["name"]].append(e)
            result.looked_at += 1
    if not by_name:
        return result.not_here("no leases in this run")
    in_doubt = {c.get("name") for c in doubtful if c.op.startswith("lease_")}
    for name, list_ in by_name.items():
        list_.sort(key=_place)
        _one(name, list_, name in in_doubt, given, result)
    # Over all names: a token is given once, and later acquisitions have higher ones.
    firsts = sorted((e.index, token) for token, e in given.items())
    highest, at = 0, 0
    for index, token in firsts:
        if token < highest and index > at:
            result.wrong(f"token {token} was given at index {index}, after {highest} at {at}: {given[token]}")
        if token > highest:
            highest, at = token, index
    return None


def _place(e):
    """Of one batch: by token, and the life of one token."""
    return e.index, e.said.get("token") or e.fields.get("token") or 0, \
        ("lease_acquire", "lease_renew", "lease_release").index(e.op)


def _one(name, effects, in_doubt, given, result):
    owner = token = expires = None
    highest = 0
    for e in effects:
        if not e.ok:
            continue
        now = e.said["expires_ms"] - e.fields["ttl_ms"] if e.op != "lease_release" else None
        if e.op == "lease_acquire":
            fresh = e.said["token"]
            again = owner == e.fields["owner"] and fresh == token
            if not again:
                if fresh in given:
                    result.wrong(f"token {fresh} was given twice: {given[fresh]} and {e}")
                given.setdefault(fresh, e)
                if fresh <= highest:
                    result.wrong(f"{name}: token {fresh} after {highest}: {e}")
                if owner is not None and now < expires and not in_doubt:
                    result.wrong(f"{name}: two holders: {owner} with token {token} until {expires} ms, and at {now} ms: "
                                 f"{e}")
            elif now >= expires and not in_doubt:
                result.wrong(f"{name}: token {token} came back to life at {now} ms, expired at {expires} ms: {e}")
            owner, token, expires = e.fields["owner"], fresh, e.said["expires_ms"]
            highest = max(highest, fresh)
            continue
        if e.fields["token"] != token or e.fields["owner"] != owner:
            if not in_doubt:
                result.wrong(f"{name}: {e} although {owner} holds it with token {token}")
            continue
        if e.op == "lease_renew":
            if e.said["token"] != token:
                result.wrong(f"{name}: renewed with another token than {token}: {e}")
            if now >= expires:
                result.wrong(f"{name}: renewed at {now} ms, expired at {expires} ms: {e}")
            expires = e.said["expires_ms"]
        else:
            owner = token = expires = None
