"""The main checker: every answer says at which log index it was decided, so the history brings its own order.

1. Keys: one effect and one answer under one key (effects.py).
2. Real time: what had returned before something was called has a smaller index than a write, and none larger than
   a strong read's; a local read reflects at least the index it asked for.
3. Replay: in order of index, every answer of every write, every repetition and every read is what a naive model
   (model.py) answers; at the end the cluster holds what the model holds.

A history that passes has been linearized: the order of indexes is the witness. O(n log n).

Commands of one batch share an index. Order ids tell positions, other answers do not: within a batch a search
finds an order in which all answers are right. What changes nothing is taken as soon as it is right, so the search
branches over the rest only; it is bounded (STEPS_MAX), and a bound that is reached is a failure, not a pass.

Expiry has no call. When PostgreSQL's outbox or the final state of an order says at which index it expired, it
must happen there; else it may happen when its time may have come, and is tried when nothing else fits. The time
of a batch is bounded by what answers say of it (created_at, expires_at - ttl), and may never go back.
"""
import bisect
import collections

from check.effects import Echo, order_position
from check.model import EXPIRED, PAID, PENDING, REFUND_DUE, REFUNDED, Model, utc_ms

STEPS_MAX = 20_000       # of the search within one batch
BACK_STEPS_MAX = 60_000  # of all searches that were sent back
WINDOW = 2_000           # batches that may be looked at again
ENDLESS = 1 << 62


def check(case, result):
    past, final = case.history, case.final or {}
    effects, echoes, doubtful = case.gathered(result)
    reads = [c for c in past.calls if c.is_read and c.t_ret is not None and c.index is not None]
    result.looked_at = len(effects) + len(echoes) + len(reads)
    real_time(effects, echoes, reads, result)
    for e in effects:
        if e.position is not None and e.position[0] != e.index:
            result.wrong(f"the order's id says index {e.position[0]}, the answer {e.index}: {e}")
    times = Times(effects, final, result)
    Replay(effects, echoes, reads, doubtful, final, times, result).run()
    if doubtful:
        result.note(f"{len(doubtful)} calls without an answer: each may have happened, once, or not")


# ---- real time ----

def real_time(effects, echoes, reads, result):
    """(called, returned, index, may be equal, what): a sweep over all of them in order of time."""
    spans = [(e.called, e.returned, e.index, False, e) for e in effects]
    spans += [(e.call.t, e.call.t_ret, e.index, False, e) for e in echoes]
    for call in reads:
        if call.index < call.get("min_index", 0):
            result.wrong(f"a read that reflects less than it was asked for: {call}")
        # A local read may reflect the past: it obliges those after it, nobody obliges it.
        spans.append((call.t if call.get("consistency") == "strong" else None, call.t_ret, call.index, True, call))
    moments = [(returned, 0, index, None, what) for _, returned, index, _, what in spans]
    moments += [(called, 1, index, equal, what) for called, _, index, equal, what in spans if called is not None]
    moments.sort(key=lambda m: m[:2])  # a return at the very ns of a call came not before it... but cannot be told
    highest, holder = 0, None
    for _, is_call, index, equal, what in moments:
        if not is_call:
            if index > highest:
                highest, holder = index, what
        elif index < highest or (index == highest and not equal):
            result.wrong(f"index {index} although index {highest} had been told before it was called: {what}; "
                         f"told by {holder}")


# ---- the time of batches ----

class Times:
    """What is known of replicated time at log indexes."""

    def __init__(self, effects, final, result):
        known = {}

        def learn(index, ms, what):
            before = known.setdefault(index, ms)
            if before != ms:
                result.wrong(f"index {index} has two times, {before} and {ms} ms: {what}")
        for e in effects:
            if e.op == "place" and e.ok:
                learn(e.index, e.said["created_ms"], e)
            elif e.op in ("lease_acquire", "lease_renew") and e.ok:
                learn(e.index, e.said["expires_ms"] - e.fields["ttl_ms"], e)
        for number, o in final.get("orders", {}).items():
            learn(o["created_index"], utc_ms(o["created_at"]), f"order {number} in the end")
            learn(o["changed_index"], utc_ms(o["changed_at"]), f"order {number} in the end")
        for row in (final.get("postgres") or {}).get("outbox", ()):
            learn(row["log_index"], utc_ms(row["payload"]["occurred_at"]), f"event {row['sequence']}")
        self.indexes = sorted(known)
        self.ms = [known[i] for i in self.indexes]
        for n in range(1, len(self.ms)):
            if self.ms[n] < self.ms[n - 1]:
                result.wrong(f"time goes back from {self.ms[n - 1]} ms at index {self.indexes[n - 1]} to "
                             f"{self.ms[n]} ms at {self.indexes[n]}")

    def bounds(self, index):
        """(earliest, latest) ms that the batch at index may have."""
        at = bisect.bisect_left(self.indexes, index)
        if at < len(self.indexes) and self.indexes[at] == index:
            return self.ms[at], self.ms[at]
        return self.ms[at - 1] if at else 0, self.ms[at] if at < len(self.ms) else ENDLESS


# ---- the replay ----

def fits(expected, said, unseen_stock):
    """Is the answer that was given the one expected? Fields that an answer need not carry may be missing, except
    what a success must say."""
    for name, value in expected.items():
        if value is None:
            continue
        if name == "stock":
            got = said.get("stock")
            if got is None:
                if not unseen_stock and expected["code"] == "OK":
                    return False
            elif got != value:
                return False
        elif name == "existed":
            if bool(said.get("existed")) != value:
                return False
        elif name in said:
            if said[name] != value:
                return False
        elif expected["code"] == "OK":
            return False
    return True


class Batch:
    """What the answers say of one log index."""

    def __init__(self, index, replay):
        items = replay.groups.get(index, ())
        self.index, self.reads = index, replay.reads.get(index, ())
        self.earliest, self.latest = replay.times.bounds(index)
        self.due = list(replay.due.get(index, ()))
        self.placed = collections.deque(sorted((i for i in items if getattr(i, "position", None)),
                                               key=lambda i: i.position))
        self.others = [i for i in items if not getattr(i, "position", None)]
        self.steps, self.yielded = 0, False
        self.explains = False  # keep the complaints of the attempt that came farthest
        self.least, self.complaints = None, []
        self.seen = set()

    def is_new(self, model, keys, others, placed, due, trail):
        """False when the search was here before: the same things left, the same state. Commands that commute are
        then tried in one order only."""
        if not trail:
            return True
        now = frozenset((id(table), key, table.get(key)) for before in trail for table, key, _ in before
                        if table is not keys)
        here = (frozenset(id(o) for o in others), len(placed), frozenset(due), now)
        if here in self.seen:
            return False
        self.seen.add(here)
        return True


class Replay:
    def __init__(self, effects, echoes, reads, doubtful, final, times, result):
        self.model, self.times, self.result, self.final = Model(), times, result, final
        self.keys = {}      # key -> content of what was done under it
        self.groups = collections.defaultdict(list)
        self.reads = collections.defaultdict(list)
        # What an unanswered lease command did to the token and the time of its lease nobody can say.
        blurred = {c.get("name") for c in doubtful if c.op.startswith("lease_")}
        for name in blurred:
            result.note(f"the lease {name} is not judged: a call for it is in doubt")
        for item in [*effects, *echoes]:
            fields = item.call.fields if isinstance(item, Echo) else item.fields
            if fields.get("name") is None or fields["name"] not in blurred:
                self.groups[item.index].append(item)
        for call in reads:
            self.reads[call.index].append(call)
        self.doubtful = {c.id: c for c in doubtful if not c.op.startswith("lease_")}
        self.bound = self._bounds_of(doubtful, effects)
        self.due = collections.defaultdict(list)  # index -> orders that expire there
        self.maybe = {}                           # order -> pay_by: may expire when its time may have come
        self._expiries(effects)
        self.maybe = sorted(self.maybe.items(), key=lambda m: m[1])
        self.steps_back, self.early = 0, {}

    def _expiries(self, effects):
        placed = {e.said.get("order"): e for e in effects if e.op == "place" and e.ok}
        outbox = (self.final.get("postgres") or {}).get("outbox")
        if outbox:
            for row in outbox:
                if row["type"] == "order.expired" and row["aggregateid"] in placed:
                    self.due[row["log_index"]].append(row["aggregateid"])
            return
        ends = self.final.get("orders")
        for order, e in placed.items():
            if ends is None:
                self.maybe[order] = e.said.get("pay_by_ms", ENDLESS)
                continue
            end = ends.get(order)
            if end is None:
                continue  # lost: told by another checker, and below
            status, version = end["status"], end["version"]
            if status == EXPIRED:
                self.due[end["changed_index"]].append(order)
            elif status == REFUND_DUE or (status == PAID and version > 2) or (status == REFUNDED and version > 3):
                self.maybe[order] = e.said.get("pay_by_ms", ENDLESS)

    @staticmethod
    def _bounds_of(doubtful, effects):
        """id of a call in doubt -> an index that it is above, if it happened."""
        out, highest, at = {}, 0, 0
        returned = sorted(effects, key=lambda e: e.returned)
        for call in sorted(doubtful, key=lambda c: c.t):
            while at < len(returned) and returned[at].returned < call.t:
                highest = max(highest, returned[at].index)
                at += 1
            out[call.id] = highest
        return out

    def run(self):
        """Batch after batch. A batch may leave more than one state that its answers allow (a pause and a resume in
        one batch); which it was shows later, so one that fails sends back to those before it, as far as WINDOW."""
        indexes = sorted({*self.groups, *self.reads, *self.due})
        stack, at, deepest, failed = collections.deque(), 0, -1, None
        while at < len(indexes):
            stack.append(self._batch(Batch(indexes[at], self)))
            if at <= deepest:
                self.steps_back += 1
            while stack and not next(stack[-1], False):
                stack.pop()
                if at > deepest:
                    deepest, failed = at, self._again(indexes[at])
                at -= 1
                if self.steps_back > BACK_STEPS_MAX:
                    stack.clear()
            if not stack:
                self._explain(failed, len(indexes) - deepest - 1)
                return
            at += 1
            if len(stack) > WINDOW:
                stack.popleft().close()
        self._end()

    def _again(self, index):
        """A batch that failed, searched once more to say why. The model stands before it, and does after."""
        batch = Batch(index, self)
        batch.explains = True
        for _ in self._search(batch, batch.others, batch.placed, batch.due, []):
            pass
        return batch

    # ---- one batch ----

    def _batch(self, batch):
        """A generator: each time it yields, the model stands after the batch in another way that fits."""
        for order in batch.due:
            if not self._may_be_due(order, batch):
                self.early.setdefault(order, batch.index)
        yield from self._search(batch, batch.others, batch.placed, batch.due, [])

    def _may_be_due(self, order, batch):
        there = self.model.orders.get(order)
        return there is None or there.pay_by is None or there.pay_by <= batch.latest

    def _search(self, batch, others, placed, due, trail):
        """Tries orders of what is left; yields when all of it is right."""
        batch.steps += 1
        self.steps_back += 1 if batch.yielded else 0
        mark, others = len(trail), list(others)
        self._take_unchanging(batch, others, placed, trail)
        left = len(others) + len(placed) + len(due)
        if not left and all(fits(self.model.read(c.fields), c.answer, False) for c in batch.reads):
            batch.yielded = True
            yield True
        elif batch.explains and (batch.least is None or left < batch.least):
            batch.least, batch.complaints = left, self._complaints(batch, others, placed, due)
        if batch.is_new(self.model, self.keys, others, placed, due, trail):
            for changes, rest in self._moves(batch, others, placed, due):
                if batch.steps > STEPS_MAX or self.steps_back > BACK_STEPS_MAX:
                    break
                before = len(trail)
                trail.append(self.model.apply(changes))
                yield from self._search(batch, *rest, trail)
                self._undo(trail, before)
        self._undo(trail, mark)

    def _undo(self, trail, mark):
        while len(trail) > mark:
            self.model.undo(trail.pop())

    def _take_unchanging(self, batch, others, placed, trail):
        """Answers that are right now and change nothing are right at once: nothing is lost by taking them."""
        found = True
        while found and (others or placed):
            found = False
            for item in list(others):
                changes = self._unchanging(batch, item)
                if changes is not None:
                    others.remove(item)
                    if changes:
                        trail.append(self.model.apply(changes))
                    found = True

    def _unchanging(self, batch, item):
        if hasattr(item, "reused"):  # an echo
            there = self.keys.get(item.key)
            if there is None or (there == item.content) == item.reused:
                return None
            stock = item.call.said("stock") or {}
            if item.call.code == "SOLD_OUT":  # what was kept and what is now are mixed there
                stock = {}
            return [] if all(list(self.model.stock[sku]) == v for sku, v in stock.items()) else None
        for expected, changes in self._outcomes(batch, item):
            if not changes and fits(expected, item.said, self._unseen(item)):
                return [(self.keys, item.key, item.content)]
        return None

    @staticmethod
    def _unseen(effect):
        return effect.calls[0].said("replayed", False) and "stock" not in effect.said

    def _outcomes(self, batch, effect):
        return self.model.outcomes(effect.fields, batch.index, batch.earliest, batch.latest, effect.said)

    def _moves(self, batch, others, placed, due):
        """(changes, what is left after them), the likeliest first: time first, then orders by position."""
        for order in due:
            if self.model.orders.get(order) is not None and self.model.orders[order].status == PENDING:
                yield self.model.expire(order, batch.index), (others, placed, [o for o in due if o != order])
        if placed:
            rest = collections.deque(placed)
            item = rest.popleft()
            for changes in self._right(batch, item):
                yield changes, (others, rest, due)
        for n, item in enumerate(others):
            if not hasattr(item, "reused"):
                for changes in self._right(batch, item):
                    yield changes, (others[:n] + others[n + 1:], placed, due)
        named = {i.fields.get("order") for i in others if not hasattr(i, "reused")}
        first = None  # due ones end in order of their deadlines; one that a command names may end before
        for order, pay_by in self.maybe:
            there = self.model.orders.get(order)
            if pay_by > batch.latest:
                break
            if there is not None and there.status == PENDING and (first in (None, pay_by) or order in named):
                first = pay_by if first is None else first
                yield self.model.expire(order, batch.index), (others, placed, due)
        for number, call in self.doubtful.items():
            if self.bound[number] < batch.index and call.key not in self.keys:
                for _, changes in self.model.outcomes(call.fields, batch.index, batch.earliest, batch.latest, {}):
                    if changes:
                        yield [*changes, (self.keys, call.key, "in doubt")], (others, placed, due)

    def _right(self, batch, item):
        if item.key in self.keys:
            return
        for expected, changes in self._outcomes(batch, item):
            if changes and fits(expected, item.said, self._unseen(item)):
                yield [*changes, (self.keys, item.key, item.content)]

    # ---- saying what is wrong ----

    def _complaints(self, batch, others, placed, due):
        out = [f"{order} should have expired here" for order in due]
        for item in [*others, *list(placed)[:1]]:
            if hasattr(item, "reused"):
                there = self.keys.get(item.key)
                now = {sku: list(self.model.stock[sku]) for sku in item.call.said("stock") or {}
                       if sku in self.model.stock}
                out.append(f"{item}; under this key there was {there or 'nothing'}; stock is {now}")
            else:
                done = f"{item.key} was done before" if item.key in self.keys else \
                    " or ".join(str(expected) for expected, _ in self._outcomes(batch, item))
                out.append(f"{item}; the model answers {done}")
        for call in batch.reads:
            expected = self.model.read(call.fields)
            if not (others or placed or due) and not fits(expected, call.answer, False):
                out.append(f"{call}; the model answers {expected}")
        return out

    def _explain(self, batch, unseen):
        index = batch.index
        if batch.steps > STEPS_MAX:
            self.result.wrong(f"index {index}: undecided after {STEPS_MAX} steps")
        for text in batch.complaints[:6]:
            self.result.wrong(f"index {index}: {text}")
        if not batch.complaints:
            self.result.wrong(f"index {index}: what the reads say fits to no order of its commands")
        self.result.note(f"stopped at index {index}: {unseen} indexes after it were not looked at")

    # ---- the end ----

    def _end(self):
        """What the cluster says it holds, against the model."""
        for order, index in self.early.items():
            self.result.wrong(f"order {order} expired at index {index}, before its time")
        skus, orders = self.final.get("skus"), self.final.get("orders")
        if skus is None or orders is None:
            self.result.note("the final state was not recorded: not compared")
            return
        if any(isinstance(o, tuple) for o in self.model.orders) or self.doubtful:
            self.result.note("the final state is not compared: some calls are in doubt")
            return
        for order, _ in self.maybe:
            there, end = self.model.orders.get(order), orders.get(order)
            if there is not None and there.status == PENDING and end is not None and end["status"] != PENDING:
                self.model.apply(self.model.expire(order, end["changed_index"]))
        for sku, (a, r, s) in self.model.stock.items():
            end = skus.get(sku)
            if end is None:
                self.result.wrong(f"{sku} is not there in the end")
            elif (end["available"], end["reserved"], end["sold"], end["received"]) != \
                    (a, r, s, self.model.received[sku]):
                self.result.wrong(f"in the end {sku} has {end['available']}/{end['reserved']}/{end['sold']} of "
                                  f"{end['received']}, the model {a}/{r}/{s} of {self.model.received[sku]}")
        for sku in skus.keys() - self.model.stock.keys():
            self.result.wrong(f"{sku} is there in the end, and nobody made it")
        for number, o in self.model.orders.items():
            end = orders.get(number)
            if end is None:
                self.result.wrong(f"order {number} is not there in the end; the model: {o.status}")
            elif (end["status"], end["version"], end["changed_index"]) != (o.status, o.version, o.changed):
                self.result.wrong(f"in the end order {number} is {end['status']}, version {end['version']} at index "
                                  f"{end['changed_index']}, the model: {o.status}, {o.version}, {o.changed}")
        for number in orders.keys() - self.model.orders.keys():
            self.result.wrong(f"order {number} is there in the end, at index {order_position(number)[0]}, and no "
                              "answer told of it")


__all__ = ["check"]
