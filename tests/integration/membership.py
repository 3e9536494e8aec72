#!/usr/bin/env python3
"""Real nodes come and go under load: 1 → 3 → 5 → 3 → 1, a killed node is replaced, all nodes are restarted
one after the other, and what would cost the quorum is refused. No order that was acknowledged is lost, and no
request fails that the gateway may retry.

Usage: membership.py BUILD [--long] [--only NAME]
NAME: grow, replace, rolling, guards, drain. --long: more orders between the steps, more rounds.
"""
import argparse
import json
import re
import signal
import sys
import time

import harness  # noqa: F401
from cluster import Cluster, Load

OK, FAILURE, USAGE, UNREACHABLE, REFUSED, UNKNOWN = range(6)
LONG = False


def scale(short, long):
    return long if LONG else short


def expect(cluster, status, *arguments, says=None):
    done = cluster.ctl(*arguments, check=False, timeout=120)
    text = f"holdfastctl {' '.join(map(str, arguments))}: {done.returncode} instead of {status}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == status, text
    assert says is None or re.search(says, done.stdout + done.stderr), f"{text}\ndoes not say {says}"
    return done


def members(cluster):
    """{id: role} as the leader says."""
    return {m["id"]: m["role"] for m in json.loads(cluster.ctl("member", "list", "-o", "json").stdout)}


def join(cluster, voter=True):
    """One more node, added, started and (voter) promoted."""
    node = cluster.add_node()
    expect(cluster, OK, "member", "add", node.id, node.raft, node.address)
    node.start(members=[node])  # it is told of nobody: who leads calls it
    if voter:
        expect(cluster, OK, "member", "promote", node.id, "--wait", "60s")
    return node


def leave(cluster, node):
    """Removed; it notices and stops by itself."""
    expect(cluster, OK, "member", "remove", node.id, "--yes")
    stopped(cluster, node)


def stopped(cluster, node):
    node.process.wait_for("this node was removed from its cluster")
    cluster.wait(f"node {node.id} stops", lambda: not node.running())
    assert node.process.child.returncode == 0, node.process.child.returncode


def no_client_error(load):
    assert not load.refused, load.refused
    assert load.retries == 0, f"{load.retries} requests failed and had to be asked again by the caller"


def report(name, load):
    latencies = sorted(load.latencies_s)
    p99 = latencies[len(latencies) * 99 // 100]
    print(f"{name}: {len(latencies)} orders, p99 {p99 * 1000:.0f} ms, slowest {latencies[-1] * 1000:.0f} ms, "
          f"longest gap {load.longest_gap_s() * 1000:.0f} ms, {load.retries} client errors", flush=True)


def test_grow():
    """From one node to five and back to one, which is not the one it began with."""
    with Cluster(BUILD, nodes=1) as c:
        c.shop("S", "A", units=1000000)
        with Load(c, "S", "A", threads=2) as load:
            more = scale(20, 500)
            second, third = join(c), join(c)
            load.wait_for(more)
            fourth, fifth = join(c, voter=False), join(c)
            expect(c, OK, "member", "promote", fourth.id)
            assert members(c) == {i: "voter" for i in range(1, 6)}, members(c)
            load.wait_for(more)
            leave(c, c.node(1))  # the gateway was told of nobody else
            leave(c, second)
            load.wait_for(more)
            expect(c, OK, "member", "demote", third.id, "--yes")
            assert members(c) == {3: "standby", 4: "voter", 5: "voter"}, members(c)
            leave(c, third)
            leave(c, fifth)
            load.wait_for(more)
        report("1 → 5 → 1", load)
        no_client_error(load)
        load.check()
        assert members(c) == {4: "voter"}
        # What was removed does not come back with its data.
        third.start()
        third.process.wait_for("node 3 was removed from its cluster. Move the whole data directory away")
        c.wait("it ends", lambda: not third.running())
        begun = time.monotonic()
        assert fourth.stop() == 0
        assert time.monotonic() - begun < 2.5, "an only node has nobody to wait for"


def test_replace():
    """A killed node's place is taken by a new one; the command is interrupted and repeated."""
    with Cluster(BUILD, nodes=3) as c:
        c.shop("S", "A", units=1000000)
        with Load(c, "S", "A", threads=2) as load:
            dead = c.leader()
            dead.kill()
            load.wait_for(scale(20, 500))
            new = c.add_node()
            arguments = ["member", "replace", dead.id, new.id, new.raft, new.address, "--yes"]
            expect(c, FAILURE, *arguments, "--wait", "300ms", says="not connected yet")  # it does not run
            assert members(c)[new.id] == "standby"
            new.start()
            expect(c, OK, *arguments, "--wait", "60s")
            expect(c, OK, *arguments)
            assert members(c) == {i: "voter" for i in range(1, 5) if i != dead.id}, members(c)
            load.wait_for(scale(20, 500))
            dead.start()  # it comes back all the same, with its data
            stopped(c, dead)
            load.wait_for(scale(20, 500))
        report("replace a killed leader", load)
        no_client_error(load)
        load.check()


def test_rolling():
    """Every node is restarted with SIGTERM, one after the other, several times round."""
    with Cluster(BUILD, nodes=3) as c:
        c.shop("S", "A", units=1000000)
        with Load(c, "S", "A", threads=4) as load:
            for _ in range(scale(2, 20)):
                for node in c.nodes:
                    assert node.stop() == 0
                    node.start()
                    c.wait_ready()
                    load.wait_for(scale(5, 100))
        report("rolling restart", load)
        no_client_error(load)
        load.check()
        assert all(n.status()["elections"] >= 0 for n in c.nodes)


def test_guards():
    with Cluster(BUILD, nodes=3) as c:
        leader = c.leader()
        one, two = [n for n in c.nodes if n is not leader]
        free = c.add_node()
        # Bad input.
        expect(c, USAGE, "member", "add", "4", free.raft)
        expect(c, USAGE, "member", "add", "0", free.raft, free.address)
        expect(c, USAGE, "member", "add", "4", "somewhere:7001", free.address, says="not an address")
        expect(c, USAGE, "member", "add", "4", free.raft, free.raft, says="both addresses")
        expect(c, USAGE, "member", "add", "4", free.raft, free.address, "--as", "voter")
        expect(c, USAGE, "member", "remove", "2", says="--confirm 2")
        expect(c, USAGE, "member", "replace", "2", "2", free.raft, free.address, "--yes", says="id of its own")
        # Who is who.
        expect(c, REFUSED, "member", "add", one.id, free.raft, free.address, says="is a member already")
        expect(c, REFUSED, "member", "add", "4", one.raft, free.address, says="another member listens")
        expect(c, REFUSED, "member", "add", "4", free.raft, one.address, says="another member listens")
        expect(c, REFUSED, "member", "promote", "4", says="no member")
        expect(c, REFUSED, "member", "demote", "4", "--yes", says="no member")
        expect(c, REFUSED, "member", "replace", "8", "9", free.raft, free.address, "--yes", says="neither")
        expect(c, OK, "member", "remove", "4", "--yes", says="no member")
        expect(c, OK, "member", "add", one.id, one.raft, one.address)  # so it is
        expect(c, OK, "member", "promote", one.id)
        # A spare is sent nothing; a node that does not run does not catch up.
        expect(c, OK, "member", "add", "4", free.raft, free.address, "--as", "spare")
        assert members(c)[4] == "spare"
        expect(c, FAILURE, "member", "promote", "4", "--wait", "300ms", says="not connected")
        assert members(c)[4] == "standby"
        expect(c, OK, "member", "demote", "4", "--to", "spare", "--yes")
        expect(c, REFUSED, "member", "demote", "4", "--yes", says="member promote 4")
        expect(c, OK, "member", "remove", "4", "--yes")
        # The quorum: with one of three dead no living voter may go, the dead one may.
        one.kill()
        c.wait("its connection is seen to be gone", lambda: not [
            m for m in json.loads(c.ctl("member", "list", "-o", "json").stdout) if m["id"] == one.id][0]["connected"])
        expect(c, REFUSED, "member", "demote", two.id, "--yes", says="majority")
        expect(c, REFUSED, "member", "remove", two.id, "--yes", says="majority")
        expect(c, OK, "member", "remove", one.id, "--yes")
        # The leader hands over before its own place changes.
        leader = c.leader()
        expect(c, OK, "member", "demote", leader.id, "--yes")
        last = c.wait("the other one leads", c.leader)
        assert last is not leader
        expect(c, REFUSED, "member", "demote", last.id, "--yes", says="only voter")
        expect(c, REFUSED, "member", "remove", last.id, "--yes", says="only voter")
        expect(c, OK, "member", "promote", leader.id)
        assert members(c) == {leader.id: "voter", last.id: "voter"}


def test_drain():
    """A drained node is not chosen, however leadership moves; a leader without a successor ends in time."""
    with Cluster(BUILD, nodes=3) as c:
        leader = c.leader()
        drained, other = [n for n in c.nodes if n is not leader]
        expect(c, OK, "node", "drain", drained.id, "--yes")
        assert drained.status() is not None
        for _ in range(scale(3, 30)):
            expect(c, OK, "member", "move-leader", "--yes")
            c.wait("a leader", lambda: c.leader() in (leader, other))
        expect(c, REFUSED, "member", "move-leader", drained.id, "--yes", says="drained")
        now = c.wait("a leader", c.leader)
        idle = other if now is leader else leader
        idle.kill()
        c.wait("its connection is seen to be gone", lambda: not [
            m for m in json.loads(c.ctl("member", "list", "-o", "json").stdout) if m["id"] == idle.id][0]["connected"])
        expect(c, REFUSED, "member", "move-leader", "--yes", says="no other voter")
        expect(c, OK, "node", "undrain", drained.id)
        expect(c, OK, "member", "move-leader", "--yes")
        c.wait("it leads", lambda: c.leader() is drained)
        now.kill()
        begun = time.monotonic()
        assert drained.stop() == 0
        assert time.monotonic() - begun < 10, "its patience is bounded"


TESTS = {"grow": test_grow, "replace": test_replace, "rolling": test_rolling, "guards": test_guards, "drain": test_drain}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("build")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--only", choices=TESTS)
    arguments = parser.parse_args()
    BUILD, LONG = arguments.build, arguments.long
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for name, test in TESTS.items():
        if arguments.only in (None, name):
            begun = time.monotonic()
            test()
            print(f"ok {name} ({time.monotonic() - begun:.1f} s)", flush=True)
