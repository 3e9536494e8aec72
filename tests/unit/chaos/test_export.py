#!/usr/bin/env python3
"""The export for another checker: its structure, and that a plain search with the model of porcupine/model.go, written
again here, finds a linearization of short good histories, and none of spoilt ones."""
import json
import pathlib
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[2] / "tools/chaos")]

import synthetic  # noqa: E402
from check import porcupine  # noqa: E402
from test_checkers import recorded  # noqa: E402


def exported(lines, final, run):
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        (directory / "history.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        (directory / "final.json").write_text(json.dumps(final))
        (directory / "run.json").write_text(json.dumps(run))
        counts = porcupine.export(directory, directory / "out.jsonl")
        return counts, [json.loads(x) for x in (directory / "out.jsonl").read_text().splitlines()]


def apply(stock, orders, op, out):
    """(stock, orders) after it, or None when the answer does not fit."""
    stock, orders = dict(stock), dict(orders)

    def move(items, *factors):
        for sku, n in items:
            stock[sku] = tuple(v + f * n for v, f in zip(stock[sku], factors))
    name = op["op"]
    if out["code"] == "OK" and name != "read_sku":
        items, status = orders.get(op.get("order"), ((), None))
        if name == "sku_put":
            stock[op["sku"]] = (0, 0, 0)
        elif name == "adjust":
            move([(op["sku"], op["delta"])], 1, 0, 0)
        elif name == "place":
            items = tuple(map(tuple, op["lines"]))
            move(items, -1, 1, 0)
            orders[out["order"]] = (items, "pending")
        elif name in ("cancel", "expire"):
            if status != "pending":
                return None
            move(items, 1, -1, 0)
            orders[op["order"]] = (items, name)
        elif name == "pay":
            if status not in ("pending", "expire"):
                return None
            if out["state"] == "paid":
                move(items, *((0, -1, 1) if status == "pending" else (-1, 0, 1)))
            orders[op["order"]] = (items, out["state"])
        elif name == "refund":
            if status not in ("paid", "refund_due"):
                return None
            if status == "paid":
                move(items, 1 if op["restock"] else 0, 0, -1)
            orders[op["order"]] = (items, "refunded")
    fits = all(stock.get(sku) == tuple(v) for sku, v in out.get("stock", {}).items())
    return (stock, orders) if fits else None


def linearizable(events, steps_max=20_000):
    """Wing and Gong's search: take any operation that was called before the first return of those left."""
    calls = {e["id"]: e for e in events if e["kind"] == "call"}
    rets = {e["id"]: e for e in events if e["kind"] == "return"}
    order = sorted(calls, key=lambda i: calls[i]["t"])
    seen, stack, steps = set(), [(frozenset(), {}, {})], 0
    while stack:
        done, stock, orders = stack.pop()
        if len(done) == len(calls):
            return True
        steps += 1
        if steps > steps_max:
            return None
        left = [i for i in order if i not in done]
        first = min(rets[i]["t"] for i in left)
        for i in reversed([i for i in left if calls[i]["t"] <= first]):
            after = apply(stock, orders, calls[i]["input"], rets[i]["output"])
            if after is not None:
                here = (done | {i}, json.dumps([sorted(after[0].items()), sorted(after[1].items())]))
                if here not in seen:
                    seen.add(here)
                    stack.append((here[0], *after))
    return False


class Export(unittest.TestCase):
    def test_structure(self):
        for lines, final, run in (recorded(), synthetic.make(1)):
            counts, events = exported(lines, final, run)
            open_, before, seen = {}, -1, {}
            for e in events:
                self.assertLessEqual(before, e["t"])
                before = e["t"]
                self.assertEqual({"partition", "client", "id", "kind", "t", "input" if e["kind"] == "call" else "output"},
                                 set(e))
                if e["kind"] == "call":
                    self.assertNotIn(e["id"], seen)
                    seen[e["id"]] = open_[e["id"]] = e
                    self.assertIn("op", e["input"])
                else:
                    self.assertEqual(e["partition"], open_.pop(e["id"])["partition"])
                    self.assertIn("code", e["output"])
                self.assertNotIn("index", e.get("output", {}))
            self.assertEqual({}, open_)
            self.assertEqual(sum(counts.values()), len(seen))
            self.assertIn("stock", counts)
            self.assertTrue(any(name.startswith("lease ") for name in counts))
            self.assertTrue(any(e.get("input", {}).get("op") == "expire" for e in events))

    def test_another_search_agrees(self):
        found = 0
        for seed in range(1, 7):
            lines, final, run = synthetic.make(seed, 50)
            events = [e for e in exported(lines, final, run)[1] if e["partition"] == "stock"]
            good = linearizable(events)
            self.assertIsNot(good, False, f"seed {seed}")
            found += good is True
            spoilt = next(e for e in events if e["kind"] == "return" and e["output"].get("stock")
                          and e["output"]["code"] == "OK")
            next(iter(spoilt["output"]["stock"].values()))[0] += 100
            self.assertIsNot(linearizable(events), True, f"seed {seed}")
        self.assertGreater(found, 3)


if __name__ == "__main__":
    unittest.main()
