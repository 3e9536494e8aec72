"""Node and gateway under valgrind's memcheck: a sale of a few dozen orders, a checkpoint, a restart from it, the end.

    memcheck.py GATEWAY NODE [--orders N]

An error of memcheck, or memory that is definitely lost, fails it; so does whatever a harness of real processes finds
wrong. Suppressions: none.
"""
import argparse
import os
import re
import shutil
import stat
import sys
import time

import harness  # noqa: F401
import gateway_harness
from processes import PATIENCE_S

VALGRIND = ("--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite", "--show-leak-kinds=definite",
            "--error-exitcode=99", "--fair-sched=yes", "--num-callers=30", "--child-silent-after-fork=yes")


class CheckedStage(gateway_harness.Stage):
    """Both programs are started through valgrind; each leaves a log of its own."""

    def wrap(self, name, program, *options):
        path = self.path(name)
        with open(path, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\nexec valgrind %s --log-file='%s.memcheck.%%p' '%s' \"$@\" %s\n"
                    % (" ".join(VALGRIND), path, os.path.abspath(program), " ".join(options)))
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)
        return path

    def check(self):
        self.gateway_path = self.wrap("gateway.sh", self.gateway_path)
        self.node_path = self.wrap("node.sh", self.node_path, "--checkpoint-interval", "500ms",
                                   "--checkpoint-entries", "16", "--segment-size", "4MiB", "--orders-max", "1000")

    def findings(self):
        found = []
        names = [n for n in sorted(os.listdir(self.folder)) if ".memcheck." in n]
        assert len(names) == len(self.processes), f"{names}: each process leaves a log"
        for name in names:
            with open(self.path(name), encoding="utf-8", errors="replace") as f:
                text = f.read().strip()
            if text:
                found.append(name + ":\n" + text)
        return found


def sell(stage, orders, prefix):
    placed = []
    for i in range(orders):
        answer = stage.place("open", f"user{i % 7}", f"{prefix}-{i}", quantity=1 + i % 3)
        assert answer.status == 201, answer.body
        placed.append(answer.json)
    for i, order in enumerate(placed):
        if i % 3 == 0:
            assert stage.pay(order["order_id"], f"{prefix}-pay-{i}", order["amount"]).status == 200
        elif i % 3 == 1:
            stage.expect(200, "POST", f"/v1/orders/{order['order_id']}/cancel", who="backend")
    assert stage.place("open", "user0", f"{prefix}-0", quantity=1).headers.get("idempotency-replayed") == "true"
    stage.expect(400, "POST", "/v1/orders", b"{", who="backend", key=f"{prefix}-bad")
    for path in ("/v1/orders?limit=5", "/v1/skus", "/v1/sales/open", "/metrics"):
        stage.expect(200, "GET", path, who="admin", listener="admin")


def checkpoint(stage):
    end = time.monotonic() + PATIENCE_S
    folder = stage.path("node/checkpoint")
    while time.monotonic() < end:
        if os.path.isdir(folder) and "CURRENT" in os.listdir(folder):
            return
        time.sleep(0.05)
    raise AssertionError("no checkpoint came")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gateway")
    parser.add_argument("node")
    parser.add_argument("--orders", type=int, default=36)
    args = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is not here: tools/setup test installs it")
        return 77
    stage = CheckedStage(args.gateway, args.node)
    stage.keep_folder = True  # until its logs are read
    stage.check()
    wrong = []
    try:
        stage.start_node()
        stage.start_gateway()
        stage.wait_ready()
        stage.put_sku("A", 100000)
        stage.put_sale("open", ["A"])
        sell(stage, args.orders, "before")
        checkpoint(stage)
        wrong += [f"node ended with {code}" for code in [stage.node.stop()] if code != 0]
        stage.start_node()
        stage.wait_ready()
        sell(stage, args.orders // 3, "after")
    finally:
        wrong += stage.close()
        wrong += stage.findings()
        shutil.rmtree(stage.folder, ignore_errors=True)
    # A start of the node, a restart, the gateway: what valgrind itself says about a system call that it does not know
    # is no finding about us.
    wrong = [w for w in wrong if not re.fullmatch(r"(--\d+-- WARNING: .*\n?)+", w)]
    for line in wrong:
        print(line)
    print("memcheck: nothing" if not wrong else f"memcheck: {len(wrong)} findings")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
