"""Clocks that are wrong: those that the node's own process is told (libfaultclock). How long it sleeps stays true, as
on a host whose clock was set."""
from . import Fault, Param, kind


class ClockFault(Fault):
    needs = ("faultclock",)
    targets = ("any", "leader", "follower", "minority", "majority", "all", "nID")

    def act(self):
        self.data["clock"] = {name: self.words() for name in self.victims}
        self.save()
        self.stand.apply()

    def undo(self):
        self.stand.apply(but=self)

    def words(self):
        raise NotImplementedError


@kind
class Jump(ClockFault):
    kind = "clock-jump"
    doc = ("The wall clock jumps, and jumps back when healed. A leader says so and hands over; no reservation ends early "
           "or late.")
    params = (Param("wall_ms", int, 3600000, "ahead; behind, when negative"),)

    def words(self):
        return {"wall": self.wall_ms}


@kind
class Skew(ClockFault):
    kind = "clock-skew"
    doc = "Clocks run at a wrong rate; what they gained stays when healed, as it would."
    params = (Param("wall_ppm", int, 500, "parts in a million faster; slower, when negative"),
              Param("monotonic_ppm", int, 500, "the same of the monotonic clock"))

    def words(self):
        return {"wall_ppm": self.wall_ppm, "monotonic_ppm": self.monotonic_ppm}
