#!/usr/bin/env python3
"""Nothing of failpoints is in a program that was built without them: no symbol, no name of a point, no option.

Usage: failpoints.py ROOT CONTROL PROGRAM...

CONTROL is a program that has them: were nothing found there, this would find nothing anywhere. Also: no name
stands for two moments, and a name is area/moment.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

FOLDERS = ("base", "proto", "engine", "raft", "storage", "server", "gateway", "tools", "tests/unit/base")
POINT = re.compile(r'\bFAILPOINT(?:_ERROR|_DROP|_WRITE)?\(\s*"([^"]*)"')
OPTIONS = (b"HOLDFAST_FAILPOINT", b"failpoint-socket", b"failpoint ")


def declared(root):
    """{name: [files]} of the points in the sources."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.[ch]")):
            if path.name not in ("failpoint.h", "failpoint.c"):
                for name in POINT.findall(path.read_text(errors="replace")):
                    found.setdefault(name, []).append(str(path.relative_to(root)))
    return found


def traces(program, names):
    """What of failpoints is in a program; without debug information, where paths of sources stand."""
    symbols = subprocess.run(["nm", program], capture_output=True, text=True, check=True).stdout
    found = [line.split()[-1] for line in symbols.splitlines() if "failpoint" in line]
    with tempfile.TemporaryDirectory() as folder:
        stripped = pathlib.Path(folder) / "stripped"
        subprocess.run(["strip", "-o", stripped, program], check=True)
        content = stripped.read_bytes()
    return found + [text.decode() for text in [*(n.encode() + b"\0" for n in names), *OPTIONS] if text in content]


def main():
    root, control, programs = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    names = declared(root)
    wrong = [f"{name}: in {' and '.join(files)}" for name, files in names.items() if len(files) > 1]
    wrong += [f"{name}: not area/moment" for name in names if not re.fullmatch(r"[a-z]+/[a-z-]+", name)]
    if not any("failpoint_fire" in t for t in traces(control, names)) or \
            not any("test/step" in t for t in traces(control, names)):
        wrong.append(f"{control}: has failpoints, and none was found")
    for program in programs:
        wrong += [f"{program}: {trace!r}" for trace in traces(program, names)]
    print("\n".join(wrong) or f"{len(names)} failpoints, none of them in {len(programs)} programs")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
