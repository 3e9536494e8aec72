#!/usr/bin/env python3
"""Measures what docs/benchmarks.md shows: holdfast and its peers, alternating, in one run.

Usage: tests/bench/measure.py [--build DIR] [--seconds N] [--rounds N] [--out FILE] [p1] [p4] [p6] [p7] [peers]

Without names: all. Nothing else should run on the machine meanwhile. A cluster of its own is started under
/var/tmp (holdfastctl demo up) and removed. Prints a table in Markdown; --out keeps every single result as
JSON lines. Exits 1 if any outcome was wrong.
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import peers

TOP = pathlib.Path(__file__).resolve().parents[2]
CONNECTIONS = (64, 128, 256)


class Cluster:
    """A local cluster by holdfastctl demo."""

    def __init__(self, build, *options):
        self.ctl = build / "tools/ctl/holdfastctl"
        self.bench = build / "tools/bench/holdfast-bench"
        self.dir = tempfile.mkdtemp(prefix="holdfast-measure.", dir="/var/tmp")
        os.chmod(self.dir, 0o711)
        self.demo("up", *options)
        self.state = json.loads(pathlib.Path(self.dir, "demo.json").read_text())

    def demo(self, command, *options):
        subprocess.run([self.ctl, "demo", command, "--dir", self.dir, *options], check=True, stdout=subprocess.DEVNULL,
                       timeout=180)

    def close(self):
        self.demo("down", "--wipe", "--yes")

    def measure(self, *arguments, timeout=1200):
        done = subprocess.run([self.bench, *map(str, arguments), "--state", f"{self.dir}/demo.json", "--json"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout)
        if done.returncode != 0:
            raise SystemExit(f"WRONG: {' '.join(map(str, arguments))}\n{done.stdout}\n{done.stderr}")
        return json.loads(done.stdout)

    def drain(self):
        """Waits until PostgreSQL has everything, so that one run's events cost the next one nothing."""
        for _ in range(1200):
            done = subprocess.run([self.ctl, "persist", "status", "-o", "json", "--endpoints",
                                   self.state["addresses"]["endpoints"], "--cluster-key-file",
                                   self.state["secrets"]["cluster_key_file"]],
                                  stdout=subprocess.PIPE, text=True, timeout=60)
            status = json.loads(done.stdout or "{}")
            if status.get("events_pending") == 0 or status.get("configured") is False:
                return
            time.sleep(0.5)
        raise SystemExit("PostgreSQL did not catch up within ten minutes")

    def secret(self, name):
        return pathlib.Path(self.state["secrets"][name]).read_text().strip()

    def put(self, method, path, body, **headers):
        request = urllib.request.Request(self.state["addresses"]["admin_url"] + path, json.dumps(body).encode(),
                                         {"Content-Type": "application/json", "If-None-Match": "*",
                                          "Authorization": "Bearer " + self.secret("admin_key_file"), **headers},
                                         method=method)
        urllib.request.urlopen(request, timeout=20).read()

    def sale(self):
        """A sale that wrk can order from; returns wrk's environment."""
        name = f"wrk-{time.time_ns()}"
        when = lambda s: time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() + s))
        self.put("PUT", f"/v1/skus/{name}", {"title": "wrk"})
        self.put("POST", f"/v1/skus/{name}/adjustments", {"delta": 10**9, "reason": "delivery"},
                 **{"Idempotency-Key": f'"{name}"'})
        self.put("PUT", f"/v1/sales/{name}", {
            "title": "wrk", "currency": "EUR", "opens_at": when(-2), "closes_at": when(86400),
            "payment_timeout_ms": 86400000, "orders_per_user_max": 10**9, "eligibility_required": False,
            "late_payment": "refund", "offers": [{"sku": name, "unit_price": 1999, "units_per_order_max": 1}]})
        return {"SALE": name, "SKU": name, "API_KEY": self.secret("backend_key_file")}


@contextlib.contextmanager
def cluster(build, *options):
    c = Cluster(build, *options)
    try:
        yield c
    finally:
        c.close()


class Results:
    def __init__(self, path):
        self.file = open(path, "a") if path else None
        self.rows = []
        self.best = {}

    def keep(self, what, value):
        print(f"  {what}: {json.dumps(value)}", file=sys.stderr)
        if self.file:
            print(json.dumps({"what": what, "at": time.time(), "value": value}), file=self.file, flush=True)
        return value

    def row(self, *cells):
        self.rows.append(cells)

    def table(self):
        print("| # | what | measured | target |\n|---|---|---|---|")
        for cells in self.rows:
            print("| " + " | ".join(cells) + " |")


def median(values, key):
    return statistics.median(v[key] for v in values)


def p1(a, r):
    """Single orders over HTTP against the nginx ceiling, under the same generator each."""
    table = {}
    for _ in range(a.rounds):
        # Without PostgreSQL, as the peers are: on these cores it would take its share of both, and P7 is about
        # what that costs. So each cluster is new: the backlog of events (--events-max) is full after some
        # 450,000 orders.
        for n in CONNECTIONS:
            with cluster(a.build, "--no-postgres") as c, peers.nginx_server() as ceiling:
                runs = {
                    "nginx, wrk": lambda: peers.wrk(ceiling, n, a.seconds, peers.HERE / "orders.lua"),
                    "holdfast, wrk": lambda: peers.wrk(c.state["addresses"]["url"], n, a.seconds,
                                                       peers.HERE / "orders.lua", c.sale()),
                    "nginx, holdfast-bench": lambda: bench_rate(c, n, a.seconds, "--url", ceiling, "--no-setup",
                                                                "--no-check"),
                    "holdfast, holdfast-bench": lambda: bench_rate(c, n, a.seconds),
                }
                for what, run in runs.items():
                    table.setdefault((what, n), []).append(r.keep(f"p1 {what} {n}", run()))
                    c.drain()
    for n in CONNECTIONS:
        for generator in ("wrk", "holdfast-bench"):
            top, ours = table[(f"nginx, {generator}", n)], table[(f"holdfast, {generator}", n)]
            rate = median(ours, "rate")
            r.best[generator] = max(r.best.get(generator, 0), rate)
            r.row("P1", f"single orders, {n} connections, {generator}",
                  f"{rate:,.0f}/s, p99 {median(ours, 'p99_ms'):.1f} ms = {rate / median(top, 'rate'):.2f} × nginx's "
                  f"{median(top, 'rate'):,.0f}/s" + failures(ours), "≥ 0.8 × nginx (first: 0.5)")


def failures(runs):
    """A rate of refusals is no rate: say so."""
    errors = sum(run.get("errors", 0) for run in runs)
    return f"; **{errors} answers were no orders**" if errors else ""


def bench_rate(c, connections, seconds, *more):
    result = c.measure("orders", "--connections", connections, "--duration", f"{seconds}s", *more)
    errors = sum(count for code, count in result["answers"].items() if code != "OK")
    return {"rate": result["answered_per_second"], "errors": errors, **{f"{k}_ms": v for k, v in result["latency_ms"].items()},
            "generator_us": result["generator_us_per_request"]}


def p4(a, r):
    """Latency at half of P1's rate, open loop."""
    with cluster(a.build, "--no-postgres") as c:
        top = r.best.get("wrk") or bench_rate(c, 128, a.seconds)["rate"]
        rate = int(top / 2)
        runs = []
        for _ in range(a.rounds):
            runs.append(r.keep("p4", bench_rate(c, 128, a.seconds, "--rate", rate)))
            c.drain()
    r.row("P4", f"latency at {rate:,}/s, open loop",
          failures(runs) + " ".join(f"{q} {median(runs, key):.2f} ms" for q, key in
                   (("p50", "p50_ms"), ("p99", "p99_ms"), ("p99.9", "p999_ms"))),
          "p50 ≤ 1 ms, p99 ≤ 3 ms, p99.9 ≤ 10 ms")


def p6(a, r):
    """Fail-over."""
    with cluster(a.build) as c:
        result = r.keep("p6", c.measure("failover", "--cycles", a.cycles, timeout=a.cycles * 120))
    r.row("P6", f"leader killed with -9, {result['kills']} times, to the first new acknowledgement over HTTP",
          f"mean {result['mean_ms']:.0f} p50 {result['p50_ms']:.0f} p99 {result['p99_ms']:.0f} max "
          f"{result['max_ms']:.0f} ms", "mean ≤ 100 ms, p99 ≤ 250 ms (first: mean ≤ 300)")


def p7(a, r):
    """The persister alone, and what it costs the orders' latency."""
    text = peers.output(a.build / "tests/bench/persister_bench", "--orders", 500000)
    r.keep("p7 persister_bench", text.strip())
    r.row("P7", "persister alone", f"`{text.strip().splitlines()[-1]}`", "≥ 100k orders/s")
    rate = int((r.best.get("wrk") or 20000) / 4)
    runs = {"with": [], "without": []}
    for _ in range(a.rounds):
        for what, options in (("without", ["--no-postgres"]), ("with", [])):
            with cluster(a.build, *options) as c:
                runs[what].append(r.keep(f"p7 {what}", bench_rate(c, 128, a.seconds, "--rate", rate)))
    r.row("P7", f"orders' p99 at {rate:,}/s with PostgreSQL, and without",
          f"{median(runs['with'], 'p99_ms'):.2f} ms, {median(runs['without'], 'p99_ms'):.2f} ms without", "not worse")


def peers_all(a, r):
    for name, what in (("redis", "Redis + Lua, AOF every second, 128 connections"),
                       ("etcd", "etcd, 3 members, one transaction per order"),
                       ("postgres", "PostgreSQL, hot row UPDATE + INSERT, 32 clients")):
        runs = [r.keep(f"peer {name}", peers.PEERS[name](a.seconds)) for _ in range(a.rounds)]
        rate = median(runs, "rate")
        ours = r.best.get("wrk")
        r.row("peer", what, f"{rate:,.0f}/s" + (f"; holdfast {ours / rate:.1f} ×" if ours else ""), "")


PARTS = {"p1": p1, "p4": p4, "p6": p6, "p7": p7, "peers": peers_all}


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--build", type=pathlib.Path, default=TOP / "build-demo")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cycles", type=int, default=30)
    parser.add_argument("--out")
    parser.add_argument("parts", nargs="*", default=[])
    a = parser.parse_args()
    unknown = set(a.parts) - set(PARTS)
    if unknown:
        parser.error(f"no part {', '.join(unknown)}: {', '.join(PARTS)}")
    a.build = a.build.resolve()
    r = Results(a.out)
    for name, part in PARTS.items():
        if not a.parts or name in a.parts:
            print(name, file=sys.stderr)
            part(a, r)
    r.table()


if __name__ == "__main__":
    main()
