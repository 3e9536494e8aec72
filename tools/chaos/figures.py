"""Figures of a history: counts, latencies, gaps, recoveries. Pure; times in ns, results in s or ms.

Latency of a call: from when it should have begun (t - late_ns: at a rate, waiting for one's turn counts) to its
return, all attempts included.
"""
import bisect
import collections

from check.liveness import ack_times, load_span

AROUND_S = 5.0  # before a fault, and after it


def percentile(values, share):
    """Of a sorted list; None of an empty one."""
    if not values:
        return None
    return values[min(len(values) - 1, int(share * len(values)))]


def latency_ms(call):
    return (call.t_ret - call.t + call.get("late_ns", 0)) / 1e6


def answered_writes(past):
    """Writes with an answer of the engine, by time of return."""
    return sorted((c for c in past.calls if not c.is_read and c.t_ret is not None and c.index is not None
                   and c.status in ("ok", "refused")), key=lambda c: c.t_ret)


def summary(values):
    """values: ms. {"count", "p50", "p90", "p99", "max"}, ms to three digits."""
    values = sorted(values)
    out = {"count": len(values)}
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
        value = percentile(values, share)
        out[name] = None if value is None else round(value, 3)
    return out


def per_bucket(past, step_s):
    """(ok, refused): returns of all calls in each bucket."""
    count = int(past.end / 1e9 / step_s) + 1
    ok, refused = [0] * count, [0] * count
    for c in past.calls:
        if c.t_ret is not None and c.status in ("ok", "refused"):
            (ok if c.status == "ok" else refused)[min(count - 1, int(c.t_ret / 1e9 / step_s))] += 1
    return ok, refused


def latency_buckets(past, step_s):
    """(p50, p99) ms of the writes called in each bucket; None where there are none."""
    buckets = collections.defaultdict(list)
    for c in answered_writes(past):
        buckets[int(c.t / 1e9 / step_s)].append(latency_ms(c))
    count = int(past.end / 1e9 / step_s) + 1
    return [None if n not in buckets else (percentile(sorted(buckets[n]), 0.5), percentile(sorted(buckets[n]), 0.99))
            for n in range(count)]


def counts(past):
    """What was asked, and what came of it."""
    out = {"asked": len(past.calls), "ok": 0, "refused": 0, "unknown": 0, "open": 0, "reads": 0, "attempts": 0,
           "in_doubt_then_settled": 0, "asked_again": 0, "replayed": 0}
    reasons, ops = collections.Counter(), collections.Counter()
    for c in past.calls:
        out[c.status] += 1
        out["reads"] += c.is_read
        out["attempts"] += c.said("attempts", 0)
        out["asked_again"] += c.said("attempts", 1) > 1
        out["in_doubt_then_settled"] += bool(c.said("doubtful")) and c.status in ("ok", "refused")
        out["replayed"] += bool(c.said("replayed"))
        ops[c.op] += 1
        if c.status == "refused":
            reasons[c.code if c.index is not None else f"{c.code or 'no answer'} (nothing happened)"] += 1
    out["refused_by_reason"] = dict(reasons.most_common())
    out["by_operation"] = dict(ops.most_common())
    return out


def longest_gap(past):
    """{"s", "at_s"}: the longest time without an acknowledgement while clients asked, and when it began."""
    start, end = load_span(past)
    moments = [start, *(t for t in ack_times(past) if start < t < end), end]
    gap, at = max(((b - a, a) for a, b in zip(moments, moments[1:])), default=(0, 0))
    return {"s": round(gap / 1e9, 3), "at_s": round(at / 1e9, 3)}


def faults(past):
    """Each fault: when, how latency was before, during and after it, the longest gap from its start until
    AROUND_S after its end, and how long after its end the first acknowledgement came."""
    writes = answered_writes(past)
    calls = sorted(writes, key=lambda c: c.t)
    starts, returns = [c.t for c in calls], [c.t_ret for c in writes]

    def between(a, b):
        return summary(latency_ms(c) for c in calls[bisect.bisect_left(starts, a):bisect.bisect_left(starts, b)])
    out = []
    for band in past.faults:
        end = band.end if band.end is not None else past.end
        around = int(AROUND_S * 1e9)
        first = bisect.bisect_right(returns, end)
        inside = [band.start, *returns[bisect.bisect_left(returns, band.start):bisect.bisect_right(returns, end + around)]]
        gap = max((b - a for a, b in zip(inside, inside[1:])), default=None)
        out.append({
            "kind": band.kind, "target": str(band.target), "at_s": round(band.start / 1e9, 3),
            "for_s": None if band.end is None else round((band.end - band.start) / 1e9, 3),
            "before_ms": between(band.start - around, band.start), "during_ms": between(band.start, end),
            "after_ms": between(end, end + around),
            "longest_gap_s": None if gap is None else round(gap / 1e9, 3),
            "first_ack_after_heal_s": None if band.end is None or first >= len(returns)
            else round((returns[first] - end) / 1e9, 3)})
    return out


def leader_changes(past):
    seen, last = 0, None
    for note in past.notes:
        if note.get("leader"):
            seen += last is not None and note["leader"] != last
            last = note["leader"]
    return seen
