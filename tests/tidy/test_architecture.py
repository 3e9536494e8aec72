#!/usr/bin/env python3
"""Proves that architecture.py finds what it is for, on small trees with one fault each."""
import pathlib
import subprocess
import sys
import tempfile

CHECK = pathlib.Path(__file__).with_name("architecture.py")
CASES = [
    ("good", {"engine/a.c": '#include "base/check.h"\n'}, None),
    ("up", {"base/a.c": '#include "engine/engine.h"\n'}, "base/ may not include engine/engine.h"),
    ("across", {"raft/a.c": '#include "storage/persister.h"\n'}, "raft/ may not include storage/persister.h"),
    ("gateway", {"gateway/a.c": '#include "engine/engine.h"\n'}, "gateway/ may not include"),
    ("library", {"engine/a.c": "#include <uv.h>\n"}, "<uv.h> may not be included from engine/"),
    ("shadow", {"raft/a.c": '#include "raft/uv.h"\n'}, "shadows"),
    ("link", {"docs/a.md": "[x](nowhere.md)\n"}, "leads nowhere"),
    ("readme", {"server/a.c": "", "server/README.md": None}, "server: no README.md"),
    ("named", {"docs/order-path.md": "`order_place` in engine/a.c\n", "engine/a.c": "int order_place(void)\n"}, None),
    ("unnamed", {"docs/order-path.md": "`order_place`\n", "engine/a.c": "    order_place();\n"}, "no function order_place"),
    ("no file", {"docs/order-path.md": "in engine/b.c\n", "engine/a.c": ""}, "no file engine/b.c"),
    ("exception", {"tools/a.c": '#include "storage/migrate.h"\n'}, None),
]


def run(files):
    with tempfile.TemporaryDirectory() as name:
        root = pathlib.Path(name)
        subprocess.run(["git", "init", "-q", name], check=True)
        for path, text in {**{f"{p.split('/')[0]}/README.md": "# x\n" for p in files}, **files}.items():
            if text is not None:
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                (root / path).write_text(text)
        done = subprocess.run([sys.executable, CHECK, name], capture_output=True, text=True)
        return done.returncode, done.stdout


def main():
    bad = 0
    for name, files, expected in CASES:
        code, out = run(files)
        ok = code == 0 if expected is None else code == 1 and expected in out
        print(f"{'ok' if ok else 'FAILED'} {name}" + ("" if ok else f": exit {code}\n{out}"))
        bad += not ok
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
