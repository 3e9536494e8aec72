#!/usr/bin/env python3
"""What of holdfast-chaos needs no process: the command line, scenario files, the nemesis, shrinking, progress.

Usage: chaos_plan.py [CLASS.test_name]
"""
import io
import pathlib
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tools/chaos"))

import arguments  # noqa: E402
import commands  # noqa: E402
import faults  # noqa: E402
import matrix  # noqa: E402
import nemesis  # noqa: E402
import pages  # noqa: E402
import scenario  # noqa: E402
from plan import Event, Plan, duration, duration_text  # noqa: E402
from progress import Progress  # noqa: E402
from shrink import shrink  # noqa: E402


class CommandLine(unittest.TestCase):
    def refused(self, line, expected):
        with self.assertRaises(arguments.UsageError) as caught:
            arguments.parse(line.split())
        self.assertIn(expected, str(caught.exception))

    def test_what_is_wrong_is_said(self):
        self.refused("rnu x", "no command rnu, did you mean run?")
        self.refused("run", "SCENARIO is missing")
        self.refused("run a b", "'b' is one too many")
        self.refused("run a --sede 3", "no option --sede, did you mean --seed?")
        self.refused("run a --seed", "--seed needs N")
        self.refused("run a --seed x", "'x' is not a number")
        self.refused("run a --seed 1 --seed 2", "--seed is given twice")
        self.refused("run a --time fast", "'fast' is not a time: write 200ms, 3s, 5m or 1h")
        self.refused("run a --time 0", "a time above 0")
        self.refused("up --nodes 0", "'0' is not a number from 1")
        self.refused("kinds --output yaml", "one of table, json")
        self.refused("matrix --list=1", "--list takes no value")

    def test_values(self):
        command, values = arguments.parse("inject --dir /d partition leader mode=isolate p=0.5 --for=3s".split())
        self.assertEqual(command.name, "inject")
        self.assertEqual((values.KIND, values.TARGET, values.PARAMETER), ("partition", "leader", ["mode=isolate", "p=0.5"]))
        self.assertEqual(values.__dict__["for"], 3.0)
        _, values = arguments.parse(["matrix"])
        self.assertEqual((values.time, values.seed, values.only, values.sample), (20.0, 1, [], None))

    def test_every_command_is_described_and_its_examples_parse(self):
        for c in commands.COMMANDS:
            self.assertTrue(c.summary and c.help and c.examples, c.name)
            for line in c.examples.splitlines():
                words = line.replace("'", "").split()
                self.assertEqual(words[:2], ["holdfast-chaos", c.name], line)
                self.assertIs(arguments.parse(words[1:])[0], c)
            text = pages.help(c.name)
            for p in c.parameters:
                self.assertIn(p.name, text)

    def test_help_fits_a_terminal(self):
        for topic in ["", *[c.name for c in commands.COMMANDS]]:
            for line in pages.help(topic).splitlines():
                self.assertLessEqual(len(line), 115, line)


    def test_the_man_page_is_roff(self):
        if not shutil.which("groff"):
            self.skipTest("no groff")
        done = subprocess.run(["groff", "-man", "-ww", "-z", "-Kutf8"], input=pages.man(), capture_output=True, text=True,
                              timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


GOOD = """# A first line, and
# a second.
[scenario]
title = A test   # with a comment
time = 20s
[cluster]
nodes = 5
postgres = no
node-options = --checkpoint-interval 1s
[workload]
name = mixed
clients = 4
pause-s = 0.5
[faults]
at 5s inject kill leader for 3s
at 1500ms inject pause n2
at 9s heal pause
at 10s inject kill n5
"""


class Scenarios(unittest.TestCase):
    def test_a_good_one(self):
        s = scenario.parse(GOOD, "test", "test.scenario", nemesis.complain)
        plan = s.plan(7)
        self.assertEqual((plan.title, plan.time_s, plan.nodes, plan.postgres), ("A test", 20.0, 5, False))
        self.assertEqual(plan.workload_options, {"clients": 4, "pause_s": 0.5})
        self.assertEqual(plan.node_options, ["--checkpoint-interval", "1s"])
        self.assertEqual([e.text() for e in plan.schedule],
                         ["at 1.5s inject pause n2 for 7.5s", "at 5s inject kill leader for 3s", "at 10s inject kill n5"])
        self.assertEqual(s.about, "A first line, and\na second.")
        # A plan writes itself as a scenario, and comes back from JSON, unchanged.
        again = scenario.parse(plan.scenario_text(), "test", "again", nemesis.complain).plan(7)
        self.assertEqual(again, plan)
        self.assertEqual(Plan.from_json(plan.to_json()), plan)

    def test_bad_lines_are_named(self):
        for change, line, expected in (
                (("[cluster]", "[clutser]"), 6, "no section [clutser]"),
                (("nodes = 5", "nodes = 50"), 7, "nodes is a number from 1 to 9"),
                (("nodes = 5", "noeds = 5"), 7, "[cluster] has no noeds"),
                (("nodes = 5", "nodes = 3"), 18, "there is no node n5: the cluster has 3"),
                (("postgres = no", "postgres = maybe"), 8, "postgres is yes or no"),
                (("time = 20s", "time = 8s"), 18, "10 s is after the end of the run"),
                (("time = 20s", "time"), 5, "'time' is not NAME = VALUE"),
                (("postgres = no", "nodes = 4"), 8, "nodes is here twice, first in line 7"),
                (("kill leader for 3s", "kil leader"), 15, "no fault kind 'kil'"),
                (("kill leader for 3s", "kill leader how=hard"), 15, "no parameter 'how'"),
                (("kill leader for 3s", "kill pg"), 15, "kill cannot be done to pg"),
                (("kill leader for 3s", "kill leader for soon"), 15, "'soon' is not a time"),
                (("kill leader for 3s", "kill leader for 3s 4s"), 15, "ends the line"),
                (("at 5s inject kill", "in 5s inject kill"), 15, "is not `at TIME inject"),
                (("at 9s heal pause", "at 9s heal kill"), 17, "nothing to heal"),
                (("[scenario]", "nodes = 3\n[scenario]"), 3, "before the first section"),
                (("[faults]", "[nemesis]\nkinds = kill quake\n[faults]"), 15, "no fault kind 'quake'"),
                (("[faults]", "[nemesis]\nmean = 0\n[faults]"), 14, "mean is a time above 0")):
            self.assertIn(change[0], GOOD)
            with self.assertRaises(scenario.ScenarioError) as caught:
                scenario.parse(GOOD.replace(*change, 1), "test", "f.scenario", nemesis.complain)
            self.assertTrue(str(caught.exception).startswith(f"f.scenario:{line}: "), caught.exception)
            self.assertIn(expected, str(caught.exception))

    def test_those_that_come_with_the_tool(self):
        self.assertGreaterEqual(len(scenario.names()), 12)
        for name in scenario.names():
            s = scenario.load(name, nemesis.complain)
            plan = s.plan(1)
            self.assertTrue(plan.title and s.about and plan.schedule, name)
            self.assertRegex(name, r"^[a-z0-9-]+$")

    def test_unknown(self):
        with self.assertRaises(FileNotFoundError) as caught:
            scenario.load("no-such")
        self.assertIn(scenario.names()[0], str(caught.exception))

    def test_times(self):
        for text, seconds in (("3", 3), ("3s", 3), ("200ms", 0.2), ("1.5s", 1.5), ("2m", 120), ("1h", 3600)):
            self.assertEqual(duration(text), seconds)
        for seconds in (0.001, 0.25, 1, 1.234, 3, 12.5, 61, 3600):
            self.assertAlmostEqual(duration(duration_text(seconds)), seconds)

    def test_stretched(self):
        plan = scenario.parse(GOOD, "t", "t").plan(1, time_s=6)
        self.assertEqual([(e.at_s, e.for_s) for e in plan.schedule], [(1.5, 4.5)])


class Nemesis(unittest.TestCase):
    def make(self, seed, time_s=300, **options):
        return nemesis.schedule(seed, time_s, nemesis.Options(**options))

    def test_the_seed_decides(self):
        self.assertEqual(self.make(5), self.make(5))
        self.assertNotEqual(self.make(5), self.make(6))

    def test_rules(self):
        for seed in range(200):
            events = self.make(seed, overlap=2)
            self.assertGreater(len(events), 20)
            for e in events:
                self.assertIsNone(nemesis.complain(e.kind, e.target, e.parameters))
                self.assertLessEqual(e.at_s + e.for_s, 300 * 0.9 + 0.001)
                during = [f for f in events if f is not e and f.at_s <= e.at_s < f.at_s + f.for_s]
                self.assertLess(len(during), 2)
                self.assertNotIn(e.kind, [f.kind for f in during])
                if faults.KINDS[e.kind].alone:
                    self.assertEqual(during, [])
                    self.assertNotIn(e.target, ("all", "majority"))
                for f in during:
                    self.assertFalse(faults.KINDS[f.kind].alone)

    def test_every_kind_comes(self):
        seen = {e.kind for seed in range(60) for e in self.make(seed)}
        self.assertEqual(seen, set(faults.KINDS))

    def test_only_what_is_asked_for_and_there(self):
        self.assertEqual({e.kind for e in self.make(1, kinds=["kill", "pause"])}, {"kill", "pause"})
        events = nemesis.schedule(1, 300, nemesis.Options(kinds=["kill", "pause"]), available=["pause"])
        self.assertEqual({e.kind for e in events}, {"pause"})

    def test_no_database_no_fault_of_it(self):
        events = [e for seed in range(20) for e in
                  nemesis.schedule(seed, 300, nemesis.Options(), postgres=False)]
        self.assertNotIn("pg", {e.target for e in events})


class Matrix(unittest.TestCase):
    def test_there_are_enough(self):
        combos = matrix.combinations()
        self.assertGreaterEqual(len(combos), 96)
        self.assertEqual(len({matrix.name_of(c) for c in combos}), len(combos))

    def test_every_plan_can_be(self):
        for c in matrix.combinations():
            for time_s in (2.0, 8.0, 20.0, 120.0):
                plan = matrix.plan_of(c, time_s, 1)
                self.assertTrue(plan.schedule)
                for e in plan.schedule:
                    self.assertIsNone(nemesis.complain(e.kind, e.target, e.parameters), c[1].name)
                    self.assertLess(e.at_s, time_s)
                    self.assertLessEqual(e.at_s + (e.for_s or 0), time_s)
                if time_s >= 60:
                    self.assertEqual({e.kind for e in plan.schedule}, c[1].kinds())

    def test_kinds_that_exist_are_tried(self):
        used = set().union(*(c.kinds() for c in matrix.CASES))
        self.assertEqual(set(faults.KINDS) - used - {"slow-link"}, set())

    def test_a_sample_is_even(self):
        combos = matrix.combinations()
        for seed in range(20):
            chosen = matrix.sample(combos, len(matrix.CASES), seed)
            self.assertEqual(len({matrix.name_of(c) for c in chosen}), len(matrix.CASES))
            self.assertEqual({c[1].name for c in chosen}, {c.name for c in matrix.CASES})
            self.assertEqual({c[0] for c in chosen}, set(matrix.WORKLOADS))
        self.assertEqual(matrix.sample(combos, 12, 3), matrix.sample(combos, 12, 3))
        self.assertNotEqual(matrix.sample(combos, 12, 3), matrix.sample(combos, 12, 4))

    def test_only(self):
        combos = matrix.combinations()
        for pattern, count in (("leases+kill-leader", 1), ("leases×kill-leader", 1), ("leasesxkill-leader", 1),
                               ("leases", len(matrix.CASES)), ("*+clocks", len(matrix.WORKLOADS)), ("*", len(combos)),
                               ("orders-*+disk-*", 6)):
            self.assertEqual(len(matrix.only(combos, [pattern])), count, pattern)
        with self.assertRaises(ValueError):
            matrix.only(combos, ["leases+nothing"])


def some_plan(events):
    return Plan("p", time_s=60, schedule=events)


class Shrinking(unittest.TestCase):
    """Runs are imitated: which schedules fail is a rule."""
    EVENTS = [Event(5.0 + 2 * i, kind, "leader", {}, 4.0) for i, kind in enumerate(
        ["kill", "pause", "restart", "kill", "pause", "kill", "restart", "pause"])]

    def run_shrink(self, fails, **options):
        tried = []

        def try_plan(plan):
            tried.append(plan)
            return fails(plan)
        plan, failed, runs = shrink(some_plan(self.EVENTS), try_plan, {"witness"}, **options)
        self.assertEqual(runs, len(tried))
        return plan, failed, runs

    def test_one_cause(self):
        plan, failed, _ = self.run_shrink(
            lambda p: {"witness"} if any(e.at_s >= 0 and e.kind == "restart" and e.for_s >= 1 for e in p.schedule) else set())
        self.assertEqual([e.kind for e in plan.schedule], ["restart"])
        self.assertEqual(plan.schedule[0].for_s, 1.0)
        self.assertLess(plan.time_s, 10)
        self.assertEqual(failed, {"witness"})

    def test_two_causes_together(self):
        def fails(p):
            kinds = [e.kind for e in p.schedule]
            return {"witness", "liveness"} if "kill" in kinds and "restart" in kinds else set()
        plan, _, _ = self.run_shrink(fails)
        self.assertEqual(sorted(e.kind for e in plan.schedule), ["kill", "restart"])

    def test_another_checker_is_not_the_same_failure(self):
        plan, failed, runs = self.run_shrink(lambda p: {"liveness"})
        self.assertEqual(plan.schedule, self.EVENTS)
        self.assertEqual(failed, {"witness"})
        self.assertGreater(runs, 5)

    def test_no_fault_is_needed(self):
        plan, _, _ = self.run_shrink(lambda p: {"witness"})
        self.assertEqual(plan.schedule, [])

    def test_a_budget(self):
        _, _, runs = self.run_shrink(lambda p: {"witness"} if len(p.schedule) > 1 else set(), budget=4)
        self.assertEqual(runs, 4)

    def test_what_fails_sometimes_gets_its_chances(self):
        state = {"n": 0}

        def fails(p):
            state["n"] += 1
            bad = any(e.kind == "restart" for e in p.schedule)
            return {"witness"} if bad and state["n"] % 2 == 0 else set()
        plan, _, _ = self.run_shrink(fails, attempts=2)
        self.assertEqual([e.kind for e in plan.schedule], ["restart"])


class Shown(unittest.TestCase):
    def shown(self, terminal):
        out, now = io.StringIO(), [0.0]
        p = Progress("run", out, terminal, clock=lambda: now[0])
        for i in range(100):
            now[0] = i * 0.1
            p.show("faults", now[0], ["kill n1"] if i >= 50 else [], 100 + i, 2, "n3")
        p.say("something")
        p.close()
        return out.getvalue()

    def test_a_terminal_has_one_line(self):
        text = self.shown(True)
        self.assertEqual(text.count("\n"), 1)
        self.assertGreater(text.count("\r"), 20)

    def test_a_file_has_few_plain_lines(self):
        lines = self.shown(False).splitlines()
        self.assertEqual(len(lines), 3)
        self.assertNotIn("\r", "".join(lines))
        for words in ("faults", "kill n1", "leader n3", "2 open"):
            self.assertIn(words, lines[1])


if __name__ == "__main__":
    unittest.main()
