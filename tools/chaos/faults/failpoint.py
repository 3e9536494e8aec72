"""Failpoints of nodes and gateways (base/failpoint.h): the one bad moment between two lines."""
from failpoints import Refused, Socket

from . import NODE_TARGETS, Fault, Param, kind

# What an action does when a random one is asked for: once, or for a short while.
ONCE = {"abort": "abort,count=1", "sleep": "sleep(300),count=20", "return": "return(EIO),count=1",
        "torn": "torn(512),count=1", "drop": "drop,count=1"}


@kind
class Failpoint(Fault):
    kind = "failpoint"
    doc = ("A named moment of the program goes wrong: it fails, sleeps, is cut, or the process dies there. Heal: the rule "
           "is taken back, who died is started. `holdfast-chaos failpoints NODE` lists the moments.")
    targets = (*NODE_TARGETS, "gateway", "gID")
    needs = ("failpoints",)
    params = (Param("name", str, "", "which, e.g. wal/before-sync; empty: any one that the program has"),
              Param("action", str, "", "abort, sleep(MS), return(ERRNO), torn(BYTES), drop; with ,p=P ,nth=N ,count=N; "
                    "empty: any one that this moment takes, once"))

    def act(self):
        self.data["set"] = {}
        for name in self.victims:
            socket = Socket(self.stand.failpoint_socket(name))
            try:
                known = socket.list()
                point = self.values["name"] or self.stand.random.choice(sorted(known))
                action = self.values["action"] or self.stand.random.choice(
                    [ONCE[a] for a in (known[point].actions if point in known else ["abort"]) if a in ONCE])
                self.data["set"][name] = [point, action]
                self.save()
                socket.set(point, action)
            except (Refused, OSError) as e:
                raise ValueError(f"failpoint of {name}: {e}") from None

    def undo(self):
        for part in self.stand.parts(self.victims):
            try:
                if part.name in self.data.get("set", {}):
                    Socket(self.stand.failpoint_socket(part.name)).clear(self.data["set"][part.name][0])
            except (Refused, OSError):
                pass  # it died of it, or never knew it
            if not part.running():
                part.start()

    def describe(self):
        said = sorted({f"{name}={action}" for name, action in self.data.get("set", {}).values()})
        return " ".join([self.kind, "+".join(self.victims) or self.target or "-",
                         *(said or [f"{k}={v}" for k, v in self.values.items() if v])])
