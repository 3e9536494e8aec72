"""The nemesis: a schedule of faults from a seed. Same seed, same options, same kinds: the same schedule.

    events = schedule(seed, time_s=60, options=Options(kinds="all", mean_s=3), nodes=3, postgres=True, gateways=1)

It decides kind, target (a role), parameters, when and for how long; never which process a role is. Pure.

Rules: no more than `overlap` at once; a kind is not injected while it is active; what hurts stored data
(faults.Fault.alone) comes alone, with room before and behind, because the other nodes are needed to mend it; all is
healed in the last tenth of the time at the latest, so that the workload is seen to go on.
"""
import dataclasses
import pathlib
import random

import failpoints
import faults
from plan import Event, duration

START_S = 1.5
REST_S = 5.0   # behind a fault that hurts stored data
TARGETS = {"leader": 5, "follower": 3, "any": 2, "majority": 1, "minority": 1, "all": 0.7}
SHORTER = {"majority": 0.6, "all": 0.5}  # nobody is served meanwhile: less of it
# Rare, because each costs seconds in which nothing else can happen.
WEIGHTS = {"restart": 0.7, "power-loss": 0.7}
FIXED = ("bytes",)  # numbers that mean something as they are


@dataclasses.dataclass
class Options:
    kinds: object = "all"         # or a list of names
    mean_s: float = 3.0           # between the beginnings of two faults
    shortest_s: float = 0.5
    longest_s: float = 4.0
    overlap: int = 2

    @classmethod
    def of(cls, words):
        """From the lines of a scenario's [nemesis]. ValueError."""
        options = cls()
        if words.get("kinds", "all") != "all":
            options.kinds = words["kinds"].split()
        if "mean" in words:
            options.mean_s = duration(words["mean"])
        if "duration" in words:
            low, dots, high = words["duration"].partition("..")
            options.shortest_s, options.longest_s = duration(low), duration(high if dots else low)
        if "overlap" in words:
            if not words["overlap"].isdigit() or int(words["overlap"]) < 1:
                raise ValueError(f"overlap is a number from 1, not {words['overlap']}")
            options.overlap = int(words["overlap"])
        if options.mean_s <= 0 or not 0 < options.shortest_s <= options.longest_s:
            raise ValueError("mean is a time above 0, duration is SHORTEST..LONGEST")
        return options


def complain(kind, target=None, parameters=None):
    """Why this fault cannot be, anywhere; or None. target None: not looked at."""
    try:
        faults.make(None, kind, **(parameters or {}))
    except ValueError as e:
        absent = faults.ABSENT.get(kind)
        return f"{kind}: {absent}" if absent else str(e)
    if target is not None and not fits(target, faults.KINDS[kind].targets):
        return f"{kind} cannot be done to {target}; targets: {', '.join(faults.KINDS[kind].targets)}"
    return None


def fits(target, targets):
    """n2 fits nID, g1 fits gID; each part of n1+n2 must."""
    return all(t in targets or (t[:1] + "ID" in targets and t[1:].isdigit()) for t in target.split("+"))


def here(build):
    """({kind: class}, {kind: why not}) of this machine with these programs."""
    kinds, missing = faults.available(None)
    if "failpoint" in missing and failpoints.of_program(pathlib.Path(build) / "server/holdfastd"):
        kinds["failpoint"] = faults.KINDS["failpoint"]
        del missing["failpoint"]
    return kinds, missing


def usable(kinds=None, available=None):
    """Names, sorted: those asked for (None: all) that are there."""
    return sorted(k for k in faults.KINDS if (kinds is None or k in kinds) and (available is None or k in available))


def schedule(seed, time_s, options, nodes=3, postgres=True, gateways=1, available=None):
    """List of plan.Event in order of time."""
    rng = random.Random(f"nemesis {seed}")
    kinds = usable(None if options.kinds == "all" else options.kinds, available)
    events, end_s = [], time_s * 0.9
    t, quiet_until = START_S, 0.0
    while True:
        t += min(max(rng.expovariate(1 / options.mean_s), options.mean_s * 0.2), options.mean_s * 3)
        t = round(max(t, quiet_until), 3)
        active = [e for e in events if e.at_s + e.for_s > t]
        if t >= end_s - options.shortest_s:
            return events
        if len(active) >= options.overlap:
            continue
        choices = [k for k in kinds if k not in {e.kind for e in active} and not (faults.KINDS[k].alone and active)]
        if not choices:
            continue
        kind = rng.choices(choices, [WEIGHTS.get(k, 1) for k in choices])[0]
        targets = [x for x in targets_of(kind, nodes)
                   if x != "pg" or (postgres and not any(e.target == "pg" for e in active))]
        if not targets:
            continue
        target = rng.choices(targets, [TARGETS.get(x, 1) for x in targets])[0]
        lasts = rng.uniform(options.shortest_s, options.longest_s) * SHORTER.get(target, 1)
        lasts = round(min(lasts, end_s - t), 3)
        events.append(Event(t, kind, target, some_parameters(kind, rng), lasts))
        if faults.KINDS[kind].alone:
            quiet_until = t + lasts + REST_S


def targets_of(kind, nodes):
    """Roles; a place for itself only when the kind has no roles."""
    targets = [t for t in faults.KINDS[kind].targets if not t.endswith("ID")]
    if nodes < 3:
        targets = [t for t in targets if t not in ("follower", "minority", "majority")] or targets
    if faults.KINDS[kind].alone:
        targets = [t for t in targets if t not in ("majority", "all")] or targets
    return targets


def some_parameters(kind, rng):
    """Those with a list of values take one of them; numbers half, once or twice their default, now and then."""
    out = {}
    for p in faults.KINDS[kind].params:
        if "auto" in p.choices or p.name in FIXED:
            continue
        if p.choices:
            out[p.name] = rng.choice(p.choices)
        elif p.type in (int, float) and p.default and rng.random() < 0.5:
            value = p.default * rng.choice((0.5, 1, 2))
            out[p.name] = p.type(value) if p.type is int else min(value, 1.0) if 0 < p.default <= 1 else value
    return out
