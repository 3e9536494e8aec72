"""holdfast-chaos's commands: values from the command line in, an exit status out (commands.EXITS)."""
import fnmatch
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time

import arguments
import commands
import faults
import leftovers
import nemesis
import pages
import scenario
from faults import needs
from commands import ENVIRONMENT, OK, REFUSED, UNKNOWN, USAGE, VIOLATION
from plan import duration_text
from progress import Progress
from stand import Interrupted

BUILD = pathlib.Path(__file__).resolve().parents[2] / "build"


class Stop(Exception):
    """Ends the command: status, and what to say."""

    def __init__(self, status, text, hint=""):
        super().__init__(text + (f"\ntry: {hint}" if hint else ""))
        self.status = status


def main(words):
    try:
        command, values = arguments.parse(words)
        if not words or values.help:
            print(pages.help(command.name if command else ""), end="", file=sys.stdout if words else sys.stderr)
            return OK if words else USAGE
    except arguments.UsageError as e:
        print(f"holdfast-chaos: {e}\ntry: holdfast-chaos {(e.args and e.command + ' ') if e.command else ''}--help",
              file=sys.stderr)
        return USAGE
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    values.build = (values.build or pathlib.Path(os.environ.get("HOLDFAST_BUILD", BUILD))).resolve()
    try:
        return HANDLERS[command.name](values)
    except Stop as e:
        print(f"holdfast-chaos: {e}", file=sys.stderr)
        return e.status
    except (scenario.ScenarioError, FileNotFoundError) as e:
        print(f"holdfast-chaos: {e}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OK
    except (KeyboardInterrupt, Interrupted):
        print("holdfast-chaos: interrupted", file=sys.stderr)
        return UNKNOWN


# ---- what commands share ----

def need_build(values):
    for name in ("server/holdfastd", "gateway/holdfast-gateway", "tools/ctl/holdfastctl"):
        if not (values.build / name).exists():
            raise Stop(ENVIRONMENT, f"{values.build / name} is not there",
                       f"meson setup {values.build} && ninja -C {values.build}, or give --build DIR")


def new_directory(values, what):
    """--out, made; or a new one below the temporary directory, whose name is said."""
    if values.out is None:
        values.out = pathlib.Path(tempfile.mkdtemp(prefix=f"holdfast-{what}-"))
        values.out.chmod(0o755)
        print(f"the run is left in {values.out}", file=sys.stderr)
        return values.out
    if values.out.exists() and (not values.out.is_dir() or any(values.out.iterdir())):
        raise Stop(USAGE, f"{values.out} is not empty", "another --out, or remove it")
    return values.out


def command_line():
    return "holdfast-chaos " + " ".join(sys.argv[1:])


def on_signals():
    """SIGINT, SIGTERM and SIGHUP raise Interrupted in the main thread."""
    def handle(*_):
        raise Interrupted
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)


def conduct(plan, out, values, keep=False, left_out=()):
    import conductor
    on_signals()
    progress = Progress(plan.name, quiet=values.quiet)
    try:
        return conductor.Conductor(plan, out, values.build, progress, keep, command_line(), left_out).run()
    finally:
        progress.close()


def tell(result, values):
    """A run's result, on standard output."""
    if values.output == "json":
        print(json.dumps({"status": result.status, "verdict": result.word, "failed": result.failed, "why": result.why,
                          "directory": str(result.directory), "counts": result.counts, "faults": result.faults,
                          "left_out": result.left_out, "seconds": round(result.seconds, 1)}))
        return
    tell_verdict(result.verdict)
    counts = result.counts or {}
    print(f"{result.word}{': ' + result.why if result.why else ''}")
    print(f"{counts.get('calls', 0)} calls, {counts.get('ok', 0)} ok, {counts.get('refused', 0)} refused, "
          f"{result.faults} faults, {result.seconds:.0f} s")
    for text in result.left_out:
        print(f"left out: {text}")
    print(f"report: {result.directory / 'report.md'}   again: holdfast-chaos replay {result.directory}")


def tell_verdict(verdict):
    for c in (verdict or {"checkers": []})["checkers"]:
        word = {True: "ok", False: "FAILED", None: "nothing to do"}[c["ok"]]
        print(f"{c['checker']:14} {word:12} looked at {c.get('looked_at', 0)}  {'; '.join(c.get('notes', []))}".rstrip())
        for problem in c.get("problems", [])[:10]:
            print("    " + problem.replace("\n", "\n    "))


# ---- a cluster to play with ----

def play_directory(values):
    if values.dir is None:
        import leftovers
        values.dir = leftovers.home() / "play"
    return values.dir


def open_stand(values):
    from stand import Stand
    try:
        return Stand.open(play_directory(values))
    except (OSError, ValueError, LookupError) as e:
        raise Stop(ENVIRONMENT, f"no cluster in {values.dir}: {e}", "holdfast-chaos up") from None


def do_up(values):
    from stand import Stand
    need_build(values)
    try:
        postgres = not values.no_postgres and not needs.missing(["postgres"], None)
        stand = Stand(values.build, play_directory(values), nodes=values.nodes, gateways=values.gateways, keep=True,
                      postgres=postgres, standby=postgres, network="auto", own_disks="auto",
                      node_options=values.node_option)
    except (ValueError, faults.LeftOut) as e:
        raise Stop(REFUSED, str(e), f"holdfast-chaos down --dir {values.dir}") from None
    try:
        stand.up()
    except Exception as e:
        raise Stop(ENVIRONMENT, f"the cluster does not come up: {e}") from None
    return do_status(values)


def do_down(values):
    for directory, removed in leftovers.sweep_abandoned():
        print(f"holdfast-chaos: removed what was left in {directory}: {removed}", file=sys.stderr)
    try:
        stand = open_stand(values)
    except Stop:  # it never came up whole, or parts of it are gone
        if not leftovers.sweep(play_directory(values)):
            raise
        return OK
    wrong = stand.down() or []
    for line in wrong:
        print(line, file=sys.stderr)
    return VIOLATION if wrong else OK


def do_status(values):
    stand = open_stand(values)
    rows, said = [], stand.statuses()
    for part in [*stand.nodes, *stand.gateways, *([stand.postgres] if stand.postgres else [])]:
        row = {"name": part.name, "state": "running" if part.running() else "not running"}
        if part in stand.nodes:
            row["state"] = "paused" if part.paused() else row["state"]
            status = said.get(part.id)
            row.update(address=part.address, role=status["role"] if status else "no answer")
        elif part in stand.gateways:
            row.update(address=part.url(), role="gateway")
        else:
            row.update(address=part.url, role="database")
        rows.append(row)
    active = [f.describe() for f in stand.active()]
    if values.output == "json":
        print(json.dumps({"directory": str(stand.directory), "parts": rows, "faults": active}))
    else:
        for row in rows:
            print(f"{row['name']:6} {row['state']:12} {row['role']:10} {row['address']}")
        for line in active or ["none"]:
            print(f"fault: {line}")
    return OK


def check_fault(kind, target, given):
    try:
        parameters = scenario.parameters(given)
    except ValueError as e:
        raise Stop(USAGE, str(e)) from None
    said = nemesis.complain(kind, target, parameters)
    if said:
        raise Stop(USAGE, said, f"holdfast-chaos kinds{' ' + kind if kind in faults.KINDS else ''}")
    return parameters


def do_inject(values):
    parameters = check_fault(values.KIND, values.TARGET, values.PARAMETER)
    stand = open_stand(values)
    lasts = getattr(values, "for")
    on_signals()
    try:
        fault = faults.make(stand, values.KIND, **parameters).inject(values.TARGET)
    except (faults.LeftOut, ValueError) as e:
        raise Stop(REFUSED, str(e), "holdfast-chaos status") from None
    print(fault.describe())
    if lasts is not None:
        try:
            time.sleep(lasts)
        finally:
            fault.heal()
            print(f"healed: {fault.describe()}")
    return OK


def do_heal(values):
    stand = open_stand(values)
    if len(values.TARGET) > 1:
        raise Stop(USAGE, f"heal: {values.TARGET[1]!r} is one too many")
    target = values.TARGET[0] if values.TARGET else None
    if values.KIND != "all" and values.KIND not in faults.KINDS:
        check_fault(values.KIND, None, [])
    active = list(stand.active())
    chosen = [f for f in active if values.KIND in ("all", f.kind) and
              (target is None or target == f.target or target in f.victims or target == "+".join(f.victims))]
    if not chosen and values.KIND != "all":
        raise Stop(REFUSED, f"{values.KIND}{' of ' + target if target else ''} is not active; active: "
                   f"{'; '.join(f.describe() for f in active) or 'nothing'}")
    for fault in reversed(chosen):
        fault.heal()
        print(f"healed: {fault.describe()}")
    return OK


def do_failpoints(values):
    import failpoints
    stand = open_stand(values)
    if not stand.failpoints:
        raise Stop(ENVIRONMENT, "these programs have no failpoints", "meson setup -Dfailpoints=true, and up with --build")
    try:
        name, = stand.resolve(values.NODE, ("leader", "follower", "any", "nID", "gateway", "gID"))
        points = failpoints.Socket(stand.failpoint_socket(name)).list()
    except (ValueError, OSError, failpoints.Refused) as e:
        raise Stop(REFUSED, f"{values.NODE}: {e}", "holdfast-chaos status") from None
    print(json.dumps([p._asdict() for p in points.values()]) if values.output == "json" else failpoints.table(points))
    return OK


# ---- lists ----

def do_kinds(values):
    for name in values.KIND:
        if name not in faults.KINDS and name not in faults.ABSENT:
            raise Stop(USAGE, nemesis.complain(name))
    kinds, left_out = nemesis.here(values.build)
    rows = []
    for name in sorted({*faults.KINDS, *faults.ABSENT}):
        if values.KIND and name not in values.KIND:
            continue
        cls = faults.KINDS.get(name)
        rows.append({"kind": name, "available": name in kinds, "why_not": left_out.get(name),
                     "doc": cls.doc if cls else "", "targets": list(cls.targets) if cls else [],
                     "needs": list(cls.needs) if cls else [],
                     "parameters": [{"name": p.name, "default": p.default, "doc": p.doc, "choices": list(p.choices)}
                                    for p in (cls.params if cls else ())]})
    if values.output == "json":
        print(json.dumps(rows))
        return OK
    for row in rows:
        print(f"{row['kind']:18} {row['doc']}")
        if row["targets"]:
            print(f"{'':18} targets: {', '.join(row['targets'])}{'   needs: ' + ', '.join(row['needs']) if row['needs'] else ''}")
        for p in row["parameters"]:
            print(f"{'':18} {p['name']}={p['default']}  {p['doc']}{': ' + ', '.join(map(str, p['choices'])) if p['choices'] else ''}")
        if not row["available"]:
            print(f"{'':18} NOT HERE: {row['why_not']}")
    print(f"\n{sum(r['available'] for r in rows)} of {len(rows)} kinds can be done here", file=sys.stderr)
    return OK


def do_scenarios(values):
    if values.NAME:
        for name in values.NAME:
            print(scenario.find(name).read_text(), end="")
        return OK
    rows = []
    for name in scenario.names():
        s = scenario.load(name, nemesis.complain)
        rows.append({"name": name, "title": s.base.title, "workload": s.base.workload, "time_s": s.base.time_s,
                     "about": s.about})
    if values.output == "json":
        print(json.dumps(rows))
        return OK
    for row in rows:
        print(f"{row['name']:36} {row['title']}")
    return OK


# ---- runs ----

def do_run(values):
    import workload
    if values.workload is not None and values.workload not in workload.KINDS:
        raise Stop(USAGE, f"no workload {values.workload}; there are: {', '.join(workload.KINDS)}")
    s = scenario.load(values.SCENARIO, nemesis.complain)
    check_workload(s.base)
    need_build(values)
    kinds, missing = nemesis.here(values.build)
    plan = s.plan(values.seed, values.time, values.workload, set(kinds))
    asked = None if s.options is None else set(faults.KINDS) if s.options.kinds == "all" else set(s.options.kinds)
    result = conduct(plan, new_directory(values, "run"), values, values.keep,
                     [f"{k}: {missing[k]}" for k in sorted(missing) if asked and k in asked])
    tell(result, values)
    return result.status


def check_workload(plan):
    import workload
    if plan.workload not in workload.KINDS:
        raise Stop(USAGE, f"no workload {plan.workload}; there are: {', '.join(workload.KINDS)}")
    try:
        workload.Options(kind=plan.workload, **plan.workload_options)
    except TypeError as e:
        raise Stop(USAGE, f"workload {plan.workload}: {str(e).split('() ')[-1]}") from None


def do_replay(values):
    import conductor
    plan = read_run(values.DIR)["plan"]
    need_build(values)
    out = new_directory(values, "replay")
    worst = OK
    for number in range(1, values.times + 1):
        directory = out if values.times == 1 else out / str(number)
        result = conduct(plan, directory, values)
        tell(result, values)
        worst = worst if worst == VIOLATION or result.status == OK else result.status
        if result.interrupted:
            break
    return worst


def read_run(directory):
    import conductor
    try:
        return conductor.read_run(directory)
    except conductor.NotARun as e:
        raise Stop(USAGE, str(e), "holdfast-chaos run SCENARIO --out DIR, which makes one") from None


def do_check(values):
    import conductor
    run = read_run(values.DIR)
    if not (values.DIR / "history.jsonl").exists():
        raise Stop(UNKNOWN, f"{values.DIR} has no history: {run.get('ended')}")
    verdict = conductor.judge_directory(values.DIR, run.get("problems", []))
    if values.output == "json":
        print(json.dumps(verdict))
    else:
        tell_verdict(verdict)
        print("good" if verdict["ok"] else "not good")
    return VIOLATION if verdict["failed"] else OK if verdict["ok"] else UNKNOWN


def do_report(values):
    import report
    read_run(values.DIR)
    if not (values.DIR / "history.jsonl").exists():
        raise Stop(UNKNOWN, f"{values.DIR} has no history: nothing to report")
    report.write(values.DIR)
    print(values.DIR / "report.md")
    return OK


def do_shrink(values):
    from shrink import shrink
    import conductor
    run = read_run(values.DIR)
    try:
        verdict = json.loads((values.DIR / "verdict.json").read_text())
    except (OSError, ValueError):
        raise Stop(USAGE, f"{values.DIR} has no verdict", f"holdfast-chaos check {values.DIR}") from None
    wanted = {c["checker"] for c in verdict["checkers"] if c["ok"] is False}
    if not wanted:
        raise Stop(REFUSED, f"no checker failed in {values.DIR}: there is nothing to shrink")
    need_build(values)
    folder = values.DIR / "shrink"
    if folder.exists():
        shutil.rmtree(folder)
    number = 0

    def try_plan(plan):
        nonlocal number
        number += 1
        result = conduct(plan, folder / f"{number:03}", values)
        if result.interrupted:
            raise Interrupted
        return set(result.failed)

    best = [run["plan"]]
    try:
        plan, failed, runs = shrink(run["plan"], try_plan, wanted, values.runs, values.attempts,
                                    lambda text: print(text, file=sys.stderr))
        best, status = [plan], OK
        print(f"{len(run['plan'].schedule)} faults in {duration_text(run['plan'].time_s)} → {len(plan.schedule)} in "
              f"{duration_text(plan.time_s)}, {runs} runs; still failing: {', '.join(sorted(failed))}")
    except Interrupted:
        print("interrupted: what was tried is in " + str(folder), file=sys.stderr)
        return UNKNOWN
    (values.DIR / "shrunk.scenario").write_text(best[0].scenario_text())
    print(best[0].scenario_text(), end="")
    print(f"again: holdfast-chaos run {values.DIR / 'shrunk.scenario'} --seed {best[0].seed}", file=sys.stderr)
    return status


# ---- many runs ----

def do_matrix(values):
    import matrix
    combos = matrix.combinations()
    try:
        combos = matrix.only(combos, values.only) if values.only else combos
    except ValueError as e:
        raise Stop(USAGE, str(e)) from None
    here = nemesis.here(values.build)
    possible = [c for c in combos if not matrix.left_out(c, here)]
    if values.sample is not None:
        combos = matrix.sample(possible, values.sample, values.seed)
    if values.list:
        for c in combos:
            why = matrix.left_out(c, here)
            print(f"{matrix.name_of(c):40} {'left out: ' + why if why else c[1].title}")
        print(f"{len(combos)} combinations", file=sys.stderr)
        return OK
    need_build(values)
    earlier = matrix.read_rows(values.out) if values.resume and values.out else []
    out = values.out if earlier else new_directory(values, "matrix")
    out.mkdir(parents=True, exist_ok=True)
    summary = matrix.Summary(out, "matrix", {"command": command_line(), "seed": values.seed, "time_s": values.time})
    summary.rows = earlier
    done = {r["name"] for r in earlier}
    for number, combo in enumerate(combos, 1):
        name = matrix.name_of(combo)
        if name in done:
            continue
        why = matrix.left_out(combo, here)
        if why:
            summary.leave_out(name, why)
            continue
        directory = out / name
        if directory.exists():
            shutil.rmtree(directory)  # of an interrupted run
        plan = matrix.plan_of(combo, values.time, values.seed)
        result = conduct(plan, directory, values)
        summary.add(name, plan, result)
        say_row(values, f"{number}/{len(combos)} {name}", result)
        if result.interrupted:
            break
        slim(result)
    return tell_summary(summary, values)


def say_row(values, name, result):
    if values.output != "json":
        print(f"{name:44} {result.word:12} {result.counts.get('calls', 0):6} calls {result.faults:3} faults "
              f"{result.seconds:5.1f} s  {result.why}".rstrip(), flush=True)


def slim(result):
    """Of good runs only what is read afterwards is kept: histories are large."""
    if result.status == OK:
        for name in ("history.jsonl", "final.json", "timeline.html"):
            (result.directory / name).unlink(missing_ok=True)
        shutil.rmtree(result.directory / "nodes", ignore_errors=True)


def tell_summary(summary, values):
    if values.output == "json":
        print((summary.out / f"{summary.title}.json").read_text(), end="")
    else:
        print(f"{summary.words()}: {summary.out / (summary.title + '.md')}")
    return summary.status()


def do_soak(values):
    import matrix
    import workload
    try:
        hours = float(values.hours or 0) + float(values.minutes or 0) / 60
    except ValueError:
        raise Stop(USAGE, "--hours and --minutes are numbers") from None
    if hours <= 0:
        raise Stop(USAGE, "soak: say how long: --hours H or --minutes M")
    if values.workload not in workload.KINDS:
        raise Stop(USAGE, f"no workload {values.workload}; there are: {', '.join(workload.KINDS)}")
    kinds = values.kinds.split(",") if values.kinds else None
    for kind in kinds or []:
        if said := nemesis.complain(kind):
            raise Stop(USAGE, said)
    need_build(values)
    available, missing = nemesis.here(values.build)
    out = new_directory(values, "soak")
    out.mkdir(parents=True, exist_ok=True)
    summary = matrix.Summary(out, "soak", {"command": command_line(), "seed": values.seed, "left_out": missing})
    end, seed = time.monotonic() + hours * 3600, values.seed
    while time.monotonic() < end:
        time_s = min(getattr(values, "round"), max(10.0, end - time.monotonic()))
        plan = matrix.soak_plan(seed, time_s, values.workload, kinds, set(available))
        result = conduct(plan, out / plan.name, values, left_out=[f"{k}: {missing[k]}" for k in sorted(missing)])
        summary.add(plan.name, plan, result)
        say_row(values, plan.name, result)
        if result.interrupted or values.stop and result.status != OK:
            break
        slim(result)
        seed += 1
    return tell_summary(summary, values)


def do_pages(values):
    wrong = pages.write(values.check)
    for path in wrong:
        print(f"{path} {'is not what the command table says: holdfast-chaos pages' if values.check else 'written'}")
    return VIOLATION if wrong and values.check else OK


HANDLERS = {"up": do_up, "down": do_down, "status": do_status, "inject": do_inject, "heal": do_heal, "kinds": do_kinds,
            "scenarios": do_scenarios, "run": do_run, "matrix": do_matrix, "soak": do_soak, "check": do_check,
            "report": do_report, "shrink": do_shrink, "replay": do_replay, "failpoints": do_failpoints,
            "pages": do_pages}
