#!/usr/bin/env python3
"""Checks the structure, nothing else: include directions, a README in each folder, links that resolve.

Usage: architecture.py ROOT     Prints each finding as path:line: what; exits 1 if there is one.
"""
import pathlib
import re
import subprocess
import sys

# Who may include whom: docs/architecture.md, "Layers". A folder may always include itself.
MAY_INCLUDE = {
    "base": set(),
    "proto": {"base"},
    "engine": {"base", "proto"},
    "raft": {"base", "proto"},
    "storage": {"base", "proto", "engine"},
    "server": {"base", "proto", "engine", "raft", "storage"},
    "gateway": {"base", "proto"},
    "tools": {"base", "proto"},
}
# The doors beside the rule, all for what the CLI does without a node: migrations; a snapshot's file; a data
# directory from one (docs/adr/0013); looking at a data directory (docs/adr/0014).
EXCEPTIONS = {("tools", "storage/migrate.h"), ("tools", "storage/snapshot.h"), ("tools", "server/restore.h"),
              ("tools", "server/data_dir.h"), ("tools", "raft/wal_inspect.h")}
# Raft library types stay inside raft/ (and the simulator that stands in for its effectors).
LIBRARY_HEADERS = {
    "raft.h": {"raft", "tests"},
    "lmdb.h": {"storage", "tests"},
    "libpq-fe.h": {"storage", "tools", "tests"},
    "llhttp.h": {"gateway", "tools", "tests"},
    "uv.h": {"proto", "raft", "storage", "server", "gateway", "tools", "tests"},
}
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^">]+)[">]')
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def tracked(root):
    out = subprocess.run(["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                         capture_output=True, check=True)
    return [pathlib.Path(p.decode()) for p in out.stdout.split(b"\0") if p and (root / p.decode()).exists()]


def includes(root, files):
    for path in files:
        top = path.parts[0]
        if path.suffix not in (".c", ".h") or (top not in MAY_INCLUDE and top != "tests"):
            continue
        for number, line in enumerate((root / path).read_text(errors="replace").splitlines(), 1):
            found = INCLUDE.match(line)
            if not found:
                continue
            quote, header = found.groups()
            name = header.split("/")[-1]
            allowed = LIBRARY_HEADERS.get(header)
            if quote == "<" and allowed is not None and top not in allowed:
                yield f"{path}:{number}: <{header}> may not be included from {top}/"
            if quote == '"' and top in MAY_INCLUDE:
                folder = header.split("/")[0]
                if folder in MAY_INCLUDE and folder != top and folder not in MAY_INCLUDE[top] \
                        and (top, header) not in EXCEPTIONS:
                    yield f"{path}:{number}: {top}/ may not include {header}"
            if name in ("uv.h", "fixture.h") and quote == '"':
                yield f"{path}:{number}: a header named {name} shadows the library's"


def readmes(root, files):
    folders = {p.parent for p in files if p.suffix in (".c", ".h", ".py", ".sql", ".sh")}
    for folder in sorted(folders):
        # A subfolder of tests/unit and the like is described by the nearest README above it.
        if not any((root / up / "README.md").exists() for up in [folder, *folder.parents][:-1]):
            yield f"{folder}: no README.md here or above"
    for top in sorted({p.parts[0] for p in files if len(p.parts) > 1 and not p.parts[0].startswith(".")}):
        if not (root / top / "README.md").exists():
            yield f"{top}: no README.md"


def links(root, files):
    for path in files:
        if path.suffix != ".md":
            continue
        for number, line in enumerate((root / path).read_text().splitlines(), 1):
            for target in LINK.findall(line):
                if re.match(r"[a-z]+:", target) or target.startswith("#"):
                    continue
                if not (root / path.parent / target.split("#")[0]).exists():
                    yield f"{path}:{number}: link to {target} leads nowhere"


def named_functions(root, files):
    """docs/order-path.md walks through the code by function names: each must be defined somewhere."""
    path = pathlib.Path("docs/order-path.md")
    if path not in files:
        return
    code = "\n".join((root / p).read_text() for p in files
                     if p.suffix == ".c" and p.parts[0] in MAY_INCLUDE)
    library = {"raft_step"}
    for number, line in enumerate((root / path).read_text().splitlines(), 1):
        for name in re.findall(r"`([a-z][a-z0-9_]*)`", line):
            if name not in library and not re.search(rf"^[a-z].*\b{name}\(", code, re.MULTILINE):
                yield f"{path}:{number}: no function {name} is defined"
        for name in re.findall(r"\b((?:%s)/[a-z_/]+\.c)\b" % "|".join(MAY_INCLUDE), line):
            if not (root / name).exists():
                yield f"{path}:{number}: no file {name}"


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    files = tracked(root)
    findings = [*includes(root, files), *readmes(root, files), *links(root, files),
                *named_functions(root, files)]
    print("\n".join(findings) or f"{len(files)} files, no finding")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
