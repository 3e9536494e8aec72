"""Faults: what can be done to a running cluster, and undone.

    kinds, left_out = faults.available(stand)          # {kind: class}, {kind: why not here}
    fault = faults.make(stand, "pause")                # parameters by name: faults.make(stand, "delay", ms=50)
    fault.inject("leader")                             # a target is resolved now, not earlier
    fault.victims                                      # ["n2"]
    fault.heal()                                       # as often as wanted; all is as before
    with faults.make(stand, "kill").on("any"): ...     # the same

What it owns: KINDS, the one list of kinds, and what every fault has in common. What it refuses: a target or parameter
that the kind does not know (ValueError, before anything is done), and a kind that cannot work here (LeftOut).

Happy path: make checks the parameters; inject resolves the target, writes the fault into the stand's state, acts;
heal undoes, and takes it out of the state. Failure modes: what fails in inject is healed and raised again; when the
process that injected is killed, another reads the fault from the state (Stand.active) and heals it, or takes the
whole stand down.

Every fault is a class in a module of this folder, one module for each family; registered by @kind.
"""
import contextlib
import importlib
from typing import Any, NamedTuple

MODULES = ("processes", "network", "disk", "damage", "clock", "postgres", "failpoint")
KINDS = {}
# Kinds that docs name and this tool cannot do, whatever the machine: kind -> reason.
ABSENT = {
    "relay-kill": "there is no relay yet",
    "receiver-failing": "there is no receiver of events yet",
    "reorder": "TCP gives bytes in order; without netem packets below it cannot be reordered either",
}
NODE_TARGETS = ("leader", "follower", "any", "majority", "minority", "all", "nID")


class LeftOut(Exception):
    """This cannot be done here; the text says what is missing."""


class Param(NamedTuple):
    """type: int (also of text), float, str; unit in the name: delay_ms. choices: the only values, when not empty."""
    name: str
    type: type
    default: Any
    doc: str
    choices: tuple = ()


class Fault:
    """One fault of one kind, injected at most once at a time.

    kind     its name, as typed
    doc      a sentence: what is done, and what an operator would see
    params   what can be said of it
    targets  what it can be done to: of leader, follower, any, majority, minority, all, nID (a node: n2), pg, gateway
             (any one), gID (g1), network (all nodes). The first is the default.
    needs    what must be there: root, nft, namespaces (a stand with network="namespaces"), proxy (network="proxy"),
             faultio, faultclock, failpoints (a build with them), own-disk (a stand with own_disks=True), postgres, standby, gateway
    alone    true: hurts what is stored, so that no other node may be hurt meanwhile: the others are needed to mend it
    steps    true: it is over as soon as it is injected; heal only puts back what must be put back
    victims  names of what was hit, after inject: n1, g1, pg, pg-standby
    data     what heal must know, JSON; it is in the stand's state while the fault is active
    """
    kind = ""
    doc = ""
    params: tuple = ()
    targets: tuple = NODE_TARGETS
    needs: tuple = ()
    alone = False
    steps = False

    def __init__(self, stand, /, **given):
        self.stand = stand
        self.values = {}
        self.target = None
        self.victims = []
        self.data = {}
        self.id = None
        known = {p.name: p for p in self.params}
        for name in given:
            if name not in known:
                raise ValueError(f"{self.kind}: no parameter {name!r}; it has: {', '.join(known) or 'none'}")
        for p in self.params:
            try:
                value = p.type(given.get(p.name, p.default))
            except (TypeError, ValueError):
                raise ValueError(f"{self.kind}: {p.name}={given[p.name]!r} is not of type {p.type.__name__}") from None
            if p.choices and value not in p.choices:
                raise ValueError(f"{self.kind}: {p.name} is one of {', '.join(map(str, p.choices))}, not {value!r}")
            self.values[p.name] = value

    def __getattr__(self, name):
        """Parameters are attributes: self.delay_ms."""
        try:
            return self.__dict__["values"][name]
        except KeyError:
            raise AttributeError(name) from None

    # ---- what callers use ----

    def inject(self, target=None, before=None):
        """Acts now. Bounded: returns within some seconds, when the fault is in force. Returns self.
        before(self): called when the victims are known and nothing is done yet; what it raises ends it."""
        if self.id is not None:
            raise ValueError(f"{self.kind} is already injected")
        reason = self.missing(self.stand)
        if reason:
            raise LeftOut(f"{self.kind}: {reason}")
        self.target = target or self.targets[0]
        self.victims = self.resolve(self.target)
        if before is not None:
            before(self)
        self.stand.remember(self)  # before it is done: whoever comes after us must know
        try:
            self.act()
            self.stand.remember(self)
        except BaseException:
            self.heal()
            raise
        return self

    def heal(self):
        """Undoes it; nothing when it is not active. What was stopped by it runs again when this returns, though it
        need not be ready yet (Stand.wait_ready)."""
        if self.id is None:
            return
        self.undo()
        self.stand.forget(self)

    @contextlib.contextmanager
    def on(self, target=None):
        self.inject(target)
        try:
            yield self
        finally:
            self.heal()

    def describe(self):
        """A line for people: kind, victims, parameters."""
        words = [self.kind, "+".join(self.victims) or self.target or "-"]
        return " ".join(words + [f"{k}={v}" for k, v in self.values.items()])

    def event(self, phase):
        """What a history says of it (phase: start, end), without its time."""
        return {"ev": "fault", "kind": self.kind, "target": "+".join(self.victims), "asked": self.target, "phase": phase,
                **{k: v for k, v in self.values.items() if k not in ("ev", "kind", "target", "phase", "t")}}

    # ---- what kinds write ----

    def act(self):
        """Does it to self.victims. self.data is saved before and after; save in between with self.save()."""
        raise NotImplementedError

    def undo(self):
        """Undoes it, also when act() was interrupted anywhere. Must not fail for what is gone already."""

    def resolve(self, target):
        """Names of victims."""
        return self.stand.resolve(target, self.targets)

    @classmethod
    def missing(cls, stand):
        """None, or what is missing for it on this stand. stand None: on this machine."""
        from . import needs
        return needs.missing(cls.needs, stand)

    def save(self):
        self.stand.remember(self)

    # ---- state ----

    def to_json(self):
        return {"id": self.id, "kind": self.kind, "values": self.values, "target": self.target,
                "victims": self.victims, "data": self.data}

    @staticmethod
    def from_json(stand, row):
        fault = make(stand, row["kind"], **row["values"])
        fault.id, fault.target, fault.victims, fault.data = row["id"], row["target"], row["victims"], row["data"]
        return fault


def kind(cls):
    """Class decorator: one more kind."""
    assert cls.kind and cls.kind not in KINDS and cls.doc, cls
    KINDS[cls.kind] = cls
    return cls


def make(stand, name, /, **parameters):
    """A fault that is not injected yet. ValueError for what is not known."""
    if name not in KINDS:
        raise ValueError(f"no fault kind {name!r}; there are: {', '.join(sorted(KINDS))}")
    return KINDS[name](stand, **parameters)


def available(stand=None):
    """({kind: class} that work on this stand, {kind: why not} for all others). stand None: what this machine could
    do with a stand made for it."""
    kinds, left_out = {}, dict(ABSENT)
    for name, cls in KINDS.items():
        reason = cls.missing(stand)
        if reason:
            left_out[name] = reason
        else:
            kinds[name] = cls
    return kinds, left_out


def load():
    for module in MODULES:
        importlib.import_module("." + module, __name__)


load()
