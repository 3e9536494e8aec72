"""The checkers of a run: each reads what the run left behind, none shares code with what it checks.

    verdict = check.run(directory)
    verdict.ok                       # True; False: one failed; None: none failed, but one could not look
    verdict.as_dict()                # also written to directory/verdict.json

    {"ok": false, "failed": ["witness"],
     "checkers": [{"checker": "witness", "ok": false, "applies": true, "looked_at": 1234, "seconds": 0.8,
                   "problems": ["call 17 (…): …"], "problems_count": 1, "notes": ["…"]}, …]}

ok of a checker: true, false, or null: what it should look at is missing (notes say what). applies is false where a
run has nothing of the kind (no leases, no PostgreSQL). A checker that breaks is a checker that failed. Nothing is left
out to make a run pass.

Reads of the directory: history.jsonl, final.json (Workload.collect), and of run.json: "nodes" (how many members
must have answered in the end), "checks" {"first_ack_s": after each heal, "gap_s": without an acknowledgement
though nothing is broken; 10 each unless given}.
"""
import json
import pathlib

from check import acknowledged, invariants, leases, liveness, outbox, postgres, witness
from check.verdict import Case, Result, Verdict, judge

CHECKERS = {"witness": witness.check, "invariants": invariants.check, "acknowledged": acknowledged.check,
            "leases": leases.check, "postgres": postgres.check, "outbox": outbox.check, "liveness": liveness.check}


def check_case(case, only=None):
    """All checkers (or those named) over a Case. Returns the Verdict."""
    unknown = set(only or ()) - set(CHECKERS)
    if unknown:
        raise ValueError(f"no such checker: {', '.join(sorted(unknown))}; there are {', '.join(CHECKERS)}")
    return Verdict([judge(name, check, case) for name, check in CHECKERS.items() if only is None or name in only])


def run(directory, only=None):
    """Runs all checkers (or those named in `only`) and writes verdict.json. Returns the Verdict."""
    directory = pathlib.Path(directory)
    try:
        case = Case.load(directory)
    except (OSError, ValueError, KeyError) as e:
        result = Result("history")
        result.wrong(f"the run cannot be read: {e!r}")
        verdict = Verdict([result])
    else:
        verdict = check_case(case, only)
    with open(directory / "verdict.json", "w", encoding="utf-8") as f:
        json.dump(verdict.as_dict(), f, indent=1)
        f.write("\n")
    return verdict
