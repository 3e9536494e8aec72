"""Failpoints of a running process (base/failpoint.h, builds with -Dfailpoints=true): list, set, clear.

    points = failpoints.Socket(path)             # what the process was given as --failpoint-socket
    points.set("wal/before-sync-directory", "abort,nth=2")
    points.list()["wal/recycled"].fired
    points.clear()                               # all of them

By hand: failpoints.py SOCKET [list | set NAME ACTION | clear [NAME]]. Standard library only.
"""
import collections
import socket
import subprocess
import sys

PATIENCE_S = 10

Point = collections.namedtuple("Point", "name rule evaluated fired actions what")


class Refused(Exception):
    """The process says why: no such point, or an action that it does not take there."""


def parse(text):
    """The lines of a list as {name: Point}."""
    points = {}
    for line in text.splitlines():
        name, rule, evaluated, fired, actions, what = line.split("\t")
        points[name] = Point(name, rule, int(evaluated), int(fired), actions.split(), what)
    return points


class Socket:
    def __init__(self, path):
        self.path = str(path)

    def ask(self, line):
        """The answer without its last line. OSError: nobody is there (any more)."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(PATIENCE_S)
            s.connect(self.path)
            s.sendall(line.encode() + b"\n")
            answer = b""
            while data := s.recv(65536):
                answer += data
        *lines, end = answer.decode().splitlines() or [""]
        if end.startswith("error: "):
            raise Refused(end[7:])
        if end != "ok":
            raise ConnectionError(f"{self.path}: the answer was cut")
        return "\n".join(lines)

    def list(self):
        return parse(self.ask("list"))

    def set(self, name, action):
        self.ask(f"set {name} {action}")

    def clear(self, name=""):
        self.ask(f"clear {name}".strip())


def of_program(path):
    """The points that a program has, without running it; {} when it was built without any."""
    try:
        done = subprocess.run([str(path), "--failpoints", "list"], capture_output=True, text=True, timeout=PATIENCE_S)
    except OSError:
        return {}
    return parse(done.stdout) if done.returncode == 0 else {}


def table(points):
    """For a person."""
    rows = [("NAME", "RULE", "EVALUATED", "FIRED", "ACTIONS", "MOMENT")]
    rows += [(p.name, p.rule, str(p.evaluated), str(p.fired), " ".join(p.actions), p.what) for p in points.values()]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join("  ".join([*(cell.ljust(w) for cell, w in zip(row, widths)), row[5]]) for row in rows)


def main(arguments):
    if not arguments or arguments[0].startswith("-"):
        print(__doc__.strip())
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    path, *words = arguments
    try:
        if words in ([], ["list"]):
            print(table(Socket(path).list()))
        else:
            Socket(path).ask(" ".join(words))
    except (Refused, OSError) as e:
        print(f"failpoints: {e}", file=sys.stderr)
        return 4 if isinstance(e, Refused) else 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
