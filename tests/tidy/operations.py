#!/usr/bin/env python3
"""What the pages for operators name must exist: tests, metrics, problem codes, commands, options.

Usage: operations.py ROOT     Prints each finding as path:line: what; exits 1 if there is one.

- docs/failure-matrix.md: each row of a table names a test as `FILE:CASE`, and each such case is defined in that
  file (a function, `Class.method`, or a name that the file quotes); problem codes are those of gateway/problem.c.
- docs/operations/*.md and the matrix: every metric `holdfast_...` is written somewhere; every `holdfastctl A B` stands
  in docs/cli.md.
- the matrix: each sentence in code style (with a space) is one that a program prints; … and numbers stand for what it
  fills in.
"""
import pathlib
import re
import sys

MATRIX = pathlib.Path("docs/failure-matrix.md")
CASE = re.compile(r"`(tests/[\w./-]+):([\w.]+)`")
METRIC = re.compile(r"\bholdfast_[a-z0-9_]+\b")
CODE = re.compile(r"\b(?:4\d\d|5\d\d) `([A-Z_]+)`")
COMMAND = re.compile(r"holdfastctl ([a-z]+)(?: ([a-z][a-z-]+))?")
SOURCES = ("base", "proto", "server", "gateway", "storage", "raft", "engine", "tools")


def defined(text, case):
    for name in case.split("."):
        if not re.search(rf"(\bdef |\bclass |\b(?:void|int|bool) \**){name}\b|[\"']{name}[\"']|TEST\({name}\)", text):
            return False
    return True


def rows(lines):
    """Rows of tables, without their heads."""
    for number, line in enumerate(lines, 1):
        head = number < len(lines) and re.match(r"\|[ :|-]+\|$", lines[number])
        if line.startswith("|") and not head and not re.match(r"\|[ :|-]+\|$", line):
            yield number, line


def matrix(root):
    if not (root / MATRIX).exists():
        return
    lines = (root / MATRIX).read_text().splitlines()
    codes = set(re.findall(r"\bP\(([A-Z_]+)", (root / "gateway/problem.c").read_text()))
    for number, line in rows(lines):
        if not CASE.search(line):
            yield f"{MATRIX}:{number}: this row names no test"
    for number, line in enumerate(lines, 1):
        for file, case in CASE.findall(line):
            path = root / file
            if not path.exists():
                yield f"{MATRIX}:{number}: no file {file}"
            elif not defined(path.read_text(), case):
                yield f"{MATRIX}:{number}: {file} has no case {case}"
        for code in CODE.findall(line):
            if code not in codes:
                yield f"{MATRIX}:{number}: no problem has the code {code}"


def sentences(root):
    """What operators are told to look for in a log must be what the log says."""
    if not (root / MATRIX).exists():
        return
    code = "\n".join(p.read_text() for top in SOURCES for p in sorted((root / top).rglob("*.[ch]")))
    code = re.sub(r'"\s*\n\s*"', "", code)
    for number, line in rows((root / MATRIX).read_text().splitlines()):
        for text in line.split("`")[1::2]:
            if " " not in text or COMMAND.match(text) or re.match(r"[a-z]+ [a-z-]+$", text):
                continue  # a command, with or without its program's name
            for piece in re.split(r"…|[0-9]+", text):
                if len(piece.strip()) > 3 and piece.strip() not in code:
                    yield f"{MATRIX}:{number}: nothing says {piece.strip()!r}"


def names(root):
    pages = [p for p in [root / MATRIX, *sorted((root / "docs/operations").glob("*.md"))] if p.exists()]
    code = "\n".join(p.read_text() for top in SOURCES for p in sorted((root / top).rglob("*.[ch]")))
    cli = (root / "docs/cli.md").read_text() if (root / "docs/cli.md").exists() else ""
    for page in pages:
        for number, line in enumerate(page.read_text().splitlines(), 1):
            for metric in METRIC.findall(line):
                if metric not in code and re.sub("_(bucket|sum|count)$", "", metric) not in code:
                    yield f"{page.relative_to(root)}:{number}: no metric {metric}"
            for quoted in re.findall(r"`[^`]*`", line):
                for first, second in COMMAND.findall(quoted):
                    if f"holdfastctl {first} {second}".strip() not in cli and \
                            not re.search(rf"holdfastctl {first}(?! [a-z])", cli):
                        yield f"{page.relative_to(root)}:{number}: no command holdfastctl {first} {second}"


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    findings = [*matrix(root), *sentences(root), *names(root)]
    print("\n".join(findings) or "no finding")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
