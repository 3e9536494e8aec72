#!/usr/bin/python3
"""A failing run is made smaller, the command that is printed replays it, and a violation tells its last events.

    shrink_test.py holdfast-sim
"""
import re
import subprocess
import sys
import tempfile
import os

SIM = sys.argv[1]


def run(*arguments):
    done = subprocess.run([SIM, *arguments], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout


def replay(command, *more):
    return run(*command.split()[1:], *more)


def failing(guard):
    """The first seed that fails without this guard, and the check that speaks."""
    code, out = run("--disable-guard", guard, "--count", "200", "--quiet")
    assert code == 1, out[-2000:]
    check = re.search(r"VIOLATION at [\d.]+ s: (\w+): ", out).group(1)
    seed = re.search(r"signal 6 at seed (\d+), commit (\S+)", out)
    assert re.fullmatch(r"[0-9a-f]{7,40}(-dirty)?|unknown", seed.group(2)), seed.group(2)
    return seed.group(1), check, out


def last_events(out):
    lines = out.split("the last events before it:\n")[1].splitlines()
    assert len(lines) > 10, lines
    for line in lines:
        assert re.match(r" *\d+\.\d{6} (n\d|db|- ) +\S", line), line
    assert " violation " in lines[-1], lines[-1]


def main():
    seed, check, out = failing("refill")
    last_events(out)
    code, out = run("--disable-guard", "refill", "--seed", seed, "--shrink", "--shrink-runs", "80")
    assert code == 1, out[-2000:]
    before, after = re.findall(r"(?:before|after): (\d+) s of faults, (\d+) nodes, (\d+) commands, .* of which "
                               r"(\d+) may strike", out)
    before, after = [int(x) for x in before], [int(x) for x in after]
    assert all(a <= b for a, b in zip(after, before)), (before, after)
    assert after[0] < before[0] and after[3] < before[3], (before, after)
    assert f"fails: {check} at" in out
    last_events(out)
    command = re.search(r"^replay: (.*)$", out, re.M).group(1)
    for _ in range(2):
        code, again = replay(command)
        assert code == 1 and f": {check}: " in again, again[-2000:]
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "trace")
        code, again = replay(command, "--trace", path)
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
        assert code == 1 and " violation " in lines[-1]
        assert any(" message from=n" in line and " term=" in line for line in lines)
    print(out)


main()
