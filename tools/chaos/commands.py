"""The one description of every command of holdfast-chaos: parsing, --help, docs and the man page come from here.

`holdfast-chaos pages --check` (a test) compares docs/cli-chaos.md and docs/man/holdfast-chaos.1 with this table.
"""
import dataclasses

OK, VIOLATION, USAGE, ENVIRONMENT, REFUSED, UNKNOWN = range(6)
EXITS = (
    (OK, "ok", "it was done; for run, replay, matrix, soak and check: and every checker is content"),
    (VIOLATION, "violation", "a checker found something; it is named, and the run's directory is kept"),
    (USAGE, "usage", "the command line or a scenario file is wrong, or a directory is not a run; nothing was done"),
    (ENVIRONMENT, "environment", "this machine cannot do it: programs not built, PostgreSQL missing, a cluster that "
     "does not come up, no cluster in DIR"),
    (REFUSED, "refused", "the target or the state does not allow it; nothing was changed"),
    (UNKNOWN, "no verdict", "interrupted, or a checker could not look: what was written until then is kept"),
)


@dataclasses.dataclass
class Parameter:
    """name "NODE" is an operand, "--nodes" an option. argument: None for a flag."""
    name: str
    help: str
    argument: str = None
    default: str = None
    kind: str = "text"     # text | int | count (from 1) | duration | flag | dir
    many: bool = False     # an operand that may be repeated, or left out
    required: bool = False
    choices: tuple = ()


@dataclasses.dataclass
class Command:
    name: str
    summary: str
    help: str
    examples: str
    parameters: tuple = ()

    @property
    def operands(self):
        return [p for p in self.parameters if not p.name.startswith("-")]

    @property
    def options(self):
        return [p for p in self.parameters if p.name.startswith("-")]

    def usage(self):
        words = [self.name]
        for p in self.operands:
            words.append(f"[{p.name} …]" if p.many else p.name)
        words += [f"{p.name} {p.argument}" for p in self.options if p.required]
        return " ".join(words + ["[options]"])


GLOBAL = (
    Parameter("--build", "directory with the programs, as meson built them", "DIR", "build of this checkout", "dir"),
    Parameter("--output", "table for people, json for programs", "FORMAT", "table", choices=("table", "json")),
    Parameter("--quiet", "no progress on standard error", kind="flag"),
    Parameter("--help", "print help and exit", kind="flag"),
)

DIR = Parameter("--dir", "where the cluster of `up` lives, a short path (default: this user's own, below /tmp)", "DIR", None,
                "dir")
OUT = Parameter("--out", "where the run is left; made, and must not hold another one", "DIR", None, "dir")
SEED = Parameter("--seed", "decides everything that is random: the nemesis, the clients, who is `any`", "N", "1", "int")
TIME = Parameter("--time", "how long the workload runs", "TIME", None, "duration")
RUN = Parameter("DIR", "directory of a run", kind="dir")

COMMANDS = (
    Command("up", "Start a cluster to play with",
            "Starts nodes, a gateway and, if it is installed, a private PostgreSQL, all on 127.0.0.1 with ports of\n"
            "their own, behind proxies that faults can use. A keeper process stays and answers inject, heal, status\n"
            "and down. Ends when the cluster serves.",
            "holdfast-chaos up --nodes 3\nholdfast-chaos up --nodes 5 --no-postgres --dir /tmp/five\n",
            (DIR, Parameter("--nodes", "how many", "N", "3", "count"),
             Parameter("--gateways", "how many", "N", "1", "count"),
             Parameter("--no-postgres", "without a database", kind="flag"),
             Parameter("--node-option", "option of every node; may be repeated", "OPTION", many=True))),
    Command("down", "Stop the cluster, heal everything, remove its data",
            "Works too when the keeper was killed: what it had started is found by process id and start time, and\n"
            "network namespaces, mounts and frozen file systems of it are undone.",
            "holdfast-chaos down\n", (DIR,)),
    Command("status", "Show processes, leader, and active faults",
            "Exit status 3 when there is no cluster in DIR.",
            "holdfast-chaos status\nholdfast-chaos status --output json\n", (DIR,)),
    Command("inject", "Begin a fault in the cluster of up",
            "`kinds` lists kinds, targets and parameters. A role (leader, follower, any, majority, all) is resolved\n"
            "now; the answer says to whom. Lasts until `heal`, or for TIME.",
            "holdfast-chaos inject pause leader\nholdfast-chaos inject partition n1 mode=isolate\n"
            "holdfast-chaos inject kill any --for 3s\n",
            (Parameter("KIND", "what is done"), Parameter("TARGET", "to whom: leader, follower, any, majority, all, "
                                                          "pg, gateway, relay, receiver, n1, n2, …"),
             Parameter("PARAMETER", "NAME=VALUE", many=True), DIR,
             Parameter("--for", "heal after this time, and wait for it", "TIME", None, "duration"))),
    Command("heal", "End a fault, or all",
            "KIND and TARGET as they were injected, or the target that it resolved to; `all` heals everything.",
            "holdfast-chaos heal pause leader\nholdfast-chaos heal all\n",
            (Parameter("KIND", "as injected, or all"), Parameter("TARGET", "as injected", many=True), DIR)),
    Command("kinds", "List the kinds of faults, and which of them this machine can do",
            "For each: targets, parameters with their defaults, what it needs. What is not available says why.",
            "holdfast-chaos kinds\nholdfast-chaos kinds partition\n",
            (Parameter("KIND", "only this", many=True),)),
    Command("scenarios", "List the scenarios that come with the tool, or show one",
            "A scenario is a text file: docs of the format in tools/chaos/README.md. Copy one to begin your own.",
            "holdfast-chaos scenarios\nholdfast-chaos scenarios leader-killed-in-the-rush\n",
            (Parameter("NAME", "show this one", many=True),)),
    Command("run", "Run a scenario: cluster, workload, faults, checkers, report",
            "Starts a fresh cluster, runs the workload, injects and heals what the scenario says, then heals all,\n"
            "waits until every call is settled and the database has everything, checks, and leaves a directory:\n"
            "run.json (written first: seed, versions, the whole schedule), history.jsonl, verdict.json, report.md,\n"
            "timeline.svg, nodes/*.log. Interrupt (Ctrl-C) ends it early: everything is healed and stopped, and\n"
            "what there is is checked and reported.",
            "holdfast-chaos run leader-killed-in-the-rush --seed 7 --out /tmp/run-7\n"
            "holdfast-chaos run my.scenario --workload payments --time 1m\n",
            (Parameter("SCENARIO", "a name that `scenarios` lists, or a file"), SEED, OUT, TIME,
             Parameter("--workload", "instead of the scenario's", "NAME"),
             Parameter("--keep", "keep the nodes' data directories in the run's", kind="flag"))),
    Command("matrix", "Run every workload against every fault",
            "Each combination gets a fresh cluster and a directory of its own, OUT/WORKLOAD+FAULT. OUT/matrix.md and\n"
            "matrix.json are the summary; they are written after each combination, so that an interrupted matrix has\n"
            "one, and --resume goes on with what is missing. What this machine cannot do is listed as left out.",
            "holdfast-chaos matrix --time 20s --out /tmp/matrix\nholdfast-chaos matrix --time 10s --sample 12 --seed 3\n"
            "holdfast-chaos matrix --only 'payments+*'\nholdfast-chaos matrix --list\n",
            (Parameter("--time", "of each combination's workload", "TIME", "20s", "duration"),
             Parameter("--sample", "so many of them, chosen by the seed, every workload and every fault as evenly "
                       "as it can be", "N", None, "count"),
             SEED, Parameter("--only", "WORKLOAD+FAULT (or ×, or x), with * and ?; may be repeated", "PATTERN", many=True),
             Parameter("--list", "print the combinations and run none", kind="flag"),
             Parameter("--resume", "leave out what OUT has a verdict of", kind="flag"), OUT)),
    Command("soak", "Run for hours: all workloads, all faults, seed after seed",
            "Rounds of --round each, with a fresh cluster and the next seed; good rounds leave their report, bad ones\n"
            "everything. OUT/soak.md and soak.json sum up. Ends at the first bad round with --stop.",
            "holdfast-chaos soak --minutes 60 --out /tmp/soak\nholdfast-chaos soak --hours 24 --round 30m --stop\n",
            (Parameter("--hours", "how long", "H"), Parameter("--minutes", "how long", "M"),
             Parameter("--round", "of one round's workload", "TIME", "5m", "duration"),
             SEED, Parameter("--kinds", "only these kinds, separated by commas", "KINDS"),
             Parameter("--workload", "only this one", "NAME", "mixed"),
             Parameter("--stop", "end after the first bad round", kind="flag"), OUT)),
    Command("check", "Check the history of a run again",
            "Runs the checkers on what the run left, writes verdict.json, prints each checker's word.",
            "holdfast-chaos check /tmp/run-7\n", (RUN,)),
    Command("report", "Write the report of a run again",
            "report.md, report.json, timeline.svg, timeline.html.", "holdfast-chaos report /tmp/run-7\n", (RUN,)),
    Command("shrink", "Make a failing run smaller",
            "Leaves out faults, begins sooner, ends sooner and shortens faults as long as the same checker fails.\n"
            "DIR/shrunk.scenario is what is left, DIR/shrink/ has each try. A cluster is not deterministic: with\n"
            "--attempts each candidate gets several chances to fail.",
            "holdfast-chaos shrink /tmp/run-7\nholdfast-chaos shrink /tmp/run-7 --attempts 3 --runs 40\n",
            (RUN, Parameter("--runs", "at most so many", "N", "30", "count"),
             Parameter("--attempts", "runs of a candidate before it is given up", "N", "1", "count"))),
    Command("replay", "Run the schedule of a run again",
            "The same plan to the millisecond, in a fresh cluster, on the programs of today: same seed, workload,\n"
            "faults, targets. What the machine makes of it may differ.",
            "holdfast-chaos replay /tmp/run-7 --out /tmp/run-7-again\n",
            (RUN, OUT, Parameter("--times", "so often, into OUT-1, OUT-2, …", "N", "1", "count"))),
    Command("failpoints", "List the failpoints of a node, with hit counts",
            "Of the cluster of up, whose programs must be built with -Dfailpoints=true. To arm one:\n"
            "holdfast-chaos inject failpoint n1 name=NAME action=abort",
            "holdfast-chaos failpoints n1\n", (Parameter("NODE", "n1, g1, … or leader"), DIR)),
    Command("pages", "Write docs/cli-chaos.md and the man page",
            "From the table that also makes --help. With --check: compare, exit status 1 when they differ.",
            "holdfast-chaos pages\nholdfast-chaos pages --check\n",
            (Parameter("--check", "compare only", kind="flag"),)),
)


def find(name):
    return next((c for c in COMMANDS if c.name == name), None)
