#!/usr/bin/env python3
"""A campaign over the failpoints: each is made to fire on a real cluster under load, and nothing may be lost.

    tests/integration/failpoints.py BUILD                         every point, every action it takes
    tests/integration/failpoints.py BUILD --runs 12 --seed 3      a sample of it, as CI does
    tests/integration/failpoints.py BUILD --only wal/ --action abort

BUILD: a build directory with -Dfailpoints=true; with --make it is made and brought up to date first. Three nodes, a
gateway, a private PostgreSQL; callers place orders, pay, cancel and let expire. For each run one point is armed on one
process, what leads there is done (a disk is lost, a leader hands over, a snapshot is saved…), and the campaign waits
until it fired. In some runs the other nodes are killed then, too, so that what one of them lost cannot be had from the
others' memory; in some the node dies once more while it comes back. Then what ended is started again, everybody must be
ready and orders be taken, and the digests of the nodes must be equal. At the end of each sale of some runs: every acknowledged order, payment and cancellation is there,
nothing else is, the stock adds up; at the very end PostgreSQL must equal the engine row by row (holdfastctl audit).

What fails: any of that; a process that ends and no failpoint fired in it; a point that never fired. The last line
says how to repeat a run. Standard library only.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

import harness
import failpoints
from cluster import Cluster

PROGRAMS = ("server/holdfastd", "gateway/holdfast-gateway", "tools/ctl/holdfastctl")
NODE_OPTIONS = ["--segment-size", "1MiB", "--checkpoint-entries", "100", "--checkpoint-interval", "500ms",
                "--trailing-entries", "512", "--shards", "8"]
FIRE_S = 45            # for a point to fire
ENDS_S = 1             # for a process to end by an error that it got
PAYMENT_TIMEOUT_MS = 1500
RUNS_PER_SALE = 10
ALL_DIE = 0.3          # how often a crash takes the other nodes with it
TWICE = 0.25           # how often who comes back dies again on the way
AGAIN = ("start/before-recover=abort", "wal/before-write=abort", "wal/before-write=torn(512)", "raft/before-vote=abort",
         "raft/before-apply=abort,nth=2", "wal/before-rename=abort", "checkpoint/before-commit=abort")

# What leads to a point: the first pattern that fits. See Campaign.
TRIGGERS = [
    (r"restore/", "restore"),
    (r"snapshot/", "save"),
    (r"gateway/", "gateway"),
    (r"start/", "restart"),
    (r"install/before-ticket|stream/", "give"),
    (r"identity/|install/|current/|raft/(before|after)-reset|wal/before-(create|sync)$", "refill"),
    (r"raft/(before-vote|vote-persisted|elected|transfer-received)|persister/(before-fence|fenced)", "take_over"),
    (r"raft/before-transfer", "hand_over"),
    (r"raft/(before-change|change-applied)", "change"),
    (r"session/|submit/|persister/", "leader"),
    (r"", "any"),
]
# How late a point may fire: nth is drawn from 1 to this. What is passed rarely fires at once.
NTH_MAX = [
    (r"wal/(before-append|after-append|before-report|before-write|after-write)", 40),
    (r"raft/(before-send|before-receive|before-apply|after-apply)|session/|submit/|gateway/", 40),
    (r"checkpoint/(before-write|collect)|engine/|persister/(before-begin|rows)", 5),
    (r"snapshot/before-write", 3),
    (r"wal/|checkpoint/|identity/(before-write|before-sync|before-rename|after-rename)", 2),
]


def first(table, name, default):
    return next((value for pattern, value in table if re.match(pattern, name)), default)


def fired_lines(process, name="", seen=0):
    pattern = rf"failpoint {re.escape(name)} fires: " if name else r"failpoint \S+ fires: "
    return [line for line in process.lines[seen:] if re.search(pattern, line)]


class Load:
    """Callers that place orders and pay, cancel or forget them; each asks again until it has an answer."""

    def __init__(self, cluster, sale, sku, threads=3):
        self.cluster, self.sale, self.sku = cluster, sale, sku
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.placed, self.settled = {}, {}  # key -> order id; order id -> status, as acknowledged
        self.answers = 0
        self.failed = []
        self.threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(threads)]
        for t in self.threads:
            t.start()

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join(120)
            assert not t.is_alive(), "a caller never got an answer"
        assert not self.failed, self.failed[0]

    def wait_for(self, count):
        target = self.answers + count
        self.cluster.wait(f"{count} more answers", lambda: self.answers >= target or self.failed)
        assert not self.failed, self.failed[0]

    def _ask(self, send):
        """Until there is an answer that is final."""
        end = time.monotonic() + 90
        while True:
            try:
                answer = send()
                if answer.status < 500 and answer.status != 429:
                    return answer
            except (OSError, EOFError, ValueError, AssertionError):
                answer = None  # the gateway is gone, or went in the middle of it
            if time.monotonic() > end:
                raise AssertionError(f"no answer: {answer and (answer.status, answer.body)}")
            time.sleep(0.03)

    def _run(self, number):
        try:
            while not self.stopping.is_set():
                self._order(f"user-{number}")
        except Exception as e:  # told to whoever waits for us
            self.failed.append(f"caller {number}: {e!r}")

    def _order(self, user):
        stage, key = self.cluster.stage, uuid.uuid4().hex
        answer = self._ask(lambda: stage.place(self.sale, user, key, sku=self.sku))
        if answer.status != 201:
            raise AssertionError(f"order refused: {answer.status} {answer.body!r}")
        order = answer.json["order_id"]
        with self.lock:
            self.placed[key] = order
            self.answers += 1
        what = random.random()
        if what < 0.5:
            answer = self._ask(lambda: stage.pay(order, f"pay-{key}", 250))
        elif what < 0.7:
            answer = self._ask(lambda: stage.call("POST", f"/v1/orders/{order}/cancel", who="backend", key=f"no-{key}"))
        else:
            return
        assert answer.status in (200, 409), (answer.status, answer.body)  # 409: it had expired
        if answer.status == 200:
            with self.lock:
                self.settled[order] = answer.json["status"]
                self.answers += 1

    def listed(self):
        orders, cursor = {}, ""
        while True:
            page = self.cluster.stage.expect(
                200, "GET", f"/v1/orders?sale_id={self.sale}&limit=500&consistency=strong"
                + (f"&cursor={cursor}" if cursor else ""), who="backend").json
            orders.update({o["order_id"]: o["status"] for o in page["items"]})
            cursor = page.get("next_cursor")
            if not cursor:
                return orders

    def check(self):
        self.stop()
        self.cluster.wait("reservations are over", lambda: "pending_payment" not in self.listed().values())
        listed = self.listed()
        lost = set(self.placed.values()) - set(listed)
        assert not lost, f"{len(lost)} acknowledged orders are lost: {sorted(lost)[:5]}"
        assert len(listed) == len(self.placed), f"{len(listed)} orders listed, {len(self.placed)} acknowledged"
        wrong = {o: (s, listed[o]) for o, s in self.settled.items() if listed[o] != s}
        assert not wrong, f"{len(wrong)} orders are not as it was acknowledged: {list(wrong.items())[:5]}"
        paid = sum(s == "paid" for s in listed.values())
        sku = self.cluster.stage.expect(200, "GET", f"/v1/skus/{self.sku}?consistency=strong", who="backend").json
        assert (sku["reserved"], sku["sold"]) == (0, paid), (sku, paid)
        assert sku["available"] + sku["sold"] == sku["received"], sku
        return collections.Counter(listed.values())


class Postgres:
    SCRIPT = str(pathlib.Path(__file__).resolve().with_name("private_pg.sh"))

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="holdfast-fp-", dir="/tmp")
        os.chmod(self.dir, 0o711)
        done = subprocess.run([self.SCRIPT, "start", self.dir], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        self.url = done.stdout.strip()
        return self

    def __exit__(self, *_):
        subprocess.run([self.SCRIPT, "stop", self.dir], capture_output=True, check=False, timeout=120)
        shutil.rmtree(self.dir, ignore_errors=True)


class Campaign:
    def __init__(self, cluster, postgres, chance):
        self.cluster, self.postgres, self.random = cluster, postgres, chance
        self.sales = 0
        self.load = None
        self.orders = collections.Counter()
        self.armed = None  # (process, how many of its lines there were)
        self.killed = []   # processes, by kill_others
        self.stepper = None

    # ---- what runs meanwhile ----

    def open_sale(self):
        self.sales += 1
        sale, sku = f"S{self.sales}", f"A{self.sales}"
        self.cluster.shop(sale, sku, 1000000, payment_timeout_ms=PAYMENT_TIMEOUT_MS, late_payment="refund")
        self.load = Load(self.cluster, sale, sku)
        self.load.wait_for(5)

    def close_sale(self):
        if self.load is not None:
            self.orders += self.load.check()
            self.load = None

    def socket(self, part):
        return failpoints.Socket(self.cluster.path(f"{part}.fp"))

    def start_gateway(self):
        self.cluster.start_gateway()

    def check_ended(self, process):
        """A process that is gone must have had a reason that we gave."""
        process.reader.join(10)
        if not fired_lines(process):
            raise AssertionError(f"{process.name} ended with {process.child.returncode}:\n" + "\n".join(process.lines[-20:]))

    def statuses(self):
        """Of the nodes that answer; briefly, because some are gone."""
        done = self.cluster.ctl("endpoint", "status", "-o", "json", "--timeout", "2s", check=False)
        try:
            return [row for row in json.loads(done.stdout) if row["reachable"]]
        except ValueError:
            return []

    def recover(self):
        """What ended is started, and everybody ready."""
        again = self.random.choice(AGAIN) if self.random.random() < TWICE else None

        def well():
            nonlocal again
            for node in self.cluster.nodes:
                if not node.running():
                    if node.process not in self.killed:
                        self.check_ended(node.process)
                    node.start(environment={"HOLDFAST_FAILPOINTS": again} if again else None)
                    again = None
            if not self.cluster.stage.gateway.running():
                self.check_ended(self.cluster.stage.gateway)
                self.start_gateway()
            states = self.statuses()
            index = max((s["applied_index"] for s in states if s["role"] == "leader" and s["ready"]), default=None)
            return index is not None and len(states) == len(self.cluster.nodes) and \
                all(s["ready"] and s["applied_index"] >= index for s in states)
        self.cluster.wait("everybody is ready again", well, 120)
        for part in [f"n{node.id}" for node in self.cluster.nodes] + ["gateway"]:
            try:
                self.socket(part).clear()
            except OSError:
                self.cluster.wait("everybody is ready again", well, 120)  # it fired just now

    def kill_others(self, process):
        """A moment of all machines: they lose what is in memory, together."""
        for node in self.cluster.nodes:
            if node.process is not process and node.running():
                self.killed.append(node.process)
                node.signal(signal.SIGKILL)
        for node in self.cluster.nodes:
            if node.process in self.killed:
                node.process.child.wait(30)

    # ---- arming ----

    def arm(self, node, name, rule):
        self.armed = (node.process, len(node.process.lines), node)
        self.socket(f"n{node.id}").set(name, rule)

    def start_armed(self, node, name, rule):
        node.start(environment={"HOLDFAST_FAILPOINTS": f"{name}={rule}"})
        self.armed = (node.process, 0, node)

    def lose_disk(self, node):
        node.kill()
        shutil.rmtree(node.dir)

    def followers(self):
        leader = self.cluster.wait("a leader", self.cluster.leader)
        return leader, [n for n in self.cluster.nodes if n is not leader]

    def meanwhile(self, name, step):
        """Again and again on a thread, until the armed point has fired; run_once waits for its end."""
        process, seen, _ = self.armed

        def steps():
            end = time.monotonic() + FIRE_S
            while time.monotonic() < end and process.running() and not fired_lines(process, name, seen):
                step()
        self.stepper = threading.Thread(target=steps, daemon=True)
        self.stepper.start()

    # ---- what leads to a point; each arms it, too ----

    def any(self, name, rule):
        self.arm(self.random.choice(self.cluster.nodes), name, rule)

    def leader(self, name, rule):
        leader, _ = self.followers()
        self.arm(leader, name, rule)

    def restart(self, name, rule):
        _, others = self.followers()
        node = self.random.choice(others)
        node.kill()
        self.start_armed(node, name, rule)

    def refill(self, name, rule):
        _, others = self.followers()
        node = self.random.choice(others)
        self.trimmed()
        self.lose_disk(node)
        self.start_armed(node, name, rule)

    def give(self, name, rule):
        leader, others = self.followers()
        self.trimmed()
        self.arm(leader, name, rule)
        node = self.random.choice(others)
        self.lose_disk(node)
        node.start()

    def trimmed(self):
        """Until who is empty needs a checkpoint: the log of the leader does not begin at the beginning."""
        self.cluster.wait("the log is trimmed", lambda: (self.cluster.leader() or self.cluster.nodes[0]).status()
                          ["first_index"] > 1)

    def take_over(self, name, rule):
        _, others = self.followers()
        self.arm(self.random.choice(others), name, rule)
        self.move_leader(name)

    def hand_over(self, name, rule):
        leader, _ = self.followers()
        self.arm(leader, name, rule)
        self.move_leader(name)

    def move_leader(self, name):
        """To the armed node and away from it, until something happens."""
        def move():
            node = self.armed[2]
            self.cluster.ctl("member", "move-leader", node.id, "--confirm", node.id, "--timeout", "3s", check=False)
            time.sleep(1)
            self.cluster.ctl("member", "move-leader", "--yes", "--timeout", "3s", check=False)
        self.meanwhile(name, move)

    def change(self, name, rule):
        """A member becomes a standby and a voter again, as long as nothing happens; the point is on it, or on another.
        A change is refused as long as the last one is not known to all."""
        _, others = self.followers()
        member = self.random.choice(others)
        victim = self.random.choice(others)
        self.arm(victim, name, rule)

        def change():
            self.cluster.ctl("member", "demote", member.id, "--confirm", member.id, "--timeout", "3s", check=False)
            self.cluster.ctl("member", "promote", member.id, "--timeout", "3s", check=False)
        self.meanwhile(name, change)

    def after_change(self):
        """All are voters again."""
        def voters():
            for node in self.cluster.nodes:
                self.cluster.ctl("member", "promote", node.id, check=False)
            rows = json.loads(self.cluster.ctl("member", "list", "-o", "json").stdout)
            return all(row["role"] == "voter" for row in rows)
        self.cluster.wait("all are voters again", voters)

    def gateway(self, name, rule):
        process = self.cluster.stage.gateway
        self.armed = (process, len(process.lines), None)
        self.socket("gateway").set(name, rule)

    # ---- programs that end by themselves ----

    def ctl_armed(self, name, rule, *arguments):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HOLDFAST_", "PG"))}
        environment.update(HOLDFAST_ENDPOINTS=",".join(self.cluster.endpoints()),
                           HOLDFAST_CLUSTER_KEY_FILE=self.cluster.path("cluster.key"),
                           HOLDFAST_FAILPOINTS=f"{name}={rule}")
        done = subprocess.run([str(self.cluster.holdfastctl), *map(str, arguments)], capture_output=True, text=True,
                              timeout=120, env=environment, stdin=subprocess.DEVNULL, check=False)
        fired = re.search(rf"failpoint {re.escape(name)} fires: ", done.stderr) is not None
        assert done.returncode != 0 or not fired or rule.startswith("sleep"), done.stderr
        return fired

    def save(self, name, rule):
        """FILE is whole or not there; the next one succeeds."""
        path = self.cluster.path(f"{uuid.uuid4().hex}.snapshot")
        fired = self.ctl_armed(name, rule, "snapshot", "save", path)
        if os.path.exists(path):
            self.cluster.ctl("snapshot", "verify", path)
        self.cluster.ctl("snapshot", "save", path, "--force")
        self.cluster.ctl("snapshot", "verify", path)
        assert not os.path.exists(path + ".part")
        os.unlink(path)
        return fired

    def restore(self, name, rule):
        """What is not whole is not taken for a data directory; the next one succeeds."""
        path, folder = self.cluster.path("restore.snapshot"), self.cluster.path("restored")
        self.cluster.ctl("snapshot", "save", path, "--force")
        words = ["snapshot", "restore", path, "--data-dir", folder, "--id", 1, "--cluster-id", uuid.uuid4(),
                 *(x for n in self.cluster.nodes for x in ("--member", n.member()))]
        fired = self.ctl_armed(name, rule, *words)
        if os.path.exists(folder):
            done = self.cluster.ctl("node", "verify", folder, check=False)
            assert done.returncode != 0, f"half restored, and well:\n{done.stdout}"
            shutil.rmtree(folder)
        self.cluster.ctl(*words)
        self.cluster.ctl("node", "verify", folder)
        shutil.rmtree(folder)
        return fired

    # ---- one run ----

    def wait_fired(self, name):
        process, seen, _ = self.armed
        end = time.monotonic() + FIRE_S
        while time.monotonic() < end:
            if fired_lines(process, name, seen):
                return True
            if process.child.poll() is not None:
                process.reader.join(10)
                return bool(fired_lines(process, name, seen))
            time.sleep(0.02)
        return False

    def run(self, name, action):
        """Whether it fired, and on what."""
        nth = self.random.randint(1, first(NTH_MAX, name, 1))
        fired, rule, where = self.run_once(name, action, nth)
        if not fired:  # it is passed, but not so often; or a leader would not hand over just then
            fired, rule, where = self.run_once(name, action, 1)
        return fired, rule, where

    def run_once(self, name, action, nth):
        trigger = first(TRIGGERS, name, None)
        rule = f"{action},nth={nth}" + (f",count={self.random.choice((1, 5, 30))}" if action == "drop" else "")
        self.armed = None
        fired = getattr(self, trigger)(name, rule)
        where = trigger
        if self.armed is not None:
            fired = self.wait_fired(name)
            process, _, node = self.armed
            where = f"{process.name} ({trigger})"
            ends = action == "abort" or action.startswith("torn")
            try:  # what ends without having to does so soon; to ask it meanwhile only takes time
                process.child.wait(30 if ends else ENDS_S if action.startswith("return") else 0)
                if fired and self.random.random() < ALL_DIE:
                    self.kill_others(process)
                    where += " and all others"
            except subprocess.TimeoutExpired:
                assert not (fired and ends), f"{process.name} goes on after {rule}"
            if not ends and (node is None or node.running()):
                try:
                    self.socket("gateway" if node is None else f"n{node.id}").clear()
                except OSError:
                    pass  # it ended meanwhile
        if self.stepper is not None:
            self.stepper.join(2 * FIRE_S)
            self.stepper = None
        self.recover()
        if trigger == "change":
            self.after_change()
        self.load.wait_for(10)
        digests = set(self.cluster.digests().values())
        assert len(digests) == 1, f"digests differ: {self.cluster.digests()}"
        return fired, rule, where

    def audit(self):
        done = self.cluster.ctl("audit", "--postgres-url", self.postgres.url, "--wait", "60s", check=False, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr


def actions_of(point):
    """What is tried at a point. A sleep is what a slow moment does, which load alone makes, too."""
    wanted = {"abort": "abort", "return": "return(EIO)", "drop": "drop", "torn": "torn(512)"}
    return [wanted[a] for a in point.actions if a in wanted]


def make(build):
    """What a run needs, and no more."""
    if not (build / "build.ninja").exists():
        subprocess.run(["meson", "setup", str(build), str(harness.ROOT), "-Dfailpoints=true", "-Doptimization=1",
                        "-Ddebug=false"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "-C", str(build), *PROGRAMS], check=True, stdout=subprocess.DEVNULL)


def plan(arguments, build):
    points = {}
    for program in PROGRAMS:
        points.update(failpoints.of_program(build / program))
    assert len(points) >= 40, f"{build} has {len(points)} failpoints: was it made with -Dfailpoints=true?"
    runs = [(name, action) for name, point in sorted(points.items()) for action in actions_of(point)
            if re.match(arguments.only, name) and action.startswith(arguments.action)]
    chance = random.Random(arguments.seed)
    chance.shuffle(runs)
    if arguments.runs:
        runs = runs[:arguments.runs]
    return points, runs


def campaign(arguments, build):
    points, runs = plan(arguments, build)
    fired, never, rows = set(), [], []
    begun = time.monotonic()
    with Postgres() as postgres:
        gateway_options = ["--failpoint-socket"]
        cluster = Cluster(build, nodes=3, node_options=[*NODE_OPTIONS, "--postgres-url", postgres.url],
                          gateway_options=gateway_options)
        gateway_options.append(cluster.path("gateway.fp"))
        for node in cluster.nodes:
            node.options += ["--failpoint-socket", cluster.path(f"n{node.id}.fp")]
        cluster.ctl("migrate", "up", "--postgres-url", postgres.url)
        with cluster:
            c = Campaign(cluster, postgres, random.Random(arguments.seed))
            for number, (name, action) in enumerate(runs):
                if number % RUNS_PER_SALE == 0:
                    c.close_sale()
                    c.open_sale()
                at = time.monotonic()
                try:
                    ok, rule, where = c.run(name, action)
                except BaseException:
                    print(f"FAILED at {name}={action}; again: {sys.argv[0]} {arguments.build} --seed {arguments.seed} "
                          f"--only '{name}$' --action '{action}'", flush=True)
                    raise
                print(f"{number + 1:3}/{len(runs)} {'fired' if ok else 'NEVER'} {name}={rule} on {where} "
                      f"{time.monotonic() - at:.1f} s", flush=True)
                rows.append({"point": name, "rule": rule, "where": where, "fired": bool(ok),
                             "seconds": round(time.monotonic() - at, 1)})
                (fired.add(name) if ok else never.append(f"{name}={rule}"))
            c.close_sale()
            c.audit()
    summary = {"points": len(points), "points_fired": len(fired), "runs": len(runs), "never": never, "seed": arguments.seed,
               "orders": dict(c.orders), "seconds": round(time.monotonic() - begun)}
    if arguments.out:
        pathlib.Path(arguments.out).write_text(json.dumps({**summary, "rows": rows}, indent=1) + "\n")
    print(json.dumps(summary), flush=True)
    missed = sorted({n for n, _ in runs} - fired)
    assert not missed, f"never fired: {missed}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--make", action="store_true", help="make and update the build first")
    parser.add_argument("--only", default="", metavar="REGEX", help="points whose name begins like this")
    parser.add_argument("--action", default="", help="only this action")
    parser.add_argument("--runs", type=int, default=0, metavar="N", help="so many of them, drawn by the seed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", metavar="FILE", help="what was done, as JSON")
    arguments = parser.parse_args()
    build = pathlib.Path(arguments.build).resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is ended
    if arguments.make:
        make(build)
    campaign(arguments, build)


if __name__ == "__main__":
    main()
