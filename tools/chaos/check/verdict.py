"""What a checker says, and what it is given."""
import json
import pathlib
import time

import history

TEXTS_MAX = 12  # problems told in full; the others are counted


class Result:
    """Of one checker. wrong() for what must not be; note() for what a reader should know; skip() when there is
    nothing to look at."""

    def __init__(self, checker):
        self.checker = checker
        self.problems, self.problems_count, self.notes = [], 0, []
        self.looked_at = 0
        self.skipped = False
        self.seconds = 0.0

    def wrong(self, text):
        self.problems_count += 1
        if len(self.problems) < TEXTS_MAX:
            self.problems.append(text)

    def note(self, text):
        self.notes.append(text)

    def skip(self, text):
        self.skipped = True
        self.notes.append(text)

    @property
    def ok(self):
        return None if self.skipped and not self.problems_count else not self.problems_count

    def as_dict(self):
        return {"checker": self.checker, "ok": self.ok, "looked_at": self.looked_at,
                "seconds": round(self.seconds, 3), "problems": self.problems,
                "problems_count": self.problems_count, "notes": self.notes}


class Verdict:
    def __init__(self, results):
        self.results = results

    @property
    def ok(self):
        """A checker that had nothing to look at does not make a run good or bad; one that failed does."""
        return all(r.ok is not False for r in self.results) and any(r.ok for r in self.results)

    def failed(self):
        return [r.checker for r in self.results if r.ok is False]

    def as_dict(self):
        return {"ok": self.ok, "failed": self.failed(), "checkers": [r.as_dict() for r in self.results]}


class Case:
    """What a run left behind. final is None when it was not written, run is {} then."""

    def __init__(self, past, final=None, run=None):
        self.history, self.final, self.run = past, final, run or {}

    @classmethod
    def load(cls, directory):
        directory = pathlib.Path(directory)

        def read(name):
            path = directory / name
            return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        return cls(history.read(directory / "history.jsonl"), read("final.json"), read("run.json"))

    def checks(self, name, default):
        """A threshold of run.json."""
        return self.run.get("checks", {}).get(name, default)


def judge(name, check, case):
    """Runs one checker. One that breaks has failed."""
    result, begun = Result(name), time.monotonic()
    try:
        check(case, result)
    except Exception as e:  # of whatever kind: what it could not look at is not good
        trace, frames = e.__traceback__, []
        while trace is not None:
            frames.append(f"{pathlib.Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
            trace = trace.tb_next
        result.wrong(f"the checker broke: {e!r} at {frames[-1]}")
    result.seconds = time.monotonic() - begun
    return result
