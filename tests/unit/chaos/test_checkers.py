#!/usr/bin/env python3
"""The checkers of tools/chaos, checked: good histories pass; each way of spoiling one (corruptions.py) is found by the
checker that is meant to find it; changes of single fields, drawn from a seed, are found too.

Usage: test_checkers.py [--seeds N] [--mutations N] [--seed N] [unittest arguments]
"""
import argparse
import copy
import gzip
import json
import pathlib
import random
import re
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[2] / "tools/chaos")]

import check  # noqa: E402
import corruptions  # noqa: E402
import history  # noqa: E402
import synthetic  # noqa: E402
from check.verdict import Case  # noqa: E402

OPTIONS = argparse.Namespace(seeds=3, mutations=80, seed=1)


def recorded():
    """A real run: three nodes, two gateways, PostgreSQL; the leader and a gateway were killed in it."""
    with gzip.open(HERE / "recorded/history.jsonl.gz", "rt", encoding="utf-8") as f:
        lines = [json.loads(text) for text in f]
    with gzip.open(HERE / "recorded/final.json.gz", "rt", encoding="utf-8") as f:
        final = json.load(f)
    return lines, final, {"nodes": 3, "seed": 1}


def judge(lines, final, run, only=None):
    try:
        past = history.parse(lines)
    except (ValueError, KeyError):
        return ["unreadable"]
    return check.check_case(Case(past, final, run), only).failed()


class GoodHistories(unittest.TestCase):
    def test_recorded(self):
        lines, final, run = recorded()
        verdict = check.check_case(Case(history.parse(lines), final, run))
        self.assertTrue(verdict.ok, verdict.as_dict())
        self.assertTrue(all(r.applies and r.looked_at for r in verdict.results), verdict.as_dict())

    def test_from_seeds(self):
        for seed in range(OPTIONS.seed, OPTIONS.seed + OPTIONS.seeds):
            with self.subTest(seed=seed):
                self.assertEqual([], judge(*synthetic.make(seed)))

    def test_without_postgres_expiry_is_inferred(self):
        for seed in range(OPTIONS.seed, OPTIONS.seed + OPTIONS.seeds):
            lines, final, run = synthetic.make(seed)
            final["postgres"] = None
            with self.subTest(seed=seed):
                self.assertEqual([], judge(lines, final, run))
                self.assertEqual([], judge(lines, None, run))  # nor anything else of the end

    def test_a_call_in_doubt_may_have_happened_or_not(self):
        """Whatever one write would have answered: without its answer the witness still fits."""
        lines, _, run = synthetic.make(OPTIONS.seed)
        spoilt = corruptions.Run(lines, None, run)
        alone = corruptions.keyless(spoilt)
        for call, ret in [p for p in spoilt.find() if "key" in p[0] and alone(*p) and p[0]["op"] != "place"][:25]:
            doubtful = [x if x is not ret else {"id": x["id"], "ev": "ret", "t": x["t"], "status": "unknown"}
                        for x in spoilt.lines]
            with self.subTest(call=call):
                self.assertEqual([], judge(doubtful, None, run, ["witness"]))

    def test_nothing_to_look_at_is_no_verdict(self):
        lines, _, run = synthetic.make(OPTIONS.seed)
        self.assertIsNone(check.check_case(Case(history.parse(lines), None, run)).ok)

    def test_empty(self):
        self.assertEqual(["liveness"], judge([], None, {}))


class SpoiltHistories(unittest.TestCase):
    def found(self, name, lines, final, run, seed):
        """True: found by the right checker; None: there was no place for it."""
        checkers, spoil = corruptions.ALL[name]
        spoilt = corruptions.Run(lines, final, run, seed)
        try:
            if spoil(spoilt) is False:
                return None
        except (TypeError, IndexError, ValueError, StopIteration):
            return None  # nothing of the kind in this run
        failed = judge(spoilt.lines, spoilt.final, spoilt.run)
        self.assertTrue(set(checkers) & set(failed) or failed == ["unreadable"],
                        f"{name}, seed {seed}: {failed or 'nobody'} found it, {checkers} should have")
        return True


def add_tests():
    good = recorded()
    for name in corruptions.ALL:
        def test(self, name=name):
            found = [self.found(name, *good, seed=0)]
            for seed in range(OPTIONS.seed, OPTIONS.seed + OPTIONS.seeds):
                found.append(self.found(name, *synthetic.make(seed), seed=seed))
            self.assertIn(True, found, "no history had a place for it")
        setattr(SpoiltHistories, f"test_{name}", test)


# ---- mutations ----

# What an answer says and a reader may rely on; a change of it changes what is claimed. Not here: what describes how the
# answer came (attempts, http, doubtful), and the index, which is judged on its own below.
ANSWER = ("code", "order", "amount", "state", "stock", "token", "order_status", "available", "received", "version",
          "changed_index", "pay_by_ms", "created_ms", "expires_ms", "existed", "status")
CODES = ("OK", "SOLD_OUT", "NOT_FOUND", "SALE_PAUSED", "NOT_ELIGIBLE", "ORDER_LIMIT_REACHED", "ORDER_NOT_PAYABLE",
         "ORDER_NOT_CANCELLABLE", "ORDER_NOT_REFUNDABLE", "LEASE_HELD", "STALE_FENCING_TOKEN", "INSUFFICIENT_STOCK")
STATES = ("pending_payment", "paid", "cancelled", "expired", "refund_due", "refunded")


def other(rng, values, value):
    return rng.choice([v for v in values if v != value])


def changed(rng, name, value):
    if name == "code":
        return other(rng, CODES, value)
    if name == "status":
        return other(rng, ("ok", "refused", "unknown"), value)
    if name in ("state", "order_status"):
        return other(rng, STATES, value)
    if name == "stock":
        value = copy.deepcopy(value)
        triple = rng.choice(list(value.values()))
        triple[rng.randrange(3)] += rng.choice((-1, 1))
        return value
    if name == "order":
        digit = rng.randrange(6, 13)
        return value[:digit] + other(rng, synthetic.ALPHABET, value[digit]) + value[digit + 1:]
    if name == "existed":
        return not value
    if name in ("pay_by_ms", "created_ms", "expires_ms"):
        return value + rng.choice((-3_600_000, 3_600_000))
    return value + rng.choice((-1, 1))


def mutate(lines, final, rng):
    """One field of the history or of the end becomes another. Returns what, or None."""
    where = rng.random()
    if where < 0.6:
        rets = [x for x in lines if x["ev"] == "ret"]
        line = rng.choice(rets)
        name = rng.choice([n for n in ANSWER if n in line])
        before = line[name]
        line[name] = changed(rng, name, before)
        return f"answer {line['id']}: {name} {before!r} -> {line[name]!r}"
    if where < 0.7:
        o = rng.choice(list(final["orders"].values()))
        name = rng.choice(("status", "version", "amount", "created_index", "changed_index", "user_id", "sale_id"))
        before = o[name]
        o[name] = other(rng, STATES, before) if name == "status" else before + ("x" if isinstance(before, str) else 1)
        return f"final order {o['order_id']}: {name} {before!r} -> {o[name]!r}"
    if where < 0.8:
        s = rng.choice(list(final["skus"].values()))
        name = rng.choice(("available", "reserved", "sold", "received"))
        s[name] += rng.choice((-1, 1))
        return f"final {s['id']}: {name}"
    table, names = rng.choice((("orders", ("id", "status", "version", "amount", "changed_index", "shard", "user_id")),
                               ("order_lines", ("order_id", "line", "quantity", "sku", "unit_price")),
                               ("payments", ("payment_id", "order_id", "amount", "outcome", "log_index")),
                               ("outbox", ("id", "aggregateid", "type", "log_index", "sequence")),
                               ("eligibilities", ("user_id", "granted"))))
    rows = final["postgres"][table]
    if not rows:
        return None
    row, name = rng.choice(rows), rng.choice(names)
    before = row[name]
    row[name] = not before if isinstance(before, bool) else before + ("x" if isinstance(before, str) else 1)
    return f"{table}: {name} {before!r} -> {row[name]!r}"


class Mutations(unittest.TestCase):
    def test_changes_of_meaning_are_found(self):
        found = tried = 0
        for number in range(OPTIONS.mutations):
            rng = random.Random(f"{OPTIONS.seed}/{number}")
            lines, final, run = synthetic.make(OPTIONS.seed + number % 7, 150)
            what = mutate(lines, final, rng)
            if what is None:
                continue
            tried += 1
            with self.subTest(number=number, what=what):
                failed = judge(lines, final, run)
                self.assertTrue(failed, f"not found: {what}; again: --seed {OPTIONS.seed} --mutations {number + 1}")
                found += 1
        print(f"mutations: {found} of {tried} found", file=sys.stderr)

    def test_indexes(self):
        """An answer at another index is another claim only if something tells the difference: two refusals may change
        places. What made an event is told by the outbox and must be found; of the rest the share is printed."""
        found = tried = must = 0
        for number in range(OPTIONS.mutations // 2):
            rng = random.Random(f"index/{OPTIONS.seed}/{number}")
            lines, final, run = synthetic.make(OPTIONS.seed + number % 7, 150)
            calls = {x["id"]: x for x in lines if x["ev"] == "call"}
            line = rng.choice([x for x in lines if x["ev"] == "ret" and "index" in x])
            line["index"] += rng.choice((-3, -2, -1, 1, 2, 3))
            failed = judge(lines, final, run)
            tried += 1
            found += bool(failed)
            if calls[line["id"]]["op"] in ("place", "pay", "cancel") and line["status"] == "ok":
                must += 1
                self.assertTrue(failed, f"number {number}: {line}")
        self.assertTrue(must or OPTIONS.mutations < 40)
        print(f"indexes: {found} of {tried} found, {must} of them had to be", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    for name, value in vars(OPTIONS).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    known, rest = parser.parse_known_args()
    vars(OPTIONS).update(vars(known))
    add_tests()
    unittest.main(argv=[sys.argv[0], *[a for a in rest if not re.fullmatch(r"--(seeds|seed|mutations)", a)]])
