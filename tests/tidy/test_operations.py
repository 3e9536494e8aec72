#!/usr/bin/env python3
"""Proves that operations.py finds what it is for, on small trees with one fault each."""
import pathlib
import subprocess
import sys
import tempfile

CHECK = pathlib.Path(__file__).with_name("operations.py")
HEAD = "| fault | clients | tests |\n|---|---|---|\n"
GOOD = HEAD + "| killed | 503 `NO_LEADER` | `tests/a.py:test_kill` `tests/a.py:Nodes.test_x` `tests/a.c:test_c` |\n"
FILES = {"docs/cli.md": "    holdfastctl member list\n    holdfastctl status\n",
         "gateway/problem.c": 'P(NO_LEADER, 503, "no-leader", "")\n',
         "server/status.c": '"holdfast_has_leader"\n',
         "tests/a.py": "def test_kill():\nclass Nodes:\n    def test_x(self):\n", "tests/a.c": "static void test_c(void **s)\n"}
CASES = [
    ("good", {"docs/failure-matrix.md": GOOD, "docs/operations/a.md": "`holdfastctl member list` `holdfast_has_leader`\n"}, None),
    ("row", {"docs/failure-matrix.md": HEAD + "| killed | 503 `NO_LEADER` | none |\n"}, "names no test"),
    ("file", {"docs/failure-matrix.md": HEAD + "| x | y | `tests/b.py:test_kill` |\n"}, "no file tests/b.py"),
    ("case", {"docs/failure-matrix.md": HEAD + "| x | y | `tests/a.py:test_lost` |\n"}, "has no case test_lost"),
    ("called, not defined", {"docs/failure-matrix.md": HEAD + "| x | y | `tests/a.py:test_y` |\n", "tests/a.py": "test_y()\n"},
     "has no case test_y"),
    ("code", {"docs/failure-matrix.md": GOOD.replace("NO_LEADER", "NO_IDEA")}, "no problem has the code NO_IDEA"),
    ("sentence", {"docs/failure-matrix.md": GOOD.replace("503", "`raft: node 3 sings` 503"),
                  "server/status.c": 'log("raft: "\n    "node %llu is lost");\n"holdfast_has_leader"\n'}, "nothing says 'sings'"),
    ("metric", {"docs/operations/a.md": "`holdfast_mood`\n"}, "no metric holdfast_mood"),
    ("command", {"docs/operations/a.md": "`holdfastctl member eat`\n"}, "no command holdfastctl member eat"),
]


def main():
    bad = 0
    for name, files, expected in CASES:
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for path, text in {**FILES, **files}.items():
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text)
            done = subprocess.run([sys.executable, CHECK, folder], capture_output=True, text=True)
        ok = done.returncode == 0 if expected is None else done.returncode == 1 and expected in done.stdout
        print(f"{'ok' if ok else 'FAILED'} {name}" + ("" if ok else f": exit {done.returncode}\n{done.stdout}{done.stderr}"))
        bad += not ok
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
