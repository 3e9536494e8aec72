#!/usr/bin/env python3
"""Rows of docs/failure-matrix.md that no other test has: for each fault what clients and operators see.

Usage: failures.py BUILD [NAME …]      NAME: of a test, e.g. test_leader_cut_off
"""
import json
import pathlib
import shutil
import struct
import sys
import time

import harness  # noqa: F401
import gateway_harness
from cluster import Cluster, Load
from network import Network
from node_link import NO_CLUSTER, SERVICE_RAFT, Link, crc32c, message
from processes import Process

BUILD = None
SUBMIT = 10


def metric(cluster, node, name):
    for line in cluster.ctl("node", "metrics", node.id).stdout.splitlines():
        if line.rpartition(" ")[0] == name:
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")


def order(cluster, key, wait="2", sale="S", sku="A"):
    body = {"sale_id": sale, "user_id": "u", "lines": [{"sku": sku, "quantity": 1}]}
    return cluster.stage.call("POST", "/v1/orders", body, who="backend", key=key, headers={"Prefer": f"wait={wait}"})


def healthy(cluster):
    return cluster.ctl("status", check=False).returncode == 0


# ---- three nodes, faults of processes ----

def test_one_node_killed():
    with Cluster(BUILD) as c:
        c.shop("S", "A", units=100000)
        follower = next(n for n in c.nodes if n is not c.leader())
        with Load(c, "S", "A", threads=3) as load:
            for victim in (follower, c.leader()):
                victim.kill()
                load.wait_for(20)
                health = c.ctl("endpoint", "health", "-o", "json", check=False)
                rows = {r["id"]: r["healthy"] for r in json.loads(health.stdout)}
                assert health.returncode == 1 and rows == {n.id: n is not victim for n in c.nodes}, rows
                leader = c.wait("a leader", c.leader)
                assert any(f"node {victim.id} is disconnected" in line for line in leader.process.lines)
                victim.start()
                c.wait_ready()
            assert not load.refused, load.refused
        load.check()
        assert healthy(c)


def test_majority_lost():
    with Cluster(BUILD) as c:
        c.shop("S", "A", units=100)
        placed = order(c, "before")
        assert placed.status == 201, placed.body
        left = c.leader()
        gone = [n for n in c.nodes if n is not left]
        for node in gone:
            node.kill()
        first = order(c, "during", wait="1")
        assert (first.status, first.code) in ((504, "OUTCOME_UNKNOWN"), (503, "NO_LEADER")), first.body
        c.wait("it steps down", lambda: metric(c, left, "holdfast_has_leader") == 0)
        later = order(c, "later", wait="1")
        assert (later.status, later.code) == (503, "NO_LEADER"), later.body
        assert later.headers["retry-after"], later.headers
        strong = c.stage.call("GET", "/v1/skus/A?consistency=strong", who="backend", headers={"Prefer": "wait=1"})
        assert (strong.status, strong.code) == (503, "NO_LEADER"), strong.body
        assert c.stage.expect(200, "GET", "/v1/skus/A", who="backend").json["reserved"] >= 1  # what it has applied
        assert c.stage.call("GET", "/readyz").status == 503
        assert not healthy(c)
        gone[0].start()  # two of three are enough
        c.wait("orders again", lambda: order(c, "during").status == 201)
        gone[1].start()
        c.wait_ready()
        assert order(c, "before").body == placed.body
        sku = c.stage.expect(200, "GET", "/v1/skus/A?consistency=strong", who="backend").json
        assert sku["reserved"] in (2, 3), sku  # "later" was refused: nothing happened; "during" once
        assert len(set(c.digests().values())) == 1


def test_gateway_killed():
    with Cluster(BUILD) as c:
        c.shop("S", "A", units=100000)
        with Load(c, "S", "A", threads=3) as load:
            for _ in range(2):
                load.wait_for(20)
                c.stage.gateway.stop(gateway_harness.signal.SIGKILL)
                c.start_gateway()
                load.wait_for(20)
        load.check()


# ---- three nodes, faults of the network between them ----

class Networked(Cluster):
    def __init__(self):
        super().__init__(BUILD)
        self.network = Network(self)


def test_leader_cut_off():
    with Networked() as c:
        c.shop("S", "A", units=100000)
        with Load(c, "S", "A", threads=3) as load:
            for way in ("both", "out", "in"):
                old, others = c.wait("a leader", c.leader), None
                others = {n.id for n in c.nodes if n is not old}
                if way in ("both", "out"):
                    c.network.cut({old.id}, others)
                if way in ("both", "in"):
                    c.network.cut(others, {old.id})
                c.wait(f"another leader, cut: {way}", lambda: any(
                    s and s["role"] == "leader" and s["ready"]
                    for s in [n.status() for n in c.nodes if n is not old]))
                if way == "both":
                    c.wait("the old one notices", lambda: metric(c, old, "holdfast_is_leader") == 0)
                load.wait_for(20)
                c.network.heal()
                c.wait_ready()
            assert not load.refused, load.refused
        load.check()


def test_follower_cut_off():
    with Networked() as c:
        c.shop("S", "A", units=100000)
        with Load(c, "S", "A", threads=3) as load:
            leader = c.leader()
            before = leader.status()["term"]
            cut = next(n for n in c.nodes if n is not leader)
            c.network.isolate(cut.id)
            c.wait("it knows no leader", lambda: metric(c, cut, "holdfast_has_leader") == 0)
            c.wait("the leader sees it behind", lambda: metric(
                c, leader, f'holdfast_peer_lag_entries{{peer="{cut.id}"}}') > 0)
            load.wait_for(20)
            c.network.heal()
            c.wait_ready()
            # Pre-vote: whoever comes back does not depose the leader.
            assert c.leader() is leader and leader.status()["term"] == before, (before, leader.status())
        load.check()
        assert load.retries == 0 and not load.refused, (load.retries, load.refused)


def test_slow_network():
    with Networked() as c:
        c.shop("S", "A", units=100000)
        c.network.delay_s = 0.03
        c.wait_ready()
        term = c.wait("a leader", c.leader).status()["term"]
        with Load(c, "S", "A", threads=3) as load:
            load.wait_for(60)
            assert min(load.latencies_s) >= 0.06, "an order was acknowledged without a round trip"
        assert c.leader().status()["term"] == term, "a round trip of 60 ms cost the leader its place"
        c.network.delay_s = 0.0
        load.check()


# ---- one node, limits ----

def test_database_down_until_the_backlog_is_full():
    with Cluster(BUILD, nodes=1, node_options=["--events-max", "64", "--postgres-url",
                                               f"postgresql://nobody@127.0.0.1:{gateway_harness.free_port()}/none"]) as c:
        node = c.node(1)
        c.shop("S", "A", units=1000)
        answers = [order(c, f"key-{i}") for i in range(70)]
        codes = [a.code if a.status != 201 else "placed" for a in answers]
        full = codes.index("BACKLOG_FULL")
        assert full > 20 and set(codes[:full]) == {"placed"} and set(codes[full:]) == {"BACKLOG_FULL"}, codes
        assert answers[-1].status == 503 and answers[-1].headers["retry-after"], answers[-1].headers
        assert metric(c, node, "holdfast_persist_connected") == 0
        assert metric(c, node, "holdfast_persist_lag_events") == full
        assert c.ctl("persist", "status", check=False).returncode == 1
        # What was promised can still be kept: an order that exists can be paid.
        assert c.stage.pay(answers[0].json["order_id"], "event", answers[0].json["amount"]).status == 200
        assert order(c, "key-0").json["order_id"] == answers[0].json["order_id"]


def test_a_limit_of_memory():
    with Cluster(BUILD, nodes=1, node_options=["--orders-max", "16"]) as c:
        c.shop("S", "A", units=1000)
        answers = [order(c, f"key-{i}") for i in range(20)]
        codes = [a.code if a.status != 201 else "placed" for a in answers]
        full = codes.index("CAPACITY")
        assert set(codes[:full]) == {"placed"} and set(codes[full:]) == {"CAPACITY"}, codes
        assert answers[-1].status == 503 and "orders_max" in answers[-1].body.decode(), answers[-1].body
        assert order(c, "key-0").json["order_id"] == answers[0].json["order_id"]
        cancelled = c.stage.call("POST", f"/v1/orders/{answers[0].json['order_id']}/cancel", {}, who="backend")
        assert cancelled.status == 200, cancelled.body


# ---- keys and versions ----

def test_wrong_key():
    with Cluster(BUILD) as c:
        c.shop("S", "A", units=100)
        stranger = next(n for n in c.nodes if n is not c.leader())
        stranger.stop()
        c.stage._write("other.key", "ab" * 32 + "\n")
        stranger.start("--cluster-key-file", c.path("other.key"))
        stranger.process.wait_for(r"connection to node \d+ .*peer does not hold the cluster key")
        assert order(c, "meanwhile").status == 201  # the other two go on
        gateway = Process("gateway with the wrong key", [
            c.stage.gateway_path, "--listen", "127.0.0.1:0", "--listen-admin", "127.0.0.1:0", "--nodes",
            c.node(1).address, "--cluster-key-file", c.path("other.key"), "--api-keys-file", c.path("api-keys"),
            "--user-token-secret-file", c.path("user.secret"), "--payment-secret-file", c.path("payment.secret")])
        c.processes.append(gateway)
        kept, c.stage.ports = c.stage.ports, {
            "public": int(gateway.wait_for(r"listening kind=public .*port=(\d+)")[1])}
        refused = order(c, "never", wait="1")
        assert (refused.status, refused.code) == (503, "NO_LEADER"), refused.body
        assert c.stage.call("GET", "/readyz").status == 503
        c.stage.ports = kept
        stranger.stop()
        stranger.start()
        c.wait_ready()


def expect_refusal(c, node, pattern):
    """It ends by itself, with status 1 and this in its log."""
    node.start()
    code = node.process.child.wait(gateway_harness.PATIENCE_S)
    node.process.reader.join(gateway_harness.PATIENCE_S)
    assert code == 1, (code, node.process.lines)
    node.process.wait_for(pattern)


def patch_segment(path):
    """The header of a segment says that it is of a later version."""
    block = bytearray(path.read_bytes()[:4096])
    struct.pack_into("<II", block, 8, 99, 0)
    struct.pack_into("<I", block, 12, crc32c(bytes(block)))
    with open(path, "r+b") as f:
        f.write(block)


def patch_blocks(path, key, change):
    """Every value under this integer key in an LMDB file: u32 crc32c of (key, content), content."""
    data, name, count = bytearray(path.read_bytes()), struct.pack("<Q", key), 0
    at = data.find(struct.pack("<HH", 0, 8) + name)
    while at >= 4:
        size = struct.unpack_from("<HH", data, at - 4)
        size, value = size[0] | size[1] << 16, at + 12
        content = data[value + 4:value + size]
        if 4 < size <= 2048 and struct.unpack_from("<I", data, value)[0] == crc32c(name + bytes(content)):
            change(content)
            data[value + 4:value + size] = content
            struct.pack_into("<I", data, value, crc32c(name + bytes(content)))
            count += 1
        at = data.find(struct.pack("<HH", 0, 8) + name, at + 1)
    assert count > 0, "no such block"
    path.write_bytes(data)


def patch_meta(path):
    """Every meta record in an LMDB file: "HCKP", u32 version, ..., u32 crc32c of all before."""
    data, count = bytearray(path.read_bytes()), 0
    at = data.find(b"checkpointHCKP")
    while at >= 0:
        size = struct.unpack_from("<HH", data, at - 8)
        size, value = size[0] | size[1] << 16, at + 10
        if size <= 4096 and struct.unpack_from("<I", data, value + size - 4)[0] == crc32c(bytes(data[value:value + size - 4])):
            struct.pack_into("<I", data, value + 4, 99)
            struct.pack_into("<I", data, value + size - 4, crc32c(bytes(data[value:value + size - 4])))
            count += 1
        at = data.find(b"checkpointHCKP", at + 1)
    assert count > 0, "no meta record"
    path.write_bytes(data)


def test_newer_files_are_refused():
    with Cluster(BUILD, nodes=1, node_options=["--checkpoint-interval", "1s"], gateway=False) as c:
        node = c.node(1)
        c.wait("a checkpoint", lambda: (node.status() or {}).get("checkpoint_index", 0) > 1)
        node.stop()
        whole = c.path("whole")
        shutil.copytree(node.dir, whole)
        directory = pathlib.Path(node.dir)

        def again():
            shutil.rmtree(directory)
            shutil.copytree(whole, directory)

        patch_segment(next(directory.glob("log/0*.wal")))
        expect_refusal(c, node, r"log format 99 is newer than this program's \d+.*Run the version")
        again()
        identity = directory / "identity"
        identity.write_text("holdfast-node 99\n" + identity.read_text().split("\n", 1)[1])
        expect_refusal(c, node, r"identity.*version that wrote it")
        again()
        patch_meta(next(directory.glob("checkpoint/gen-*/data.mdb")))
        expect_refusal(c, node, r"checkpoint format 99, this program reads \d+.*Run the version")
        again()
        patch_blocks(next(directory.glob("checkpoint/gen-*/data.mdb")), 0,
                     lambda content: struct.pack_into("<Q", content, 0, 99))
        expect_refusal(c, node, r"this state is of format 99, and this program .* reads formats \d+ to \d+")
        again()
        node.start()
        c.wait_ready()


def test_a_member_of_another_format():
    """A member whose program does not read what the others have: refused, by name, and the others go on."""
    with Cluster(BUILD, nodes=3) as c:
        c.shop("S", "A", units=100)
        newer, here = c.node(3), c.node(1)
        newer.stop()
        key = bytes.fromhex(open(c.path("cluster.key")).read())
        cluster_id = bytes.fromhex(c.id.replace("-", ""))
        port = int(here.raft.rpartition(":")[2])
        for formats, side in (((98, 99), "this node"), ((0, 0), None)):
            link = Link(port, key, service=SERVICE_RAFT, node_id=3, cluster_id=cluster_id)
            link.send(hello(newer.raft.encode(), *formats))
            if side is not None:
                here.process.wait_for(rf"node 3 reads formats up to 99 and needs 98, .* Upgrade the program of {side}")
                try:
                    link.receive()
                    raise AssertionError("a peer that was refused got an answer")
                except (EOFError, ConnectionResetError):
                    pass
            link.close()
        assert order(c, "meanwhile").status == 201
        newer.start()
        c.wait_ready()
        rows = json.loads(c.ctl("endpoint", "status", "-o", "json").stdout)
        assert {(r["format"], r["format_newest"]) for r in rows} == {(1, 1)}, rows


def hello(address, oldest, newest):
    """raft/message.c: the header of a HELLO, and the address."""
    header = struct.pack("<BBHIQQQQHHIIIQ", 34, 0, 0, 0, 0, oldest, newest, 0, 0, 0, 0, len(address), 0, 0)
    assert len(header) == 64
    return header + address + bytes(-len(address) % 8)


def test_a_client_of_another_version():
    with Cluster(BUILD, nodes=1, gateway=False) as c:
        port = int(c.node(1).address.rpartition(":")[2])
        key = bytes.fromhex(open(c.path("cluster.key")).read())
        try:
            Link(port, key, versions=(98, 99))
            raise AssertionError("a link without a common version")
        except ConnectionRefusedError as e:
            assert "(1, 1)" in str(e), e
        link = Link(port, key, cluster_id=NO_CLUSTER)
        assert link.ask(4000)[2] == 6, "an unknown request is not UNSUPPORTED"
        command = bytes([200, 3]) + b"sys" + b"\0"
        outcome = link.ask(SUBMIT, message({1: command}))[10]
        assert outcome == message({1: message({1: 6})}), outcome  # UNSUPPORTED, and nothing was proposed
        link.close()


def main():
    global BUILD
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    BUILD = pathlib.Path(sys.argv[1])
    tests = {name: t for name, t in globals().items() if name.startswith("test_")}
    for name in sys.argv[2:] or tests:
        begun = time.monotonic()
        try:
            tests[name]()
        except BaseException:
            print(f"again: tests/integration/failures.py {BUILD} {name}", flush=True)
            raise
        print(f"ok {name} ({time.monotonic() - begun:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
