"""Every workload against every fault; the sample of it that CI runs; the soak.

    combinations()                      # all (workload, case)
    sample(combinations(), 12, seed=3)  # each workload and each fault as evenly as it can be
    Matrix(out, combos, time_s, seed, start).run()

A case is a name and a schedule that is stretched over the time of the run. What it owns: the list, and the summary
(matrix.md, matrix.json), written after each combination. What it refuses: to call good what was not run.

Each combination has a cluster of its own: a history is that of one cluster from its first entry, so that checkers need
no trust in what was before; setting one up takes about as long as telling that an old one is as new.
"""
import dataclasses
import fnmatch
import json
import pathlib
import random
import re
import time

import commands
import nemesis
import workload
from conductor import write_json
from plan import Event, Plan

WORKLOADS = workload.KINDS
RATE = {"matrix": 400, "soak": 200}  # calls/s: checkers take about as long as the workload did


@dataclasses.dataclass(frozen=True)
class Case:
    """Faults again and again: pattern is tried every every_s seconds from the second on."""
    name: str
    title: str
    pattern: tuple          # of (offset_s, kind, target, parameters, for_s)
    every_s: float = 6.0
    node_options: tuple = ()

    def kinds(self):
        return {p[1] for p in self.pattern}

    def schedule(self, time_s):
        events, at_s = [], min(1.5, time_s * 0.15)
        while at_s < time_s * 0.75 or not events:
            for offset, kind, target, parameters, for_s in self.pattern:
                begins = round(at_s + offset, 3)
                if begins < time_s * 0.85 or not events:
                    lasts = None if for_s is None else round(max(0.2, min(for_s, time_s * 0.92 - begins)), 3)
                    events.append(Event(begins, kind, target, dict(parameters), lasts))
            at_s += self.every_s
        return sorted(events, key=lambda e: e.at_s)


def often(kind, target, for_s, every_s=6.0, **parameters):
    return {"pattern": ((0.0, kind, target, tuple(parameters.items()), for_s),), "every_s": every_s}


def in_turn(every_s, *faults_):
    """One after the other, every_s apart, and again from the first."""
    pattern = tuple((i * every_s, kind, target, tuple(parameters.items()), for_s)
                    for i, (kind, target, for_s, parameters) in enumerate(faults_))
    return {"pattern": pattern, "every_s": every_s * len(faults_)}


FAST_CHECKPOINTS = ("--checkpoint-interval", "500ms", "--checkpoint-entries", "300")
CASES = (
    Case("kill-leader", "the leader is killed again and again", **often("kill", "leader", 1.5, 5.0)),
    Case("kill-all", "all nodes are killed at once while checkpoints are written", node_options=FAST_CHECKPOINTS,
         **often("kill", "all", 0.5, 7.0)),
    Case("pause-leader", "the leader stands still and wakes up", **often("pause", "leader", 2.0)),
    Case("rolling-restart", "all nodes are restarted, one after the other", **often("restart", "all", 0.5, 8.0)),
    Case("partition", "parts of the cluster do not hear each other", **in_turn(
        5.0, ("partition", "leader", 3.0, {"shape": "isolate", "clients": "yes"}), ("partition", "leader", 2.5, {"shape": "deaf"}),
        ("partition", "all", 3.0, {"shape": "majority-ring"}), ("partition", "leader", 2.5, {"shape": "mute"}))),
    Case("late-messages", "what the leader sends arrives late, all at once", **often("stall", "leader", 2.5)),
    Case("bad-network", "packets are lost, doubled, late, connections break", **in_turn(
        3.0, ("reset", "network", 3.0, {"every_ms": 300}), ("loss", "network", 3.0, {"percent": 8.0}),
        ("delay", "network", 3.0, {"delay_ms": 30, "jitter_ms": 30}), ("duplicate", "network", 3.0, {"percent": 20.0}))),
    Case("disk-full", "the leader's disk is full", **often("disk-full", "leader", 3.0, 8.0)),
    Case("disk-hangs", "the leader's disk hangs or crawls", **in_turn(
        7.0, ("stuck-disk", "leader", 3.0, {}), ("slow-disk", "leader", 3.0, {"delay_ms": 100}))),
    Case("disk-errors", "writes fail, or are torn", **in_turn(
        5.0, ("torn-write", "leader", 1.5, {"piece": "first"}), ("write-error", "any", 1.5, {}),
        ("torn-write", "follower", 1.5, {"piece": "last"}))),
    Case("bit-rot", "bits flip in a log or a checkpoint", **in_turn(
        9.0, ("bit-flip", "follower", 1.0, {"file": "log"}), ("bit-flip", "leader", 1.0, {"file": "checkpoint"}))),
    Case("power-loss", "power fails: one node, then all", **in_turn(
        6.0, ("power-loss", "all", 0.5, {}), ("power-loss", "leader", 1.0, {}))),
    Case("clocks", "clocks jump by an hour and run at a wrong rate", **in_turn(
        4.0, ("clock-jump", "leader", 3.0, {"wall_ms": 3600000}), ("clock-jump", "any", 3.0, {"wall_ms": -3600000}),
        ("clock-skew", "any", 3.0, {"wall_ppm": 1000, "monotonic_ppm": 1000}))),
    Case("database", "PostgreSQL freezes, is locked, refuses, dies", **in_turn(
        4.0, ("pg-freeze", "pg", 3.0, {}), ("pg-kill", "pg", 2.0, {}), ("pg-lock", "pg", 3.0, {"table": "outbox"}),
        ("pg-refuse", "pg", 2.0, {}))),
    Case("stale-standby", "a standby that lacks the last second takes over", **often(
        "pg-failover", "pg", 3.0, 10.0, behind_ms=1000)),
    Case("failpoints", "one bad moment between two lines, any (a build with -Dfailpoints=true)", **in_turn(
        3.0, ("failpoint", "leader", 2.5, {}), ("failpoint", "follower", 2.5, {}), ("failpoint", "gateway", 2.5, {}))),
    Case("gateway-kill", "the gateway dies with requests in its hands", **often("kill", "gateway", 0.5, 4.0)),
)


def case(name):
    return next((c for c in CASES if c.name == name), None)


def combinations():
    return [(w, c) for w in WORKLOADS for c in CASES]


def name_of(combination):
    return f"{combination[0]}+{combination[1].name}"


def only(combos, patterns):
    """Those that one of the patterns names. ValueError for a pattern that names none."""
    chosen = []
    for pattern in patterns:
        parts = re.split(r"[+×]|(?<=[*\]?])x(?=[*\[?a-z])|(?<=[a-z])x(?=\*)", pattern)
        if len(parts) == 1:
            parts = _split_x(pattern) or [pattern, "*"]
        left, right = parts[0], "+".join(parts[1:])
        found = [c for c in combos if fnmatch.fnmatch(c[0], left) and fnmatch.fnmatch(c[1].name, right)]
        if not found:
            raise ValueError(f"{pattern!r} names no combination; workloads: {', '.join(WORKLOADS)}; faults: "
                             f"{', '.join(c.name for c in CASES)}")
        chosen += found
    return [c for c in combos if c in chosen]


def _split_x(pattern):
    """"leasesxkill-leader": at the x that leaves two names."""
    for at, letter in enumerate(pattern):
        if letter == "x" and pattern[:at] in WORKLOADS and case(pattern[at + 1:]):
            return [pattern[:at], pattern[at + 1:]]
    return None


def sample(combos, count, seed):
    """So many, none twice: always one of those whose workload and fault were taken least."""
    rng = random.Random(f"sample {seed}")
    left, taken = list(combos), []
    rng.shuffle(left)
    while left and len(taken) < count:
        best = min(left, key=lambda c: (sum(t[1] is c[1] for t in taken) + sum(t[0] == c[0] for t in taken),
                                        sum(t[1] is c[1] for t in taken)))
        left.remove(best)
        taken.append(best)
    return taken


def plan_of(combination, time_s, seed):
    kind, c = combination
    return Plan(name_of(combination), f"{kind} while {c.title}", seed=seed, workload=kind, time_s=time_s,
                workload_options={"rate": RATE["matrix"]}, schedule=c.schedule(time_s), node_options=list(c.node_options))


def left_out(combination, here):
    """Why nothing of it can be done on this machine, or None. here: what nemesis.here() says."""
    kinds, missing = here
    wanted = sorted(combination[1].kinds())
    if any(k in kinds for k in wanted):
        return None
    return "; ".join(f"{k}: {missing.get(k, 'no such kind')}" for k in wanted)


class Summary:
    """rows of results and the two files of them."""

    def __init__(self, out, title, head):
        self.out, self.title, self.head, self.rows = pathlib.Path(out), title, head, []
        self.begun = time.time()

    def add(self, name, plan, result):
        counts = result.counts or {}
        self.rows.append({
            "name": name, "workload": plan.workload, "fault": name.partition("+")[2], "seed": plan.seed,
            "verdict": result.word, "failed": result.failed, "why": result.why, "calls": counts.get("calls", 0),
            "ok": counts.get("ok", 0), "retries": counts.get("retries", 0), "faults": result.faults,
            "left_out": result.left_out, "time_s": plan.time_s, "seconds": round(result.seconds, 1),
            "directory": str(result.directory)})
        self.write()

    def leave_out(self, name, why):
        self.rows.append({"name": name, "workload": name.partition("+")[0], "fault": name.partition("+")[2],
                          "verdict": "left out", "why": why, "failed": [], "calls": 0, "ok": 0, "faults": 0,
                          "left_out": [why], "seconds": 0.0})
        self.write()

    def count(self, verdict):
        return sum(r["verdict"] == verdict for r in self.rows)

    def words(self):
        kinds = [k for k in ("good", "VIOLATION", "no verdict", "could not run", "left out") if self.count(k)]
        return ", ".join(f"{self.count(k)} {k}" for k in kinds) or "nothing was run"

    def status(self):
        if self.count("VIOLATION"):
            return commands.VIOLATION
        if self.count("could not run"):
            return commands.ENVIRONMENT
        if self.count("no verdict") or not self.count("good"):
            return commands.UNKNOWN
        return commands.OK

    def totals(self):
        return {"runs": sum(r["verdict"] not in ("left out",) for r in self.rows), "calls": sum(r["calls"] for r in self.rows),
                "ok": sum(r["ok"] for r in self.rows), "faults": sum(r["faults"] for r in self.rows),
                "seconds": round(sum(r["seconds"] for r in self.rows), 1)}

    def write(self):
        write_json(self.out / f"{self.title}.json", {**self.head, "verdict": self.words(), "totals": self.totals(),
                                                     "rows": self.rows})
        (self.out / f"{self.title}.md").write_text(self.markdown())

    def markdown(self):
        totals = self.totals()
        lines = [f"# {self.title}", "", f"**{self.words()}.** {totals['runs']} runs, {totals['calls']} calls, "
                 f"{totals['faults']} faults, {totals['seconds'] / 60:.1f} minutes.", "", f"`{self.head.get('command', '')}`", ""]
        if self.title == "matrix":
            lines += self.grid()
        lines += ["| run | verdict | seed | calls | asked again | faults | seconds | |", "|---|---|---|---|---|---|---|---|"]
        for r in self.rows:
            lines.append(f"| {r['name']} | {r['verdict']} | {r.get('seed', '')} | {r['calls']} | {r.get('retries', '')} | "
                         f"{r['faults']} | {r['seconds']:g} | {r['why']} |")
        return "\n".join(lines) + "\n"

    def grid(self):
        """Workloads down, faults across."""
        short = {"good": "ok", "VIOLATION": "**X**", "left out": "–", "no verdict": "?", "could not run": "!"}
        names = [c.name for c in CASES if any(r["fault"] == c.name for r in self.rows)]
        cell = {(r["workload"], r["fault"]): short[r["verdict"]] for r in self.rows}
        lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for w in WORKLOADS:
            if any(r["workload"] == w for r in self.rows):
                lines.append(f"| {w} | " + " | ".join(cell.get((w, n), "") for n in names) + " |")
        return lines + ["", "ok: good; **X**: violation; ?: no verdict; !: could not run; –: cannot be done on this machine.", ""]


def read_rows(out):
    """Rows of an earlier, interrupted matrix that have a verdict."""
    try:
        rows = json.loads((pathlib.Path(out) / "matrix.json").read_text())["rows"]
    except (OSError, ValueError, KeyError):
        return []
    return [r for r in rows if r["verdict"] in ("good", "VIOLATION")]


def soak_plan(seed, time_s, kind, kinds, available):
    """A round: faults of every kind, by the seed."""
    options = nemesis.Options(kinds=kinds or "all", mean_s=4.0, shortest_s=0.5, longest_s=5.0, overlap=2)
    return Plan(f"soak-{seed}", "everything, for long", seed=seed, workload=kind, time_s=time_s,
                workload_options={"rate": RATE["soak"]}, schedule=nemesis.schedule(seed, time_s, options, available=available))
