#!/usr/bin/env python3
"""Every kind of fault of tools/chaos, injected and healed once on a real cluster, with what it does seen; and that
nothing is left of a stand, whatever ended it.

    tests/integration/chaos_faults.py BUILD [PART …] [--kind KIND]      PART: one of PARTS below

Always checked at the end of a part: every acknowledged order is there, once; all nodes have one digest.
"""
import argparse
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.request

import harness
import failpoints
import faults
import leftovers
from cluster import Load
from faults import needs
from stand import Interrupted, Stand

TESTS = {}  # kind -> (part, function)


def of(part, *kinds):
    def add(function):
        for name in kinds:
            TESTS[name] = (part, function)
        return function
    return add


def seen(stand, what, condition):
    return stand.wait(what, condition, 30)


def another_leader(stand, old):
    return seen(stand, "another leader", lambda: (lambda l: l is not None and l.name != old)(stand.leader()))


def log_says(stand, name, pattern):
    stand.parts([name])[0].process.wait_for(pattern)


# ---- processes ----

@of("processes", "kill")
def kill(stand, load):
    with faults.make(stand, "kill").on("leader") as f:
        assert not stand.parts(f.victims)[0].running()
        another_leader(stand, f.victims[0])
        load.wait_for(10)
    with faults.make(stand, "kill").on("all"):
        assert stand.statuses() == {}
    stand.wait_ready()
    load.wait_for(10)
    with faults.make(stand, "kill").on("gateway") as f:
        assert not stand.parts(f.victims)[0].running()
    with urllib.request.urlopen(stand.parts(f.victims)[0].url() + "/livez", timeout=10) as answer:
        assert answer.status == 200


@of("processes", "pause")
def pause(stand, load):
    with faults.make(stand, "pause").on("leader") as f:
        assert stand.parts(f.victims)[0].paused()
        assert int(f.victims[0][1:]) not in stand.statuses()
        another_leader(stand, f.victims[0])
        load.wait_for(10)
    assert not stand.parts(f.victims)[0].paused()
    with faults.make(stand, "pause").on("g2"):
        try:
            urllib.request.urlopen(stand.gateways[1].url() + "/livez", timeout=1).close()
            raise AssertionError("a paused gateway answers")
        except OSError:
            pass
    with urllib.request.urlopen(stand.gateways[1].url() + "/livez", timeout=10) as answer:
        assert answer.status == 200


@of("processes", "restart")
def restart(stand, load):
    before = stand.node(2).process.pid
    with faults.make(stand, "restart").on("n2"):
        assert stand.node(2).running() and stand.node(2).process.pid != before
    stand.wait_ready()
    load.wait_for(10)


# ---- the network ----

@of("network", "partition")
def partition(stand, load):
    for shape in ("isolate", "deaf", "mute"):
        with faults.make(stand, "partition", shape=shape).on("leader") as f:
            def other(old=int(f.victims[0][1:])):
                rows = stand.statuses()
                return any(r["role"] == "leader" and r["ready"] and i != old for i, r in rows.items())
            seen(stand, f"another leader: {shape}", other)
            load.wait_for(10)
        stand.wait_ready()
    with faults.make(stand, "partition", shape="bridge").on("follower") as f:
        assert len(f.data["links"]) == 2, f.data
        load.wait_for(10)
    with faults.make(stand, "partition", shape="majority-ring").on("any") as f:
        assert len(f.data["links"]) == 2, f.data
        load.wait_for(10)
    with faults.make(stand, "partition", clients="yes").on("follower") as f:
        node = stand.parts(f.victims)[0]
        assert stand.statuses("--endpoints", node.address) == {}, "a client reaches it"
        load.wait_for(10)
    stand.wait_ready()


def slower(stand, load, least_s, kind, target=None, **parameters):
    with faults.make(stand, kind, **parameters).on(target):
        load.wait_for(6)
        done = len(load.latencies_s)
        load.wait_for(6)
        assert min(load.latencies_s[done:]) >= least_s, load.latencies_s[done:]


@of("network", "delay")
def delay(stand, load):
    slower(stand, load, 0.06, "delay", delay_ms=30)


@of("network", "slow-link")
def slow_link(stand, load):
    with faults.make(stand, "slow-link", rate=4000).on("network"):
        load.wait_for(3)
        done = len(load.latencies_s)
        load.wait_for(10)
        assert sum(load.latencies_s[done:]) / len(load.latencies_s[done:]) > 0.02, load.latencies_s[done:]


@of("network", "stall")
def stall(stand, load):
    with faults.make(stand, "stall").on("leader") as f:
        old = int(f.victims[0][1:])
        seen(stand, "another leader", lambda: any(r["role"] == "leader" and r["ready"] and i != old
                                                 for i, r in stand.statuses().items()))
        load.wait_for(10)
    stand.wait_ready()


@of("network", "reset")
def reset(stand, load):
    def lost():
        return sum("connection to node" in line or "is disconnected" in line for n in stand.nodes for line in n.process.lines)
    before = lost()
    with faults.make(stand, "reset", every_ms=150).on("network"):
        seen(stand, "connections break", lambda: lost() >= before + 3)
        load.wait_for(5)
    stand.wait_ready()


@of("packets", "loss", "duplicate")
def packets(stand, load):
    for kind, table, where, word in (("loss", "hold", "n1", "numgen"), ("duplicate", "twice", "hub", "dup to")):
        with faults.make(stand, kind, percent=20).on("network"):
            rules = subprocess.run([*stand.links.prefix(where), needs.program("nft"), "list", "ruleset"],
                                   capture_output=True, text=True, check=True).stdout
            assert table in rules and word in rules, rules
            before = counters(stand)
            load.wait_for(30)
            after = counters(stand)
            if kind == "loss":
                assert after["RetransSegs"] > before["RetransSegs"], (before, after)
            else:
                assert after["TCPDSACKOldSent"] > before["TCPDSACKOldSent"], (before, after)
        stand.wait_ready()
    partition(stand, load)


def counters(stand):
    """Of TCP, of all nodes together."""
    total = {}
    for node in stand.nodes:
        text = subprocess.run([*stand.links.prefix(node.name), "cat", "/proc/net/snmp", "/proc/net/netstat"],
                              capture_output=True, text=True, check=True).stdout.splitlines()
        for names, values in zip(text[::2], text[1::2]):
            for name, value in zip(names.split()[1:], values.split()[1:]):
                total[name] = total.get(name, 0) + int(value)
    return total


# ---- disks ----

@of("disk", "slow-disk")
def slow_disk(stand, load):
    term = stand.statuses()[1]["term"]
    slower(stand, load, 0.05, "slow-disk", "majority", delay_ms=100)
    assert stand.statuses()[1]["term"] == term, "a slow disk was taken for a stuck one"


@of("disk", "stuck-disk")
def stuck_disk(stand, load):
    with faults.make(stand, "stuck-disk").on("leader") as f:
        log_says(stand, f.victims[0], "log's disk has not answered")
        another_leader(stand, f.victims[0])
        load.wait_for(10)
    stand.wait_ready()


@of("disk", "disk-full")
def disk_full(stand, load):
    with faults.make(stand, "disk-full").on("follower") as f:
        log_says(stand, f.victims[0], "free, less than --low-space|No space left on device")
        load.wait_for(10)
    stand.wait_ready()


@of("disk", "write-error")
def write_error(stand, load):
    with faults.make(stand, "write-error").on("leader") as f:
        node = stand.parts(f.victims)[0]
        seen(stand, "it ends", lambda: not node.running())
        assert node.process.child.wait() == 74
        load.wait_for(10)
    stand.wait_ready()
    with faults.make(stand, "write-error", where="checkpoint").on("follower") as f:
        log_says(stand, f.victims[0], "no checkpoint could be written|checkpoint failed")
        assert stand.parts(f.victims)[0].running()
    stand.wait_ready()


@of("disk", "torn-write")
def torn_write(stand, load):
    for piece in ("first", "last", "none"):
        with faults.make(stand, "torn-write", piece=piece).on("follower") as f:
            node = stand.parts(f.victims)[0]
            assert not node.running() and stand.disk_control(node.id).hits("write"), f.data
        stand.wait_ready()
        load.wait_for(5)


@of("kernel-disk", "power-loss")
def power_loss(stand, load):
    for target in ("leader", "all"):
        with faults.make(stand, "power-loss").on(target) as f:
            assert all(not n.running() and not n.disk.mounted() for n in stand.parts(f.victims))
        stand.wait_ready()
        load.wait_for(10)
    # A file written but not synced is gone; one that was synced is not.
    node = stand.node(2)
    for name, synced in (("synced", True), ("unsynced", False)):
        with open(os.path.join(node.disk.point, name), "wb") as file:
            file.write(b"x" * 4096)
            file.flush()
            if synced:
                os.fsync(file.fileno())
    with faults.make(stand, "power-loss").on("n2"):
        pass
    there = os.listdir(node.disk.point)
    assert "synced" in there and ("unsynced" not in there or
                                  os.path.getsize(os.path.join(node.disk.point, "unsynced")) == 0), there
    stand.wait_ready()
    disk_full(stand, load)
    stuck_disk(stand, load)


# ---- damage ----

@of("damage", "bit-flip")
def bit_flip(stand, load):
    for file in ("log", "checkpoint", "current", "identity"):
        load.wait_for(20)
        seen(stand, "a checkpoint", lambda: stand.statuses().get(2, {}).get("checkpoint_index", 0) > 0)
        f = faults.make(stand, "bit-flip", file=file)
        with f.on("follower"):
            assert f.data["outcome"].startswith("refused: status 1:"), f.data
            load.wait_for(10)
        stand.wait_ready()
        print("   ", file, f.data["outcome"][:110], flush=True)


# ---- clocks ----

@of("clock", "clock-jump")
def clock_jump(stand, load):
    for wall_ms in (3600000, -3600000):
        with faults.make(stand, "clock-jump", wall_ms=wall_ms).on("leader") as f:
            log_says(stand, f.victims[0], "clock is off by|clock: ")
            another_leader(stand, f.victims[0])
            load.wait_for(10)
        stand.wait_ready()


@of("clock", "clock-skew")
def clock_skew(stand, load):
    with faults.make(stand, "clock-skew", wall_ppm=50000, monotonic_ppm=50000).on("follower") as f:
        number = int(f.victims[0][1:])
        seen(stand, "it is known to be wrong", lambda: stand.statuses().get(number, {}).get("clock_suspect"))
        load.wait_for(5)
    stand.wait_ready()


# ---- PostgreSQL ----

def persisted(stand, load):
    """Everything acknowledged is in PostgreSQL."""
    count = len(load.placed)
    stand.wait("PostgreSQL catches up", lambda: int((stand.postgres.query(
        "SELECT count(*) FROM holdfast.orders", check=False) or [["0"]])[0][0]) >= count)


def postgres_fault(stand, load, kind, **parameters):
    persisted(stand, load)
    with faults.make(stand, kind, **parameters).on("pg") as f:
        if kind == "pg-lock":
            waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
            seen(stand, "somebody waits for the lock", lambda: load.wait_for(1) or stand.postgres.query(waiting))
        else:
            def lags():
                done = stand.ctl("persist", "status", check=False)
                return done.returncode != 0
            if kind != "pg-freeze":
                seen(stand, "persist status says so", lags)
            else:
                assert stand.postgres.primary.stopped()
        load.wait_for(20)  # orders go on
    persisted(stand, load)
    return f


@of("postgres", "pg-kill", "pg-freeze", "pg-refuse", "pg-lock")
def postgres(stand, load):
    for kind in ("pg-kill", "pg-freeze", "pg-refuse", "pg-lock"):
        postgres_fault(stand, load, kind)


@of("failover", "pg-failover")
def failover(stand, load):
    persisted(stand, load)
    with faults.make(stand, "pg-failover", behind_ms=1500).on("pg") as f:
        assert stand.postgres.primary.name == "b" and f.data["behind"]
        seen(stand, "the log names the hole", lambda: any(
            "lacks events" in line for n in stand.nodes for line in n.process.lines))
        load.wait_for(10)
    assert stand.postgres.primary.name == "a" and stand.postgres.standby.is_standby()
    persisted(stand, load)


# ---- failpoints ----

@of("failpoints", "failpoint")
def failpoint(stand, load):
    with faults.make(stand, "failpoint", name="checkpoint/before-begin", action="abort,count=1").on("follower") as f:
        seen(stand, "it ends there", lambda: not stand.parts(f.victims)[0].running())
        load.wait_for(10)
    stand.wait_ready()
    with faults.make(stand, "failpoint", name="checkpoint/before-begin", action="sleep(10)").on("n1"):
        points = failpoints.Socket(stand.failpoint_socket("n1"))
        seen(stand, "it comes there", lambda: points.list()["checkpoint/before-begin"].fired)
    assert all(p.rule == "off" for p in points.list().values()), points.list()
    for _ in range(5):
        with faults.make(stand, "failpoint").on("any") as f:
            load.wait_for(5)
            print("   ", f.describe(), flush=True)
        stand.wait_ready()
    try:
        faults.make(stand, "failpoint", name="nowhere").inject("n1")
        raise AssertionError("taken")
    except ValueError:
        assert not stand.active()


# ---- what is left behind ----

MAKER = """
import sys
sys.path[:0] = [sys.argv[1]]
import faults
from stand import Stand
with Stand(sys.argv[2], sys.argv[3], postgres=True, network="auto", own_disks="auto") as stand:
    for kind in ("pause", "clock-jump"):
        faults.make(stand, kind).inject("n1")
    faults.make(stand, "stuck-disk").inject("n2")
    faults.make(stand, "pg-freeze").inject("pg")
    faults.make(stand, "partition").inject("n3")
    print("hurt", flush=True)
    sys.stdin.read()
"""


def nothing_left(directory, token):
    assert not leftovers.processes(token, directory), leftovers.processes(token, directory)
    assert not leftovers.namespaces(token) and not leftovers.mounts(directory) and not leftovers.loop_devices(directory)
    assert not os.path.exists(directory)
    assert token not in [s["token"] for s in leftovers.stands()]


def maker(build, directory):
    child = subprocess.Popen([sys.executable, "-c", MAKER, str(harness.ROOT / "tools/chaos"), build, directory],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "hurt\n"
    return child


def leaves_nothing(build):
    directory = str(leftovers.home() / f"test-{os.getpid()}")
    for number in (signal.SIGINT, signal.SIGTERM):
        child = maker(build, directory)
        token = leftovers.token_of(directory)
        child.send_signal(number)
        assert child.wait(60) != 0
        nothing_left(directory, token)
        print(f"ok {signal.Signals(number).name}: nothing is left", flush=True)

    child = maker(build, directory)
    child.kill()
    child.wait(60)
    token = leftovers.token_of(directory)
    left = leftovers.processes(token, directory)
    assert len(left) > 3, left
    assert [s["abandoned"] for s in leftovers.stands() if s["token"] == token] == [True]
    bystander = subprocess.Popen(["sleep", "600"])
    done = dict(leftovers.sweep_abandoned())[directory]
    nothing_left(directory, token)
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    print(f"ok SIGKILL: {done}", flush=True)


def killed_up(build):
    """holdfast-chaos up is killed when half of it runs; holdfast-chaos down finds it."""
    directory = str(leftovers.home() / f"up-{os.getpid()}")
    tool = [str(harness.ROOT / "tools/chaos/holdfast-chaos")]
    child = subprocess.Popen([*tool, "up", "--dir", directory, "--build", build], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not os.path.exists(directory + "/parts/n2.json") and time.monotonic() < end:
        time.sleep(0.01)
    child.kill()
    child.wait(60)
    token = leftovers.token_of(directory)
    assert leftovers.processes(token, directory)
    subprocess.run([*tool, "down", "--dir", directory, "--build", build], check=True, timeout=120)
    nothing_left(directory, token)
    print("ok up was killed: nothing is left after down", flush=True)


def lives_on(build):
    """up, inject, heal, down as separate processes would do it: each opens the stand anew."""
    directory = leftovers.home() / f"kept-{os.getpid()}"
    Stand(build, directory, nodes=3, gateways=1, keep=True).up().release()
    try:
        pid = Stand.open(directory).node(2).process.pid
        faults.make(Stand.open(directory), "pause").inject("n2")
        faults.make(Stand.open(directory), "clock-jump").inject("n1")
        assert Stand.open(directory).node(2).paused()
        assert [f.kind for f in Stand.open(directory).active()] == ["pause", "clock-jump"]
        assert [f.kind for f in Stand.open(directory).heal_all()] == ["clock-jump", "pause"]
        assert not Stand.open(directory).active() and not Stand.open(directory).node(2).paused()
        assert Stand.open(directory).node(2).process.pid == pid
        Stand.open(directory).wait_ready()
    finally:
        token = leftovers.token_of(directory)
        Stand.open(directory).down()
    nothing_left(str(directory), token)
    print("ok a stand lives on between commands", flush=True)


def refusals(build):
    with Stand(build, nodes=1, gateways=0, preload=False) as stand:
        kinds, left_out = faults.available(stand)
        assert "pause" in kinds and "pg-kill" in left_out and "power-loss" in left_out and "loss" in left_out, left_out
        for call in (lambda: faults.make(stand, "nothing"), lambda: faults.make(stand, "delay", ms=1),
                     lambda: faults.make(stand, "delay", delay_ms="soon"),
                     lambda: faults.make(stand, "partition", shape="round"),
                     lambda: faults.make(stand, "pause").inject("n9"), lambda: faults.make(stand, "pause").inject("pg")):
            with contextlib.suppress(ValueError):
                call()
                raise AssertionError("taken")
        try:
            faults.make(stand, "pg-kill").inject()
            raise AssertionError("taken")
        except faults.LeftOut:
            pass
        assert not stand.active()
    print("ok refusals", flush=True)


def front(stand):
    """With namespaces, too, gateways are reached from outside."""
    if stand.network_kind == "namespaces":
        url = stand.gateways[0].url() + "/livez"
        program = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=10).status)"
        stand.links.leave()
        try:
            done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
            assert done.stdout == "200\n", done
        finally:
            stand.links.enter()


def shapes(build):
    """Partitions of five nodes: who hears whom."""
    with Stand(build, nodes=5, gateways=0, preload=False) as stand:
        for shape, target, count in (("majority-ring", "any", 10), ("bridge", "any", 8), ("isolate", "minority", 12),
                                     ("deaf", "minority", 6), ("mute", "majority", 6)):
            with faults.make(stand, "partition", shape=shape).on(target) as f:
                ways = {(r["from"], r["to"]) for r in f.data["links"]}
                assert len(ways) == count, (shape, ways)
                if shape == "majority-ring":
                    hears = [{b for b in range(1, 6) if (b, a) not in ways} for a in range(1, 6)]
                    assert all(len(h) == 3 for h in hears) and len({frozenset(h) for h in hears}) == 5, hears
                stand.wait("a leader among those who can", stand.leader) if shape in ("majority-ring", "bridge") else None
            stand.wait_ready()
    print("ok shapes", flush=True)


PARTS = {
    "processes": {"gateways": 2},
    "network": {},
    "packets": {"network": "namespaces"},
    "disk": {},
    "kernel-disk": {"own_disks": True, "disk_mib": 512},
    "damage": {},
    "clock": {},
    "postgres": {"postgres": True},
    "failover": {"postgres": True, "standby": True},
    "failpoints": {},
    "stands": None,
    "leftovers": None,
}
OPTIONS = ["--log-write-deadline", "4s", "--checkpoint-interval", "300ms", "--checkpoint-entries", "50"]


def run_part(build, part, only):
    alone = {"stands": (refusals, shapes, lives_on), "leftovers": (killed_up, leaves_nothing)}
    if part in alone:
        for test in alone[part]:
            test(build)
        return
    needed = {"packets": ["namespaces"], "kernel-disk": ["own-disk"]}.get(part, [])
    if needs.missing(needed, None):
        print(f"left out: {part}: {needs.missing(needed, None)}", flush=True)
        return
    if part == "failpoints" and not failpoints.of_program(build + "/server/holdfastd"):
        print("left out: failpoints: these programs have none", flush=True)
        return
    with Stand(build, nodes=3, node_options=OPTIONS, **PARTS[part]) as stand:
        stand.shop("S", "A", units=1000000)
        front(stand)
        with Load(stand, "S", "A", threads=2) as load:
            for function in dict.fromkeys(f for kind, (p, f) in TESTS.items() if p == part and only in (None, kind)):
                begun = time.monotonic()
                function(stand, load)
                stand.wait_ready()
                assert not stand.active()
                print(f"ok {function.__name__} ({time.monotonic() - begun:.1f} s)", flush=True)
        load.check()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--kind")
    a = parser.parse_args()
    untested = set(faults.KINDS) - set(TESTS)
    assert not untested, f"kinds without a test: {untested}"
    assert set(a.parts) <= set(PARTS), a.parts
    for part in a.parts or ([TESTS[a.kind][0]] if a.kind else PARTS):
        run_part(str(pathlib.Path(a.build).resolve()), part, a.kind)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Interrupted as e:
        sys.exit(str(e))
