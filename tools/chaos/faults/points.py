"""Faults between two lines: failpoints of nodes and gateways (base/failpoint.h), in builds with -Dfailpoints=true."""
import failpoints

from . import NODE_TARGETS, Fault, Param, kind


@kind
class Failpoint(Fault):
    kind = "failpoint"
    doc = ("Something happens at one named place of the program, the next times it comes there: it ends, waits, fails, "
           "writes half. Heal clears the point, and starts what ended.")
    targets = ("any", *(t for t in NODE_TARGETS if t != "any"), "gateway", "gID")
    needs = ("failpoints",)
    params = (Param("name", str, "", "holdfast-chaos failpoints NODE lists them; empty: any one"),
              Param("action", str, "", "abort, sleep(ms), return(ERRNO), torn(n), drop; with ,p= ,nth= ,count=; "
                    "empty: any one that the place takes, once"))
    ONCE = {"abort": "abort,count=1", "sleep": "sleep(300),count=20", "return": "return(EIO),count=1",
            "torn": "torn(512),count=1", "drop": "drop,count=1"}

    def act(self):
        self.data["set"] = {}
        for part in self.stand.parts(self.victims):
            known = self.stand.points(part.name)
            name = self.name or self.stand.random.choice(sorted(known))
            if name not in known:
                raise ValueError(f"{part.name} has no failpoint {name!r}")
            action = self.action or self.stand.random.choice(
                [self.ONCE[a] for a in known[name].actions if a in self.ONCE])
            self.data["set"][part.name] = [name, action]
            self.save()
            try:
                self.stand.failpoint_socket(part.name).set(name, action)
            except failpoints.Refused as e:
                raise ValueError(f"{part.name}: {name} {action}: {e}") from None

    def undo(self):
        for part in self.stand.parts(self.victims):
            try:
                if part.running() and part.name in self.data.get("set", {}):
                    self.stand.failpoint_socket(part.name).clear(self.data["set"][part.name][0])
            except (OSError, failpoints.Refused):
                pass  # it ended meanwhile, and its points with it
            if not part.running():
                part.start()

    def describe(self):
        said = {f"{name}={action}" for name, action in self.data.get("set", {}).values()}
        return " ".join([self.kind, "+".join(self.victims) or self.target or "-", *sorted(said)])
