"""A plan: everything a run is going to do, decided before it begins.

    plan = scenario.load("leader-killed-in-the-rush").plan(seed=7)
    plan.to_json()          # into run.json before the first process starts; Plan.from_json() for a replay

A plan holds roles (`leader`, `any`), not nodes: who leads at five seconds is not known before. Which node it was
stands in the history. Times are seconds after the workload began. Pure: no processes, no clock, no global random.
"""
import dataclasses
import re

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
ROLES = ("leader", "follower", "any", "majority", "all", "pg", "gateway", "relay", "receiver")


def duration(text):
    """"3", "3s", "200ms", "5m", "1h" → seconds. ValueError says what is taken."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", str(text).strip())
    if not found:
        raise ValueError(f"{text!r} is not a time: write 200ms, 3s, 5m or 1h")
    return float(found[1]) * UNITS[found[2] or "s"]


def duration_text(seconds):
    """The shortest way to write it that duration() reads back."""
    if seconds and seconds < 1 or seconds != round(seconds, 1):
        return f"{seconds * 1000:.0f}ms"
    return f"{seconds:g}s"


@dataclasses.dataclass
class Event:
    """A fault of the schedule. for_s: None when it ends by itself (a restart) or with the run."""
    at_s: float
    kind: str
    target: str
    parameters: dict = dataclasses.field(default_factory=dict)
    for_s: float = None

    def text(self):
        """As a line of a scenario file."""
        words = [f"at {duration_text(self.at_s)} inject {self.kind} {self.target}"]
        words += [f"{k}={v}" for k, v in sorted(self.parameters.items())]
        if self.for_s is not None:
            words.append(f"for {duration_text(self.for_s)}")
        return " ".join(words)


@dataclasses.dataclass
class Plan:
    name: str
    title: str = ""
    seed: int = 1
    nodes: int = 3
    gateways: int = 1
    postgres: bool = True
    network: str = "auto"  # proxy | namespaces; auto: namespaces where they can be had
    node_options: list = dataclasses.field(default_factory=list)
    gateway_options: list = dataclasses.field(default_factory=list)
    workload: str = "mixed"
    workload_options: dict = dataclasses.field(default_factory=dict)
    time_s: float = 30.0
    schedule: list = dataclasses.field(default_factory=list)

    def to_json(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value):
        """ValueError when it is not a plan."""
        try:
            names = {f.name for f in dataclasses.fields(cls)}
            plan = cls(**{k: v for k, v in value.items() if k in names})
            plan.schedule = [Event(**e) for e in plan.schedule]
            if not isinstance(plan.seed, int) or plan.time_s < 0:
                raise ValueError("seed or time")
            return plan
        except (TypeError, AttributeError, KeyError) as e:
            raise ValueError(f"not a plan: {e}") from None

    def stretched(self, time_s):
        """The same with another length: what would begin after its last fifth is left out."""
        kept = [dataclasses.replace(e) for e in self.schedule if e.at_s <= time_s * 0.8]
        for e in kept:
            if e.for_s is not None:
                e.for_s = min(e.for_s, max(0.2, time_s - e.at_s))
        return dataclasses.replace(self, time_s=time_s, schedule=kept)

    def scenario_text(self):
        """A scenario file that gives this plan again (the seed is given when it is run)."""
        lines = [f"# seed {self.seed}", "[scenario]", f"title = {self.title or self.name}",
                 f"time = {duration_text(self.time_s)}", "", "[cluster]", f"nodes = {self.nodes}",
                 f"gateways = {self.gateways}", f"postgres = {'yes' if self.postgres else 'no'}"]
        if self.network != "auto":
            lines.append(f"network = {self.network}")
        if self.node_options:
            lines.append("node-options = " + " ".join(self.node_options))
        if self.gateway_options:
            lines.append("gateway-options = " + " ".join(self.gateway_options))
        lines += ["", "[workload]", f"name = {self.workload}"]
        lines += [f"{k} = {v}" for k, v in sorted(self.workload_options.items())]
        lines += ["", "[faults]"] + [e.text() for e in self.schedule]
        return "\n".join(lines) + "\n"
