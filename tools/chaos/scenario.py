"""Scenario files: an incident, written down so that it can happen again.

    [scenario]
    title = The leader dies in the rush
    time  = 20s                          # how long the workload runs
    [cluster]
    nodes = 3
    gateways = 1
    postgres = yes
    node-options = --checkpoint-interval 1s
    [workload]
    name = rush                          # the rest are options of the workload
    clients = 8
    [faults]
    at 5s inject kill leader for 3s      # for TIME: healed then; without: at the end, or by a heal line
    at 9s inject partition any mode=isolate
    at 12s heal partition                # or: heal all
    [nemesis]                            # instead of, or beside, the lines above: faults from the seed
    kinds = kill pause partition         # or: all
    mean = 3s                            # between two faults
    duration = 500ms..4s
    overlap = 2                          # active at once

`#` begins a comment. Every mistake is a ScenarioError that names file and line. This module knows the format, not the
kinds: whoever calls gives a catalogue (kind, target, parameters → complaint or None).
"""
import dataclasses
import pathlib
import re
import shlex

import nemesis
from plan import Event, Plan, duration

FOLDER = pathlib.Path(__file__).resolve().parent / "scenarios"
SUFFIX = ".scenario"
KEYS = {"scenario": {"title", "time"},
        "cluster": {"nodes", "gateways", "postgres", "network", "node-options", "gateway-options"},
        "nemesis": {"kinds", "mean", "duration", "overlap", "start"}}
NODES_MAX = 9


class ScenarioError(Exception):
    """str() is FILE:LINE: what."""

    def __init__(self, file, line, what):
        super().__init__(f"{file}:{line}: {what}" if line else f"{file}: {what}")
        self.line = line


@dataclasses.dataclass
class Scenario:
    """What a file says; plan(seed) makes of it what a run does."""
    base: Plan
    options: nemesis.Options = None  # of the nemesis; None: only the lines
    about: str = ""

    def plan(self, seed, time_s=None, workload=None, available=None):
        """available: kinds that the nemesis may use here (None: all that it names)."""
        plan = dataclasses.replace(self.base, seed=seed)
        if time_s is not None:
            plan = plan.stretched(time_s)
        else:
            plan.schedule = [dataclasses.replace(e) for e in plan.schedule]
        if workload is not None:
            plan.workload, plan.workload_options = workload, {}
        if self.options is not None:
            plan.schedule = sorted(plan.schedule + nemesis.schedule(
                seed, plan.time_s, self.options, plan.nodes, plan.postgres, plan.gateways, available), key=lambda e: e.at_s)
        return plan


def names():
    """Of the scenarios that come with the tool."""
    return sorted(p.stem for p in FOLDER.glob("*" + SUFFIX))


def find(word):
    """A name of names(), or a path. FileNotFoundError lists what there is."""
    if (FOLDER / (word + SUFFIX)).exists():
        return FOLDER / (word + SUFFIX)
    path = pathlib.Path(word)
    if path.is_file():
        return path
    raise FileNotFoundError(f"no scenario {word}; there are: {', '.join(names())} (or give the path of a file)")


def load(word, complain=None):
    path = find(word)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ScenarioError(path, 0, f"cannot be read: {e}") from None
    return parse(text, path.stem, str(path), complain)


def parse(text, name, file, complain=None):
    """complain(kind, target, parameters): why that cannot be, or None."""
    reader = _Reader(name, file, complain or (lambda *_: None))
    for number, line in enumerate(text.splitlines(), 1):
        reader.line(number, line)
    return reader.finish(text)


class _Reader:
    def __init__(self, name, file, complain):
        self.file, self.complain = file, complain
        self.plan = Plan(name)
        self.nemesis = {}
        self.section = None
        self.seen = {}
        self.faults = []  # (event, line)
        self.number = 0

    def fail(self, what, number=None):
        raise ScenarioError(self.file, number or self.number, what)

    def line(self, number, raw):
        self.number = number
        text = re.sub(r"(^|\s)#.*", "", raw).strip()
        if not text:
            return
        if found := re.fullmatch(r"\[([a-z]+)\]", text):
            self.section = found[1]
            if self.section not in ("scenario", "cluster", "workload", "faults", "nemesis"):
                self.fail(f"no section [{self.section}]; there are [scenario], [cluster], [workload], [faults], [nemesis]")
            if self.section in self.seen:
                self.fail(f"[{self.section}] is here twice, first in line {self.seen[self.section]}")
            self.seen[self.section] = number
            return
        if self.section is None:
            self.fail("a line before the first section; begin with [scenario]")
        if self.section == "faults":
            self.fault(text)
            return
        key, equals, value = (p.strip() for p in text.partition("="))
        if not equals or not key or not value:
            self.fail(f"{text!r} is not NAME = VALUE")
        if (self.section, key) in self.seen:
            self.fail(f"{key} is here twice, first in line {self.seen[self.section, key]}")
        self.seen[self.section, key] = number
        if self.section in KEYS and key not in KEYS[self.section]:
            self.fail(f"[{self.section}] has no {key}; it has {', '.join(sorted(KEYS[self.section]))}")
        try:
            getattr(self, "take_" + self.section)(key, value)
        except ValueError as e:
            self.fail(str(e))

    def take_scenario(self, key, value):
        if key == "title":
            self.plan.title = value
        else:
            self.plan.time_s = duration(value)

    def take_cluster(self, key, value):
        if key in ("node-options", "gateway-options"):
            setattr(self.plan, key.replace("-", "_"), shlex.split(value))
        elif key == "network":
            if value not in ("auto", "proxy", "namespaces"):
                raise ValueError(f"network is auto, proxy or namespaces, not {value}")
            self.plan.network = value
        elif key == "postgres":
            if value not in ("yes", "no"):
                raise ValueError(f"postgres is yes or no, not {value}")
            self.plan.postgres = value == "yes"
        else:
            if not value.isdigit() or not 1 <= int(value) <= NODES_MAX:
                raise ValueError(f"{key} is a number from 1 to {NODES_MAX}, not {value}")
            setattr(self.plan, key, int(value))

    def take_workload(self, key, value):
        if key == "name":
            self.plan.workload = value
        else:
            self.plan.workload_options[key.replace("-", "_")] = number_or_text(value)

    def take_nemesis(self, key, value):
        self.nemesis[key] = value
        if key == "kinds" and value != "all":
            for kind in value.split():
                if said := self.complain(kind, None, {}):
                    raise ValueError(said)

    def fault(self, text):
        words = shlex.split(text)
        if len(words) < 4 or words[0] != "at" or words[2] not in ("inject", "heal"):
            self.fail(f"{text!r} is not `at TIME inject KIND TARGET [NAME=VALUE …] [for TIME]` "
                      "or `at TIME heal KIND|all [TARGET]`")
        try:
            at_s = duration(words[1])
            self.heal(at_s, words[3:]) if words[2] == "heal" else self.inject(at_s, words[3:])
        except ValueError as e:
            self.fail(str(e))

    def inject(self, at_s, words):
        if len(words) < 2:
            raise ValueError("inject needs KIND and TARGET, for instance `at 5s inject kill leader for 3s`")
        event = Event(at_s, words[0], words[1])
        rest = words[2:]
        if "for" in rest:
            at = rest.index("for")
            if len(rest) != at + 2:
                raise ValueError("`for TIME` ends the line")
            event.for_s = duration(rest[at + 1])
            rest = rest[:at]
        event.parameters = parameters(rest)
        if said := self.complain(event.kind, event.target, event.parameters):
            raise ValueError(said)
        self.faults.append((event, self.number))

    def heal(self, at_s, words):
        kind, target = words[0], words[1] if len(words) > 1 else None
        open_ = [e for e, _ in self.faults if e.for_s is None and e.at_s <= at_s and
                 (kind == "all" or e.kind == kind) and target in (None, e.target)]
        if not open_:
            raise ValueError(f"nothing to heal: no {kind}{' of ' + target if target else ''} was injected before "
                             "that is not healed by `for TIME`")
        for e in open_:
            e.for_s = at_s - e.at_s

    def finish(self, text):
        for event, number in self.faults:
            if event.at_s > self.plan.time_s:
                self.fail(f"{event.at_s:g} s is after the end of the run ([scenario] time = "
                          f"{self.plan.time_s:g}s)", number)
            if event.target.startswith("n") and event.target[1:].isdigit() and \
                    not 1 <= int(event.target[1:]) <= self.plan.nodes:
                self.fail(f"there is no node {event.target}: the cluster has {self.plan.nodes}", number)
            if event.target == "pg" and not self.plan.postgres:
                self.fail("there is no database: [cluster] says postgres = no", number)
        self.plan.schedule = sorted((e for e, _ in self.faults), key=lambda e: e.at_s)
        about = "\n".join(line[1:].strip() for line in text.split("[", 1)[0].splitlines() if line.startswith("#"))
        try:
            options = nemesis.Options.of(self.nemesis) if "nemesis" in self.seen else None
        except ValueError as e:
            self.fail(str(e), self.seen["nemesis"])
        return Scenario(self.plan, options, about)


def parameters(words):
    """["mode=isolate", "p=0.2"] → {"mode": "isolate", "p": 0.2}."""
    out = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or value == "":
            raise ValueError(f"{word!r} is not NAME=VALUE")
        if name in out:
            raise ValueError(f"{name} is given twice")
        out[name] = number_or_text(value)
    return out


def number_or_text(value):
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            pass
    return value
