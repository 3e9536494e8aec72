"""What a checker says, and what it is given."""
import json
import pathlib
import time

import history
from check.effects import gather

TEXTS_MAX = 12  # problems told in full; the others are counted


class Result:
    """Of one checker. wrong() for what must not be; note() for what a reader should know; skip() when it could not
    look at what it should; not_here() when a run has nothing of the kind."""

    def __init__(self, checker):
        self.checker = checker
        self.problems, self.problems_count, self.notes = [], 0, []
        self.looked_at = 0
        self.skipped, self.applies = False, True
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

    def not_here(self, text):
        self.applies = False
        self.notes.append(text)

    @property
    def ok(self):
        return None if self.skipped and not self.problems_count else not self.problems_count

    def as_dict(self):
        return {"checker": self.checker, "ok": self.ok, "applies": self.applies, "looked_at": self.looked_at,
                "seconds": round(self.seconds, 3), "problems": self.problems,
                "problems_count": self.problems_count, "notes": self.notes}


class Verdict:
    def __init__(self, results):
        self.results = results

    @property
    def ok(self):
        """False when a checker failed; None when none did, but one could not look."""
        states = [r.ok for r in self.results]
        return False if False in states else None if None in states or not states else True

    def failed(self):
        return [r.checker for r in self.results if r.ok is False]

    def as_dict(self):
        return {"ok": self.ok, "failed": self.failed(), "checkers": [r.as_dict() for r in self.results]}


class Case:
    """What a run left behind. final is None when it was not written, run is {} then."""

    def __init__(self, past, final=None, run=None):
        self.history, self.final, self.run = past, final, run or {}
        self._gathered = None

    def gathered(self, result=None):
        """(effects, echoes, doubtful) of the history: effects.py. Contradictions are told to result, if given."""
        if self._gathered is None:
            told = []
            self._gathered = (*gather(self.history, told.append), told)
        effects, echoes, doubtful, told = self._gathered
        for text in told if result is not None else ():
            result.wrong(text)
        return list(effects), echoes, doubtful

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
