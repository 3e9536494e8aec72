#!/usr/bin/env python3
"""holdfast-chaos as it is used: on real clusters, from its command line.

Usage: chaos_cli.py BUILD [CLASS.test_name …]
"""
import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tools/chaos"))

import check  # noqa: E402
import cli  # noqa: E402
import conductor  # noqa: E402
import history  # noqa: E402
import leftovers  # noqa: E402

BUILD = None
TOOL = str(ROOT / "tools/chaos/holdfast-chaos")
PATIENCE_S = 120

SHORT = """# For tests.
[scenario]
title = Short
time = 4s
[cluster]
postgres = no
[workload]
name = orders-hot
clients = 3
pause-s = 0.01
[faults]
at 1s inject kill leader for 1s
at 1s inject pause n3 for 500ms
at 2500ms inject pause any for 500ms
"""


class Tool(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-ct-"))
        self.folder.chmod(0o711)
        self.scenario = self.folder / "short.scenario"
        self.scenario.write_text(SHORT)

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def run_tool(self, *words, status=None):
        done = subprocess.run([TOOL, *map(str, words), "--build", str(BUILD)], capture_output=True, text=True,
                              timeout=PATIENCE_S, stdin=subprocess.DEVNULL)
        if status is not None:
            self.assertEqual(done.returncode, status, f"{words}\n{done.stdout}\n{done.stderr}")
        self.assertNotIn("Traceback", done.stderr)
        return done

    def assert_nothing_left(self, token):
        """No process carries the mark of that stand, no directory is left."""
        mark = f"{leftovers.MARK}={token}".encode()
        left = []
        for p in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (p / "environ").read_bytes():
                    left.append((p.name, (p / "cmdline").read_bytes()[:80]))
        self.assertEqual(left, [])


class ByHand(Tool):
    def test_up_inject_heal_down(self):
        stand = self.folder / "s"
        at = ("--dir", stand)
        self.run_tool("status", *at, status=3)
        self.run_tool("up", "--nodes", 3, "--no-postgres", *at, status=0)
        try:
            token = (stand / "token").read_text()
            self.assertIn("is not empty", self.run_tool("up", *at, status=4).stderr)
            self.run_tool("inject", "pause", "leader", *at, status=0)
            rows = json.loads(self.run_tool("status", "--output", "json", *at, status=0).stdout)
            paused = [r["name"] for r in rows["parts"] if r["state"] == "paused"]
            self.assertEqual(len(paused), 1)
            self.assertEqual(rows["faults"], [f"pause {paused[0]}"])
            self.assertIn("active: pause " + paused[0], self.run_tool("heal", "kill", *at, status=4).stderr)
            self.run_tool("heal", "pause", paused[0], *at, status=0)
            self.assertIn("there is no 'n9' here", self.run_tool("inject", "kill", "n9", *at, status=4).stderr)
            self.run_tool("inject", "kill", "any", "--for", "500ms", *at, status=0)
            self.run_tool("inject", "kill", "n1", *at, status=0)
            self.run_tool("heal", "all", *at, status=0)
            rows = json.loads(self.run_tool("status", "--output", "json", *at, status=0).stdout)
            self.assertEqual({r["state"] for r in rows["parts"]}, {"running"})
            self.run_tool("inject", "pause", "n2", *at, status=0)
        finally:
            self.run_tool("down", *at, status=0)
        self.assert_nothing_left(token)
        self.run_tool("down", *at, status=3)

    def test_what_is_wrong_is_said(self):
        for words, status, expected in (
                (["inject", "quake", "n1"], 2, "no fault kind 'quake'; there are: "),
                (["inject", "kill", "n1", "how=hard"], 2, "no parameter 'how'"),
                (["inject", "kill", "pg"], 2, "kill cannot be done to pg; targets: leader"),
                (["inject", "kill", "n1", "hard"], 2, "'hard' is not NAME=VALUE"),
                (["inject", "kill", "n1", "--dir", self.folder / "no"], 3, "try: holdfast-chaos up"),
                (["kinds", "quake"], 2, "no fault kind 'quake'"),
                (["run", "no-such"], 2, "no scenario no-such; there are: "),
                (["run", self.scenario, "--workload", "nothing"], 2, "no workload nothing; there are: "),
                (["check", self.folder], 2, "is not a run: no run.json"),
                (["report", self.folder / "no"], 2, "is not a run"),
                (["replay", self.folder], 2, "is not a run"),
                (["shrink", self.folder], 2, "is not a run"),
                (["matrix", "--only", "nothing+none"], 2, "names no combination; workloads: "),
                (["soak"], 2, "say how long"),
                (["run", self.scenario, "--out", self.folder], 2, "is not empty")):
            self.assertIn(expected, self.run_tool(*words, status=status).stderr, words)
        self.scenario.write_text(SHORT.replace("pause any", "pause every"))
        self.assertIn(f"{self.scenario}:14: pause cannot be done to every", self.run_tool("run", self.scenario, status=2).stderr)
        self.scenario.write_text(SHORT.replace("clients = 3", "customers = 3"))
        self.assertIn("customers", self.run_tool("run", self.scenario, status=2).stderr)
        done = subprocess.run([TOOL, "run", str(self.scenario), "--build", "/nowhere"], capture_output=True, text=True,
                              timeout=PATIENCE_S)
        self.assertEqual(done.returncode, 2)
        self.scenario.write_text(SHORT)
        done = subprocess.run([TOOL, "run", str(self.scenario), "--build", "/nowhere"], capture_output=True, text=True,
                              timeout=PATIENCE_S)
        self.assertEqual(done.returncode, 3)
        self.assertIn("ninja -C /nowhere", done.stderr)
        (self.folder / "broken").mkdir()
        (self.folder / "broken/run.json").write_text("{")
        self.assertIn("is not a run: run.json: ", self.run_tool("check", self.folder / "broken", status=2).stderr)


class Runs(Tool):
    def test_run_check_report_replay(self):
        out, again = self.folder / "run", self.folder / "again"
        done = self.run_tool("run", self.scenario, "--seed", 7, "--out", out, "--keep", status=0)
        self.assertIn("good", done.stdout)
        for name in ("run.json", "history.jsonl", "verdict.json", "report.md", "timeline.svg", "nodes/n1.log", "data/n1"):
            self.assertTrue((out / name).exists(), name)
        run = json.loads((out / "run.json").read_text())
        self.assertEqual((run["seed"], run["ended"], len(run["schedule"])), (7, "finished", 3))
        past = history.read(out / "history.jsonl")
        self.assertEqual({c.status for c in past.calls} - {"ok", "refused"}, set())
        self.assertGreaterEqual(len(past.faults), 2)
        self.assertTrue(all(f.end for f in past.faults))
        (out / "verdict.json").unlink()
        (out / "report.md").unlink()
        self.run_tool("check", out, status=0)
        self.run_tool("report", out, status=0)
        self.assertTrue((out / "report.md").exists() and (out / "verdict.json").exists())
        self.assertIn("there is nothing to shrink", self.run_tool("shrink", out, status=4).stderr)
        self.run_tool("replay", out, "--out", again, status=0)
        self.assertEqual(json.loads((again / "run.json").read_text())["plan"], run["plan"])

    def test_a_history_that_was_touched_is_a_violation(self):
        out = self.folder / "run"
        self.run_tool("run", self.scenario, "--out", out, status=0)
        lines = (out / "history.jsonl").read_text().splitlines()
        at = max(i for i, line in enumerate(lines) if '"stock"' in line and '"ok"' in line)
        line = json.loads(lines[at])
        sku = next(iter(line["stock"]))
        line["stock"][sku][0] += 1
        lines[at] = json.dumps(line)
        (out / "history.jsonl").write_text("\n".join(lines) + "\n")
        self.run_tool("check", out, status=1)

    def test_interrupted(self):
        """It ends soon, leaves nothing running and says what there was; a fault was active."""
        self.scenario.write_text(SHORT.replace("time = 4s", "time = 100s").replace("leader for 1s", "leader"))
        out = self.folder / "run"
        child = subprocess.Popen([TOOL, "run", str(self.scenario), "--out", str(out), "--build", str(BUILD)],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            end = time.monotonic() + PATIENCE_S
            while time.monotonic() < end and '"kill"' not in self.text(out / "history.jsonl"):
                time.sleep(0.1)
            tokens = {p.name for p in leftovers.home().iterdir()}
            child.send_signal(signal.SIGINT)
            stdout, stderr = child.communicate(timeout=PATIENCE_S)
        finally:
            child.kill()
        self.assertEqual(child.returncode, 5, stdout + stderr)
        self.assertIn("interrupted", stdout)
        self.assertEqual(json.loads((out / "run.json").read_text())["ended"], "interrupted")
        for name in ("verdict.json", "report.md", "timeline.svg"):
            self.assertTrue((out / name).exists(), name)
        past = history.read(out / "history.jsonl")
        self.assertTrue(past.faults and all(f.end for f in past.faults))
        for pid in self.pids(str(out)):
            self.fail(f"process {pid} is left")
        self.assertTrue(tokens is not None)

    @staticmethod
    def text(path):
        return path.read_text() if path.exists() else ""

    @staticmethod
    def pids(word):
        """Whose log is in that directory."""
        for p in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(p / "fd/2").startswith(word):
                    yield p.name


class Many(Tool):
    def test_matrix_resumes_and_sums_up(self):
        out = self.folder / "m"
        words = ("matrix", "--time", "2s", "--only", "leases+kill-leader", "--only", "reads+gateway-kill", "--out", out)
        self.run_tool(*words, status=0)
        value = json.loads((out / "matrix.json").read_text())
        self.assertEqual([r["verdict"] for r in value["rows"]], ["good", "good"])
        self.assertIn("| leases |", (out / "matrix.md").read_text())
        self.run_tool(*words, "--only", "leases+pause-leader", "--resume", status=0)
        again = json.loads((out / "matrix.json").read_text())
        self.assertEqual(len(again["rows"]), 3)
        self.assertEqual(again["rows"][:2], value["rows"])

    def test_an_interrupted_matrix_ends(self):
        """Also when there is no cluster yet; what was not run is not called anything but that."""
        out = self.folder / "m"
        child = subprocess.Popen([TOOL, "matrix", "--only", "leases", "--out", str(out), "--build", str(BUILD)],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            end = time.monotonic() + PATIENCE_S
            while time.monotonic() < end and not list(out.glob("*/run.json")):
                time.sleep(0.05)
            child.send_signal(signal.SIGTERM)
            stdout, stderr = child.communicate(timeout=PATIENCE_S)
        finally:
            child.kill()
        self.assertEqual(child.returncode, 5, stdout + stderr)
        rows = json.loads((out / "matrix.json").read_text())["rows"]
        self.assertEqual([r["verdict"] for r in rows], ["no verdict"])

    def test_soak(self):
        out = self.folder / "s"
        self.run_tool("soak", "--minutes", "0.1", "--round", "3s", "--kinds", "kill,pause", "--out", out, status=0)
        self.assertIn("soak-1", (out / "soak.md").read_text())


class Shrinking(Tool):
    def test_a_failing_run_becomes_small(self):
        """A checker that calls every pause of a node a violation: the pause that is left is the whole schedule."""
        true_run = check.run

        def run(directory, only=None):
            verdict = true_run(directory, only)
            paused = [f for f in history.read(directory / "history.jsonl").faults if f.kind == "pause"]
            return Planted(verdict.as_dict(), bool(paused))

        class Planted:
            def __init__(self, value, bad):
                self.value = value
                self.value["checkers"].append({"checker": "planted", "ok": not bad, "looked_at": 1, "seconds": 0,
                                               "problems": ["a pause"] * bad, "problems_count": int(bad), "notes": []})
                self.value["ok"] = self.value["ok"] and not bad

            def as_dict(self):
                return self.value

        out, said = self.folder / "run", io.StringIO()
        self.scenario.write_text(SHORT.replace("time = 4s", "time = 3s").replace("at 2500ms", "at 2s"))
        conductor.check.run = run
        try:
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
                self.assertEqual(cli.main(["run", str(self.scenario), "--out", str(out), "--build", str(BUILD)]), 1)
                self.assertEqual(cli.main(["shrink", str(out), "--runs", "6", "--build", str(BUILD)]), 0)
        finally:
            conductor.check.run = true_run
        text = (out / "shrunk.scenario").read_text()
        faults_left = [line for line in text.splitlines() if line.startswith("at ")]
        self.assertEqual(len(faults_left), 1, text + said.getvalue())
        self.assertIn("inject pause", faults_left[0])
        # What is left is a scenario like any other.
        self.run_tool("run", out / "shrunk.scenario", "--out", self.folder / "small", status=0)


if __name__ == "__main__":
    BUILD = pathlib.Path(sys.argv[1]).resolve()
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], verbosity=2)
