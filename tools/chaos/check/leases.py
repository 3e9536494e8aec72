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


class Holder:
    """Who holds a lease, by the answers so far. Of two extensions in one batch nobody knows which was the last: then
    the lease ends at the earliest or at the latest of them."""

    def __init__(self, e):
        self.owner, self.token, self.index = e.fields["owner"], e.said["token"], e.index
        self.earliest = self.latest = e.said["expires_ms"]

    def extend(self, e):
        ends = [e.said["expires_ms"]] + ([self.earliest, self.latest] if e.index == self.index else [])
        self.index, self.earliest, self.latest = e.index, min(ends), max(ends)


def _one(name, effects, in_doubt, given, result):
    holder, highest = None, 0
    for e in effects:
        if not e.ok:
            continue
        now = e.said["expires_ms"] - e.fields["ttl_ms"] if e.op != "lease_release" else None
        if e.op == "lease_acquire":
            token = e.said["token"]
            if holder is not None and (holder.owner, holder.token) == (e.fields["owner"], token):
                if now >= holder.latest and not in_doubt:
                    result.wrong(f"{name}: token {token} came back to life at {now} ms, expired at {holder.latest} ms: {e}")
                holder.extend(e)
                continue
            if token in given:
                result.wrong(f"token {token} was given twice: {given[token]} and {e}")
            given.setdefault(token, e)
            if token <= highest:
                result.wrong(f"{name}: token {token} after {highest}: {e}")
            if holder is not None and now < holder.earliest and not in_doubt:
                result.wrong(f"{name}: two holders: {holder.owner} with token {holder.token} until {holder.earliest} ms, "
                             f"and at {now} ms: {e}")
            holder, highest = Holder(e), max(highest, token)
        elif holder is None or (e.fields["owner"], e.fields["token"]) != (holder.owner, holder.token):
            if not in_doubt:
                held = f"{holder.owner} holds it with token {holder.token}" if holder else "nobody holds it"
                result.wrong(f"{name}: {e} although {held}")
        elif e.op == "lease_release":
            holder = None
        else:
            if e.said["token"] != holder.token:
                result.wrong(f"{name}: renewed with another token than {holder.token}: {e}")
            if now >= holder.latest:
                result.wrong(f"{name}: renewed at {now} ms, expired at {holder.latest} ms: {e}")
            holder.extend(e)
