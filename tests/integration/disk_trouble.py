#!/usr/bin/env python3
"""Disks that fail, fill, hang or crawl under a cluster of real nodes that takes orders.

    disk_trouble.py BUILD log|space [--long] [CASE …]      BUILD: the build directory

Each case breaks the disk of one node by tests/faults/libfaultio.so, says what was seen, and how long nobody was
served. Always checked: every acknowledged order is there, once; whoever ends ends with status 74 and says why; the
others go on; the node comes back and has everything. --long: each case three times and on both roles, orders from
more callers, and (root only) a file system that is really full.
"""
import argparse
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import harness  # noqa: F401
from cluster import Cluster, Load
from faultio import Faults

EXIT_LOG = 74
# Documented: served again within 5 s. Asserted with slack for a machine that is busy with other things.
SERVED_AGAIN_S = 5
SLACK = 6
LOG = "*/log/*.wal"


class Trouble:
    """A cluster under load, a control file for each node's disk, and what the cases share."""

    def __init__(self, build, options, threads=3):
        self.cluster = Cluster(build, nodes=3, node_options=options)
        self.faults = {}
        self.threads = threads
        for node in self.cluster.nodes:
            self.faults[node.id] = Faults(pathlib.Path(build) / "tests/faults/libfaultio.so",
                                          self.cluster.path("."), f"faults-{node.id}")
            node.environment.update(self.faults[node.id].environment)

    def __enter__(self):
        self.cluster.__enter__()
        self.cluster.shop("S", "A", units=1000000)
        self.load = Load(self.cluster, "S", "A", threads=self.threads).__enter__()
        return self

    def __exit__(self, kind, value, trace):
        try:
            self.load.stop()
            if kind is None:
                self.cluster.wait_ready()
                self.load.check()
        except BaseException:
            self.cluster.__exit__(*sys.exc_info())
            raise
        self.cluster.__exit__(kind, value, trace)

    # ---- what cases do ----

    def leader(self):
        return self.cluster.wait("a leader", self.cluster.leader)

    def pick(self, role):
        leader = self.leader()
        return leader if role == "leader" else random.choice([n for n in self.cluster.nodes if n is not leader])

    def break_disk(self, node, *rules):
        self.begun = time.monotonic()
        self.faults[node.id].set(*rules)

    def mend(self, node):
        self.faults[node.id].clear()
        self.faults[node.id].forget_hits()

    def wait_end(self, node, *words):
        """The process ends with the log's status; its last words name what they should."""
        code = node.process.child.wait(90)
        node.process.reader.join(30)
        assert code == EXIT_LOG, f"{node.process.name} ended with {code}:\n" + "\n".join(node.process.lines[-5:])
        last = [line for line in node.process.lines if " error " in line][-2:]
        assert len(last) == 2 and "giving up" in last[1] and "start this node again" in last[1], last
        for word in words:
            assert re.search(word, last[0]), f"{word!r} is not in the last words: {last[0]}"
        return last[0].split(": ", 1)[1]

    def serve(self, count=30):
        """So many more orders are acknowledged, whatever is broken."""
        self.load.wait_for(count)

    def back(self, node):
        """Starts it again on a good disk; it catches up."""
        self.mend(node)
        node.start()
        self.cluster.wait_ready()

    def gap(self):
        times = [t for t in sorted(self.load.times) if t >= self.begun - 1]
        gap = max((b - a for a, b in zip(times, times[1:])), default=0)
        assert gap < SERVED_AGAIN_S * SLACK, f"nobody was served for {gap:.1f} s"
        return gap

    def tell(self, name, text):
        print(f"{name:34} longest gap {self.gap():5.2f} s   {text}", flush=True)


# ---- the log ----

def fails(t, role, rule, words, name):
    """A write, or a sync, of the log fails: the node ends at once, the others serve."""
    node = t.pick(role)
    t.break_disk(node, rule)
    said = t.wait_end(node, *words)
    t.serve()
    assert t.leader() is not node
    t.back(node)
    t.tell(f"{name}, {role}", said)


def write_eio(t, role):
    fails(t, role, f"write {LOG} errno=EIO", [r"\.wal offset \d+: write of \d+ bytes: Input/output error"],
          "EIO on a log write")


def write_enospc(t, role):
    fails(t, role, f"write {LOG} errno=ENOSPC", [r"\.wal offset \d+: write of .*No space left on device"],
          "ENOSPC on a log write")


def sync_eio(t, role):
    # The log's writes are O_DSYNC; what is synced apart is a new segment and the directory.
    fails(t, role, "sync */log errno=EIO", ["Input/output error"], "EIO on a log sync")


def spare_enospc(t, role):
    """No room for a spare segment: told, tried again, no harm while there is one; later the end."""
    node = t.pick(role)
    t.break_disk(node, "allocate */log/* errno=ENOSPC count=1")
    node.process.wait_for("making a spare segment of .*No space left on device")
    t.serve()
    assert node.running(), "one failed spare ended the node"
    t.faults[node.id].set("allocate */log/* errno=ENOSPC", "write */log/*.tmp errno=ENOSPC")
    said = t.wait_end(node, r"creating a segment of \d+ bytes: No space left on device")
    t.serve()
    t.back(node)
    t.tell(f"ENOSPC for spares, {role}", said)


def stuck(t, role):
    """A write never returns: a leader hands over first, then the process ends."""
    node = t.pick(role)
    if role == "leader":
        node.process.lines.clear()
    t.break_disk(node, f"write {LOG} hold")
    if role == "leader":
        node.process.wait_for("log's disk has not answered .*handing leadership over")
        t.cluster.wait("another leader, while the process hangs or right after",
                       lambda: (lambda l: l is not None and l is not node)(t.cluster.leader()))
    said = t.wait_end(node, r"\.wal: write of \d+ bytes at offset \d+: no answer from the disk for \d+ ms")
    t.serve()
    t.back(node)
    t.tell(f"stuck log write, {role}", said)


def pause(t, role):
    """A write that hangs for less than the deadline ends nothing: the node follows and is whole."""
    node = t.pick(role)
    t.break_disk(node, f"write {LOG} hold")
    node.process.wait_for("log's disk has not answered")
    t.mend(node)
    t.cluster.wait("the node to answer again", lambda: (node.status() or {}).get("log_write_age_ms") == 0)
    t.serve()
    assert node.running()
    t.cluster.wait_ready()
    t.tell(f"log write hangs for a while, {role}", "nothing ended")


def stop_while_stuck(t, role):
    """SIGTERM to a node whose disk hangs: it ends at the deadline all the same."""
    node = t.pick(role)
    t.break_disk(node, f"write {LOG} hold")
    t.faults[node.id].wait_hit("write")
    node.signal(signal.SIGTERM)
    t.wait_end(node, "no answer from the disk")
    t.serve()
    t.back(node)
    t.tell(f"SIGTERM while stuck, {role}", "ended at the deadline")


def slow(t, role, seconds=3):
    """200 ms a write: slow orders, but nobody moves."""
    node = t.pick(role)
    silences = [line for line in node.process.lines if "disk has not answered" in line]
    t.break_disk(node, f"write {LOG} delay=200ms")
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        t.serve(1)
    t.mend(node)
    t.serve()
    assert [line for line in node.process.lines if "disk has not answered" in line] == silences, \
        "a slow disk was taken for a stuck one"
    assert node.running()
    t.tell(f"200 ms a log write, {role}", "nobody moved")


def read_eio(t, role):
    """The log cannot be read at start: refused, with the file; nothing is changed."""
    node = t.pick(role)
    node.stop()
    t.break_disk(node, f"read {LOG} errno=EIO")
    node.start()
    code = node.process.child.wait(60)
    node.process.reader.join(30)
    assert code not in (0, None), code
    said = next((line for line in node.process.lines if re.search(r"\.wal.*Input/output error", line)), None)
    assert said, node.process.lines[-10:]
    t.serve()
    t.back(node)
    t.tell(f"EIO on a read at start, {role}", said.split(": ", 1)[1][:100])


def identity_eio(t, role):
    """A new node whose identity cannot be written does not start, and leaves nothing that confuses the next try."""
    node = t.cluster.add_node()
    faults = Faults(t.faults[1].environment["LD_PRELOAD"], t.cluster.path("."), "faults-new")
    node.environment.update(faults.environment)
    t.begun = time.monotonic()
    try:
        for rule in ("sync *identity* errno=EIO", "write *identity* errno=ENOSPC"):
            faults.set(rule)
            node.start(members=t.cluster.nodes)
            assert node.process.child.wait(60) != 0
            node.process.reader.join(30)
            said = [line for line in node.process.lines if "identity" in line and " error " in line]
            assert said, node.process.lines
    finally:
        t.cluster.nodes.remove(node)
    t.tell("identity cannot be written", said[-1].split(": ", 1)[1])


# ---- checkpoints and space ----

def checkpoint_fails(t, role, rules=("write */checkpoint*/* errno=ENOSPC",), name="ENOSPC on a checkpoint"):
    """The node goes on without a checkpoint and says so; the next one that can be written is."""
    node = t.pick(role)
    t.break_disk(node, *rules)
    t.cluster.wait("a failed checkpoint in the status", lambda: (node.status() or {}).get("checkpoint_failures", 0) > 0)
    node.process.wait_for("no checkpoint could be written, 1 in a row")
    before = node.status()["checkpoint_index"]
    t.serve()
    health = t.cluster.ctl("endpoint", "health", check=False)
    assert health.returncode != 0 and "cannot write checkpoints" in health.stdout, health.stdout
    t.mend(node)
    t.cluster.wait("a checkpoint after all", lambda: (lambda s: s and s["checkpoint_failures"] == 0 and
                                                      s["checkpoint_index"] > before)(node.status()))
    assert node.running()
    t.tell(f"{name}, {role}", "went on without, then wrote it")


def checkpoint_sync(t, role):
    checkpoint_fails(t, role, ("sync */checkpoint*/* errno=EIO",), "EIO on a checkpoint's sync")


def checkpoint_root(t, role):
    """The write of LMDB's root page fails, after which it takes nothing any more until it is opened anew."""
    node = t.pick(role)
    t.break_disk(node, "sync */checkpoint/gen-*/data.mdb hold")
    t.faults[node.id].wait_hit("sync")
    t.faults[node.id].set("write */checkpoint/gen-*/data.mdb errno=EIO count=1")  # lets the sync go; the root is next
    node.process.wait_for("checkpoint failed: Input/output error")
    node.process.wait_for("opened anew after a failed write of its root")
    before = node.status()["checkpoint_index"]
    t.mend(node)
    t.serve()
    t.cluster.wait("a checkpoint after all", lambda: (lambda s: s and s["checkpoint_failures"] == 0 and
                                                      s["checkpoint_index"] > before)(node.status()))
    t.tell(f"EIO on a checkpoint's root, {role}", "opened anew")


def low_space_moves(t, role):
    """Little space on the leader alone: leadership moves to a node with more."""
    node = t.pick("leader")
    t.break_disk(node, "space * free=10MiB")
    node.process.wait_for("free, less than --low-space")
    t.cluster.wait("another leader", lambda: (lambda l: l is not None and l is not node)(t.cluster.leader()))
    node.process.wait_for("space is low here, not on node")
    t.serve()
    assert node.status()["disk_low"] and node.status()["disk_free_bytes"] == 10 << 20
    t.mend(node)
    node.process.wait_for("enough again")
    t.tell("low space, leader only", "leadership moved")


def low_space_everywhere(t, role):
    """Little space on all: new orders are refused, payments and cancellations are taken, until there is more."""
    s = t.cluster.stage
    now = time.time_ns()
    s.put_sku(f"B-{now}", 100)
    s.put_sale(f"B-{now}", [f"B-{now}"])
    place = lambda key: s.place(f"B-{now}", "payer", key, sku=f"B-{now}")
    key = f"known-{now}"
    orders = [place(f"before-{now}-{i}").json for i in range(2)]
    known = place(key).json
    t.begun = time.monotonic()
    for node in t.cluster.nodes:
        t.faults[node.id].set("space * free=10MiB")
    # Until the last one has measured, leadership moves to who seems to have room.
    t.cluster.wait("all to be short of space", lambda: all((n.status() or {}).get("disk_low")
                                                           for n in t.cluster.nodes))
    t.cluster.wait_ready()
    refused = t.cluster.wait("a refusal", lambda: (lambda a: a if a.status == 503 and a.code == "LOW_SPACE" else None)(
        place_refused(t)))
    assert refused.json["type"] == "/problems/low-space" and int(refused.headers["retry-after"]) >= 1, refused.headers
    assert refused.json["retry_after_ms"] >= 1000
    again = place(key)
    assert again.status in (200, 201) and again.json["order_id"] == known["order_id"], again.body
    paid = s.pay(orders[0]["order_id"], f"event-{time.time_ns()}", 250)
    assert paid.status == 200, paid.body
    cancelled = s.call("POST", f"/v1/orders/{orders[1]['order_id']}/cancel", {}, who="backend",
                       key=f"cancel-{time.time_ns()}")
    assert cancelled.status == 200, cancelled.body
    refused_sku = s.call("PUT", "/v1/skus/NEW", {"title": "N"}, who="admin", listener="admin",
                         headers={"If-None-Match": "*"})
    assert (refused_sku.status, refused_sku.code) == (503, "LOW_SPACE"), refused_sku.body
    status = t.cluster.ctl("status", check=False).stdout
    assert "nearly full" in status, status
    done = t.cluster.ctl("sku", "put", "NEW", check=False)
    assert done.returncode == 4 and "short of space" in done.stderr, done
    for node in t.cluster.nodes:
        t.mend(node)
    t.serve()
    t.cluster.wait("all to have space again", lambda: all((n.status() or {}).get("disk_low") is False
                                                          for n in t.cluster.nodes))
    t.tell("low space, all nodes", "refused with LOW_SPACE, payments and cancellations taken")


def place_refused(t):
    """One attempt; if it is taken after all it counts."""
    answer = t.cluster.stage.place("S", "refused", f"refused-{time.time_ns()}")
    if answer.status in (200, 201):
        t.load.placed[answer.json["order_id"]] = answer.json["order_id"]
    return answer


def full_file_system(t, role):
    """A follower on a small file system of its own that is really full: it ends; with room again it catches up."""
    node = t.pick("follower")
    node.stop()
    home, place = node.dir, t.cluster.path("small")
    os.mkdir(place)
    image = t.cluster.path("small.ext4")
    done = subprocess.run(f"truncate -s 400M {image} && mkfs.ext4 -q {image} && mount -o loop {image} {place}",
                          shell=True, capture_output=True, text=True)
    if done.returncode != 0:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode != 0:
        print(f"full file system: skipped: a file system of its own needs root ({done.stderr.strip()})")
        node.start()
        t.cluster.wait_ready()
        return
    try:
        t.begun = time.monotonic()
        subprocess.run(["cp", "-a", home, place + "/data"], check=True)
        node.dir = place + "/data"
        node.start()
        t.cluster.wait_ready()
        with open(place + "/filler", "wb") as f:
            try:
                while True:
                    f.write(bytes(1 << 20))
                    f.flush()
            except OSError:
                pass
        node.process.wait_for("less than --low-space")
        said = t.wait_end(node, "No space left on device")
        t.serve()
        os.unlink(place + "/filler")
        t.back(node)
        t.tell("full file system, follower", said)
        node.stop()
        subprocess.run(["rm", "-rf", home], check=True)
        subprocess.run(["cp", "-a", place + "/data", home], check=True)
    finally:
        if node.running():
            node.stop()
        node.dir = home
        subprocess.run(["umount", place], check=False)
    node.start()
    t.cluster.wait_ready()


LOG_CASES = [(write_eio, "leader"), (write_enospc, "follower"), (sync_eio, "leader"), (spare_enospc, "follower"),
             (stuck, "leader"), (stuck, "follower"), (stop_while_stuck, "follower"),
             (slow, "leader"), (read_eio, "follower"), (identity_eio, "none")]
SPACE_CASES = [(checkpoint_fails, "leader"), (checkpoint_sync, "follower"),
               (checkpoint_root, "follower"), (pause, "leader"),
               (low_space_moves, "leader"), (low_space_everywhere, "all")]
LOG_OPTIONS = ["--segment-size", "1MiB", "--checkpoint-interval", "1h", "--log-write-deadline", "4s",
               "--low-space", "64MiB"]
SPACE_OPTIONS = ["--segment-size", "1MiB", "--checkpoint-interval", "300ms", "--low-space", "64MiB"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("part", choices=["log", "space"])
    parser.add_argument("--long", action="store_true")
    parser.add_argument("cases", nargs="*")
    a = parser.parse_intermixed_args()
    cases = LOG_CASES if a.part == "log" else SPACE_CASES
    if a.long:
        both = {(case, role) for case, given in cases
                for role in (("leader", "follower") if given in ("leader", "follower") else (given,))}
        cases = sorted(both, key=lambda c: (c[0].__name__, c[1])) * 3
        cases += [(full_file_system, "follower")] if a.part == "log" else []
    with Trouble(a.build, LOG_OPTIONS if a.part == "log" else SPACE_OPTIONS, threads=8 if a.long else 3) as t:
        for case, role in cases:
            if not a.cases or case.__name__ in a.cases:
                begun = time.monotonic()
                case(t, role)
                print(f"    {time.monotonic() - begun:.1f} s", flush=True)
    print(f"ok: {len(t.load.placed)} orders, none lost, none twice")


main()
