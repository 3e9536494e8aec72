#!/usr/bin/env python3
"""Report and timeline: the figures of a known history; a picture that is well-formed and whose texts do not meet."""
import json
import pathlib
import random
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[2] / "tools/chaos")]

import check  # noqa: E402
import figures  # noqa: E402
import history  # noqa: E402
import report  # noqa: E402
import synthetic  # noqa: E402
import timeline  # noqa: E402
from test_checkers import recorded  # noqa: E402

S = 1_000_000_000
SVG = "{http://www.w3.org/2000/svg}"


def write(directory, lines, final, run):
    (directory / "history.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    (directory / "final.json").write_text(json.dumps(final))
    (directory / "run.json").write_text(json.dumps(run))
    check.run(directory)
    return report.write(directory)


def call(number, t, ret, **more):
    return [{"id": number, "client": 1, "ev": "call", "t": int(t * S), "op": "adjust", "sku": "A", "delta": 1, "key": f"k{number}",
             **more.pop("call", {})},
            {"id": number, "ev": "ret", "t": int(ret * S), "status": "ok", "code": "OK", "attempts": 1, "index": number, **more}]


def texts(svg):
    """(left, top, right, bottom, text) of each text of the picture, by what its characters take at most."""
    out = []
    for e in ElementTree.fromstring(svg).iter(SVG + "text"):
        size = float(e.get("font-size", 11))
        width = len(e.text) * timeline.CHAR * size / 11
        x, y = float(e.get("x")), float(e.get("y"))
        left = x - {"start": 0, "middle": width / 2, "end": width}[e.get("text-anchor")]
        out.append((left, y - size * 0.8, left + width, y + size * 0.2, e.text))
    return out


class Figures(unittest.TestCase):
    def test_of_a_known_history(self):
        lines = [x for n in range(10) for x in call(n + 1, n, n + 0.1)]
        lines += call(11, 10, 14, attempts=3, doubtful=True)
        lines += call(12, 14.5, 15, status="refused", code="SOLD_OUT", call={"late_ns": S})
        lines += [{"ev": "fault", "t": 10 * S, "kind": "kill", "target": "n1", "phase": "start"},
                  {"ev": "fault", "t": 13 * S, "kind": "kill", "target": "n1", "phase": "end"}]
        past = history.parse(lines)
        counts = figures.counts(past)
        self.assertEqual((12, 11, 1, 14, 1, {"SOLD_OUT": 1}),
                         tuple(counts[k] for k in ("asked", "ok", "refused", "attempts", "in_doubt_then_settled",
                                                   "refused_by_reason")))
        fault, = figures.faults(past)
        self.assertEqual((10, 3, 1), (fault["at_s"], fault["for_s"], fault["first_ack_after_heal_s"]))
        self.assertEqual(4, fault["longest_gap_s"])
        self.assertAlmostEqual(100, fault["before_ms"]["p50"])
        self.assertAlmostEqual(4000, fault["during_ms"]["p99"])
        self.assertAlmostEqual(1500, fault["after_ms"]["max"])  # waiting for one's turn counts
        self.assertAlmostEqual(4.9, figures.longest_gap(past)["s"])


class Picture(unittest.TestCase):
    def check_picture(self, svg):
        found = texts(svg)
        height = float(ElementTree.fromstring(svg).get("height"))
        for n, a in enumerate(found):
            self.assertTrue(0 <= a[0] and a[2] <= timeline.WIDTH and 0 <= a[1] and a[3] <= height, f"outside: {a}")
            for b in found[n + 1:]:
                self.assertFalse(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3], f"{a} and {b} meet")
        words = " ".join(t[4] for t in found)
        for unit in ("per second", "ms", "seconds"):
            self.assertIn(unit, words)

    def test_recorded_and_synthetic(self):
        for lines, _, _ in (recorded(), synthetic.make(2)):
            self.check_picture(timeline.svg(history.parse(lines), "a run, seed 1: good"))

    def test_many_faults_everywhere(self):
        for seed in range(8):
            rng = random.Random(seed)
            seconds = rng.choice((3, 60, 7200))
            lines = [x for n in range(300) for x in call(n + 1, n * seconds / 300, (n + rng.random()) * seconds / 300)]
            for n in range(rng.choice((1, 12, 60))):
                kind = rng.choice(("kill", "pause", "a-kind-with-a-very-long-name", "isolate"))
                at = rng.random() * seconds
                band = {"ev": "fault", "kind": kind, "target": f"n{n}-{rng.choice(('', 'and-n9'))}"}
                lines.append({**band, "t": int(at * S), "phase": "start"})
                if rng.random() < 0.9:
                    lines.append({**band, "t": int(min(seconds, at + rng.random() * seconds / 5) * S), "phase": "end"})
            for n in range(rng.choice((0, 3, 40))):
                lines.append({"ev": "note", "t": int(rng.random() * seconds * S), "text": "x", "leader": rng.randrange(6)})
            for phase in ("setup", "load", "heal", "settle"):
                lines.append({"ev": "note", "t": int(rng.random() * seconds * S), "text": phase, "phase": phase})
            lines.sort(key=lambda x: x["t"])
            with self.subTest(seed=seed):
                self.check_picture(timeline.svg(history.parse(lines), f"seed {seed}"))

    def test_nothing_happened(self):
        self.check_picture(timeline.svg(history.parse([]), "empty"))


class Report(unittest.TestCase):
    def test_says_what_a_person_asks(self):
        with tempfile.TemporaryDirectory() as name:
            directory = pathlib.Path(name)
            lines, final, run = recorded()
            r = write(directory, lines, final, {**run, "scenario": "two-kills", "workload": "mixed", "left_out":
                                                ["loss: needs root"], "command": "holdfast-chaos run two-kills --seed 1"})
            text = (directory / "report.md").read_text()
            for word in ("two-kills, seed 1: good", "| witness | good |", "| kill | n", "loss: needs root",
                         "holdfast-chaos run two-kills --seed 1", "SOLD_OUT", "| writes |"):
                self.assertIn(word, text)
            self.assertEqual(r, json.loads((directory / "report.json").read_text()))
            self.assertIn("<svg", (directory / "timeline.html").read_text())

    def test_a_failure_stands_at_the_top(self):
        with tempfile.TemporaryDirectory() as name:
            directory = pathlib.Path(name)
            lines, final, run = synthetic.make(3)
            next(iter(final["skus"].values()))["available"] += 1
            write(directory, lines, final, run)
            text = (directory / "report.md").read_text()
            self.assertIn("FAILED", text.splitlines()[0])
            self.assertIn("invariants", text.splitlines()[0])
            self.assertIn("### invariants: ", text)


if __name__ == "__main__":
    unittest.main()
