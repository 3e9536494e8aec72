"""Makes a failing plan smaller: fewer faults, shorter ones, a shorter run, as long as the same checker fails.

    small, failed, runs = shrink(plan, try_plan, wanted={"witness"}, budget=60)

try_plan(plan) runs it and returns the names of the checkers that failed. A real cluster is not deterministic: a plan
that fails one time in three can look healed when it is not, so each candidate is tried `attempts` times before it is
given up. What comes back has failed at least once as it stands. Pure: running is the caller's.
"""
import dataclasses


class Budget(Exception):
    pass


def shrink(plan, try_plan, wanted, budget=60, attempts=1, tell=lambda text: None):
    """(the smallest plan found, the checkers it failed, how many runs it took)."""
    state = {"runs": 0, "failed": set(wanted)}

    def still_fails(candidate, what):
        for _ in range(attempts):
            if state["runs"] >= budget:
                raise Budget
            state["runs"] += 1
            failed = set(try_plan(candidate))
            hit = failed & set(wanted)
            tell(f"run {state['runs']}: {what}: {'still ' + ', '.join(sorted(hit)) if hit else 'no failure'}")
            if hit:
                state["failed"] = failed
                return True
        return False

    try:
        plan = _faults(plan, still_fails, lambda p: _set(state, p))
        plan = _time(plan, still_fails, lambda p: _set(state, p))
        plan = _durations(plan, still_fails, lambda p: _set(state, p))
    except Budget:
        plan = state.get("plan", plan)
        tell(f"stopped after {budget} runs")
    return plan, state["failed"], state["runs"]


def _set(state, plan):
    state["plan"] = plan
    return plan


def _with(plan, events):
    return dataclasses.replace(plan, schedule=list(events))


def _faults(plan, still_fails, keep):
    """Delta debugging: leave out halves, quarters, … single faults."""
    keep(plan)
    if plan.schedule and still_fails(_with(plan, []), "without any fault"):
        return keep(_with(plan, []))
    pieces = 2
    while len(plan.schedule) > 1:
        events = plan.schedule
        size = -(-len(events) // pieces)
        for at in range(0, len(events), size):
            rest = events[:at] + events[at + size:]
            if rest and still_fails(_with(plan, rest), f"{len(rest)} of {len(events)} faults"):
                plan = keep(_with(plan, rest))
                pieces = max(pieces - 1, 2)
                break
        else:
            if size == 1:
                break
            pieces = min(len(events), pieces * 2)
    return plan


def _time(plan, still_fails, keep):
    """Begin sooner, and end soon after the last fault."""
    if plan.schedule:
        early = min(e.at_s for e in plan.schedule) - 1.0
        if early > 0.5:
            moved = dataclasses.replace(plan, time_s=plan.time_s - early, schedule=[
                dataclasses.replace(e, at_s=round(e.at_s - early, 3)) for e in plan.schedule])
            if still_fails(moved, f"everything {early:.1f} s sooner"):
                plan = keep(moved)
    last = max((e.at_s + (e.for_s or 0) for e in plan.schedule), default=0)
    for time_s in (last + 1, last + (plan.time_s - last) / 2):
        if time_s < plan.time_s - 0.5:
            shorter = dataclasses.replace(plan, time_s=round(time_s, 1))
            if still_fails(shorter, f"{time_s:.1f} s instead of {plan.time_s:.1f} s"):
                return keep(shorter)
    return plan


def _durations(plan, still_fails, keep):
    for i in range(len(plan.schedule)):
        while (plan.schedule[i].for_s or 0) > 0.2:
            events = list(plan.schedule)
            half = round(events[i].for_s / 2, 3)
            events[i] = dataclasses.replace(events[i], for_s=half)
            if not still_fails(_with(plan, events), f"{events[i].kind} for {half:g} s"):
                break
            plan = keep(_with(plan, events))
    return plan
