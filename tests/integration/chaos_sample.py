#!/usr/bin/env python3
"""A sample of the matrix of holdfast-chaos, small enough for CI: every run must be good.

Usage: chaos_sample.py BUILD [--count N] [--time TIME] [--seed N] [--out DIR]

The seed is the day of the year unless it is given, so that CI sees all combinations in time; it is printed, and the
directory of a bad run is kept and named.
"""
import argparse
import datetime
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools/chaos/holdfast-chaos"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("build")
    parser.add_argument("--count", default="12")
    parser.add_argument("--time", default="8s")
    parser.add_argument("--seed", default=str(datetime.date.today().timetuple().tm_yday))
    parser.add_argument("--out")
    options = parser.parse_args()
    out = pathlib.Path(options.out or tempfile.mkdtemp(prefix="holdfast-sample-")) / "matrix"
    done = subprocess.run([sys.executable, str(TOOL), "matrix", "--sample", options.count, "--time", options.time, "--seed",
                           options.seed, "--out", str(out), "--build", options.build], stdin=subprocess.DEVNULL)
    rows = json.loads((out / "matrix.json").read_text())["rows"] if (out / "matrix.json").exists() else []
    good = done.returncode == 0 and len(rows) == int(options.count) and all(r["verdict"] == "good" for r in rows)
    if good and options.out is None:
        shutil.rmtree(out.parent)
    print(f"seed {options.seed}: {sum(r['verdict'] == 'good' for r in rows)} of {len(rows)} good, status {done.returncode}"
          + ("" if good else f"; kept: {out}"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
