"""One run: a plan is carried out, and a directory is left from which everything else works.

    result = Conductor(plan, out, build, progress).run()
    result.status        # of commands.py: OK, VIOLATION, ENVIRONMENT, UNKNOWN
    result.failed        # names of the checkers that found something

What it owns: the order of things. run.json first (so that whatever happens can be replayed), then the cluster, the
workload, the faults at their times, the heal, the settling, the end of all processes, checkers, report. What it
refuses: a directory with a run in it; to leave anything behind: whatever breaks, also Ctrl-C, the faults are healed and
the cluster is taken down, and what was written is checked and reported.

Faults are injected and healed one after the other by the main thread; a slow one delays the next, and the history has
the true times. A fault that cannot be done at its moment (a role nobody has) is left out with a note in the history.
"""
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import shutil
import subprocess
import threading
import time
import traceback

import check
import commands
import faults
import history
import report
import workload
from plan import Plan
from faults import needs
from stand import Interrupted, Stand

AFTER_HEAL_S = 2.0    # the workload goes on so long after the last heal
SETTLE_S = 60.0
READY_S = 60.0
FORMAT = 1


@dataclasses.dataclass
class Result:
    status: int
    failed: list
    directory: pathlib.Path
    why: str = ""
    verdict: dict = None
    counts: dict = dataclasses.field(default_factory=dict)
    faults: int = 0
    left_out: list = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False  # what would come after it is not wanted either

    @property
    def word(self):
        return {commands.OK: "good", commands.VIOLATION: "VIOLATION", commands.ENVIRONMENT: "could not run",
                commands.UNKNOWN: "no verdict"}[self.status]


class Conductor:
    def __init__(self, plan, out, build, progress, keep=False, command="", left_out=()):
        self.plan, self.out, self.build, self.progress, self.keep = plan, pathlib.Path(out), build, progress, keep
        self.command = command
        self.stand = self.load = self.history = None
        self.problems = []      # what the run itself found
        self.left_out = list(left_out)  # texts: what the plan's maker had to do without, for want of root or programs
        self.injected = []      # [fault, event], active
        self.count = 0
        self._phase, self._phase_begun, self.phases = "setup", time.monotonic(), {}
        self.leader = None
        self.begun = time.monotonic()
        self.load_begun = None
        self.stopping = threading.Event()
        self.interrupted = False

    @property
    def phase(self):
        return self._phase

    @phase.setter
    def phase(self, name):
        now = time.monotonic()
        self.phases[self._phase] = round(self.phases.get(self._phase, 0) + now - self._phase_begun, 1)
        self._phase, self._phase_begun = name, now

    # ---- the whole ----

    def run(self):
        prepare_directory(self.out)
        self.why = ""
        try:
            self.set_up()
        except Interrupted:
            self.interrupted = True
        except Exception as e:  # whatever it is, the cluster never served: nothing to check
            self.why = f"{type(e).__name__}: {e}"
            (self.out / "setup-failed.txt").write_text(traceback.format_exc())
        watcher = None
        try:
            if not self.why and not self.interrupted:
                watcher = threading.Thread(target=self.watch, daemon=True)
                watcher.start()
                self.hurt()
        except Interrupted:
            self.interrupted = True
        except Exception:
            self.problem("the run broke: " + traceback.format_exc())
        self.end(watcher)
        return self.judge()

    def set_up(self):
        plan = self.plan
        self.show()
        self.stand = make_stand(plan, self.build, (self.out / "nodes").resolve())
        kinds, missing = faults.available(self.stand)
        wanted = {e.kind for e in plan.schedule}
        gone = [f"{k}: {missing.get(k, 'not known here')}" for k in sorted(wanted - set(kinds))]
        self.left_out += gone
        self.schedule = [e for e in plan.schedule if e.kind in kinds]
        self.write_run()
        for text in gone:
            self.progress.say(f"left out: {text}")
        if wanted and not self.schedule:
            raise RuntimeError("none of its faults can be done here: " + "; ".join(gone))
        self.bring_up()
        self.history = history.Writer(self.out / "history.jsonl")
        options = workload.Options(kind=plan.workload, seed=plan.seed, **plan.workload_options)
        self.load = workload.Workload(self.stand, options, self.history)
        self.load.prepare()

    def bring_up(self):
        """Once more when it fails: a port can be gone between choosing and using it. Nothing is recorded yet."""
        for left in (1, 0):
            try:
                self.stand.up()
                return
            except (AssertionError, OSError) as e:
                if not left:
                    raise
                self.progress.say(f"the cluster did not come up ({str(e).splitlines()[0]}): once more")
                shutil.rmtree(self.out / "nodes", ignore_errors=True)
                self.stand = make_stand(self.plan, self.build, (self.out / "nodes").resolve())

    def hurt(self):
        self.load_begun = time.monotonic()
        self.load.start()
        self.phase = "faults"
        actions = sorted([(e.at_s, 1, i, e) for i, e in enumerate(self.schedule)] +
                         [(e.at_s + e.for_s, 0, i, e) for i, e in enumerate(self.schedule) if e.for_s is not None],
                         key=lambda a: a[:3])
        for at_s, begins, _, event in actions:
            if at_s > self.plan.time_s:
                break
            self.wait_until(at_s)
            self.inject(event) if begins else self.heal(event)
        self.wait_until(self.plan.time_s)

    def end(self, watcher):
        """Heal, settle, collect, take down. Nothing of this may be skipped because something else failed."""
        if self.load_begun is not None:
            self.guarded("heal", self.heal_all)
            if not self.interrupted:
                self.guarded("ready after the heal", self.stand.wait_ready)
                self.guarded("serve after the heal", lambda: self.wait_until(self.elapsed() + AFTER_HEAL_S))
            self.guarded("settle", self.settle)
            if not self.interrupted:
                self.guarded("collect", self.collect)
        self.stopping.set()
        if watcher is not None:
            watcher.join(30)
        self.phase = "down"
        self.show()
        if self.stand is not None:
            self.guarded("take down", self.take_down)
        if self.history is not None:
            self.history.close()

    def judge(self):
        result = Result(commands.ENVIRONMENT, [], self.out, self.why, faults=self.count, left_out=self.left_out,
                        seconds=time.monotonic() - self.begun, interrupted=self.interrupted)
        if self.load is not None:
            result.counts = self.load.counts()
        if self.why:
            self.ended("could not run: " + self.why)
            return result
        self.ended("interrupted" if self.interrupted else "finished")
        if self.history is None:
            result.status, result.why = commands.UNKNOWN, "interrupted before there was a cluster"
            return result
        self.phase = "check"
        self.show()
        result.verdict = judge_directory(self.out, self.problems)
        result.failed = [c["checker"] for c in result.verdict["checkers"] if c["ok"] is False]
        result.status = commands.VIOLATION if result.failed else \
            commands.UNKNOWN if self.interrupted or not result.verdict["ok"] else commands.OK
        result.why = "interrupted" if self.interrupted else f"{', '.join(result.failed)} failed" if result.failed else \
            "" if result.verdict["ok"] else "no checker had anything to look at"
        try:
            report.write(self.out)
        except Exception as e:
            self.progress.say(f"no report: {type(e).__name__}: {e}")
        result.seconds = time.monotonic() - self.begun
        return result

    # ---- faults ----

    def inject(self, event):
        fault = faults.make(self.stand, event.kind, **event.parameters)
        entry = (fault, event)

        def before(_):
            """Victims are known, nothing is done."""
            for other, _ in self.injected:
                if clash(fault, other):
                    raise faults.LeftOut(f"{other.describe()} is active")
            self.injected.append(entry)
            self.record(fault, "start")
        try:
            fault.inject(event.target, before)
            self.count += 1
        except (faults.LeftOut, ValueError) as e:
            self.note(f"left out: {event.text()}: {e}")
            self.progress.say(f"left out: {event.text()}: {e}")
        except Exception as e:  # inject() has healed what it had begun
            self.problem(f"{event.text()}: could not be injected: {type(e).__name__}: {e}")
        if fault.id is None and entry in self.injected:
            self.injected.remove(entry)
            self.record(fault, "end")

    def record(self, fault, phase):
        line = fault.event(phase)
        line.pop("ev")
        self.history.fault(line.pop("kind"), line.pop("target"), line.pop("phase"), **line)

    def heal(self, event):
        for entry in [x for x in self.injected if x[1] is event]:
            self.guarded(f"heal {entry[0].describe()}", lambda e=entry: self.heal_one(e))
            if self.interrupted:
                raise Interrupted

    def heal_one(self, entry):
        try:
            entry[0].heal()
        finally:
            self.injected.remove(entry)
            self.record(entry[0], "end")

    def heal_all(self):
        self.phase = "heal"
        self.note("heal", phase="heal")
        self.show()
        for entry in list(reversed(self.injected)):
            self.guarded(f"heal {entry[0].describe()}", lambda e=entry: self.heal_one(e))

    # ---- the end ----

    def settle(self):
        self.phase = "settle"
        self.load.stop()
        left = self.load.settle(5.0 if self.interrupted else SETTLE_S)
        for text in self.load.broken:
            self.problem(text)
        if left and not self.interrupted:
            self.problem(f"{left} calls have no answer {SETTLE_S:g} s after everything was healed")

    def collect(self):
        self.phase = "collect"
        self.show()
        url = self.stand.postgres.url if self.stand.postgres is not None else None
        self.load.collect(self.out, url)

    def take_down(self):
        if self.keep:
            for node in self.stand.nodes:
                node.stop()
                shutil.copytree(node.dir, self.out / "data" / node.name, dirs_exist_ok=True)
        for line in self.stand.down():
            self.problem(line)

    def guarded(self, what, do):
        """One step of the end. Ctrl-C shortens what follows; an error is the run's finding."""
        try:
            do()
        except Interrupted:
            self.interrupted = True
        except Exception as e:
            self.problem(f"{what}: {type(e).__name__}: {e}")

    def problem(self, text):
        self.problems.append(text)
        self.progress.say(text.splitlines()[0] if text else "")
        if self.history is not None:
            self.note("problem: " + text)

    # ---- what is shown and written ----

    def elapsed(self):
        return 0.0 if self.load_begun is None else time.monotonic() - self.load_begun

    def wait_until(self, at_s):
        while True:
            left = at_s - self.elapsed()
            self.show()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))

    def show(self):
        now = time.monotonic()
        rate, open_ = None, 0
        if self.load is not None and self.load_begun is not None:
            counts = self.load.counts()
            open_ = counts.get("open", 0)
            last = getattr(self, "_last", (self.load_begun, 0, 0.0))
            rate = last[2]
            if now - last[0] >= 1:
                rate = (counts["ok"] - last[1]) / (now - last[0])
                self._last = (now, counts["ok"], rate)
        self.progress.show(self.phase, self.elapsed() if self.load_begun else now - self.begun,
                           [f.describe() for f, _ in self.injected], rate, open_, self.leader)

    def watch(self):
        """Who leads, once a second, into the history when it changes."""
        while not self.stopping.wait(1.0):
            try:
                node = self.stand.leader()
            except Exception:
                node = None
            name = f"n{node.id}" if node else None
            if name != self.leader:
                self.leader = name
                self.note(f"leader {name or 'nobody'}", leader=node.id if node else 0)

    def note(self, text, **fields):
        if self.history is not None:
            try:
                self.history.note(text, **fields)
            except ValueError:
                pass  # closed

    def write_run(self):
        plan = self.plan
        value = {"format": FORMAT, "scenario": plan.name, "title": plan.title, "workload": plan.workload,
                 "seed": plan.seed, "nodes": plan.nodes, "command": self.command,
                 "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds"),
                 "replay": f"holdfast-chaos replay {self.out}", "plan": plan.to_json(),
                 "schedule": [e.text() for e in plan.schedule], "left_out": self.left_out,
                 "versions": versions(self.build), "machine": machine(),
                 "options": {"build": str(self.build)}, "ended": None}
        write_json(self.out / "run.json", value)

    def ended(self, how):
        path = self.out / "run.json"
        value = json.loads(path.read_text()) if path.exists() else {"format": FORMAT, "plan": self.plan.to_json()}
        value.update(ended=how, faults_injected=self.count, problems=self.problems,
                     phases_s=self.phases, seconds=round(time.monotonic() - self.begun, 1))
        write_json(path, value)


# ---- faults that meet ----

def clash(a, b):
    """Whether two faults would undo each other: they share a victim, and are of one family, or one of them ends
    the process that the other holds on to. Faults of the network and of clocks go with everything."""
    if not set(a.victims) & set(b.victims):
        return False
    families = [type(f).__module__.rpartition(".")[2] for f in (a, b)]
    return families[0] == families[1] or not set(families) & {"network", "clock"}


# ---- a run's directory ----

class NotARun(Exception):
    """This directory holds no run; the text says what is missing."""


def prepare_directory(out):
    """FileExistsError when something else is there."""
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty: give another directory, or remove it")


def read_run(directory):
    """run.json of a run, with its plan as Plan."""
    path = pathlib.Path(directory) / "run.json"
    try:
        value = json.loads(path.read_text())
        value["plan"] = Plan.from_json(value["plan"])
        return value
    except OSError as e:
        raise NotARun(f"{directory} is not a run: no run.json ({e.strerror})") from None
    except (ValueError, KeyError, TypeError) as e:
        raise NotARun(f"{directory} is not a run: run.json: {e}") from None


def judge_directory(out, problems=()):
    """All checkers, and what the run itself saw (kept in run.json); verdict.json as a dict."""
    verdict = check.run(out).as_dict()
    verdict["checkers"].insert(0, {"checker": "run", "ok": not problems, "looked_at": 1, "seconds": 0.0,
                                   "problems": list(problems)[:50], "problems_count": len(problems), "notes": []})
    verdict["ok"] = verdict["ok"] and not problems
    verdict["failed"] = [c["checker"] for c in verdict["checkers"] if c["ok"] is False]
    write_json(out / "verdict.json", verdict)
    return verdict


def write_json(path, value):
    """Whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(new, path)


def make_stand(plan, build, logs):
    """Not up yet; with what the kinds of the schedule need, as far as this machine has it."""
    wanted = {need for e in plan.schedule if e.kind in faults.KINDS for need in faults.KINDS[e.kind].needs}

    def have(need):
        return need in wanted and needs.missing([need], None) is None
    # Where it can be had, a network of its own: nobody else's connection can take the port of a node that is down.
    return Stand(build, nodes=plan.nodes, gateways=plan.gateways, postgres=plan.postgres, standby=have("standby"),
                 network=plan.network, own_disks=have("own-disk"), seed=plan.seed, logs=logs,
                 node_options=plan.node_options, gateway_options=plan.gateway_options)


def versions(build):
    out = {"python": platform.python_version(), "kernel": platform.release()}
    for name, path in (("holdfastd", "server/holdfastd"), ("gateway", "gateway/holdfast-gateway")):
        try:
            out[name] = subprocess.run([str(pathlib.Path(build) / path), "--version"], capture_output=True, text=True,
                                       timeout=20).stdout.strip()
        except OSError as e:
            out[name] = f"not there: {e.strerror}"
    try:
        out["commit"] = subprocess.run(["git", "-C", str(pathlib.Path(__file__).parent), "describe", "--always", "--dirty"],
                                       capture_output=True, text=True, timeout=20).stdout.strip()
    except OSError:
        pass
    return out


def machine():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 20)
    return f"{os.cpu_count()} CPUs, {memory} MiB, {platform.system()} {platform.release()}, " \
           f"{'root' if os.geteuid() == 0 else 'not root'}"
