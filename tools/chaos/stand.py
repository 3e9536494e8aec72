"""A whole holdfast to break: nodes, gateways, a private PostgreSQL with a standby that is behind, the network between
them. It lives in a directory, so that one command starts it, another hurts it, a third takes it down.

    with Stand(build, nodes=3, gateways=2, postgres=True) as stand:   # up; down on the way out, whatever happened
        fault = faults.make(stand, "pause").inject("leader")
        fault.heal()
        stand.wait_ready()

    stand = Stand(build, "/tmp/mine", nodes=3, keep=True).up()        # holdfast-chaos up
    stand = Stand.open("/tmp/mine")                                   # holdfast-chaos inject, heal, status
    Stand.open("/tmp/mine").down()                                    # holdfast-chaos down

What it owns: the directory, every process, mount, loop device and network namespace made for it, and the list of
faults that are active. What it refuses: a directory that holds anything; processes that are not its own: they are
found by pid and start time, and at the end by the mark in their environment.

Happy path: Stand → up → inject, heal → down. Failure modes: whoever is killed in between leaves a directory from which
leftovers.sweep() ends and removes everything; every up() does so for the stands of this user whose maker is gone.
SIGINT, SIGTERM and SIGHUP end a `with` as an exception does; a second one does not disturb the cleaning up.

Files: token, stand.json (how it was made), parts/NAME.json (pid, start time), active/ID.json (faults), net/, clock/,
io/ (what proxies and preloaded libraries are told), logs/NAME.log, node-N/, pg/, disks/.
"""
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
import uuid

import failpoints
import faults
import leftovers
from cluster import Cluster, Node
from disks import Disk
from faults import needs
from links import Links, Namespaces
from postgres import Postgres
from processes import Found, Process, free_port, is_stopped

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "tests/faults"))
from faultclock import FaultClock  # noqa: E402
from faultio import Faults  # noqa: E402

DIRECTORY_MAX = 60  # characters: names of Unix sockets in it end at 107
NODE_OPTIONS = ["--segment-size", "1MiB", "--checkpoint-interval", "2s", "--checkpoint-entries", "2000",
                "--trailing-entries", "512", "--low-space", "32MiB"]
DISK_MIB = 1024  # sparse


class Interrupted(BaseException):
    """A signal told us to end."""


class Part:
    """A process of a stand, by its name: n1, g1, proxy-n1. It may have been started by another command."""

    def __init__(self, stand, name):
        self.stand, self.name, self._process = stand, name, None

    @property
    def process(self):
        """As Process, or None when it was never started."""
        row = self.stand.read(f"parts/{self.name}.json")
        if row is None:
            return None
        mine = self._process
        if mine is None or (mine.pid, mine.started) != (row["pid"], row["started"]):
            self._process = Found(self.name, row["pid"], row["started"], self.log())
        return self._process

    def log(self):
        return os.path.join(self.stand.logs, f"{self.name}.log")

    def spawn(self, argv, environment=None):
        assert not self.running(), f"{self.name} runs already"
        process = Process(self.name, argv, log=self.log(),
                          environment={**(environment or {}), leftovers.MARK: self.stand.token})
        self._process = process
        self.stand.write(f"parts/{self.name}.json", {"pid": process.pid, "started": process.started})
        return process

    def running(self):
        process = self.process
        return process is not None and process.running()

    def paused(self):
        return self.running() and is_stopped(self.process.pid)

    def signal(self, number):
        if self.process is not None:
            self.process.child.send_signal(number)

    def kill(self):
        if self.process is not None:
            self.process.stop(signal.SIGKILL)

    def pause(self):
        """Returns when it stands still."""
        self.signal(signal.SIGSTOP)
        end = time.monotonic() + 10
        while self.running() and not is_stopped(self.process.pid) and time.monotonic() < end:
            time.sleep(0.005)

    def resume(self):
        self.signal(signal.SIGCONT)

    def stop(self):
        """SIGTERM; the exit status (256: not our child)."""
        return self.process.stop() if self.process is not None else 0


class StandNode(Part, Node):
    """process, status() … as a Node's; start() again as often as wanted. dir: its data directory; disk: its own file
    system, or None. direct: its address for clients past the proxy."""

    def __init__(self, stand, number, row=None):
        Part.__init__(self, stand, f"n{number}")
        self.cluster, self.id, self.options, self.environment = stand, number, [], {}
        row = row or dict(zip(("raft", "address", "raft_listen", "direct"), stand.links.addresses(number)))
        self.raft, self.address = row["raft"], row["address"]
        self.raft_listen, self.direct = row["raft_listen"], row["direct"]
        self.row = row
        self.disk, self.dir = None, stand.path(f"node-{number}")
        if stand.own_disks:
            self.disk = Disk(stand.path(f"disks/n{number}.img"), self.dir, stand.disk_mib)
            self.dir = os.path.join(self.dir, "data")

    def status(self):
        """As it says itself; None when it does not answer within 2 s."""
        return self.cluster.statuses("--endpoints", self.direct).get(self.id) if self.running() else None

    def start(self, *options, members=None, environment=None):
        """The same as a Node's; waits for nothing."""
        if self.disk is not None:
            self.disk.mount()
        if self.stand.failpoints:
            options = (*options, "--failpoint-socket", self.stand.failpoint_socket(self.name))
        argv = self.argv("--listen-raft", self.raft_listen, "--listen-node", self.direct, *options, members=members)
        self.spawn([*self.stand.links.prefix(self.name), *argv],
                   {**self.stand.preload(self.id), **self.environment, **(environment or {})})
        return self


class Gateway(Part):
    """A gateway; its ports stay the same when it starts again."""

    def __init__(self, stand, number, ports=None):
        super().__init__(stand, f"g{number}")
        self.id, self.ports = number, ports or {"public": free_port(), "admin": free_port()}

    def start(self):
        """Returns when it listens."""
        listen = self.stand.links.listen_address()
        argv = self.stand.gateway_argv(self.stand.nodes, f"{listen}:{self.ports['public']}",
                                       f"{listen}:{self.ports['admin']}")
        if self.stand.failpoints:
            argv += ["--failpoint-socket", self.stand.failpoint_socket(self.name)]
        self.spawn([*self.stand.links.prefix(self.name), *argv])
        for kind in ("public", "admin"):
            self.process.wait_for(rf"listening kind={kind} ")
        return self

    def url(self, kind="public"):
        return f"http://127.0.0.1:{self.ports[kind]}"


class Proxy(Part):
    """What comes to a node comes through this."""

    def __init__(self, stand, node):
        super().__init__(stand, f"proxy-{node.name}")
        self.node = node

    def start(self):
        self.spawn(self.stand.links.proxy_argv(self.node))
        self.process.wait_for("listening")
        return self


class Stand(Cluster):
    def __init__(self, build, directory=None, *, nodes=3, gateways=1, postgres=False, standby=False, network="proxy",
                 own_disks=False, disk_mib=DISK_MIB, preload=True, seed=0, keep=False, logs=None, node_options=(),
                 gateway_options=(), _row=None):
        """Nothing is started yet.

        build       the build directory
        directory   new or empty, a short path; None: one of its own in leftovers.home()
        network     "proxy"; "namespaces" (root: packets can be lost as well; the process that is up() or open()
                    enters the stand's network until down()); "auto": namespaces where they can be had
        own_disks   each node on a file system of its own (root); "auto": where that can be had
        standby     PostgreSQL has one
        preload     nodes run with a disk and clocks that are wrong on demand
        seed        of every choice that is made here: which node "any" is
        keep        it outlives this process (holdfast-chaos up)
        logs        where logs go (default: DIRECTORY/logs)
        """
        self.left_out = {}  # what "auto" did without: {what: reason}
        self.token = (_row or {}).get("token") or uuid.uuid4().hex[:8]
        self.directory = pathlib.Path(directory or leftovers.home() / self.token).resolve()
        self.network_kind = self._choose("namespaces", network, "proxy", ["namespaces"])
        self.own_disks = bool(self._choose(True, own_disks, False, ["own-disk"]))
        self.build = pathlib.Path(build).resolve()
        absent = [n for n in ("faultio", "faultclock") if not os.path.exists(self.library(n))]
        if preload and absent:
            self.left_out["preload"] = f"tests/faults/lib{absent[0]}.so is not built"
        self.preloaded, self.keep, self.disk_mib, self.seed = preload and not absent, keep, disk_mib, seed
        self.random = random.Random(seed)
        self.logs = str(logs or self.directory / "logs")
        if _row is None:
            self._make_directory()
        super().__init__(build, nodes=0, folder=str(self.directory), gateway=False, gateway_options=gateway_options,
                         secrets=(_row or {}).get("secrets"))
        self.node_options = [*NODE_OPTIONS, *node_options] if _row is None else _row["node_options"]
        self.links = (Namespaces if self.network_kind == "namespaces" else Links)(self)
        self.nodes = [StandNode(self, i + 1, _row["nodes"][i] if _row else None) for i in range(nodes)]
        self.proxies = [Proxy(self, n) for n in self.nodes]
        self.gateways = [Gateway(self, i + 1, _row["gateways"][i] if _row else None) for i in range(gateways)]
        self.postgres = Postgres(self, standby) if postgres else None
        if self.postgres and _row is None:
            self.node_options += ["--postgres-url", self.postgres.url]
        self.stage.ports = self.gateways[0].ports if self.gateways else {}
        self.failpoints = bool(failpoints.of_program(self.holdfastd)) if _row is None else _row.get("failpoints", False)
        self.controls = {}
        self._handlers = {}
        if _row is None:
            self._save()

    def _choose(self, better, asked, plain, needed):
        if asked != "auto":
            reason = needs.missing(needed, None) if asked == better and asked else None
            if reason:
                raise faults.LeftOut(f"{needed[0]}: {reason}")
            return asked
        reason = needs.missing(needed, None)
        if reason:
            self.left_out[needed[0]] = reason
        return plain if reason else better

    def _make_directory(self):
        if len(str(self.directory)) > DIRECTORY_MAX:
            raise ValueError(f"{self.directory} is too long: Unix sockets live in it; at most {DIRECTORY_MAX} bytes")
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        if any(self.directory.iterdir()):
            raise ValueError(f"{self.directory} is not empty")
        leftovers.register(self.directory, self.token, self.keep)
        (self.directory / "token").write_text(self.token)
        for name in ("parts", "active", "net", "clock", "io", "disks", "pg"):
            (self.directory / name).mkdir(mode=0o711)
        os.makedirs(self.logs, exist_ok=True)

    def _save(self):
        self.write("stand.json", {
            "token": self.token, "build": str(self.build), "network": self.network_kind, "own_disks": self.own_disks,
            "disk_mib": self.disk_mib, "preload": self.preloaded, "logs": self.logs, "keep": self.keep,
            "node_options": self.node_options, "gateway_options": list(self.stage.options), "seed": self.seed, "failpoints": self.failpoints,
            "secrets": self.stage.secrets(), "nodes": [n.row for n in self.nodes],
            "gateways": [g.ports for g in self.gateways], "postgres": self.postgres is not None,
            "standby": self.postgres is not None and self.postgres.with_standby})

    @classmethod
    def open(cls, directory):
        """The stand that another command made. FileNotFoundError when there is none."""
        directory = pathlib.Path(directory).resolve()
        row = json.loads((directory / "stand.json").read_text())
        stand = cls(row["build"], directory, nodes=len(row["nodes"]), gateways=len(row["gateways"]),
                    postgres=row["postgres"], standby=row["standby"], network=row["network"],
                    own_disks=row["own_disks"], disk_mib=row["disk_mib"], preload=row["preload"], seed=time.time_ns(),
                    keep=row["keep"], logs=row["logs"], gateway_options=row["gateway_options"], _row=row)
        stand.links.enter()
        return stand

    # ---- files ----

    def read(self, name):
        try:
            return json.loads((self.directory / name).read_text())
        except FileNotFoundError:
            return None

    def write(self, name, value):
        """Whole or not at all."""
        path = self.directory / name
        new = path.with_name(path.name + ".new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as f:
            json.dump(value, f)
        new.rename(path)

    def failpoint_socket(self, name):
        return self.path(f"{name}.failpoints")

    def library(self, name):
        return str(self.build / f"tests/faults/lib{name}.so")

    def preload(self, number):
        """Environment of a node: a disk and clocks that do as io/ and clock/ say."""
        if not self.preloaded:
            return {}
        disk, clock = self.disk_control(number), self.clock_control(number)
        return {**disk.environment, **clock.environment,
                "LD_PRELOAD": f"{disk.environment['LD_PRELOAD']}:{clock.environment['LD_PRELOAD']}"}

    def disk_control(self, number):
        return self._control("io", number, lambda folder: Faults(self.library("faultio"), folder, f"n{number}", keep=True))

    def clock_control(self, number):
        return self._control("clock", number, lambda folder: FaultClock(self.library("faultclock"), folder,
                                                                        f"n{number}", keep=True))

    def _control(self, kind, number, make):
        if (kind, number) not in self.controls:
            self.controls[kind, number] = make(self.path(kind))
        return self.controls[kind, number]

    # ---- up and down ----

    def up(self):
        """Everything runs and is ready when this returns; otherwise it is taken down, and the error raised."""
        for directory, done in leftovers.sweep_abandoned():
            print(f"holdfast-chaos: removed what was left in {directory}: {done}", file=sys.stderr)
        self._catch_signals()
        try:
            self.links.make()
            front = self.links.front_argv()
            if front is not None:
                self.helper("front").spawn(front)
            self.links.enter()
            for node in self.nodes:
                if node.disk is not None:
                    node.disk.make()
            self.apply()
            for proxy in self.proxies:
                proxy.start()
            if self.postgres is not None:
                self.postgres.make()
            for node in self.nodes:
                node.start("--new-cluster")
            for gateway in self.gateways:
                gateway.start()
            self.wait_ready()
        except BaseException:
            self.down()
            raise
        return self

    def down(self, keep_files=False):
        """Ends and removes all. Complaints of sanitizers and failed checks: a list of lines."""
        wrong = []
        with self._undisturbed():
            if self.directory.exists():
                for part in [*self.gateways, *self.nodes]:
                    # Politely first: an end that fails says something, and what was never asked says nothing.
                    part.signal(signal.SIGTERM)
                    part.signal(signal.SIGCONT)
                wrong = self._end()
                self.links.leave()
                leftovers.sweep(self.directory, keep_files)
        return wrong

    def _end(self, patience_s=5):
        frozen = any(f.kind == "stuck-disk" for f in self.active())
        end = time.monotonic() + (0 if frozen else patience_s)
        wrong = []
        for part in [*self.gateways, *self.nodes]:
            if part.process is None:
                continue
            while part.running() and time.monotonic() < end:
                time.sleep(0.02)
            if not part.running():
                part.process.reader.join(5)
            wrong += [f"{part.name}: {line}" for line in part.process.complaints()]
        return wrong

    def release(self):
        """This process has nothing more to do with it: signals are its own again. For a stand that is kept."""
        assert self.keep
        self.links.leave()
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)

    def close(self):
        return self.down()

    def __enter__(self):
        return self.up()

    def __exit__(self, kind, value, trace):
        if kind is not None and not issubclass(kind, Interrupted):
            for part in [*self.nodes, *self.gateways]:
                if part.process is not None:
                    print(f"--- {part.name} ---", *part.process.lines[-15:], sep="\n", file=sys.stderr, flush=True)
        wrong = self.down()
        if kind is None and wrong:
            raise AssertionError("\n".join(wrong))

    def _catch_signals(self):
        def interrupt(number, _frame):
            raise Interrupted(f"signal {signal.Signals(number).name}")
        try:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self._handlers[number] = signal.signal(number, interrupt)
        except ValueError:
            pass  # not the main thread: whoever owns it takes care

    def _undisturbed(self):
        stand = self

        class Undisturbed:
            def __enter__(self):
                for number in stand._handlers:
                    signal.signal(number, signal.SIG_IGN)

            def __exit__(self, *_):
                while stand._handlers:
                    number, handler = stand._handlers.popitem()
                    signal.signal(number, handler)
        return Undisturbed()

    # ---- parts and targets ----

    def parts(self, names):
        """Nodes, gateways, PostgreSQL by name."""
        known = {p.name: p for p in [*self.nodes, *self.gateways, *([self.postgres] if self.postgres else [])]}
        return [known[name] for name in names]

    def helper(self, name):
        """A process that a fault needs for as long as it lasts."""
        return Part(self, name)

    def resolve(self, target, allowed):
        """Names of what a target means now. ValueError when it means nothing here."""
        pattern = {"n": "nID", "g": "gID"}.get(target[:1]) if target[1:].isdigit() else target
        if pattern not in allowed:
            raise ValueError(f"no target {target!r} for this fault: {', '.join(allowed)}")
        nodes = [n for n in self.nodes if n.running()] or self.nodes
        half = len(self.nodes) // 2
        if target == "pg":
            names = ["pg"] if self.postgres else []
        elif target == "gateway":
            names = [self.random.choice(self.gateways).name] if self.gateways else []
        elif target[1:].isdigit():
            names = [p.name for p in [*self.nodes, *self.gateways] if p.name == target]
        elif target in ("leader", "follower"):
            leader = self.wait("a leader to hurt", self.leader)
            names = [leader.name] if target == "leader" else \
                [self.random.choice([n for n in nodes if n is not leader]).name] if len(nodes) > 1 else []
        else:
            count = {"any": 1, "majority": half + 1, "minority": half, "all": len(self.nodes),
                     "network": len(self.nodes)}[target]
            pool = nodes if count <= len(nodes) else self.nodes
            names = sorted(n.name for n in self.random.sample(pool, count))
        if not names:
            raise ValueError(f"there is no {target!r} here")
        return names

    def endpoints(self):
        """Past the proxies."""
        return [n.direct for n in self.nodes if n.running() and not n.paused()] or [n.direct for n in self.nodes]

    def statuses(self, *arguments):
        """{node id: row of holdfastctl endpoint status} of those that answer; within seconds, whatever is broken."""
        done = self.ctl("endpoint", "status", "-o", "json", "--timeout", "2s", *arguments, check=False)
        try:
            return {r["id"]: r for r in json.loads(done.stdout) if r["reachable"]}
        except (ValueError, KeyError):
            return {}

    def leader(self):
        """The node that leads and is ready, of the newest term anybody says; or None."""
        rows = [r for r in self.statuses().values() if r["role"] == "leader" and r["ready"]]
        return self.node(max(rows, key=lambda r: r["term"])["id"]) if rows else None

    @staticmethod
    def wait_end(part, patience_s):
        """Whether it ended within so long."""
        end = time.monotonic() + patience_s
        while part.running() and time.monotonic() < end:
            time.sleep(0.01)
        return not part.running()

    # ---- faults ----

    def active(self):
        """Faults that are injected and not healed, by whichever command, in the order of injection."""
        rows = [self.read(f"active/{p.name}") for p in sorted((self.directory / "active").glob("*.json"))]
        return [faults.Fault.from_json(self, row) for row in rows if row]

    def remember(self, fault):
        if fault.id is None:
            fault.id = f"{time.monotonic_ns():020d}"
        self.write(f"active/{fault.id}.json", fault.to_json())

    def forget(self, fault):
        (self.directory / f"active/{fault.id}.json").unlink(missing_ok=True)
        fault.id = None

    def heal_all(self):
        """The last one first; then whatever does not run is started. Returns the faults."""
        healed = self.active()[::-1]
        for fault in healed:
            fault.heal()
        for part in [*self.nodes, *self.gateways]:
            if not part.running():
                part.start()
        return healed

    def apply(self, but=None):
        """Makes what proxies, packet filters, disks and clocks are told be the sum of all active faults (but: without
        this one)."""
        active = [f for f in self.active() if but is None or f.id != but.id]
        self.links.apply([rule for f in active for rule in f.data.get("links", [])])
        for node in self.nodes if self.preloaded else []:
            rules = [r for f in active for r in f.data.get("disk", {}).get(node.name, [])]
            key = ("disk", node.id)
            if self.read_applied(key) != rules:
                self.disk_control(node.id).set(*rules)
                self.write_applied(key, rules)
            words = {"wall": 0, "wall_ppm": 0, "monotonic_ppm": 0}
            for f in active:
                for word, value in f.data.get("clock", {}).get(node.name, {}).items():
                    words[word] += value
            key = ("clock", node.id)
            if self.read_applied(key) != words:
                self.clock_control(node.id).set(**words)
                self.write_applied(key, words)

    def read_applied(self, key):
        return self.read(f"{'io' if key[0] == 'disk' else 'clock'}/n{key[1]}.applied")

    def write_applied(self, key, value):
        self.write(f"{'io' if key[0] == 'disk' else 'clock'}/n{key[1]}.applied", value)
