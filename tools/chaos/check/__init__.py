"""The checkers of a run: each reads what the run left behind, none shares code with what it checks.

    verdict = check.run(directory)
    verdict.ok                       # every checker that could look is content, and none could not look
    verdict.as_dict()                # also written to directory/verdict.json

    {"ok": false, "checkers": [{"checker": "witness", "ok": false, "looked_at": 1234, "seconds": 0.8,
                                "problems": ["call 17 (…): …"], "problems_count": 1, "notes": ["…"]}, …]}

ok of a checker: true, false, or null: it had nothing to look at (notes say what is missing). A checker that
breaks is a checker that failed.

Reads of the directory: history.jsonl, final.json (Workload.collect), run.json: "checks" {
"first_ack_s": after each heal (default 10), "gap_s": without any acknowledgement while no fault is there
(default 10), "skip": []}.
"""


def run(directory, only=None):
    """Runs all checkers (or those named in `only`) and writes verdict.json. Returns the Verdict."""
    raise NotImplementedError
