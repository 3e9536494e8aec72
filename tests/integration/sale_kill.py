#!/usr/bin/env python3
"""kill -9 of each node in turn, then of all at once, during load: no acknowledged order is lost.

Usage: sale_kill.py HOLDFASTCTL HOLDFAST_BENCH

A cluster of its own by `holdfastctl demo up`; `holdfast-bench orders` loads it all the while and, told to
stop, asks again for every order whose outcome it does not know and compares what was acknowledged with
what the cluster lists; then a small flash sale with the leader killed in its rush; then `holdfastctl audit`.
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

STEP_TIMEOUT_S = 120


class Demo:
    def __init__(self, ctl):
        self.ctl = ctl
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="holdfast-kill.", dir="/tmp"))
        self.dir.chmod(0o711)
        self.environment = os.environ

    def run(self, *arguments, check=True):
        done = subprocess.run([self.ctl, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=STEP_TIMEOUT_S, env=self.environment)
        if check and done.returncode != 0:
            raise SystemExit(f"holdfastctl {' '.join(map(str, arguments))}: status {done.returncode}\n{done.stdout}")
        return done

    def up(self):
        self.run("demo", "up", "--dir", self.dir)
        exports = (line.removeprefix("export ").split("=", 1) for line in
                   (self.dir / "env").read_text().splitlines() if line.startswith("export "))
        self.environment = {**os.environ, **{name: value.strip("'") for name, value in exports}}

    def state(self):
        return json.loads((self.dir / "demo.json").read_text())

    def kill(self, *names):
        """-9, by the recorded process id, if the start time says that it is still that process."""
        for name in names:
            process = self.state()["processes"][name]
            fields = pathlib.Path(f"/proc/{process['pid']}/stat").read_text().rpartition(")")[2].split()
            assert int(fields[19]) == process["start"], f"{name} is another process"
            os.kill(process["pid"], signal.SIGKILL)

    def wait_ready(self, nodes):
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while time.monotonic() < deadline:
            done = self.run("endpoint", "status", "-o", "json", check=False)
            try:
                found = json.loads(done.stdout[done.stdout.index("["):])
            except ValueError:
                found = []
            if sum(bool(n.get("ready")) for n in found) >= nodes and any(n.get("role") == "leader" for n in found):
                return
            time.sleep(0.2)
        raise SystemExit(f"the cluster is not ready:\n{done.stdout}")

    def close(self, failed):
        self.run("demo", "down", "--dir", self.dir, "--wipe", "--yes", check=False) if not failed else \
            self.run("demo", "down", "--dir", self.dir, "--yes", check=False)
        if failed:
            for log in sorted((self.dir / "log").glob("*.log")):
                print(f"--- {log} ---\n" + "".join(log.read_text(errors="replace").splitlines(True)[-25:]))
        shutil.rmtree(self.dir, ignore_errors=True)


def kill_in_turn(demo, bench):
    nodes = [f"node-{n['id']}" for n in demo.state()["nodes"]]
    # Open loop, and far below what the machine can do: the point is what is in flight, not how much.
    load = subprocess.Popen([bench, "orders", "--state", demo.dir / "demo.json", "--rate", "400", "--duration", "10m",
                             "--connections", "128", "--warmup", "0s"], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    try:
        for victims in [[n] for n in nodes] + [nodes]:
            time.sleep(2)
            print("kill -9", *victims, flush=True)
            demo.kill(*victims)
            time.sleep(1)
            demo.up()
            demo.wait_ready(len(nodes))
        time.sleep(2)
        assert load.poll() is None, "the load ended by itself"
        load.send_signal(signal.SIGTERM)
        text, _ = load.communicate(timeout=STEP_TIMEOUT_S)
    finally:
        load.kill()
        load.wait()
    print(text, flush=True)
    return load.returncode == 0 and "answers    OK" in text


def small_sale(demo, bench):
    done = subprocess.run([bench, "sale", "--state", demo.dir / "demo.json", "--ctl", demo.ctl, "--kill-leader",
                           "--buyers", "400", "--units", "40", "--eligibilities", "300", "--payers", "28", "--early", "8",
                           "--connections", "100", "--rush", "1s", "--payment-timeout", "6s"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=2 * STEP_TIMEOUT_S)
    print(done.stdout, flush=True)
    return done.returncode == 0


def main():
    demo = Demo(pathlib.Path(sys.argv[1]).resolve())
    bench = pathlib.Path(sys.argv[2]).resolve()
    good = False
    try:
        demo.up()
        good = kill_in_turn(demo, bench) and small_sale(demo, bench)
        demo.wait_ready(3)
        audit = demo.run("audit", check=False)
        print(audit.stdout, f"audit: status {audit.returncode}", flush=True)
        good = good and audit.returncode == 0
    finally:
        demo.close(not good)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
