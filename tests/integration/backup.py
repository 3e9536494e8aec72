#!/usr/bin/env python3
"""Backups of a cluster under load: saved from leader and follower, damaged in every way, restored into a new
cluster that goes on selling and has nothing to do with the old one.

Usage: backup.py BUILD [--rounds N]     N: how often a node is killed while it gives a snapshot (3)
"""
import argparse
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import time
import uuid

from cluster import Cluster, Load

OK, FAILURE, USAGE, UNREACHABLE, REFUSED = range(5)


def expect(cluster, status, *arguments):
    """Runs holdfastctl, checks its exit status, returns (parsed output or None, standard error)."""
    done = cluster.ctl(*arguments, "-o", "json", check=False, timeout=120)
    assert done.returncode == status, \
        f"{' '.join(map(str, arguments))}: {done.returncode}, not {status}\n{done.stdout}\n{done.stderr}"
    return (json.loads(done.stdout) if done.stdout else None), done.stderr


def order_ids(cluster, sale):
    ids, cursor = [], ""
    while True:
        page = cluster.stage.expect(200, "GET", f"/v1/orders?sale_id={sale}&limit=500&consistency=strong"
                                    + (f"&cursor={cursor}" if cursor else ""), who="backend").json
        ids += [o["order_id"] for o in page["items"]]
        cursor = page.get("next_cursor")
        if not cursor:
            return ids


def save_under_load(old, load):
    """From a follower, from the leader, the newest there is. Returns what is known of each."""
    saved = []
    leader = old.leader()
    follower = next(n for n in old.nodes if n is not leader)
    for name, options in (("any", ()), ("follower", ("--node", follower.id)), ("leader", ("--node", leader.id))):
        load.wait_for(20)
        before = set(load.placed.values())
        path = old.path(f"{name}.snapshot")
        report, _ = expect(old, OK, "snapshot", "save", path, *options)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600, oct(os.stat(path).st_mode)
        assert report["bytes"] == os.path.getsize(path) and report["cluster_id"] == old.id, report
        if options:
            assert report["node"] == options[1], report
        inspected, _ = expect(old, OK, "snapshot", "inspect", path)
        assert inspected == report, (inspected, report)
        verified, _ = expect(old, OK, "snapshot", "verify", path)
        assert verified["whole"] and verified["orders"] >= len(before), (verified, len(before))
        assert {k: verified[k] for k in report} == report, (verified, report)
        saved.append((path, report, before))
    newest, _ = expect(old, OK, "snapshot", "save", old.path("newest.snapshot"), "--newest", "--node", leader.id)
    assert newest["index"] >= saved[-1][1]["index"], newest
    assert not [f for f in os.listdir(old.path(".")) if f.endswith(".part")]
    # What is there is not written over unless that is asked for.
    _, said = expect(old, REFUSED, "snapshot", "save", saved[0][0])
    assert "already" in said and "--force" in said, said
    again, _ = expect(old, OK, "snapshot", "save", old.path("newest.snapshot"), "--force")
    assert again["index"] >= newest["index"]
    return saved


def damage(old, path):
    """Flips, cuts, additions, another file: refused with file and offset."""
    with open(path, "rb") as f:
        good = f.read()
    bad = old.path("bad.snapshot")

    def refused(content, *words):
        with open(bad, "wb") as f:
            f.write(content)
        _, said = expect(old, FAILURE, "snapshot", "verify", bad)
        assert bad in said and all(w in said for w in words), said
    for at in sorted({0, 9, 40, 200, len(good) // 3, len(good) // 2, len(good) - 30, len(good) - 1}):
        refused(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1:], "offset")
    for size in (0, 5, 100, len(good) // 2, len(good) - 44, len(good) - 1):
        refused(good[:size], "offset", "cut")
    refused(good + b"\0", "offset", "behind the end")
    refused(b"not a snapshot at all" * 100, "does not begin")
    _, said = expect(old, FAILURE, "snapshot", "verify", old.path("none.snapshot"))
    assert "No such file" in said, said
    # Nothing is left of a restore from a damaged file.
    with open(bad, "wb") as f:
        f.write(good[:-1])
    expect(old, FAILURE, *restore_arguments(bad, old.path("restored-bad"), 1, str(uuid.uuid4()), old.nodes))
    assert not os.path.exists(old.path("restored-bad"))


def restore_arguments(path, directory, number, cluster_id, nodes):
    members = [x for n in nodes for x in ("--member", n.member())]
    return ["snapshot", "restore", path, "--data-dir", directory, "--id", number, "--cluster-id", cluster_id, *members]


def kill_the_giver(old, rounds):
    """A node that dies while it gives its snapshot: FILE is whole, or is not there and it was said."""
    victim = next(n for n in old.nodes if n is not old.leader())
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HOLDFAST_", "PG"))}
    for i in range(rounds):
        path = old.path(f"killed-{i}.snapshot")
        child = subprocess.Popen([str(old.holdfastctl), "snapshot", "save", path, "--node", str(victim.id),
                                  "--timeout", "2s", "--endpoints", victim.address,
                                  "--cluster-key-file", old.path("cluster.key")],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        time.sleep(random.uniform(0, 0.04))
        victim.signal(signal.SIGSTOP)
        time.sleep(0.05)
        victim.kill()
        out, said = child.communicate(timeout=120)
        if child.returncode == 0:
            expect(old, OK, "snapshot", "verify", path)
        else:
            assert child.returncode == UNREACHABLE, (child.returncode, out, said)
            assert f"node {victim.id} " in said and "try:" in said, said
            assert not os.path.exists(path) and not os.path.exists(path + ".part"), os.listdir(old.path("."))
        victim.start()
        old.wait_ready()
    victim.kill()
    _, said = expect(old, UNREACHABLE, "snapshot", "save", old.path("dead.snapshot"), "--node", victim.id,
                     "--timeout", "1s")
    assert f"node {victim.id} gives no snapshot" in said, said
    # Nobody need know which node is down.
    expect(old, OK, "snapshot", "save", old.path("others.snapshot"))
    victim.start()
    old.wait_ready()


def restore(old, new, path, report):
    """Three directories from one file; returns what they say."""
    _, said = expect(new, REFUSED, *restore_arguments(path, new.node(1).dir, 1, old.id, new.nodes))
    assert "snapshot's own cluster" in said, said
    assert not os.path.exists(new.node(1).dir)
    reports = []
    for node in new.nodes:
        restored, _ = expect(new, OK, *restore_arguments(path, node.dir, node.id, new.id, new.nodes))
        assert restored["from_digest"] == report["digest"] and restored["from_cluster_id"] == old.id, restored
        assert restored["first_index"] > report["index"] + 2**32, restored
        reports.append((restored["digest"], restored["first_index"]))
    assert len(set(reports)) == 1, reports
    _, said = expect(new, REFUSED, *restore_arguments(path, new.node(1).dir, 1, new.id, new.nodes))
    assert "not an empty directory" in said, said
    for wrong in (("--id", "9"), ("--cluster-id", "nonsense"), ("--member", "1=here/there")):
        arguments = restore_arguments(path, new.path("wrong"), 1, new.id, new.nodes)
        expect(new, USAGE, *arguments[:3], *wrong, *[
            a for i, a in enumerate(arguments) if i >= 3 and a != wrong[0] and arguments[i - 1] != wrong[0]])
        assert not os.path.exists(new.path("wrong"))
    return reports[0]


def strangers(old, new):
    """One key for both clusters (the worst case): nodes of one are refused by the other all the same."""
    old_node, new_node = old.node(1), new.node(1)
    # An old data directory under the new cluster's id, and the other way round.
    for of, other in ((old_node, new), (new_node, old)):
        of.kill()
        intruder = other.node(1)
        intruder.kill()
        argv_dir, intruder.dir = intruder.dir, of.dir
        intruder.start()
        intruder.process.child.wait(30)
        assert intruder.process.stop() != 0  # all that it said is there now
        intruder.process.wait_for("another node or cluster")
        intruder.dir = argv_dir
        intruder.start()
        of.start()
    old.wait_ready()
    new.wait_ready()
    # A member of the old cluster at the address of one of the new: whoever connects is refused, and it learns
    # nothing and disturbs nobody.
    old_node.kill()
    new_node.kill()
    new.wait_ready()
    terms = {n.id: n.status()["term"] for n in new.nodes[1:]}
    old_node.start("--listen-raft", new_node.raft, "--log-level", "debug")
    old_node.process.wait_for(r"connection from node .*cluster")
    rows = json.loads(new.ctl("member", "list", "-o", "json").stdout)
    assert [r["connected"] for r in rows if r["id"] == 1] == [False], rows
    assert {n.id: n.status()["term"] for n in new.nodes[1:]} == terms
    old_node.kill()
    new_node.start()
    old_node.start()
    old.wait_ready()
    new.wait_ready()


def serve(old, new, path, report, before, replayed):
    """The new cluster has what was acknowledged before the snapshot, and goes on."""
    first = restore(old, new, path, report)
    for node in new.nodes:
        node.start()
    new.start_gateway()
    new.wait_ready()
    digests = new.digests()
    assert len(digests) == 3 and len(set(digests.values())) == 1, digests
    restored = set(order_ids(new, "S"))
    assert before <= restored, f"{len(before - restored)} acknowledged orders are not in the restored cluster"
    some = sorted(before)[0]
    assert expect(new, OK, "order", "get", some)[0]["status"] == "pending_payment"
    # Keys from before the snapshot still know their answers: the callers are the same.
    key, user, order = replayed
    status, answer = attempt(new, key, user)
    assert status in (200, 201) and answer["order_id"] == order, (status, answer)
    with Load(new, "S", "A", threads=2) as load:
        load.wait_for(30)
    placed = set(load.placed.values())
    listed = order_ids(new, "S")
    assert sorted(listed) == sorted(restored | placed), (len(listed), len(restored), len(placed))
    sku = new.stage.expect(200, "GET", "/v1/skus/A?consistency=strong", who="backend").json
    assert sku["available"] + sku["reserved"] + sku["sold"] == sku["received"], sku
    assert sku["reserved"] + sku["sold"] == len(listed), (sku, len(listed))
    expect(new, OK, "audit", "--no-postgres")
    # Restarted at once, it comes back; a node that is emptied is filled by the others.
    new.node(2).kill()
    new.node(2).start()
    new.node(3).kill()
    shutil.rmtree(new.node(3).dir)
    new.node(3).start()
    new.wait_ready()
    assert len(set(new.digests().values())) == 1, new.digests()
    # A backup of it says so, and can itself be restored.
    report, _ = expect(new, OK, "snapshot", "save", new.path("second.snapshot"))
    assert report["cluster_id"] == new.id and report["index"] >= first[1], report
    expect(new, OK, "snapshot", "verify", new.path("second.snapshot"))
    return placed


def attempt(cluster, key, user):
    answer = cluster.stage.call("POST", "/v1/orders", {"sale_id": "S", "user_id": user,
                                                       "lines": [{"sku": "A", "quantity": 1}]},
                                who="backend", key=key)
    return answer.status, answer.json


def progress(what, begun=time.monotonic()):
    print(f"{time.monotonic() - begun:6.1f} s  {what}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with Cluster(arguments.build) as old:
        old.shop("S", "A", units=1000000)
        status, answer = attempt(old, "before-the-backup", "somebody")
        assert status == 201, (status, answer)
        with Load(old, "S", "A", threads=3) as load:
            progress("saving")
            saved = save_under_load(old, load)
            path, report, before = saved[1]
            progress("damaging")
            damage(old, path)
            progress("restoring")
            new = Cluster(arguments.build)
            shutil.copy(old.path("cluster.key"), new.path("cluster.key"))
            try:
                placed = serve(old, new, path, report, before, ("before-the-backup", "somebody", answer["order_id"]))
            except BaseException:
                for p in new.processes:
                    print(f"--- new {p.name} ---", *p.lines[-25:], sep="\n", flush=True)
                new.close()
                raise
            load.wait_for(10)
            # Both clusters went on from one index: no id of one names an order of the other.
            both = placed & set(load.placed.values())
            assert not both, f"{len(both)} order ids were given twice"
        progress("meeting strangers")
        try:
            strangers(old, new)
        finally:
            wrong = new.close()
        assert not wrong, wrong
        progress("killing")
        kill_the_giver(old, arguments.rounds)
    progress("ok")


if __name__ == "__main__":
    main()
