#!/usr/bin/env python3
"""A cluster of one build becomes one of another, node by node, under load; and back, if they can.

Usage: upgrade_rolling.py OLD_BUILD NEW_BUILD [--seconds N] [--back]

The long form of docs/operations/upgrade.md; CI reads golden files instead (tests/golden), since it has one build
only. OLD_BUILD of an earlier commit:

    git worktree add /tmp/old COMMIT && meson setup /tmp/old/build /tmp/old && ninja -C /tmp/old/build
    tests/integration/upgrade_rolling.py /tmp/old/build build

Followers first, the leader last, gateway after the nodes; N seconds of load in each mixture, with each build
leading in turn. No acknowledged order may be lost, and digests must be equal.
"""
import argparse
import pathlib
import time

import harness  # noqa: F401
from cluster import Cluster, Load


def move(cluster, wanted):
    """Leadership to one of these, if it is elsewhere. It may be refused while one of them catches up."""
    def there():
        leader = cluster.leader()
        if leader is not None and leader not in wanted:
            done = cluster.ctl("member", "move-leader", wanted[0].id, "--confirm", wanted[0].id, check=False)
            if done.returncode != 0:
                print(done.stderr.strip(), flush=True)
        return leader in wanted
    cluster.wait(f"one of {[n.id for n in wanted]} leads", there)


def replace(cluster, node, build):
    assert node.stop() == 0, f"node {node.id} did not stop cleanly"
    cluster.holdfastd = build / "server/holdfastd"
    node.start()
    node.build = build
    cluster.wait_ready()


def mixture(cluster, load, seconds):
    """Load while the cluster is as it is, with each build leading in turn."""
    for build in {n.build: None for n in cluster.nodes}:
        move(cluster, [n for n in cluster.nodes if n.build == build])
        load.wait_for(20)
        time.sleep(seconds)
    assert len(set(cluster.digests().values())) == 1, cluster.digests()
    print("load on", *(f"{n.id}:{n.build.parent.name}" for n in cluster.nodes), f"{len(load.placed)} orders", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=pathlib.Path)
    parser.add_argument("new", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--back", action="store_true", help="to the old build again and then to the new one: for "
                        "builds that write the same (docs/adr/0019, rules 4 and 6)")
    options = parser.parse_args()
    old, new = options.old.resolve(), options.new.resolve()
    with Cluster(old, node_options=["--checkpoint-interval", "2s"]) as c:
        for node in c.nodes:
            node.build = old
        c.shop("S", "A", units=10000000)
        with Load(c, "S", "A", threads=4) as load:
            mixture(c, load, options.seconds)
            for target in (new, old, new) if options.back else (new,):
                leader = c.wait("a leader", c.leader)
                for node in [n for n in c.nodes if n is not leader] + [leader]:
                    replace(c, node, target)
                    mixture(c, load, options.seconds)
            c.holdfastctl = new / "tools/ctl/holdfastctl"
            c.stage.gateway_path = str(new / "gateway/holdfast-gateway")
            c.stage.gateway.stop()
            c.start_gateway()
            mixture(c, load, options.seconds)
        load.check()
        print(f"{len(load.placed)} orders acknowledged, none lost; {load.retries} attempts repeated; longest gap "
              f"{load.longest_gap_s():.2f} s")


if __name__ == "__main__":
    main()
