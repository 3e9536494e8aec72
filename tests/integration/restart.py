#!/usr/bin/env python3
"""Restarts: a node that loads its checkpoint or reads its log is seen doing so, and everything else goes on.

    tests/integration/restart.py build [NAME...]

Reads of the checkpoint, or of the log, are held (tests/faults) for as long as the test looks.
"""
import pathlib
import signal
import sys

import harness  # noqa: F401
from cluster import Cluster, Load
from faultio import Faults

# Small checkpoints, often: what is restarted has one.
OPTIONS = ["--checkpoint-entries", "50", "--checkpoint-interval", "500ms", "--trailing-entries", "512"]
LOADING, REPLAYING = 1, 2


def with_checkpoint(cluster, node):
    cluster.wait(f"a checkpoint on node {node.id}", lambda: (node.status() or {}).get("checkpoint_index", 0) > 0)


def phase_seen(cluster, node, phase):
    """Until the node says that it is in this phase; its status."""
    def seen():
        status = node.status()
        return status if status and status["startup_phase"] == phase else None
    return cluster.wait(f"node {node.id} in phase {phase}", seen)


def held_while(build, rule, phase, words):
    with Cluster(build, nodes=3, node_options=OPTIONS) as c:
        node = c.node(2)
        faults = Faults(pathlib.Path(build) / "tests/faults/libfaultio.so", c.path("."))
        c.shop("S", "A", units=100000)
        with Load(c, "S", "A", threads=2) as load:
            with_checkpoint(c, node)
            node.kill()
            faults.set(rule)
            node.start(environment=faults.environment)
            faults.wait_hit()
            status = phase_seen(c, node, phase)
            assert not status["ready"], status
            load.wait_for(50)  # the others serve, though this one accepts links
            c.wait("/readyz?verbose says it", lambda: words in c.stage.call("GET", "/readyz?verbose").body.decode())
            assert c.stage.call("GET", "/readyz").status == 200
            c.wait("a line of the log says it", lambda: any("starting: " in line for line in node.process.lines))
            metrics = c.ctl("endpoint", "metrics", "--endpoints", node.address, check=False).stdout
            assert not metrics or f"holdfast_startup_phase {phase}" in metrics, metrics
            # Told to stop, it stops at once, and nothing is wrong with what it leaves.
            node.signal(signal.SIGTERM)
            assert node.process.child.wait(30) == 0
            node.start(environment=faults.environment)
            faults.wait_hit()
            phase_seen(c, node, phase)
            faults.clear()
            c.wait_ready()
            assert node.status()["startup_phase"] == 0
        load.check()


def test_seen_while_loading(build):
    held_while(build, "read */checkpoint/gen-*/data.mdb hold", LOADING, "node 2 loading its checkpoint: ")


def test_seen_while_reading_the_log(build):
    held_while(build, "read */log/*.wal hold", REPLAYING, "node 2 replaying its log: ")


def test_all_at_once(build):
    """Everything is killed during load, again and again: each restart is from checkpoint and log."""
    with Cluster(build, nodes=3, node_options=OPTIONS) as c:
        c.shop("S", "A", units=100000)
        with Load(c, "S", "A", threads=4) as load:
            for _ in range(3):
                load.wait_for(100)
                for node in c.nodes:
                    node.kill()
                for node in c.nodes:
                    node.start()
                c.wait_ready()
        load.check()
        for node in c.nodes:
            assert node.status()["startup_phase"] == 0
            assert any("checkpoint loaded" in line for line in node.process.lines), node.process.lines


def main():
    build, names = sys.argv[1], sys.argv[2:]
    tests = {name: f for name, f in globals().items() if name.startswith("test_") and (not names or name in names)}
    assert tests, "no such test"
    for name, test in tests.items():
        print(name, flush=True)
        test(build)


if __name__ == "__main__":
    main()
