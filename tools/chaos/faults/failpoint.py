"""Failpoints of nodes (base/failpoint.h): the one bad moment between two lines, from a scenario or by hand."""
from failpoints import Refused, Socket

from . import Fault, Param, kind


@kind
class Failpoint(Fault):
    kind = "failpoint"
    doc = ("A named moment of the program goes wrong: it fails, sleeps, is cut, or the node dies there. Heal: the rule is "
           "taken back, who died is started. `holdfast-chaos failpoints NODE` lists the moments.")
    needs = ("failpoints",)
    params = (Param("name", str, "", "which, e.g. wal/before-sync"),
              Param("action", str, "abort", "abort, sleep(MS), return(ERRNO), torn(BYTES), drop; with ,p=P ,nth=N ,count=N"))

    def act(self):
        if not self.values["name"]:
            raise ValueError("failpoint: name= is missing; `holdfast-chaos failpoints NODE` lists them")
        for name in self.victims:
            try:
                Socket(self.stand.failpoint_socket(name)).set(self.values["name"], self.values["action"])
            except (Refused, OSError) as e:
                raise ValueError(f"failpoint of {name}: {e}") from None

    def undo(self):
        for part in self.stand.parts(self.victims):
            try:
                Socket(self.stand.failpoint_socket(part.name)).clear(self.values["name"])
            except (Refused, OSError):
                pass  # it died of it, or never knew it
            if not part.running():
                part.start()
