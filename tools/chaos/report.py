"""What a person reads after a run, at a glance first and in full below.

    report.write(directory)      # report.md, report.json, timeline.svg, timeline.html

Reads history.jsonl, verdict.json (check.run) and whatever is there of run.json: scenario, title, seed, workload,
nodes, command, replay, started, ended, seconds, left_out, versions, machine, problems. Decides nothing: the verdict
is the checkers'.
"""
import html
import json
import pathlib

import figures
import history
import timeline

FAULTS_SHOWN = 40
MARK = {True: "good", False: "**FAILED**", None: "could not look"}


def _load(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def gather(directory):
    """(report.json as a dict, History)"""
    directory = pathlib.Path(directory)
    past, run, verdict = history.read(directory / "history.jsonl"), _load(directory / "run.json"), \
        _load(directory / "verdict.json")
    writes = [figures.latency_ms(c) for c in figures.answered_writes(past)]
    reads = [figures.latency_ms(c) for c in past.calls if c.is_read and c.status == "ok"]
    return {
        "verdict": verdict.get("ok"), "failed": [c["checker"] for c in verdict.get("checkers", ()) if c["ok"] is False],
        "checkers": verdict.get("checkers", []),
        "run": {k: run[k] for k in ("scenario", "title", "seed", "workload", "nodes", "command", "replay", "started",
                                    "ended", "seconds", "versions", "machine", "problems") if run.get(k) is not None},
        "left_out": run.get("left_out", []),
        "seconds": round(past.end / 1e9, 3), "counts": figures.counts(past),
        "latency_ms": {"writes": figures.summary(writes), "reads": figures.summary(reads)},
        "longest_gap": figures.longest_gap(past), "leader_changes": figures.leader_changes(past),
        "faults": figures.faults(past),
    }, past


def _ms(value):
    if value is None:
        return "–"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _pair(s):
    return f"{_ms(s['p50'])} / {_ms(s['p99'])}" if s["count"] else "–"


def _seconds(value):
    return "–" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}"


def headline(r):
    word = {True: "good", False: "FAILED: " + ", ".join(r["failed"]),
            None: "no verdict: " + (", ".join(c["checker"] for c in r["checkers"] if c["ok"] is None) or "nothing")
                  + " could not look"}[r["verdict"]]
    return word


def title(r):
    run = r["run"]
    return f"{run.get('scenario', 'run')}, seed {run.get('seed', '?')}"


def markdown(r):
    c, run = r["counts"], r["run"]
    out = [f"# {title(r)}: {headline(r)}", ""]
    if run.get("title"):
        out += [run["title"], ""]
    out += [f"{r['seconds']:.1f} s, workload {run.get('workload', '?')}, {run.get('nodes', '?')} nodes; "
            f"{c['asked']} calls, {len(r['faults'])} faults, {r['leader_changes']} changes of leader; longest time "
            f"without an acknowledgement {_seconds(r['longest_gap']['s'])} s (at {r['longest_gap']['at_s']:.1f} s).",
            "", "![timeline](timeline.svg)", "", "## Checkers", "",
            "| checker | verdict | looked at | |", "|---|---|---|---|"]
    for k in r["checkers"]:
        mark = MARK[k["ok"]] if k.get("applies", True) or k["ok"] is False else "–"
        note = "; ".join(k["notes"])
        problems = f"{k['problems_count']} problems, see below" if k["problems_count"] else ""
        out.append(f"| {k['checker']} | {mark} | {k['looked_at']} | {'; '.join(t for t in (problems, note) if t)} |")
    for k in r["checkers"]:
        if k["problems"]:
            out += ["", f"### {k['checker']}: {k['problems_count']} problems", "", "```",
                    *k["problems"], "```"]
    out += ["", "## Faults", ""]
    if r["faults"]:
        out += ["Latency of writes, p50 / p99 in ms: in the 5 s before, during, in the 5 s after. Gap: the longest time "
                "without an acknowledgement from its start until 5 s after its end.", "",
                "| at, s | fault | target | for, s | before | during | after | gap, s | first answer after heal, s |",
                "|---:|---|---|---:|---:|---:|---:|---:|---:|"]
        for f in r["faults"][:FAULTS_SHOWN]:
            out.append(f"| {f['at_s']:.2f} | {f['kind']} | {f['target']} | {_seconds(f['for_s'])} | "
                       f"{_pair(f['before_ms'])} | {_pair(f['during_ms'])} | {_pair(f['after_ms'])} | "
                       f"{_seconds(f['longest_gap_s'])} | {_seconds(f['first_ack_after_heal_s'])} |")
        if len(r["faults"]) > FAULTS_SHOWN:
            out += ["", f"{len(r['faults']) - FAULTS_SHOWN} more in report.json."]
    else:
        out.append("None.")
    out += ["", "## Calls", "",
            f"{c['asked']} asked in {c['attempts']} attempts ({c['reads']} reads): {c['ok']} ok, {c['refused']} refused, "
            f"{c['unknown']} unknown, {c['open']} never returned. In doubt once and settled under their key: "
            f"{c['in_doubt_then_settled']}; asked more than once: {c['asked_again']}; answered from memory: "
            f"{c['replayed']}.", ""]
    if c["refused_by_reason"]:
        out += ["| refused | calls |", "|---|---:|", *(f"| {k} | {v} |" for k, v in c["refused_by_reason"].items()), ""]
    out += ["| operation | calls |", "|---|---:|", *(f"| {k} | {v} |" for k, v in c["by_operation"].items()), "",
            "| latency, ms | count | p50 | p90 | p99 | max |", "|---|---:|---:|---:|---:|---:|"]
    for name, s in r["latency_ms"].items():
        out.append(f"| {name} | {s['count']} | {_ms(s['p50'])} | {_ms(s['p90'])} | {_ms(s['p99'])} | {_ms(s['max'])} |")
    out += ["", "## Left out", ""]
    out += [f"- {text}" for text in r["left_out"]] or ["Nothing."]
    out += ["", "## Again", "", "```", run.get("replay") or run.get("command") or "the command was not recorded", "```",
            "", f"Begun with `{run.get('command', '?')}`, seed {run.get('seed', '?')}"
            + (f", at {run['started']}" if run.get("started") else "") + "."]
    for name in ("versions", "machine"):
        if run.get(name):
            value = run[name]
            out.append(f"{name.capitalize()}: " + (value if isinstance(value, str) else
                                                   ", ".join(f"{k} {v}" for k, v in value.items())) + ".")
    return "\n".join(out) + "\n"


def _below(r):
    """The verdict under the picture, for the HTML page."""
    rows = "".join(f"<tr><td>{html.escape(k['checker'])}</td><td>{html.escape(MARK[k['ok']].strip('*'))}</td>"
                   f"<td>{html.escape('; '.join([*k['problems'][:2], *k['notes']]))}</td></tr>" for k in r["checkers"])
    return f"<table><tr><th>checker</th><th>verdict</th><th></th></tr>{rows}</table>\n"


def write(directory):
    """Returns the dict of report.json."""
    directory = pathlib.Path(directory)
    r, past = gather(directory)
    name = f"{title(r)}: {headline(r)}"
    picture = timeline.svg(past, name)
    (directory / "report.md").write_text(markdown(r), encoding="utf-8")
    (directory / "report.json").write_text(json.dumps(r, indent=1) + "\n", encoding="utf-8")
    (directory / "timeline.svg").write_text(picture, encoding="utf-8")
    (directory / "timeline.html").write_text(timeline.html(picture, name, _below(r)), encoding="utf-8")
    return r
