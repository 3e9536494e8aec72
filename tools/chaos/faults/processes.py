"""Faults of processes: killed, stopped, restarted. Nodes and gateways."""
import signal

from . import NODE_TARGETS, Fault, kind

PROCESS_TARGETS = (*NODE_TARGETS, "gateway", "gID")


@kind
class Kill(Fault):
    kind = "kill"
    doc = "SIGKILL; heal starts it again. The others take over; its clients' connections break."
    targets = PROCESS_TARGETS

    def act(self):
        for part in self.stand.parts(self.victims):  # all at once, then wait
            part.signal(signal.SIGKILL)
        for part in self.stand.parts(self.victims):
            part.kill()

    def undo(self):
        for part in self.stand.parts(self.victims):
            if not part.running():
                part.start()


@kind
class Pause(Fault):
    kind = "pause"
    doc = "SIGSTOP; heal continues it. To the others it is silent, its connections stay open."
    targets = PROCESS_TARGETS

    def act(self):
        for part in self.stand.parts(self.victims):
            part.pause()

    def undo(self):
        for part in self.stand.parts(self.victims):
            part.resume()


@kind
class Restart(Fault):
    kind = "restart"
    doc = "SIGTERM and start again, one after the other: the graceful way. A leader hands over first."
    targets = PROCESS_TARGETS
    steps = True

    def act(self):
        for part in self.stand.parts(self.victims):
            part.stop()
            part.start()

    def undo(self):
        for part in self.stand.parts(self.victims):
            if not part.running():
                part.start()
