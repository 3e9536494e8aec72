#!/usr/bin/env python3
"""How fast an emptied node catches up, and what orders feel of it.

Usage: tests/bench/catch_up.py BUILD [--records N] [--rate N] [--slice SECONDS] [--catch-up-rate SIZE] [--trailing N]

Three nodes and a gateway on this machine, without PostgreSQL. N orders are placed; then an open-loop load of --rate
orders a second runs in slices while one follower, its directory removed, catches up. Prints MB/s, seconds until it
is a member again, p99 of orders before and during, elections and changes of term (must be 0). Nothing else should
run on the machine. Exits 1 on an election, a wrong outcome, or a p99 above --factor (1.5) times that before.
"""
import argparse
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools/chaos"))
from cluster import Cluster  # noqa: E402


class Bench:
    def __init__(self, cluster, build):
        self.program = pathlib.Path(build).resolve() / "tools/bench/holdfast-bench"
        self.cluster = cluster
        stage = cluster.stage
        for name in ("backend", "admin"):
            pathlib.Path(cluster.path(f"{name}.key")).write_text(stage.keys[name] + "\n")
            pathlib.Path(cluster.path(f"{name}.key")).chmod(0o600)

    def orders(self, seconds, rate, connections=64):
        c = self.cluster
        done = subprocess.run(
            [self.program, "orders", "--json", "--url", f"http://127.0.0.1:{c.stage.ports['public']}",
             "--admin-url", f"http://127.0.0.1:{c.stage.ports['admin']}", "--api-key-file", c.path("backend.key"),
             "--admin-key-file", c.path("admin.key"), "--payment-secret-file", c.path("payment.secret"),
             "--duration", f"{seconds}s", "--rate", str(rate), "--connections", str(connections)],
            capture_output=True, text=True, timeout=seconds + 120)
        if done.returncode != 0:
            raise SystemExit(f"WRONG: {done.stdout}\n{done.stderr}")
        return json.loads(done.stdout)


def wait_said(node, pattern):
    while True:
        for text in list(node.process.lines):
            found = re.search(pattern, text)
            if found:
                return found
        if not node.running():
            raise SystemExit(f"node {node.id} ended: " + "\n".join(node.process.lines[-20:]))
        time.sleep(0.05)


def p99_ms(result):
    return result["latency_ms"]["p99"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--records", type=int, default=1000000)
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--slice", type=int, default=10)
    parser.add_argument("--catch-up-rate", default="64MiB")
    parser.add_argument("--trailing", type=int, default=8192)
    parser.add_argument("--factor", type=float, default=1.5)
    o = parser.parse_args()
    room = str(o.records * 3 + 1000000)
    options = ("--catch-up-rate", o.catch_up_rate, "--trailing-entries", str(o.trailing), "--checkpoint-interval", "10s",
               "--orders-max", room,
               "--events-max", str(o.records * 6 + 2000000), "--idempotency-max", room, "--users-max", room)
    with Cluster(o.build, nodes=3, node_options=options) as c:
        bench = Bench(c, o.build)
        while c.leader().status()["orders"] < o.records:
            bench.orders(5, 0, 256)
        while c.leader().status()["first_index"] <= 2:  # else it would get the log, not a checkpoint
            bench.orders(5, o.rate)
        before = [p99_ms(bench.orders(o.slice, o.rate)) for _ in range(3)]
        leader = c.leader()
        node = next(n for n in c.nodes if n is not leader)
        terms = {n.id: (n.status()["term"], n.status()["elections"]) for n in c.nodes if n is not node}
        node.kill()
        shutil.rmtree(node.dir)
        during, stop = [], threading.Event()

        def load():
            while not stop.is_set():
                during.append(p99_ms(bench.orders(o.slice, o.rate)))
        thread = threading.Thread(target=load)
        thread.start()
        time.sleep(1)
        begun = time.monotonic()
        node.start()
        line = wait_said(node, r"install: loaded .*mb=([\d.]+) mb_per_s=([\d.]+)")
        installed_s = time.monotonic() - begun
        wait_said(node, r"the log is whole")
        whole_s = time.monotonic() - begun
        stop.set()
        thread.join()
        after = {n.id: (n.status()["term"], n.status()["elections"]) for n in c.nodes if n is not node}
        digests = c.digests()
        result = {"records": c.leader().status()["orders"], "mb": float(line[1]), "mb_per_s": float(line[2]),
                  "installed_s": round(installed_s, 1), "caught_up_s": round(whole_s, 1),
                  "p99_before_ms": statistics.median(before), "p99_during_ms": statistics.median(during),
                  "p99_during_worst_slice_ms": max(during), "elections": sum(after[k] != terms[k] for k in after),
                  "digests_equal": len(set(digests.values())) == 1}
    print(json.dumps(result, indent=2))
    wrong = result["elections"] != 0 or not result["digests_equal"] or \
        result["p99_during_ms"] > o.factor * result["p99_before_ms"]
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
