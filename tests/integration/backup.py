#!/usr/bin/env python3
"""Backups of a cluster under load: saved from leader and follower, damaged in every way, restored into a new
cluster that goes on selling and has nothing to do with the old one.

Usage: backup.py BUILD [--rounds N] [--only cluster|database]
N: how often a node is killed while it gives a snapshot (2)
"""
import argparse
import glob
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import uuid

import harness  # noqa: F401
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
    new.wait("another leader", lambda: any(s and s["role"] == "leader" for s in (n.status() for n in new.nodes[1:])))
    terms = {n.id: n.status()["term"] for n in new.nodes[1:]}
    old_node.start("--listen-raft", new_node.raft, "--log-level", "debug")
    old_node.process.wait_for(r"connection from node .*cluster")
    rows = json.loads(new.ctl("member", "list", "-o", "json").stdout)
    assert [r["connected"] for r in rows if r["id"] == 1] == [False], rows
    assert {n.id: n.status()["term"] for n in new.nodes[1:]} == terms
    old_node.kill()
    old_node.start()
    old.wait_ready()


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


# ---- PostgreSQL ----

class Database:
    """A private PostgreSQL with our schema, if there is one to be had."""

    def __init__(self, cluster):
        self.script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "private_pg.sh")
        self.dir = tempfile.mkdtemp(prefix="hf-pg-")
        os.chmod(self.dir, 0o711)
        done = subprocess.run(["sh", self.script, "start", self.dir], capture_output=True, text=True, timeout=120)
        self.url = done.stdout.strip() if done.returncode == 0 else None
        if done.returncode not in (0, 77):
            raise AssertionError(done.stderr)
        if self.url:
            expect(cluster, OK, "migrate", "up", "--postgres-url", self.url)

    def close(self):
        subprocess.run(["sh", self.script, "stop", self.dir], capture_output=True, timeout=120)
        shutil.rmtree(self.dir, ignore_errors=True)

    def sql(self, statement):
        psql = (sorted(glob.glob("/usr/lib/postgresql/*/bin/psql")) + ["psql"])[-1]
        done = subprocess.run([psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.url, "-c", statement],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{statement}\n{done.stderr}"
        return done.stdout.strip()


def persisted(cluster):
    row = json.loads(cluster.ctl("persist", "status", "-o", "json", check=False).stdout or "{}")
    return row.get("connected") and row["events_pending"] == 0


def place(cluster, key, user="buyer"):
    status, answer = attempt(cluster, key, user)
    assert status == 201, (status, answer)
    return answer["order_id"]


def adopt(build):
    """A restored cluster and the database of the old one, which has seen more than the backup."""
    old = Cluster(build, nodes=1)
    database = Database(old)
    if database.url is None:
        progress("no PostgreSQL here: adopting is left out")
        database.close()
        old.close()
        return
    options = ["--postgres-url", database.url, "--shards", "4"]
    old.node_options = options
    new = Cluster(build, nodes=1, node_options=options)
    path = old.path("backup")
    try:
        with old:
            old.shop("S", "A", units=1000)
            kept = [place(old, f"kept-{i}", f"user-{i}") for i in range(12)]
            old.ctl("order", "pay", kept[0])
            old.ctl("order", "cancel", kept[1])
            old.ctl("eligibility", "grant", "S", "early")
            old.ctl("eligibility", "grant", "S", "wavering")
            old.wait("events in PostgreSQL", lambda: persisted(old))
            before = database.sql(ROWS)
            expect(old, OK, "snapshot", "save", path)
            # What the backup does not have: new orders, payments and changes of old ones.
            lost = [place(old, f"lost-{i}", f"user-{i}") for i in range(7)]
            for order in (kept[2], kept[3], lost[0]):
                old.ctl("order", "pay", order)
            old.ctl("order", "refund", kept[0], "--restock", "--reason", "after the backup")
            old.ctl("eligibility", "revoke", "S", "wavering")
            old.ctl("eligibility", "grant", "S", "late")
            old.wait("events in PostgreSQL", lambda: persisted(old))
            assert database.sql(ROWS) != before
            leaderless = old.node(1)
            leaderless.kill()  # the disaster
            node = new.node(1)
            expect(new, OK, *restore_arguments(path, node.dir, 1, new.id, new.nodes))
            node.start()
            new.start_gateway()
            new.wait_ready()
            # The old rows are not mixed with the new ones before somebody says so.
            new.wait("the database is refused", lambda: "another cluster" in new.ctl(
                "persist", "status", "-o", "json", check=False).stdout)
            place(new, "meanwhile", "patient")
            arguments = ["persist", "adopt", path, "--cluster-id", new.id, "--postgres-url", database.url]
            dry, _ = expect(new, OK, *arguments, "--dry-run")
            assert (dry["orders"], dry["changed_orders"], dry["payments"], dry["eligibilities"], dry["adopted"]) == \
                (7, 3, 3, 2, False), dry
            expect(new, USAGE, *arguments)  # not confirmed
            assert database.sql("SELECT count(*) FROM holdfast.set_aside") == "0"
            # A backup of yet another cluster, and one that is younger than the database, are refused.
            with_other_id = arguments[:4] + [old.id] + arguments[5:]
            _, said = expect(new, REFUSED, *with_other_id, "--yes")
            assert "has it already" in said, said
            database.sql("UPDATE holdfast.watermark SET sequence = sequence - 1000")
            _, said = expect(new, REFUSED, *arguments, "--yes") if report_acked(old, path) else (None, "lack events")
            assert "lack events" in said, said
            database.sql("UPDATE holdfast.watermark SET sequence = sequence + 1000")
            done, _ = expect(new, OK, *arguments, "--yes")
            assert {**done, "adopted": False} == dry, (done, dry)
            assert database.sql("SELECT count(*) FROM holdfast.set_aside WHERE kind = 'order'") == "7"
            _, said = expect(new, REFUSED, *arguments, "--yes")
            assert "belongs to" in said, said
            new.wait("events in PostgreSQL", lambda: persisted(new))
            # As it was at the backup, and what came since.
            rows = [r for r in database.sql(ROWS).splitlines() if "patient" not in r]
            assert rows == before.splitlines(), "\n".join(rows) + "\n---\n" + before
            again = place(new, "lost-0", "user-0")
            assert again not in lost + kept
            new.ctl("order", "pay", kept[2])
            new.ctl("order", "cancel", kept[4])
            new.ctl("eligibility", "revoke", "S", "early")
            expect(new, OK, "audit", "--postgres-url", database.url)
            # The old cluster comes back from the dead: it writes nothing.
            rows = database.sql(ROWS)
            leaderless.start()
            old.wait_ready()
            place(old, "from-the-dead", "zombie")
            old.wait("the database is refused", lambda: "another cluster" in old.ctl(
                "persist", "status", "-o", "json", check=False).stdout)
            assert database.sql(ROWS) == rows
            expect(new, OK, "audit", "--postgres-url", database.url)
            wrong = new.close()
            assert not wrong, wrong
    except BaseException:
        for p in new.processes:
            print(f"--- new {p.name} ---", *p.lines[-25:], sep="\n", flush=True)
        new.close()
        raise
    finally:
        database.close()


def report_acked(cluster, path):
    """Whether the snapshot knows of anything that PostgreSQL has."""
    verified, _ = expect(cluster, OK, "snapshot", "verify", path)
    return verified["events_pending"] < verified["last_event"]


ROWS = """
SELECT concat_ws(' ', id, status, version, amount, created_at, changed_at, created_index, changed_index, user_id,
                 restocked, reason) FROM holdfast.orders
UNION ALL SELECT concat_ws(' ', 'line', l.order_id, l.line, l.quantity, l.sku, o.user_id)
    FROM holdfast.order_lines l JOIN holdfast.orders o ON o.id = l.order_id
UNION ALL SELECT concat_ws(' ', 'pay', sequence, order_id, amount, payment_id) FROM holdfast.payments
UNION ALL SELECT concat_ws(' ', 'right', sale_id, user_id, granted, sequence, log_index, changed_at)
    FROM holdfast.eligibilities
UNION ALL SELECT concat_ws(' ', 'event', sequence, id, payload) FROM holdfast.outbox ORDER BY 1
"""


def progress(what, begun=time.monotonic()):
    print(f"{time.monotonic() - begun:6.1f} s  {what}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=("cluster", "database"))
    arguments = parser.parse_args()
    if arguments.only != "database":
        files_and_clusters(arguments)
    if arguments.only != "cluster":
        progress("adopting a database")
        adopt(arguments.build)
    progress("ok")


def files_and_clusters(arguments):
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


if __name__ == "__main__":
    main()
