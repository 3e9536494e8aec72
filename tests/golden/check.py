#!/usr/bin/env python3
"""A node of today's build on the data of an earlier one: README.md.

Usage: check.py BUILD [DIR…]      default: every v* beside this file
"""
import json
import lzma
import pathlib
import sys
import tarfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools/chaos"))

from cluster import Cluster  # noqa: E402
from node_link import Link, fields, message  # noqa: E402

MARKED_DIGEST, CHECK_INVARIANTS = 41, 44


class Old(Cluster):
    """A cluster of one on unpacked data. Stopped until start()."""

    def __init__(self, build, directory, restored=False):
        """restored: not on the data but on the backup beside them, as another cluster."""
        super().__init__(build, nodes=1)
        fresh, node = self.id, self.node(1)
        self.golden = json.loads((directory / "golden.json").read_text())
        self.id = self.golden["cluster_id"]
        self.stage._write("cluster.key", self.golden["cluster_key"] + "\n")
        if restored:
            self.id, snapshot = fresh, pathlib.Path(self.path("snapshot"))
            snapshot.write_bytes(lzma.decompress((directory / "snapshot.xz").read_bytes()))
            self.ctl("snapshot", "verify", snapshot)
            self.ctl("snapshot", "restore", snapshot, "--data-dir", node.dir, "--id", "1",
                     "--cluster-id", fresh, "--member", node.member())
            return
        with tarfile.open(directory / "data.tar.xz") as tar:
            tar.extractall(node.dir)

    def __enter__(self):
        try:
            self.node(1).start()
            self.start_gateway()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def ask(self, *arguments, **head):
        node = self.node(1)
        link = Link(int(node.address.rpartition(":")[2]), bytes.fromhex(self.golden["cluster_key"]))
        answer = link.ask(*arguments, **head)
        link.close()
        return answer

    def marked(self):
        mark = self.golden["mark"]
        answer = self.ask(MARKED_DIGEST, message({1: mark["index"]}), consistency=1, min_index=mark["index"])
        assert 41 in answer, f"no digest of index {mark['index']}: {answer}"
        return f"{answer[41]:016x}"

    def sound(self):
        answer = fields(self.ask(CHECK_INVARIANTS)[44])
        assert answer.get(1, 0) == 0, answer


def check_reads(c):
    read, s = c.golden["read"], c.stage
    for sku in read["skus"]:
        now = s.expect(200, "GET", f"/v1/skus/{sku['id']}", who="backend").json
        assert all(now[k] == sku[k] for k in ("title", "received")), (now, sku)
        assert now["available"] + now["reserved"] + now["sold"] == now["received"], now
    for order, (status, amount, user) in read["orders"].items():
        now = s.expect(200, "GET", f"/v1/orders/{order}", who="backend").json
        assert (now["amount"], now["user_id"]) == (amount, user), now
        assert now["status"] == status or (status, now["status"]) == ("pending_payment", "expired"), (status, now)
    for user in read["denied"]:
        s.expect(200, "GET", f"/v1/denylist/{user}", who="backend", listener="admin")


def check_answers(c):
    """Asked again, with the same keys: the very same answers."""
    for key, kept in c.golden["answers"].items():
        now = c.stage.call("POST", kept["path"], kept["body"], who=kept["who"], key=key, listener=kept["listener"])
        assert now.status == kept["status"], f"{key}: {now.status} {now.body}"
        assert now.headers.get("idempotency-replayed") == "true", f"{key}: done again: {now.body}"
        assert now.json == kept["answer"], f"{key}: {now.json} was {kept['answer']}"


def check_new_work(c):
    s, name = c.stage, f"new-{time.time_ns()}"
    placed = s.place("sale2", "newcomer", name, sku="B2")
    assert placed.status == 201, placed.body
    assert s.pay(placed.json["order_id"], name, placed.json["amount"]).status == 200
    s.put_sku(name, 5)
    return placed.json["order_id"]


def check(build, directory):
    with Old(build, directory) as c:
        assert c.marked() == c.golden["mark"]["digest"], f"another state: {c.marked()}, was {c.golden['mark']['digest']}"
        check_reads(c)
        check_answers(c)
        order = check_new_work(c)
        c.sound()
        node = c.node(1)
        # What today's code makes of it, checkpoint and log, is read as well.
        assert node.stop() == 0
        node.start("--checkpoint-interval", "1s")
        c.wait("a checkpoint of today", lambda: (node.status() or {}).get("checkpoint_index", 0) >
               c.golden["mark"]["index"])
        node.kill()
        node.start()
        c.wait_ready()
        check_reads(c)
        check_answers(c)
        assert c.stage.expect(200, "GET", f"/v1/orders/{order}", who="backend").json["status"] == "paid"
        c.sound()
    if c.golden["snapshot"]:
        with Old(build, directory, restored=True) as c:
            check_reads(c)
            check_answers(c)
            check_new_work(c)
            c.sound()
    print(f"{directory.name}: read and carried on" + (", restored" if c.golden["snapshot"] else ""), flush=True)


def main():
    build = pathlib.Path(sys.argv[1])
    for directory in [pathlib.Path(p) for p in sys.argv[2:]] or sorted(HERE.glob("v*")):
        check(build, directory)


if __name__ == "__main__":
    main()
