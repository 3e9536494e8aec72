#!/usr/bin/env python3
"""Wrong clocks in a cluster of real nodes: a sale with a payment timeout of seconds goes on, and no reservation
ends early or late by more than 100 ms (docs/adr/0016).

    clock.py BUILD_DIR [NAME …]             all scenarios on one cluster, or those named
    clock.py BUILD_DIR --jumps 200          the long form: so many jumps of wall clocks, one at a time

How it measures: a thread places orders one after the other. Each answer tells the replicated time of the order
(created_at), and the order was made between two readings of the test's own monotonic clock, right before it asked
and right after it was told. So replicated time less real time lies in an interval that a slow machine makes wider,
never wrong; what is held against the nodes is only what no value within all the intervals explains. Times of
expiry are created_at plus the payment timeout by replicated time, which the engine keeps exactly.
"""
import argparse
import datetime
import json
import pathlib
import random
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid

import harness  # noqa: F401
from cluster import Cluster
from faultclock import FaultClock

HOUR_MS = 3600000
BOUND_MS = 100
PAYMENT_MS = 3000
LATE_MS = 5000  # how late a machine under load may be to show an expiry: says nothing of clocks


def parse_ms(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000


def monotonic_ms():
    return time.monotonic_ns() / 1e6


class Prober:
    """Places orders one after the other, and looks at them until they have expired."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.samples = []    # (asked, told, created_at) in ms
        self.waiting = []    # (order, asked, told): not yet seen expired
        self.expired = 0
        self.wrong = []
        self.longest_ms = 0
        self.stopping = threading.Event()
        self.placing = threading.Event()
        self.placing.set()
        self.idle = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join(90)
        assert not self.thread.is_alive(), "the prober never got an answer"

    def _call(self, method, path, body=None, key=None):
        headers = {"Authorization": "Bearer " + self.cluster.stage.keys["backend"]}
        if key:
            headers.update({"Content-Type": "application/json", "Idempotency-Key": f'"{key}"'})
        request = urllib.request.Request(f"http://127.0.0.1:{self.cluster.stage.ports['public']}{path}",
                                         body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read() or b"{}")
        except (OSError, ValueError):
            return 0, {}

    def _place(self):
        body = json.dumps({"sale_id": "S", "user_id": "prober", "lines": [{"sku": "A", "quantity": 1}]}).encode()
        key = uuid.uuid4().hex
        asked = monotonic_ms()
        while not self.stopping.is_set():
            status, answer = self._call("POST", "/v1/orders", body, key)
            told = monotonic_ms()
            if status in (200, 201):
                self.samples.append((asked, told, parse_ms(answer["created_at"])))
                self.waiting.append((answer["order_id"], asked, told))
                self.longest_ms = max(self.longest_ms, told - asked)
                return
            if 400 <= status < 500 and status != 429:
                self.wrong.append(f"an order is refused: {status} {answer}")
                return
            time.sleep(0.02)

    def _look(self, early):
        """At the oldest one: early says that it must not have ended."""
        if not self.waiting:
            return
        order, asked, told = self.waiting[0]
        due = asked + PAYMENT_MS - BOUND_MS
        if not early and monotonic_ms() < told + PAYMENT_MS + BOUND_MS:
            return
        begun = monotonic_ms()
        status, answer = self._call("GET", f"/v1/orders/{order}?consistency=strong")
        if status != 200:
            return
        state = answer["status"]
        if state == "expired":
            self.waiting.pop(0)
            self.expired += 1
            if monotonic_ms() < due:
                self.wrong.append(f"{order} expired {due - monotonic_ms():.0f} ms too early")
        elif state != "pending_payment":
            self.wrong.append(f"{order} is {state}")
        elif begun > told + PAYMENT_MS + BOUND_MS + LATE_MS + self.longest_ms:
            self.wrong.append(f"{order} still holds units {begun - told:.0f} ms after it was placed")

    def _run(self):
        turn = 0
        while not self.stopping.is_set() and not self.wrong:
            turn += 1
            if not self.placing.is_set():
                self.idle.set()
            elif len(self.waiting) < 60:
                self._place()
            self._look(early=turn % 5 == 0)
            time.sleep(0.02)

    def wait_for(self, count):
        target = len(self.samples) + count
        self.cluster.wait(f"{count} more orders", lambda: len(self.samples) >= target or self.wrong)
        assert not self.wrong, self.wrong

    def pause(self):
        """No more orders; returns when everything placed has expired."""
        self.idle.clear()
        self.placing.clear()
        self.cluster.wait("what was placed expires", lambda: self.wrong or self.idle.is_set() and not self.waiting)
        assert not self.wrong, self.wrong

    def resume(self):
        """From here on replicated time may be elsewhere: after a restart of all."""
        self.samples.clear()
        self.placing.set()

    def check(self, within_ms=None):
        """Replicated time never fell, and moved with real time: between any two orders, or any two at most
        within_ms apart. Returns the spread that is proven, in ms."""
        assert not self.wrong, self.wrong
        samples = list(self.samples)
        for (_, _, a), (_, _, b) in zip(samples, samples[1:]):
            assert b >= a, f"replicated time fell by {a - b} ms"
        worst = 0
        for i, (asked, told, created) in enumerate(samples):
            for other_asked, other_told, other_created in samples[i + 1:]:
                if within_ms and other_asked - told > within_ms:
                    break
                # Replicated time less real time: the least of one against the most of the other.
                ahead = (other_created - other_told) - (created - asked)
                behind = (created - told) - (other_created - other_asked)
                worst = max(worst, ahead, behind)
                assert worst <= BOUND_MS, \
                    f"replicated time moved {worst:.0f} ms from real time within {other_told - asked:.0f} ms"
        return worst

    def off_the_wall_ms(self):
        """By how much replicated time is ahead of the test's wall clock, at least, as of the last order."""
        asked, told, created = self.samples[-1]
        wall = time.time_ns() / 1e6 - monotonic_ms()
        return created - told - wall, created - asked - wall


class Stand:
    """The cluster, a wrong clock for each node at hand, and a sale."""

    def __init__(self, build):
        self.cluster = Cluster(build, nodes=3, node_options=["--election-timeout", "300ms"])
        library = pathlib.Path(build) / "tests/faults/libfaultclock.so"
        self.clocks = {}
        for node in self.cluster.nodes:
            self.clocks[node.id] = FaultClock(library, self.cluster.path(""), f"node-{node.id}")
            node.environment.update(self.clocks[node.id].environment)

    def leader(self):
        return self.cluster.wait("a leader", self.cluster.leader)

    def wait_leader(self, what, condition):
        """A ready leader for which the condition holds."""
        def found():
            leader = self.cluster.leader()
            return leader if leader and condition(leader) else None
        return self.cluster.wait(what, found)

    def wait_trust(self):
        def trusted():
            states = [n.status() for n in self.cluster.nodes]
            return all(s and not s["clock_suspect"] and abs(s["clock_offset_ms"]) < 250 for s in states)
        self.cluster.wait("all clocks agree, and are trusted", trusted)


def leaders_wall_clock_jumps(stand, prober):
    """It says so, hands over, and time goes on."""
    for jump in HOUR_MS, -HOUR_MS:
        leader = stand.leader()
        stand.clocks[leader.id].set(wall=jump)
        stand.wait_leader("the leader with a wrong clock hands over", lambda l: l.id != leader.id)
        status = leader.status()
        assert status["clock_suspect"], status
        assert abs(status["clock_offset_ms"] - jump) < 1000, status
        leader.process.wait_for(r"wall clock is off by [+-]3[56]\d{5} ms")
        shown = json.loads(stand.cluster.ctl("status", "-o", "json").stdout)
        assert shown["clocks_suspect"] >= 1, shown
        prober.wait_for(20)
        stand.clocks[leader.id].set(wall=0)
    prober.check()


def elected_with_a_wrong_clock(stand, prober):
    """Wall clock an hour ahead and monotonic clock a percent fast, elected because the leader is killed. Of two
    nodes neither can say who is wrong; when the third is back the wrong one hands over."""
    stand.wait_trust()
    leader = stand.leader()
    wrong, other = [n for n in stand.cluster.nodes if n is not leader]
    stand.clocks[wrong.id].set(wall=HOUR_MS, monotonic_ppm=10000)
    stand.cluster.wait("it knows its clocks to be wrong", lambda: (wrong.status() or {}).get("clock_suspect"))
    leader.kill()
    stand.wait_leader("another leader", lambda l: l is not leader)
    prober.wait_for(20)
    if stand.leader() is other:  # it was not elected: it shall be
        stand.cluster.ctl("member", "move-leader", wrong.id, check=False)
    prober.wait_for(20)
    leader.start()
    stand.cluster.wait_ready()
    stand.wait_leader("a node with good clocks leads", lambda l: l is not wrong)
    prober.wait_for(20)
    prober.check()
    stand.clocks[wrong.id].set(wall=0, monotonic_ppm=0)


def all_clocks_step(stand, prober):
    """Nobody is wrong, and no time has passed."""
    for step in HOUR_MS, 0:
        for clock in stand.clocks.values():
            clock.set(wall=step)
        prober.wait_for(40)
        prober.check()
    stand.leader()


def said(node, pattern):
    """The first line of this life of the node that has it."""
    return next((m for line in list(node.process.lines) if (m := re.search(pattern, line))), None)


def restart_of_all(stand, prober, jump=HOUR_MS):
    """All stop, all come back, and the first leader's wall clock is wrong: the majority wins."""
    stand.wait_trust()
    prober.check()
    prober.pause()  # time begins anew; and the logs are of one length, so that any of them may be elected
    for attempt in range(3):  # an election is a matter of chance
        stand.cluster.wait_ready()
        wrong = stand.leader()  # no log is longer
        for node in stand.cluster.nodes:
            node.signal(signal.SIGKILL)
        for node in stand.cluster.nodes:
            node.kill()
            stand.clocks[node.id].set(wall=jump if node is wrong else 0)
        for node in stand.cluster.nodes:  # who is impatient leads first
            node.start("--election-timeout", "300ms" if node is wrong else "3s")
        stand.leader()
        first = min((n for n in stand.cluster.nodes if said(n, r"leading term=(\d+)")),
                    key=lambda n: int(said(n, r"leading term=(\d+)")[1]))
        if first is wrong:
            break
    anchor = wrong.process.wait_for(r"clock: the cluster's time (begins|goes on).*")[0]
    assert "begins at the wall clock on which 2 of 3 voters agree" in anchor, anchor
    prober.resume()
    prober.wait_for(10)
    low, high = prober.off_the_wall_ms()
    assert low <= 1000 and high >= -1000, f"replicated time is {low:.0f} to {high:.0f} ms ahead of the true wall clock"
    stand.wait_leader("the wrong one hands over", lambda l: l is not wrong)
    prober.wait_for(20)
    prober.check()


SCENARIOS = [leaders_wall_clock_jumps, all_clocks_step, elected_with_a_wrong_clock, restart_of_all]


def many_jumps(stand, prober, count, seed):
    chance = random.Random(seed)
    for i in range(count):
        nodes = stand.cluster.nodes
        leader = stand.cluster.leader()
        target = leader if leader and chance.random() < 0.7 else chance.choice(nodes)
        for node in nodes:  # one at a time is wrong: the majority stays sane
            if node is not target and stand.clocks[node.id].words["wall"] != 0:
                stand.clocks[node.id].set(wall=0)
        stand.clocks[target.id].set(wall=chance.choice([HOUR_MS, -HOUR_MS]))
        prober.wait_for(chance.randrange(5, 60))
        assert not prober.wrong, prober.wrong
        if (i + 1) % 10 == 0:
            worst = prober.check(within_ms=2 * PAYMENT_MS)
            print(f"{i + 1} jumps: {prober.expired} reservations ended, proven error within a payment timeout "
                  f"{worst:.1f} ms", flush=True)
            del prober.samples[:-50]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jumps", type=int)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    unknown = set(options.names) - {f.__name__ for f in SCENARIOS}
    assert not unknown, f"no such scenario: {unknown}"
    stand = Stand(options.build)
    with stand.cluster as cluster:
        cluster.shop("S", "A", units=100000, payment_timeout_ms=PAYMENT_MS)
        with Prober(cluster) as prober:
            prober.wait_for(20)
            if options.jumps:
                many_jumps(stand, prober, options.jumps, options.seed)
            for scenario in SCENARIOS if not options.jumps else []:
                if options.names and scenario.__name__ not in options.names:
                    continue
                begun = time.monotonic()
                scenario(stand, prober)
                spread = prober.check()
                print(f"{scenario.__name__}: {time.monotonic() - begun:.1f} s, {prober.expired} reservations ended, "
                      f"proven error {spread:.1f} ms, longest request {prober.longest_ms:.0f} ms", flush=True)
            # What is still held ends too.
            cluster.wait("an expiry was seen", lambda: prober.expired > 0 or prober.wrong)
        assert not prober.wrong, prober.wrong
        digests = cluster.digests()
        assert len(set(digests.values())) == 1, digests


if __name__ == "__main__":
    main()
