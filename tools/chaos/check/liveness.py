"""Everybody is answered, and soon after what was broken is healed.

- Every call has returned, none is unknown in the end (they were asked again under their keys: Workload.settle).
- After the end of each fault, if no other is there: the first acknowledgement of a write within `first_ack_s`.
- No time without an acknowledgement longer than `gap_s`, except while a fault is there, and first_ack_s after.
- No client broke.

Thresholds: run.json, "checks" (10 s each unless given). Acknowledgement: any answer of the engine, refusals too.
"""
import bisect

FIRST_ACK_S, GAP_S = 10.0, 10.0


def ack_times(past):
    return sorted(c.t_ret for c in past.calls
                  if not c.is_read and c.t_ret is not None and c.status in ("ok", "refused") and c.index is not None)


def load_span(past):
    """(start, end) of the time in which clients asked: from the notes, else of the calls."""
    start = end = None
    for note in past.notes:
        if note.get("phase") == "load" and start is None:
            start = note["t"]
        elif note.get("phase") == "settle":
            end = note["t"]
    if start is None:
        start = past.calls[0].t if past.calls else 0
    if end is None:
        end = max((c.t for c in past.calls), default=0)
    return start, end


def heals(past):
    """Ends of faults at which nothing else was broken any more."""
    out = []
    for band in past.faults:
        if band.end is not None and not any(
                other.start < band.end and (other.end is None or other.end > band.end)
                for other in past.faults if other is not band):
            out.append(band)
    return out


def check(case, result):
    past = case.history
    first_ack = case.checks("first_ack_s", FIRST_ACK_S) * 1e9
    gap_max = case.checks("gap_s", GAP_S) * 1e9
    result.looked_at = len(past.calls)
    if past.torn:
        result.wrong("the history is cut off")
    if not past.calls:
        result.wrong("nobody asked anything")
        return
    open_calls = [c for c in past.calls if c.t_ret is None]
    unknown = [c for c in past.calls if c.status == "unknown"]
    for call in open_calls:
        result.wrong(f"never returned: {call}")
    for call in unknown:
        result.wrong(f"never settled: {call}")
    for note in past.notes:
        if " broke: " in note["text"]:
            result.wrong(note["text"])
    acks = ack_times(past)
    start, end = load_span(past)
    for band in heals(past):
        at = bisect.bisect_right(acks, band.end)
        waited = (acks[at] if at < len(acks) else past.end) - band.end
        if waited > first_ack and (band.end + first_ack <= end or at < len(acks)) and band.end < end:
            result.wrong(f"no acknowledgement for {waited / 1e9:.1f} s after {band.kind} of {band.target} was healed "
                         f"at {band.end / 1e9:.1f} s")
    _gaps(past, acks, start, end, first_ack, gap_max, result)


def _gaps(past, acks, start, end, first_ack, gap_max, result):
    explained = merge([(b.start, (b.end if b.end is not None else past.end) + first_ack) for b in past.faults])
    moments = [start, *(t for t in acks if start < t < end), end]
    for a, b in zip(moments, moments[1:]):
        if b - a <= gap_max:
            continue
        rest = b - a - sum(max(0, min(b, y) - max(a, x)) for x, y in explained)
        if rest > gap_max:
            result.wrong(f"no acknowledgement for {(b - a) / 1e9:.1f} s from {a / 1e9:.1f} s on, of which faults "
                         f"explain {(b - a - rest) / 1e9:.1f} s")


def merge(spans):
    out = []
    for a, b in sorted(spans):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(b, out[-1][1]))
        else:
            out.append((a, b))
    return out
