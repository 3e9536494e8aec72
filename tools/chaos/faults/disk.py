"""Disks that are slow, stuck, full, broken, or lose power. By libfaultio (calls of the process fail), or, where each
node has a file system of its own (root), by the kernel."""
import signal

from . import Fault, Param, kind, needs

LOG = "*/log/*.wal"
ALL = "*/node-*/*"  # not what is told to a node, nor its log on stderr
WHERE = Param("where", str, "log", "log: the log's segments; checkpoint: checkpoints; all: every file of the node",
              ("log", "checkpoint", "all"))
GLOBS = {"log": LOG, "checkpoint": "*/checkpoint*/*", "all": ALL}
ENDS_S = 60


class DiskFault(Fault):
    needs = ("faultio",)

    def act(self):
        self.data["disk"] = {name: self.rules() for name in self.victims}
        self.save()
        self.stand.apply()

    def undo(self):
        self.stand.apply(but=self)
        self.start_again()

    def start_again(self):
        """A node whose log fails ends by itself (status 74); on a good disk it goes on."""
        for node in self.stand.parts(self.victims):
            if not node.running():
                node.start()

    def rules(self):
        raise NotImplementedError

    def glob(self):
        return GLOBS[self.where]


@kind
class SlowDisk(DiskFault):
    kind = "slow-disk"
    doc = "Each write waits first. Orders are slower when it leads; nobody moves."
    params = (Param("delay_ms", int, 100, "each write"), WHERE)

    def rules(self):
        return [f"write {self.glob()} delay={self.delay_ms}ms", f"sync {self.glob()} delay={self.delay_ms}ms"]


@kind
class StuckDisk(DiskFault):
    kind = "stuck-disk"
    doc = ("Writes do not return until healed. A leader hands over; after --log-write-deadline (10 s) the node ends with "
           "status 74, where it can.")
    params = (Param("how", str, "auto", "freeze: the file system (root; the process cannot even be killed then); "
                    "hold: the node's calls; auto: freeze where that can be had", ("auto", "freeze", "hold")),)
    needs = ()

    @classmethod
    def missing(cls, stand):
        return needs.missing(["own-disk"], stand) and needs.missing(["faultio"], stand)

    def frozen(self):
        return self.how != "hold" and self.stand.own_disks

    def act(self):
        if self.how == "freeze" and not self.stand.own_disks:
            raise ValueError("stuck-disk how=freeze: the stand's nodes have no file systems of their own")
        if not self.frozen():
            return super().act()
        for node in self.stand.parts(self.victims):
            node.disk.freeze()
        return None

    def undo(self):
        if self.frozen():
            for node in self.stand.parts(self.victims):
                node.disk.thaw()
            self.start_again()
        else:
            super().undo()

    def rules(self):
        return [f"write {ALL} hold", f"sync {ALL} hold"]


@kind
class DiskFull(DiskFault):
    kind = "disk-full"
    doc = ("No block is left. The node gives leadership away, checkpoints fail, and it ends with status 74 when the log "
           "needs a segment; the others serve.")
    params = (Param("how", str, "auto", "fill: the file system is really full (root); error: ENOSPC for its calls, and "
                    "statvfs says 0; auto: fill where that can be had", ("auto", "fill", "error")),)
    needs = ()
    missing = StuckDisk.missing

    def filled(self):
        return self.how != "error" and self.stand.own_disks

    def act(self):
        if self.how == "fill" and not self.stand.own_disks:
            raise ValueError("disk-full how=fill: the stand's nodes have no file systems of their own")
        if not self.filled():
            return super().act()
        for node in self.stand.parts(self.victims):
            node.disk.fill()
        return None

    def undo(self):
        if self.filled():
            for node in self.stand.parts(self.victims):
                node.disk.empty()
            self.start_again()
        else:
            super().undo()

    def rules(self):
        return ["space * free=0", f"allocate {ALL} errno=ENOSPC", "write */checkpoint*/* errno=ENOSPC",
                "write */log/*.tmp errno=ENOSPC"]


@kind
class WriteError(DiskFault):
    kind = "write-error"
    doc = "EIO for writes and syncs. Of the log: the node ends with status 74, at once; heal starts it. Of a checkpoint: it goes on."
    params = (WHERE,)

    def rules(self):
        return [f"write {self.glob()} errno=EIO", f"sync {self.glob()} errno=EIO"]


@kind
class TornWrite(DiskFault):
    kind = "torn-write"
    doc = ("The next write of the log is cut, and the node is killed in the middle of it; heal starts it. It must find "
           "the end of its log by itself, and lose nothing that was acknowledged.")
    params = (Param("piece", str, "first", "what of it is on the disk: the first or the last bytes, or none",
                    ("first", "last", "none")),
              Param("bytes", int, 512, "how many; a multiple of the device's sector"))

    def act(self):
        super().act()
        for node in self.stand.parts(self.victims):  # the next write: at most a heartbeat of traffic away
            if self.stand.leader() is not None:
                self.stand.wait_end(node, 5)
            if node.running():  # nobody wrote: the cut is where the next write would have been
                node.kill()

    def rules(self):
        how = {"first": f"short={self.bytes} kill", "last": f"late={self.bytes} kill", "none": "errno=EIO kill"}
        return [f"write {LOG} {how[self.piece]}"]


@kind
class PowerLoss(Fault):
    kind = "power-loss"
    doc = ("What was not synced is gone: the file system stops as if power failed, then the node is killed; heal mounts "
           "it again and starts the node. Nothing that was acknowledged may be missing.")
    targets = ("any", "leader", "follower", "minority", "majority", "all", "nID")
    needs = ("own-disk",)

    def act(self):
        nodes = self.stand.parts(self.victims)
        for node in nodes:
            node.disk.lose_power()
        for node in nodes:
            node.signal(signal.SIGKILL)
        for node in nodes:
            node.kill()
            node.disk.unmount()

    def undo(self):
        for node in self.stand.parts(self.victims):
            if node.running():
                node.kill()
            node.disk.unmount()
            node.disk.mount()
            node.start()
