"""What was asked, what was answered, what was broken meanwhile: one JSONL file a run (history.jsonl).

    with history.Writer(directory / "history.jsonl") as h:
        number = h.call(client=3, op="place", sale="S", user="u9", lines=[["A", 2]], key="k17")
        h.ret(number, "ok", "OK", index=9912, order="0000A1C000R07", stock={"A": [48, 2, 0]})
        h.fault("pause", "n1", "start", why="nemesis 4")
        h.note("leader n2", leader=2)
    past = history.read(directory / "history.jsonl")

Owns: the clock of a run (monotonic, ns, 0 is when the writer was opened) and the form of a line.
Refuses: to decide anything; a line once written is never changed.
Failure modes: the process dies in the middle of a line. The reader takes a torn last line as not written,
and says so (History.torn); a bad line anywhere else is a ValueError.

Fields of a call, by op (what HTTP needs and checkers ask, nothing more):

    sku_put      sku, title                         grant, revoke   sale, user
    adjust       sku, delta                         lease_acquire   name, owner, ttl_ms
    sale_put     sale, definition (the HTTP body)   lease_renew     name, owner, token, ttl_ms
    sale_pause, sale_resume, sale_close  sale       lease_release   name, owner, token
    place        sale, user, lines [[sku, n], …]    read_sku        sku, consistency, min_index
    cancel       order                              read_order      order, consistency, min_index
    pay          order, amount, currency
    refund       order, restock                     all writes: key; repeat_of (id of the call whose key it is)

Fields of a return: status (ok | refused | unknown), code ("OK", or the problem's), attempts, http,
index (where it happened: the log index of the command that had the effect or was refused; of a read, what it
reflects), reply_index (where the answer was given, if it is a repetition's), replayed, and by op: order,
amount, pay_by_ms, created_ms; state (of an order after the command); stock {sku: [available, reserved, sold]};
token, expires_ms; existed; version; received (read_sku). Absent: not said by the answer.
`refused` without an index: "nothing happened, try again" was the last word (503), and no attempt is in doubt.
`unknown`: given up without knowing. Every attempt of a call is made under its key, by its client.
"""
import json
import threading
import time


class Writer:
    """Thread-safe. Lines are flushed as they are written, so that a killed run leaves its history."""

    def __init__(self, path):
        self._file = open(path, "w", encoding="utf-8", buffering=1 << 16)
        self._lock = threading.Lock()
        self._start = time.monotonic_ns()
        self._next = 1
        self._flushed = 0
        self.open = {}  # id -> call line, not returned yet

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def now(self):
        """ns since the writer was opened."""
        return time.monotonic_ns() - self._start

    def _write(self, line):
        """Under the lock: time is taken there too, so that the file is in order of time."""
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        if line["t"] - self._flushed > 100_000_000 or line["ev"] not in ("call", "ret"):
            self._file.flush()
            self._flushed = line["t"]

    def call(self, client, op, **fields):
        """Before the first byte is sent. Returns the call's id."""
        with self._lock:
            number = self._next
            self._next += 1
            line = {"id": number, "client": client, "ev": "call", "t": self.now(), "op": op, **fields}
            self.open[number] = line
            self._write(line)
        return number

    def ret(self, number, status, code="", **fields):
        """After the last byte of the last attempt. Once a call: what is unknown is settled before, or is
        recorded as unknown for good."""
        if status not in ("ok", "refused", "unknown"):
            raise ValueError(status)
        with self._lock:
            del self.open[number]  # KeyError: returned twice
            self._write({"id": number, "ev": "ret", "t": self.now(), "status": status, "code": code, **fields})

    def fault(self, kind, target, phase, **fields):
        """phase: start (before it is injected) | end (after it is healed). An end belongs to the last start of
        the same kind and target that is open."""
        with self._lock:
            self._write({"ev": "fault", "t": self.now(), "kind": kind, "target": target, "phase": phase, **fields})

    def note(self, text, **fields):
        """Anything else worth a line. Known fields: leader (node id; 0: none), phase ("setup", "load", "heal",
        "settle": the timeline shows them)."""
        with self._lock:
            self._write({"ev": "note", "t": self.now(), "text": text, **fields})

    def close(self):
        with self._lock:
            if not self._file.closed:
                self._file.close()


class Call:
    """One call with its return. t_ret is None when it never returned."""
    __slots__ = ("id", "client", "op", "t", "fields", "t_ret", "status", "code", "answer")

    def __init__(self, line):
        self.id, self.client, self.op, self.t = line["id"], line["client"], line["op"], line["t"]
        self.fields = line  # the whole line
        self.t_ret = self.answer = None
        self.status, self.code = "open", ""

    def get(self, name, default=None):
        """A field of the call."""
        return self.fields.get(name, default)

    def said(self, name, default=None):
        """A field of the answer."""
        return default if self.answer is None else self.answer.get(name, default)

    @property
    def is_read(self):
        return self.op.startswith("read_")

    @property
    def key(self):
        return self.fields.get("key")

    @property
    def index(self):
        return None if self.answer is None else self.answer.get("index")

    def __str__(self):
        what = {k: v for k, v in self.fields.items() if k not in ("id", "client", "ev", "t", "op")}
        got = "no return" if self.answer is None else \
            {k: v for k, v in self.answer.items() if k not in ("id", "ev", "t")}
        return f"call {self.id} ({self.op} {json.dumps(what)} -> {json.dumps(got)})"


class Band:
    """A fault, from start to end (None: never healed)."""
    __slots__ = ("kind", "target", "start", "end", "fields")

    def __init__(self, line):
        self.kind, self.target, self.start, self.end, self.fields = \
            line["kind"], line["target"], line["t"], None, line


class History:
    """calls: list of Call in order of call; faults: list of Band in order of start; notes: list of lines."""

    def __init__(self):
        self.calls, self.faults, self.notes = [], [], []
        self.end = 0       # t of the last line
        self.torn = False  # the last line was cut off


def parse(lines):
    """lines: dicts, in order of the file. ValueError when they do not make a history."""
    past, open_calls, open_faults, ids = History(), {}, {}, set()
    for line in lines:
        ev, t = line["ev"], line["t"]
        past.end = max(past.end, t)
        if ev == "call":
            if line["id"] in ids:
                raise ValueError(f"call {line['id']} is there twice")
            ids.add(line["id"])
            call = open_calls[line["id"]] = Call(line)
            past.calls.append(call)
        elif ev == "ret":
            call = open_calls.pop(line["id"], None)
            if call is None:
                raise ValueError(f"a return without a call, or a second one: {line['id']}")
            call.t_ret, call.status, call.code, call.answer = t, line["status"], line.get("code", ""), line
        elif ev == "fault":
            name = (line["kind"], str(line["target"]))
            if line["phase"] == "start":
                band = Band(line)
                past.faults.append(band)
                open_faults.setdefault(name, []).append(band)
            elif open_faults.get(name):
                open_faults[name].pop().end = t
            else:
                raise ValueError(f"the end of a fault that never began: {name}")
        elif ev == "note":
            past.notes.append(line)
        else:
            raise ValueError(f"a line of kind {ev!r}")
    past.calls.sort(key=lambda c: c.t)
    past.faults.sort(key=lambda b: b.start)
    return past


def load(path):
    """(lines as dicts, torn)."""
    lines, torn = [], False
    with open(path, encoding="utf-8") as f:
        for number, text in enumerate(f, 1):
            if not text.endswith("\n"):
                torn = True
                break
            try:
                lines.append(json.loads(text))
            except ValueError as e:
                raise ValueError(f"{path}:{number}: {e}") from None
    return lines, torn


def read(path):
    lines, torn = load(path)
    past = parse(lines)
    past.torn = torn
    return past
