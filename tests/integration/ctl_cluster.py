#!/usr/bin/env python3
"""holdfastctl against a real local cluster: every command with good and bad input, its exit status, the
audit green after orders and red after tampering, the demo's life.

Usage: ctl_cluster.py HOLDFASTCTL [unittest arguments]
One test: ctl_cluster.py build/tools/ctl/holdfastctl TheAudit.test_a_changed_status
"""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

CTL = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "holdfastctl"
OK, FAILURE, USAGE, UNREACHABLE, REFUSED, UNKNOWN = range(6)
# Nobody else may look into the sockets, but PostgreSQL's user must get through.
BASE = tempfile.mkdtemp(prefix="holdfast-ctl-")
os.chmod(BASE, 0o711)
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("HOLDFAST_", "PG"))}


def run(*arguments, environment=None, timeout=180, stdin=None):
    """Returns (exit status, standard output, standard error)."""
    done = subprocess.run([CTL, *map(str, arguments)], capture_output=True, text=True, timeout=timeout,
                          env={**ENVIRONMENT, **(environment or {})}, input=stdin or "")
    return done.returncode, done.stdout, done.stderr


class Demo:
    """A cluster of `demo up` in a directory of its own."""

    def __init__(self, name, *options):
        self.dir = os.path.join(BASE, name)
        self.options = options

    def up(self):
        status, out, err = run("demo", "up", "--dir", self.dir, *self.options, "-o", "json", "--wait", "120s")
        if status != OK:
            raise AssertionError(f"demo up: {status}\n{out}\n{err}")
        self.info = json.loads(out)
        return self

    def state(self):
        with open(os.path.join(self.dir, "demo.json")) as f:
            return json.load(f)

    def pid(self, name):
        return self.state()["processes"][name]["pid"]

    def environment(self):
        values = {"HOLDFAST_ENDPOINTS": self.info["endpoints"],
                  "HOLDFAST_CLUSTER_KEY_FILE": self.info["secrets"]["cluster_key_file"],
                  "HOLDFAST_TIMEOUT": "30s"}
        if self.info["postgres_url"]:
            values["HOLDFAST_POSTGRES_URL"] = self.info["postgres_url"]
        return values

    def run(self, *arguments, **more):
        return run(*arguments, environment=self.environment(), **more)

    def json(self, *arguments, status=OK):
        got, out, err = self.run(*arguments, "-o", "json")
        if got != status:
            raise AssertionError(f"{' '.join(map(str, arguments))}: {got} instead of {status}\n{out}\n{err}")
        return json.loads(out)

    def sql(self, statement):
        psql = (glob.glob("/usr/lib/postgresql/*/bin/psql") + ["psql"])[0]
        done = subprocess.run([psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d",
                               self.info["postgres_url"], "-c", statement],
                              capture_output=True, text=True, timeout=60, env=ENVIRONMENT)
        if done.returncode != 0:
            raise AssertionError(f"{statement}\n{done.stderr}")
        return done.stdout.strip()

    def leader(self):
        return [n["id"] for n in self.json("member", "list") if n["leader"]][0]

    def down(self):
        return run("demo", "down", "--dir", self.dir, "--wipe", "--yes")


CLUSTER = Demo("main")


def setUpModule():
    try:
        CLUSTER.up()
    except BaseException:
        tearDownModule()
        raise


def tearDownModule():
    for directory in glob.glob(os.path.join(BASE, "*")):
        run("demo", "down", "--dir", directory, "--wipe", "--yes")
    shutil.rmtree(BASE, ignore_errors=True)


class Case(unittest.TestCase):
    def expect(self, status, *arguments, says=None, cluster=CLUSTER, stdin=None):
        got, out, err = cluster.run(*arguments, stdin=stdin)
        message = f"holdfastctl {' '.join(map(str, arguments))}: {got} instead of {status}\n{out}\n{err}"
        self.assertEqual(got, status, message)
        if says is not None:
            self.assertIn(says, out + err, message)
        if status == OK:
            self.assertNotIn("refused", err)
        else:
            self.assertTrue(err.startswith("holdfastctl: ") or "\nholdfastctl: " in err, message)
        return out, err


class Resources(Case):
    def test_skus(self):
        e = self.expect
        e(OK, "sku", "put", "r-sku", "--title", "A thing")
        e(OK, "sku", "put", "r-sku", "--title", "The thing", "--expected-version", "1")
        e(REFUSED, "sku", "put", "r-sku", "--expected-version", "1", says="STALE_VERSION")
        e(REFUSED, "sku", "put", "r-sku", "--expected-version", "0", says="STALE_VERSION")
        e(USAGE, "sku", "put", "r-sku", "--title", "x" * 121, says="not a well-formed command")
        e(OK, "sku", "adjust", "r-sku", "+10", "--reason", "delivery")
        e(OK, "sku", "adjust", "r-sku", "-3")
        e(REFUSED, "sku", "adjust", "r-sku", "-8", says="INSUFFICIENT_STOCK")
        e(REFUSED, "sku", "adjust", "r-none", "1", says="NOT_FOUND")
        e(USAGE, "sku", "adjust", "r-sku", "0", says="changes nothing")
        e(USAGE, "sku", "adjust", "r-sku", "1.5")
        sku = CLUSTER.json("sku", "get", "r-sku")
        self.assertEqual((sku["title"], sku["available"], sku["received"]), ("The thing", 7, 7))
        e(REFUSED, "sku", "get", "r-none", says="holdfastctl sku list")
        self.assertIn("r-sku", [s["id"] for s in CLUSTER.json("sku", "list", "--all")])
        out, _ = e(OK, "sku", "get", "r-sku", "-o", "plain", "--consistency", "local")
        self.assertEqual(out.split("\t")[0], "r-sku")

    def test_idempotency(self):
        CLUSTER.json("sku", "put", "i-sku")
        first = CLUSTER.json("sku", "adjust", "i-sku", "5", "--idempotency-key", "i-key")
        again = CLUSTER.json("sku", "adjust", "i-sku", "5", "--idempotency-key", "i-key")
        self.assertEqual((first["replayed"], again["replayed"]), (False, True))
        self.assertEqual(CLUSTER.json("sku", "get", "i-sku")["available"], 5)
        self.expect(REFUSED, "sku", "adjust", "i-sku", "6", "--idempotency-key", "i-key",
                    says="IDEMPOTENCY_KEY_REUSED")

    def test_lists_say_when_there_is_more(self):
        for i in range(3):
            CLUSTER.json("sku", "put", f"l-sku-{i}")
        out, err = self.expect(OK, "sku", "list", "--limit", "2", "-o", "plain")
        self.assertEqual(len(out.splitlines()), 2)
        self.assertIn("there are more", err)
        _, err = self.expect(OK, "sku", "list", "--all", "-o", "plain")
        self.assertNotIn("there are more", err)

    def test_sales(self):
        e = self.expect
        CLUSTER.json("sku", "put", "s-sku")
        e(USAGE, "sale", "put", "s-1", says="--offer")
        e(USAGE, "sale", "put", "s-1", "--offer", "s-sku=1", says="--currency")
        e(USAGE, "sale", "put", "s-1", "--offer", "s-sku=1", "--currency", "EUR", says="--opens")
        sale = ["sale", "put", "s-1", "--currency", "EUR", "--offer", "s-sku=100,max=2"]
        e(USAGE, *sale, "--opens", "now", "--closes=-1s", says="close after it opens")
        e(USAGE, *sale, "--offer", "s-sku=200", "--opens", "now", "--closes", "+1h", says="offered twice")
        e(USAGE, *sale, "--offer", "s-sku", "--opens", "now", "--closes", "+1h", says="SKU=PRICE")
        e(USAGE, *sale, "--currency", "EURO", says="given twice")
        e(USAGE, *sale, "--opens", "now", "--closes", "+1h", "--eligibility-opens", "now", says="no window")
        e(REFUSED, "sale", "put", "s-1", "--currency", "EUR", "--offer", "s-none=1", "--opens", "now",
          "--closes", "+1h", says="NOT_FOUND")
        e(OK, *sale, "--opens", "now", "--closes", "+1h", "--title", "Sale", "--payment-timeout", "2m")
        e(REFUSED, *sale, "--opens", "now", "--closes", "+1h", "--expected-version", "0", says="STALE_VERSION")
        got = CLUSTER.json("sale", "get", "s-1")
        self.assertEqual((got["phase"], got["payment_timeout_ms"], got["offers"][0]["units_per_order_max"]),
                         ("open", 120000, 2))
        e(OK, "sale", "pause", "s-1", says="paused")
        e(OK, "sale", "resume", "s-1", says="open")
        e(USAGE, "sale", "close", "s-1", says="--confirm s-1")
        e(USAGE, "sale", "close", "s-1", "--confirm", "s-2", says="nothing was done")
        e(OK, "sale", "close", "s-1", "--confirm", "s-1", says="closed")
        e(REFUSED, "sale", "resume", "s-1", says="SALE_CLOSED")
        e(REFUSED, "sale", "pause", "s-none", says="NOT_FOUND")
        e(REFUSED, "sale", "get", "s-none", says="not found")
        self.assertIn("s-1", [s["id"] for s in CLUSTER.json("sale", "list")])

    def test_a_sale_from_a_file(self):
        CLUSTER.json("sku", "put", "f-sku")
        definition = {"title": "From a file", "currency": "USD", "opens_at": "2026-01-01T00:00:00Z",
                      "closes_at": "2036-01-01T00:00:00Z", "strikes_max": 3,
                      "offers": [{"sku": "f-sku", "unit_price": 500, "units_per_order_max": 1}]}
        path = os.path.join(BASE, "sale.json")
        with open(path, "w") as f:
            json.dump(definition, f)
        self.expect(OK, "sale", "put", "f-1", "--file", path, "--title", "A flag wins")
        got = CLUSTER.json("sale", "get", "f-1")
        for key, value in {**definition, "title": "A flag wins"}.items():
            if key not in ("offers", "opens_at", "closes_at"):
                self.assertEqual(got[key], value)
        self.expect(OK, "sale", "put", "f-2", "--file", "-", stdin=json.dumps(definition))
        for text, says in (('{"colour": 1}', "unknown field"), ('{"title": "a", "title": "b"}', "duplicate"),
                           ("[]", "one JSON object"), ("{", "line 1"), ("", "line"), ("{} {}", "end of file")):
            self.expect(USAGE, "sale", "put", "f-3", "--file", "-", stdin=text, says=says)
        self.expect(USAGE, "sale", "put", "f-3", "--file", os.path.join(BASE, "none.json"), says="none.json")

    def test_eligibilities(self):
        e = self.expect
        CLUSTER.json("sku", "put", "e-sku")
        CLUSTER.json("sku", "adjust", "e-sku", "5")
        e(OK, "sale", "put", "e-1", "--currency", "EUR", "--offer", "e-sku=100", "--opens", "now", "--closes",
          "+1h", "--eligibility-required", "--eligibility-limit", "1")
        e(REFUSED, "order", "place", "e-1", "--user", "e-ann", "--line", "e-sku", says="NOT_ELIGIBLE")
        self.assertFalse(CLUSTER.json("eligibility", "grant", "e-1", "e-ann")["existed"])
        self.assertTrue(CLUSTER.json("eligibility", "grant", "e-1", "e-ann")["existed"])
        e(REFUSED, "eligibility", "grant", "e-1", "e-bob", says="ELIGIBILITY_EXHAUSTED")
        e(REFUSED, "eligibility", "grant", "e-none", "e-bob", says="NOT_FOUND")
        self.assertTrue(CLUSTER.json("eligibility", "get", "e-1", "e-ann")["granted"])
        e(REFUSED, "eligibility", "get", "e-1", "e-nobody", says="eligibility list")
        self.assertEqual([x["user"] for x in CLUSTER.json("eligibility", "list", "--sale", "e-1")], ["e-ann"])
        e(OK, "eligibility", "revoke", "e-1", "e-ann")
        e(REFUSED, "eligibility", "revoke", "e-1", "e-ann", says="NOT_FOUND")
        e(USAGE, "eligibility", "grant", "e-1", "two words")

    def test_orders(self):
        e = self.expect
        CLUSTER.json("sku", "put", "o-sku")
        CLUSTER.json("sku", "adjust", "o-sku", "5")
        CLUSTER.json("sale", "put", "o-1", "--currency", "EUR", "--offer", "o-sku=100,max=3", "--opens", "now",
                     "--closes", "+1h", "--orders-per-user", "2")
        place = ["order", "place", "o-1", "--user"]
        order = CLUSTER.json(*place, "o-ann", "--line", "o-sku=2", "--idempotency-key", "o-ann-1")
        self.assertEqual((order["status"], order["amount"]), ("pending_payment", 200))
        again = CLUSTER.json(*place, "o-ann", "--line", "o-sku=2", "--idempotency-key", "o-ann-1")
        self.assertEqual((again["id"], again["replayed"]), (order["id"], True))
        e(REFUSED, *place, "o-bob", "--line", "o-sku=4", says="QUANTITY_LIMIT")
        e(REFUSED, *place, "o-bob", "--line", "o-sku=2", "--line", "o-sku=2", says="QUANTITY_LIMIT")
        other = CLUSTER.json(*place, "o-bob", "--line", "o-sku=2")
        e(REFUSED, *place, "o-cat", "--line", "o-sku=2", says="SOLD_OUT")
        e(REFUSED, *place, "o-cat", "--line", "o-none", says="NOT_FOUND")
        e(USAGE, *place, "o-cat", "--line", "o-sku=0", says="SKU=QUANTITY")
        e(USAGE, *place, "o-cat", "--line", "o-sku=many")
        e(USAGE, *place, "o-cat", *sum([["--line", f"o-{i}"] for i in range(17)], []), says="at most 16")
        self.assertEqual(CLUSTER.json("order", "get", order["id"])["lines"][0]["quantity"], 2)
        self.assertEqual(CLUSTER.json("order", "get", order["id"].lower())["id"], order["id"])
        e(REFUSED, "order", "get", "0000000000001", says="not found")
        e(USAGE, "order", "get", "abc")
        e(REFUSED, "order", "pay", order["id"], "--amount", "199", "--currency", "EUR", says="AMOUNT_MISMATCH")
        e(USAGE, "order", "pay", order["id"], "--amount", "200", says="belong together")
        e(REFUSED, "order", "pay", "0000000000001", says="not found")
        paid = CLUSTER.json("order", "pay", order["id"], "--idempotency-key", "o-event")
        self.assertEqual(paid["status"], "paid")
        self.assertTrue(CLUSTER.json("order", "pay", order["id"], "--idempotency-key", "o-event")["replayed"])
        e(REFUSED, "order", "pay", order["id"], says="ORDER_NOT_PAYABLE")
        e(REFUSED, "order", "cancel", order["id"], says="ORDER_NOT_CANCELLABLE")
        e(REFUSED, "order", "cancel", other["id"], "--user", "o-ann", says="FORBIDDEN")
        e(OK, "order", "cancel", other["id"], "--user", "o-bob", says="cancelled")
        e(REFUSED, "order", "refund", other["id"], says="ORDER_NOT_REFUNDABLE")
        e(OK, "order", "refund", order["id"], "--restock", "--reason", "returned", says="refunded")
        self.assertEqual(CLUSTER.json("sku", "get", "o-sku")["available"], 5)
        listed = CLUSTER.json("order", "list", "--sale", "o-1", "--status", "refunded")
        self.assertEqual([o["id"] for o in listed], [order["id"]])
        self.assertEqual(CLUSTER.json("order", "list", "--sale", "o-1", "--user", "o-nobody"), [])

    def test_leases(self):
        e = self.expect
        lease = CLUSTER.json("lease", "acquire", "l-1", "--owner", "w-1", "--ttl", "10m")
        e(REFUSED, "lease", "acquire", "l-1", "--owner", "w-2", says="LEASE_HELD")
        e(OK, "lease", "renew", "l-1", "--owner", "w-1", "--token", lease["token"], "--ttl", "10m")
        e(REFUSED, "lease", "renew", "l-1", "--owner", "w-1", "--token", lease["token"] + 1,
          says="STALE_FENCING_TOKEN")
        self.assertIn("l-1", [x["name"] for x in CLUSTER.json("lease", "list")])
        e(REFUSED, "lease", "release", "l-1", "--owner", "w-2", "--token", lease["token"])
        e(OK, "lease", "release", "l-1", "--owner", "w-1", "--token", lease["token"])
        e(REFUSED, "lease", "release", "l-1", "--owner", "w-1", "--token", lease["token"])
        self.assertGreater(CLUSTER.json("lease", "acquire", "l-1", "--owner", "w-2")["token"], lease["token"])
        e(USAGE, "lease", "acquire", "l-1", "--owner", "w-2", "--ttl", "0s", says="out of range")

    def test_the_denylist(self):
        e = self.expect
        CLUSTER.json("sku", "put", "d-sku")
        CLUSTER.json("sku", "adjust", "d-sku", "1")
        CLUSTER.json("sale", "put", "d-1", "--currency", "EUR", "--offer", "d-sku=100", "--opens", "now",
                     "--closes", "+1h")
        e(USAGE, "denylist", "add", "d-mal", says="--confirm d-mal")
        e(OK, "denylist", "add", "d-mal", "--until", "+1d", "--reason", "many\taccounts\x1b[31m", "--yes")
        out, _ = e(OK, "denylist", "list")
        self.assertNotIn("\x1b", out)
        self.assertIn("many\\taccounts\\x1b[31m", out)
        e(REFUSED, "order", "place", "d-1", "--user", "d-mal", "--line", "d-sku", says="DENYLISTED")
        e(OK, "denylist", "remove", "d-mal", "--confirm", "d-mal")
        e(OK, "order", "place", "d-1", "--user", "d-mal", "--line", "d-sku")


class Nodes(Case):
    def test_status(self):
        self.assertEqual(CLUSTER.json("status")["status"], "healthy")
        nodes = CLUSTER.json("endpoint", "status")
        self.assertEqual([n["id"] for n in nodes], [1, 2, 3])
        self.assertEqual(sorted(n["role"] for n in nodes), ["follower", "follower", "leader"])
        self.assertTrue(all(n["healthy"] for n in CLUSTER.json("endpoint", "health")))
        self.assertEqual([m["role"] for m in CLUSTER.json("member", "list")], ["voter"] * 3)
        persist = CLUSTER.json("persist", "status")
        self.assertTrue(persist["connected"])
        self.assertEqual(len(persist["shards"]), 64)

    def test_hash(self):
        rows = CLUSTER.json("endpoint", "hash")
        self.assertEqual(len(rows), 3)
        self.assertEqual(len({(r["index"], r["digest"]) for r in rows}), 1)

    def test_moving_leadership(self):
        before = CLUSTER.leader()
        self.expect(USAGE, "member", "move-leader", says="--confirm move-leader")
        target = before % 3 + 1
        self.expect(USAGE, "member", "move-leader", target, "--confirm", "7", says="nothing was done")
        self.expect(OK, "member", "move-leader", target, "--confirm", target)
        self.assertEqual(CLUSTER.leader(), target)
        self.expect(OK, "member", "move-leader", target, "--yes", says="leads already")
        self.expect(OK, "member", "move-leader", "--yes")
        self.assertNotEqual(CLUSTER.leader(), target)

    def test_draining(self):
        leader = CLUSTER.leader()
        self.expect(USAGE, "node", "drain", leader)
        self.expect(OK, "node", "drain", leader, "--confirm", leader)
        self.assertNotEqual(CLUSTER.leader(), leader)
        self.expect(OK, "node", "undrain", leader)
        self.expect(OK, "member", "move-leader", leader, "--yes")
        self.assertEqual(CLUSTER.leader(), leader)
        self.expect(UNREACHABLE, "node", "undrain", "8", "--timeout", "1s", says="node 8")

    def test_members(self):
        e = self.expect
        for arguments in (["add"], ["add", "4", "127.0.0.1:1"], ["add", "four", "127.0.0.1:1", "127.0.0.1:2"],
                          ["add", "0", "127.0.0.1:1", "127.0.0.1:2"], ["promote"], ["demote", "x", "--yes"],
                          ["remove", "--yes"], ["replace", "1", "4", "--yes"],
                          ["add", "4", "127.0.0.1:1", "127.0.0.1:2", "--as", "voter"],
                          ["demote", "1", "--to", "voter", "--yes"], ["promote", "1", "--wait", "long"]):
            e(USAGE, "member", *arguments)
        for wrong in ("127.0.0.1", "127.0.0.1:0", "127.0.0.1:70000", "0.0.0.0:1", "[::]:1", "::1:7001", "host:1", ""):
            e(USAGE, "member", "add", "4", wrong, "127.0.0.1:2", says="is not an address")
            e(USAGE, "member", "add", "4", "127.0.0.1:2", wrong, says="is not an address")
        e(USAGE, "member", "add", "4", "127.0.0.1:1", "127.0.0.1:1", says="both addresses")
        e(USAGE, "member", "replace", "2", "2", "127.0.0.1:1", "127.0.0.1:2", "--yes", says="id of its own")
        for action in ("demote", "remove"):
            e(USAGE, "member", action, "3", says="--confirm 3")
            e(USAGE, "member", action, "3", "--confirm", "2", says="nothing was done")
        e(REFUSED, "member", "promote", "4", says="member add 4")
        e(REFUSED, "member", "demote", "4", "--yes", says="no member")
        e(REFUSED, "member", "replace", "4", "5", "127.0.0.1:1", "127.0.0.1:2", "--yes", says="neither")
        e(OK, "member", "remove", "4", "--yes", says="no member")
        members = {m["id"]: m for m in CLUSTER.json("member", "list")}
        self.assertTrue(all(m["node_address"] and m["raft_address"] for m in members.values()))
        e(REFUSED, "member", "add", "4", members[1]["raft_address"], "127.0.0.1:2", says="another member listens")
        e(REFUSED, "member", "add", "1", "127.0.0.1:1", "127.0.0.1:2", says="is a member already")
        added = CLUSTER.json("member", "add", "4", "127.0.0.1:1", "[::1]:2", "--as", "spare")
        self.assertEqual((added["role"], added["raft_address"], added["node_address"]),
                         ("spare", "127.0.0.1:1", "[::1]:2"))
        e(REFUSED, "member", "demote", "4", "--yes", says="member promote 4")
        e(FAILURE, "member", "promote", "4", "--wait", "200ms", says="is not connected yet")
        self.assertEqual(CLUSTER.json("member", "demote", "4", "--to", "spare", "--yes")["role"], "spare")
        self.assertEqual(CLUSTER.json("member", "remove", "4", "--confirm", "4")["role"], "removed")
        leader = CLUSTER.leader()
        self.assertEqual(CLUSTER.json("member", "demote", leader, "--yes")["role"], "standby")  # it hands over first
        self.assertNotEqual(CLUSTER.leader(), leader)
        self.assertEqual(CLUSTER.json("member", "promote", leader)["role"], "voter")
        e(OK, "member", "move-leader", leader, "--yes")
        self.assertEqual([m["role"] for m in CLUSTER.json("member", "list")], ["voter"] * 3)

    def test_unreachable(self):
        key = CLUSTER.info["secrets"]["cluster_key_file"]
        wrong = os.path.join(BASE, "wrong-key")
        with open(os.open(wrong, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write("ab" * 32)
        for endpoints, key_file in (("127.0.0.1:1", key), (CLUSTER.info["endpoints"], wrong)):
            for command in (["sku", "list"], ["sku", "put", "u-sku"], ["status"], ["audit", "--no-postgres"]):
                self.expect(UNREACHABLE, *command, "--endpoints", endpoints, "--cluster-key-file", key_file,
                            "--timeout", "700ms", says="none of the nodes")
        self.expect(USAGE, "status", "--endpoints", "nonsense")
        self.expect(USAGE, "status", "--cluster-key-file", os.path.join(BASE, "none"))
        os.chmod(wrong, 0o644)
        self.expect(USAGE, "status", "--cluster-key-file", wrong)

    def test_an_unknown_outcome_can_be_settled(self):
        CLUSTER.json("sku", "put", "k-sku")
        CLUSTER.json("sku", "adjust", "k-sku", "1000")
        expected = 1000
        for attempt in range(10):
            leader = CLUSTER.leader()
            followers = [CLUSTER.pid(f"node-{i}") for i in (1, 2, 3) if i != leader]
            for pid in followers:
                os.kill(pid, signal.SIGSTOP)
            try:
                status, _, err = CLUSTER.run("sku", "adjust", "k-sku", "-1", "--timeout", "1s")
            finally:
                for pid in followers:
                    os.kill(pid, signal.SIGCONT)
            self.assertIn(status, (UNREACHABLE, UNKNOWN), err)
            if status == UNKNOWN:
                break
            # The leader had noticed that it was alone: certainly nothing happened.
            self.assertEqual(CLUSTER.json("sku", "get", "k-sku")["available"], expected)
        self.assertEqual(status, UNKNOWN)
        key = err.split("--idempotency-key ")[1].split(":")[0].strip()
        CLUSTER.json("sku", "adjust", "k-sku", "-1", "--idempotency-key", key)
        self.assertTrue(CLUSTER.json("sku", "adjust", "k-sku", "-1", "--idempotency-key", key)["replayed"])
        self.assertEqual(CLUSTER.json("sku", "get", "k-sku")["available"], 999)


class Snapshots(Case):
    """Good and bad input; what a restored cluster does is tests/integration/backup.py's."""

    def test_snapshots(self):
        e = self.expect
        path = os.path.join(BASE, "a.snapshot")
        e(USAGE, "snapshot", "save", says="FILE")
        e(USAGE, "snapshot", "save", path, "--node", "first")
        e(FAILURE, "snapshot", "save", os.path.join(BASE, "no", "such", "place"), says="No such file")
        saved = CLUSTER.json("snapshot", "save", path)
        self.assertEqual(CLUSTER.json("snapshot", "inspect", path), saved)
        self.assertTrue(CLUSTER.json("snapshot", "verify", path)["whole"])
        e(REFUSED, "snapshot", "save", path, says="--force")
        e(OK, "snapshot", "save", path, "--force", "--newest")
        for action in ("inspect", "verify"):
            e(USAGE, "snapshot", action)
            e(FAILURE, "snapshot", action, BASE, says="is not a file")
            e(FAILURE, "snapshot", action, os.path.join(BASE, "none"), says="No such file")
            e(FAILURE, "snapshot", action, __file__, says="does not begin as a snapshot does")
        restore = ["snapshot", "restore", path, "--data-dir", os.path.join(BASE, "restored"), "--id", "1"]
        member, new = ("--member", "1=127.0.0.1:1/127.0.0.1:2"), ("--cluster-id", str(uuid.uuid4()))
        e(USAGE, *restore, *new, says="--member")
        e(USAGE, *restore, *member, says="--cluster-id")
        e(USAGE, *restore, *member, "--cluster-id", "mine", says="not a cluster id")
        e(USAGE, *restore, *new, "--member", "one", says="not a member")
        e(USAGE, *restore, *new, *member, *member, says="same id")
        e(USAGE, *restore, *new, "--member", "2=127.0.0.1:1/127.0.0.1:2", says="no member has the id 1")
        e(REFUSED, *restore, *member, "--cluster-id", saved["cluster_id"], says="snapshot's own cluster")
        self.assertFalse(os.path.exists(os.path.join(BASE, "restored")))
        e(OK, *restore, *member, *new)
        e(REFUSED, *restore, *member, *new, says="not an empty directory")
        adopt = ["persist", "adopt", path]
        e(USAGE, *adopt, says="--cluster-id")
        e(USAGE, *adopt, *new, says="--confirm")
        e(USAGE, *adopt, "--cluster-id", "mine", "--dry-run", says="nothing was changed")
        e(REFUSED, *adopt, "--cluster-id", saved["cluster_id"], "--dry-run", says="has it already")
        e(OK, *adopt, *new, "--dry-run")
        self.assertEqual(CLUSTER.json("persist", "status")["connected"], True)


class Migrations(Case):
    def test_status_and_up(self):
        self.assertTrue(all(m["applied"] for m in CLUSTER.json("migrate", "status")))
        self.assertFalse(any(m["applied_now"] for m in CLUSTER.json("migrate", "up")))

    def test_a_new_database(self):
        CLUSTER.sql("DROP DATABASE IF EXISTS m_one")
        CLUSTER.sql("CREATE DATABASE m_one")
        url = CLUSTER.info["postgres_url"].replace("/holdfast?", "/m_one?")
        self.expect(FAILURE, "migrate", "status", "--postgres-url", url, says="holdfastctl migrate up")
        self.expect(OK, "migrate", "up", "--postgres-url", url)
        self.expect(OK, "migrate", "status", "--postgres-url", url)
        self.expect(FAILURE, "audit", "--postgres-url", url, says="no persister has written here")

    def test_wrong_urls(self):
        self.expect(UNREACHABLE, "migrate", "status", "--postgres-url",
                    f"postgresql://x@/x?host={BASE}", "--timeout", "2s")
        self.expect(USAGE, "migrate", "up", "--postgres-url", "postgresql://x:secret@127.0.0.1:1/x",
                    says="PGPASSFILE")
        status, _, err = run("migrate", "status")
        self.assertEqual(status, USAGE)
        self.assertIn("--postgres-url", err)


class TheAudit(Case):
    """Green after all kinds of orders; red after each way of tampering, naming the check that found it."""

    @classmethod
    def setUpClass(cls):
        j = CLUSTER.json
        for sku in ("a-1", "a-2"):
            j("sku", "put", sku)
            j("sku", "adjust", sku, "20")
        j("sale", "put", "a-sale", "--currency", "EUR", "--offer", "a-1=100,max=5", "--offer", "a-2=250,max=5",
          "--opens", "now", "--closes", "+1h", "--eligibility-required")
        j("sale", "put", "a-late", "--currency", "EUR", "--offer", "a-1=100,max=5", "--opens", "now", "--closes",
          "+1h", "--payment-timeout", "1s", "--late-payment", "refund")
        for user in "vwxyz":
            j("eligibility", "grant", "a-sale", f"a-{user}")
        j("eligibility", "grant", "a-sale", "a-u")
        j("eligibility", "revoke", "a-sale", "a-u")
        cls.orders = {user: j("order", "place", "a-sale", "--user", f"a-{user}", "--line", "a-1=2", "--line",
                              "a-2")["id"] for user in "vwxyz"}
        j("order", "pay", cls.orders["w"])
        j("order", "cancel", cls.orders["x"])
        j("order", "pay", cls.orders["y"])
        j("order", "refund", cls.orders["y"])
        late = j("order", "place", "a-late", "--user", "a-late", "--line", "a-1")["id"]
        deadline = time.monotonic() + 60
        while j("order", "get", late)["status"] != "expired":
            assert time.monotonic() < deadline, "the order does not expire"
            time.sleep(0.1)
        assert j("order", "pay", late)["status"] == "refund_due"
        CLUSTER.run("order", "pay", late, "--amount", "1", "--currency", "EUR")  # rejected: an event, too

    def audit(self, status):
        return {(v["check"], v["subject"]): v for v in CLUSTER.json("audit", status=status)}

    def green(self):
        verdicts = self.audit(OK)
        self.assertTrue(all(v["ok"] is not False for v in verdicts.values()), verdicts)
        return verdicts

    def red(self, *checks):
        verdicts = self.audit(FAILURE)
        wrong = {check for (check, _), v in verdicts.items() if v["ok"] is False}
        self.assertEqual(wrong & set(checks), set(checks), verdicts)

    def tamper(self, change, undo, *checks):
        self.green()
        CLUSTER.sql(change)
        try:
            self.red(*checks)
        finally:
            CLUSTER.sql(undo)
        self.green()

    def save(self, table, where):
        CLUSTER.sql(f"DROP TABLE IF EXISTS public.saved; CREATE TABLE public.saved AS "
                    f"SELECT * FROM holdfast.{table} WHERE {where}")
        self.assertGreater(int(CLUSTER.sql("SELECT count(*) FROM public.saved")), 0)

    def id(self, user):
        return f"holdfast.order_id('{self.orders[user]}')"

    def test_green(self):
        verdicts = self.green()
        checks = {check for check, _ in verdicts}
        self.assertLessEqual({"digest", "invariants", "conservation", "stock equal", "orders row by row",
                              "orders by status", "stock by SKU", "eligibilities", "watermarks", "outbox",
                              "outbox = orders", "payments", "cluster", "persister caught up"}, checks)
        for node in ("node 1", "node 2", "node 3"):
            for check in ("digest", "invariants", "conservation"):
                self.assertTrue(verdicts[check, node]["ok"])
        self.assertGreaterEqual(int(verdicts["orders row by row", "PostgreSQL"]["detail"].split()[0]), 6)

    def test_without_postgres(self):
        self.expect(OK, "audit", "--no-postgres", says="all green")
        environment = CLUSTER.environment()
        del environment["HOLDFAST_POSTGRES_URL"]
        status, out, _ = run("audit", environment=environment)
        self.assertEqual(status, FAILURE)
        self.assertIn("give --postgres-url", out)

    def test_a_deleted_order(self):
        self.save("orders", f"id = {self.id('w')}")
        self.tamper(f"DELETE FROM holdfast.orders WHERE id = {self.id('w')}",
                    "INSERT INTO holdfast.orders SELECT * FROM public.saved",
                    "orders row by row", "orders by status", "stock by SKU", "outbox = orders", "payments")

    def test_an_order_more(self):
        self.save("orders", f"id = {self.id('w')}")
        self.tamper("INSERT INTO holdfast.orders SELECT (t.s).* FROM (SELECT jsonb_populate_record(s, "
                    "jsonb_build_object('id', s.id + 1024)) AS s FROM public.saved s) AS t",
                    f"DELETE FROM holdfast.orders WHERE id = {self.id('w')} + 1024", "outbox = orders", "payments")

    def test_a_changed_status(self):
        self.tamper(f"UPDATE holdfast.orders SET status = 'paid' WHERE id = {self.id('v')}",
                    f"UPDATE holdfast.orders SET status = 'pending_payment' WHERE id = {self.id('v')}",
                    "orders row by row", "orders by status", "stock by SKU", "outbox = orders", "payments")

    def test_a_changed_version(self):
        self.tamper(f"UPDATE holdfast.orders SET version = version - 1 WHERE id = {self.id('w')}",
                    f"UPDATE holdfast.orders SET version = version + 1 WHERE id = {self.id('w')}",
                    "orders row by row")

    def test_a_version_ahead(self):
        self.tamper(f"UPDATE holdfast.orders SET version = version + 1 WHERE id = {self.id('w')}",
                    f"UPDATE holdfast.orders SET version = version - 1 WHERE id = {self.id('w')}",
                    "orders row by row")

    def test_a_changed_amount(self):
        self.tamper(f"UPDATE holdfast.orders SET amount = amount + 1 WHERE id = {self.id('w')}",
                    f"UPDATE holdfast.orders SET amount = amount - 1 WHERE id = {self.id('w')}",
                    "orders row by row", "payments")

    def test_a_changed_line(self):
        where = f"WHERE order_id = {self.id('w')} AND line = 1"
        self.tamper(f"UPDATE holdfast.order_lines SET quantity = quantity + 1 {where}",
                    f"UPDATE holdfast.order_lines SET quantity = quantity - 1 {where}",
                    "orders row by row", "stock by SKU")

    def test_a_double_event(self):
        self.save("outbox", "sequence = 3")
        self.tamper("INSERT INTO holdfast.outbox SELECT (t.s).* FROM (SELECT jsonb_populate_record(s, "
                    "jsonb_build_object('shard', (s.shard + 1) % 64)) AS s FROM public.saved s) AS t",
                    "DELETE FROM holdfast.outbox o USING public.saved s "
                    "WHERE o.sequence = 3 AND o.shard <> s.shard", "outbox")

    def test_a_lost_event(self):
        self.save("outbox", f"aggregateid = '{self.orders['w']}' AND type = 'order.paid'")
        self.tamper(f"DELETE FROM holdfast.outbox WHERE aggregateid = '{self.orders['w']}' AND type = 'order.paid'",
                    "INSERT INTO holdfast.outbox SELECT * FROM public.saved", "outbox", "outbox = orders")

    def test_a_lost_payment(self):
        self.save("payments", f"order_id = {self.id('w')}")
        self.tamper(f"DELETE FROM holdfast.payments WHERE order_id = {self.id('w')}",
                    "INSERT INTO holdfast.payments SELECT * FROM public.saved", "payments")

    def test_a_changed_eligibility(self):
        where = "WHERE sale_id = 'a-sale' AND user_id = 'a-u'"
        self.tamper(f"UPDATE holdfast.eligibilities SET granted = true {where}",
                    f"UPDATE holdfast.eligibilities SET granted = false {where}", "eligibilities")

    def test_a_lost_eligibility(self):
        self.save("eligibilities", "user_id = 'a-v'")
        self.tamper("DELETE FROM holdfast.eligibilities WHERE user_id = 'a-v'",
                    "INSERT INTO holdfast.eligibilities SELECT * FROM public.saved", "eligibilities")

    def test_a_moved_watermark(self):
        self.save("watermark", f"shard = {self.id('w')} & 1023")
        undo = ("UPDATE holdfast.watermark w SET sequence = s.sequence FROM public.saved s WHERE w.shard = s.shard")
        self.tamper(f"UPDATE holdfast.watermark SET sequence = 0 WHERE shard = {self.id('w')} & 1023", undo,
                    "watermarks")
        self.tamper(f"UPDATE holdfast.watermark SET sequence = sequence + 1000000 "
                    f"WHERE shard = {self.id('w')} & 1023", undo, "watermarks")

    def test_a_node_that_does_not_answer(self):
        self.green()
        follower = [i for i in (1, 2, 3) if i != CLUSTER.leader()][0]
        pid = CLUSTER.pid(f"node-{follower}")
        os.kill(pid, signal.SIGSTOP)
        try:
            verdicts = {(v["check"], v["subject"]): v for v in
                        CLUSTER.json("audit", "--timeout", "3s", status=FAILURE)}
            self.assertIs(verdicts["digest", f"node {follower}"]["ok"], False)
            self.expect(FAILURE, "endpoint", "hash", "--timeout", "2s", says="not all known and equal")
            self.expect(FAILURE, "endpoint", "health", "--timeout", "3s")
            self.expect(OK, "status", "--timeout", "3s", says="degraded")
        finally:
            os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + 60
        while CLUSTER.run("endpoint", "health")[0] != OK:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)
        self.green()


class TheDemo(Case):
    def test_up_is_idempotent(self):
        before = CLUSTER.state()["processes"]
        status, out, err = run("demo", "up", "--dir", CLUSTER.dir, "-o", "json")
        self.assertEqual(status, OK, err)
        self.assertTrue(json.loads(out)["already_up"])
        self.assertEqual(CLUSTER.state()["processes"], before)
        status, _, err = run("demo", "up", "--dir", CLUSTER.dir, "--nodes", "5")
        self.assertEqual(status, REFUSED, err)

    def test_up_brings_a_killed_node_back(self):
        leader = CLUSTER.leader()
        CLUSTER.json("sku", "put", "x-sku")
        CLUSTER.json("sku", "adjust", "x-sku", "7")
        os.kill(CLUSTER.pid(f"node-{leader}"), signal.SIGKILL)
        self.assertEqual(CLUSTER.json("sku", "get", "x-sku")["available"], 7)  # the others go on
        status, out, _ = run("demo", "status", "--dir", CLUSTER.dir, "-o", "json")
        self.assertEqual(status, FAILURE)
        alive = {p["name"]: p["alive"] for p in json.loads(out)}
        self.assertEqual([n for n, up in alive.items() if not up], [f"node-{leader}"])
        CLUSTER.up()
        self.assertEqual(run("demo", "status", "--dir", CLUSTER.dir)[0], OK)
        self.expect(OK, "endpoint", "hash")
        self.expect(OK, "audit", says="all green")

    def test_two_at_once_and_down_stops_its_own_only(self):
        # A closed directory with a blank and a quote in its name: PostgreSQL's files stand elsewhere then.
        closed = os.path.join(BASE, "it's closed")
        os.mkdir(closed, 0o700)
        second = Demo(os.path.join("it's closed", "demo"), "--nodes", "1")
        third = Demo("third", "--nodes", "1", "--no-postgres")
        try:
            second.up()
            third.up()
            for demo in (second, third):
                demo.json("sku", "put", "one")
                demo.json("sku", "adjust", "one", "3")
            second.json("audit")
            third.json("audit")
            self.assertEqual(third.json("persist", "status")["configured"], False)
            self.expect(REFUSED, "sku", "get", "one")
            down, _, err = run("demo", "down", "--dir", third.dir)
            self.assertEqual(down, OK, err)
            self.assertEqual(run("demo", "status", "--dir", third.dir)[0], FAILURE)
            self.assertEqual(run("demo", "status", "--dir", second.dir)[0], OK)
            third.up()  # its data are still there
            self.assertEqual(third.json("sku", "get", "one")["available"], 3)
            home = second.state()["postgres"]["home"]
        finally:
            for demo in (second, third):
                status, out, err = demo.down()
                self.assertEqual(status, OK, err)
                self.assertFalse(os.path.exists(demo.dir))
        self.assertFalse(os.path.exists(home))
        self.assertEqual(run("demo", "status", "--dir", CLUSTER.dir)[0], OK)

    def test_refusals(self):
        empty = os.path.join(BASE, "empty")
        self.assertEqual(run("demo", "status", "--dir", empty)[0], REFUSED)
        self.assertEqual(run("demo", "down", "--dir", empty)[0], REFUSED)
        os.mkdir(empty)
        self.assertEqual(run("demo", "down", "--dir", empty)[0], REFUSED)
        self.assertEqual(os.listdir(empty), [])
        status, _, err = run("demo", "down", "--dir", CLUSTER.dir, "--wipe")
        self.assertEqual(status, USAGE)
        self.assertIn("--confirm demo", err)
        self.assertEqual(run("demo", "up", "--dir", empty, "--no-postgres", "--postgres-url", "x")[0], USAGE)
        with open(os.path.join(empty, "demo.json"), "w") as f:
            f.write("{}")
        for command in ("up", "down", "status"):
            self.assertEqual(run("demo", command, "--dir", empty)[0], FAILURE)
        shutil.rmtree(empty)

    def test_a_cluster_that_cannot_start_says_why(self):
        broken = os.path.join(BASE, "broken")
        binaries = os.path.join(BASE, "binaries")
        os.mkdir(binaries)
        for name in ("holdfastd", "holdfast-gateway"):
            with open(os.open(os.path.join(binaries, name), os.O_WRONLY | os.O_CREAT, 0o755), "w") as f:
                f.write("#!/bin/sh\necho it will not work >&2\nexit 1\n")
        status, _, err = run("demo", "up", "--dir", broken, "--no-postgres", "--bin", binaries)
        self.assertEqual(status, FAILURE)
        self.assertIn("has ended", err)
        self.assertIn("it will not work", err)
        self.assertEqual(run("demo", "status", "--dir", broken)[0], FAILURE)
        self.assertEqual(run("demo", "down", "--dir", broken, "--wipe", "--yes")[0], OK)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGHUP):  # a test runner that gives up: clean up all the same
        signal.signal(number, lambda *_: sys.exit(1))
    unittest.main(verbosity=2)
