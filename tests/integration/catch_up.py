#!/usr/bin/env python3
"""Nodes that fell behind, lost their disk or die while they catch up, under load.

Usage: catch_up.py BUILD [behind|emptied|kill-follower|kill-leader|alternate] [--rounds N]

Small checkpoints and a slow source, so that an install takes seconds and is met in every step. At the end of each
every acknowledged order is there once, and all digests are equal. --rounds: how often (1); the long form of the
kills is --rounds 20.
"""
import argparse
import pathlib
import random
import re
import shutil
import time

import harness  # noqa: F401
from cluster import Cluster, Load
from node_link import Link, message

OPTIONS = ("--checkpoint-entries", "64", "--checkpoint-interval", "2s", "--trailing-entries", "512",
           "--catch-up-rate", "150KiB", "--log-level", "debug")  # the steps are told at debug
PATIENCE_S = 90
BEGUN = r"raft: installing the checkpoint"
CHUNK = r"install: chunk .*durable=1"
VERIFYING = r"install: verifying"
SWITCHED = r"install: switched"
LOADED = r"install: loaded"
RESUMED = r"install: goes on where it stopped"


class Late:
    """What a process says from now on."""

    def __init__(self, node):
        self.lines, self.at = node.process.lines, len(node.process.lines)

    def said(self, pattern):
        return any(re.search(pattern, line) for line in self.lines[self.at:])


def wait_said(cluster, node, late, patterns, what):
    """Until the node said one of them, or it has caught up without; the pattern."""
    begun = time.monotonic()

    def said():
        assert node.running(), f"{node.id} ended"
        found = next((p for p in patterns if late.said(p)), None)
        if not found and time.monotonic() > begun + 2 and BEGUN not in patterns and not late.said(BEGUN):
            status = node.status()
            found = "ready" if status and status["ready"] else None
        return found
    return cluster.wait(f"{node.id}: {what}", said, PATIENCE_S)


def followers(cluster):
    leader = cluster.wait("a leader", cluster.leader)
    return leader, [n for n in cluster.nodes if n is not leader]


def leave_behind(cluster, load, node):
    """Stops the node until nobody has the log that it lacks."""
    last = node.status()["last_index"]
    node.stop()
    others = [n for n in cluster.nodes if n.running()]

    def trimmed():
        states = [n.status() for n in others]
        return all(s and s["first_index"] > last + 1 for s in states)
    cluster.wait("the log is trimmed behind it", trimmed, PATIENCE_S)


def empty(node):
    node.kill()
    shutil.rmtree(node.dir)


def caught_up(cluster, load):
    """Installs are paced here, and the state grows from round to round: as long as one moves on, there is time."""
    def installed():
        return [(s["id"], s["startup_done"]) for n in cluster.nodes if (s := n.status()) and s["installing"]]
    before = None
    while True:
        try:
            cluster.wait_ready()
            break
        except AssertionError:
            now = installed()
            if not now or now == before:
                raise
            before = now
    load.wait_for(20)


def behind(cluster, load, rounds):
    for _ in range(rounds):
        _, (node, _) = followers(cluster)
        leave_behind(cluster, load, node)
        node.start()
        late = Late(node)
        wait_said(cluster, node, late, [BEGUN], "begins to install")
        status = cluster.wait("status shows it", lambda: (s := node.status()) and s["installing"] and s)
        assert not status["ready"], status
        wait_said(cluster, node, late, [LOADED], "has installed")
        caught_up(cluster, load)


def never_absent(cluster, node, patterns):
    """Until one of the patterns is said: a local read of what every other node has is never "not found"."""
    get_sku, status, not_found = 20, 2, 4  # fields of Request and Response, holdfast.Status
    late, asked, end = Late(node), 0, time.monotonic() + PATIENCE_S
    key = bytes.fromhex(pathlib.Path(cluster.path("cluster.key")).read_text().strip())
    port = int(node.address.rpartition(":")[2])
    while not any(late.said(p) for p in patterns):
        assert node.running() and time.monotonic() < end, f"{node.id} never said any of {patterns}"
        status_row = node.status() if asked % 16 == 15 else None
        if status_row and status_row["ready"]:
            break  # it caught up without
        try:
            link = Link(port, key)
            answer = link.ask(get_sku, message({1: b"A"}), consistency=0)
            link.close()
        except (OSError, EOFError):
            time.sleep(0.05)  # not listening yet
            continue
        assert answer.get(status, 0) != not_found, f"it has nothing yet, and says that there is no such SKU: {answer}"
        asked += 1
    assert asked > 0
    return asked


def emptied(cluster, load, rounds):
    for _ in range(rounds):
        _, (node, _) = followers(cluster)
        elections = {n.id: n.status()["elections"] for n in cluster.nodes}
        empty(node)
        load.wait_for(20)
        node.start()
        late = Late(node)
        never_absent(cluster, node, [LOADED])
        wait_said(cluster, node, late, [LOADED], "has installed")
        wait_said(cluster, node, late, [r"the log is whole"], "is a member again")
        caught_up(cluster, load)
        after = {n.id: n.status()["elections"] for n in cluster.nodes if n is not node}
        assert all(after[k] == elections[k] for k in after), f"elections: {elections} then {after}"


def kill_follower(cluster, load, rounds):
    """SIGKILL in each step; a part that was durable is taken up."""
    for number in range(rounds):
        _, (node, _) = followers(cluster)
        leave_behind(cluster, load, node)
        resumed = False
        for pattern in (BEGUN, CHUNK, CHUNK, VERIFYING, SWITCHED):
            node.start()
            late = Late(node)
            # What comes first: a step may be missed, an install may be over already.
            found = wait_said(cluster, node, late, [pattern, LOADED], pattern)
            resumed = resumed or late.said(RESUMED)
            done = found == "ready" or late.said(LOADED)
            node.kill()
            if done:
                break
        node.start()
        caught_up(cluster, load)
        assert resumed, "no install was taken up again"


def kill_leader(cluster, load, rounds):
    """SIGKILL of the source while it is pulled from; then it comes back."""
    for number in range(rounds):
        leader, (node, _) = followers(cluster)
        if number % 2 == 0:
            leave_behind(cluster, load, node)
        else:
            empty(node)
            load.wait_for(50)
        node.start()
        late = Late(node)
        wait_said(cluster, node, late, [CHUNK, LOADED], "pulls")
        leader.kill()
        if number % 2 == 0:
            load.wait_for(5)  # two that can elect, one of them in the middle of an install
        leader.start()
        caught_up(cluster, load)


def alternate(cluster, load, rounds):
    """For --rounds: random kills of either side at random moments of an install."""
    chance = random.Random(time.time_ns())
    for number in range(rounds):
        leader, (node, _) = followers(cluster)
        if chance.random() < 0.5:
            leave_behind(cluster, load, node)
        else:
            empty(node)
            load.wait_for(50)
        node.start()
        for _ in range(4):
            time.sleep(chance.random() * 2)
            victim = chance.choice((node, leader))
            if victim.running():
                victim.kill()
                victim.start()
        caught_up(cluster, load)
        print(f"round {number + 1}: {len(load.times)} orders", flush=True)


TESTS = {"behind": behind, "emptied": emptied, "kill-follower": kill_follower, "kill-leader": kill_leader,
         "alternate": alternate}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("test", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    for name in options.test or ["behind", "emptied", "kill-follower", "kill-leader"]:
        begun = time.monotonic()
        with Cluster(options.build, nodes=3, node_options=OPTIONS) as cluster:
            cluster.shop("S", "A", units=10000000)
            with Load(cluster, "S", "A", threads=8, pause_s=0) as load:
                load.wait_for(1500)  # some state to install
                load.pause_s = 0.02
                try:
                    TESTS[name](cluster, load, options.rounds)
                except BaseException:
                    for p in cluster.processes:
                        interesting = [x for x in p.lines if "session " not in x and "checkpoint index=" not in x]
                        print(f"--- {p.name}: in short ---", *interesting[-40:], sep="\n", flush=True)
                    raise
            load.check()
        print(f"ok {name} {time.monotonic() - begun:.1f} s, {len(load.times)} orders", flush=True)


if __name__ == "__main__":
    main()
