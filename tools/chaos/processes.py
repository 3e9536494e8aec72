"""Real processes: started, hurt, ended, and found again by another command.

What it owns: children started here, and those that an earlier command of this tool started (Found). What it refuses:
to touch a process whose start time is not the one that was written down; a pid alone says nothing.

Happy path: Process(...) → wait_for(a line of its stderr) → stop(). Failure modes: a line that never comes is an
AssertionError with the last lines; what does not end within PATIENCE_S is killed.
"""
import os
import random
import re
import select
import signal
import socket
import subprocess
import threading
import time

PATIENCE_S = 60  # for things that must happen; nothing is measured against it
UNKNOWN_STATUS = 256  # of a process that ended and was not our child


def free_port(address="127.0.0.1"):
    """Below those that the kernel gives to outgoing connections: it stays free until it is used, also for whoever is
    started a second time."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as f:
        first = int(f.read().split()[0])
    for _ in range(100):
        with socket.socket() as s:
            try:
                s.bind((address, random.randrange(10000, first) if first > 11000 else 0))
                return s.getsockname()[1]
            except OSError:
                continue
    raise OSError("no free port")


def start_time(pid):
    """In ticks since boot; None when there is no such process, or it has ended and nobody took note of it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def is_stopped(pid):
    """Whether it stands still by a signal."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as f:
            return f.read().rpartition(")")[2].split()[0] in ("T", "t")
    except OSError:
        return False


class Process:
    """A child whose stderr is gathered; it is killed at the end if it did not end.

    log: a file that its stderr is appended to, for what outlives us; then it is in a session of its own, so that
    Ctrl-C here does not end it. environment: added to ours."""

    def __init__(self, name, argv, log=None, environment=None):
        self.name = name
        self.lines = []
        full = {**os.environ, **environment} if environment else None
        if log is None:
            self.child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                          text=True, errors="replace", env=full)
            self.reader = threading.Thread(target=self._read, daemon=True)
        else:
            with open(log, "ab") as f:
                at = f.tell()
                self.child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=f,
                                              env=full, start_new_session=True)
            self.reader = threading.Thread(target=self._follow, args=(log, at), daemon=True)
        self.pid = self.child.pid
        self.started = start_time(self.pid)
        self.reader.start()

    def _read(self):
        for line in self.child.stderr:
            self.lines.append(line.rstrip("\n"))

    def _follow(self, log, at):
        """As _read, of a file, until the process has ended and everything is read."""
        rest = b""
        with open(log, "rb") as f:
            f.seek(at)
            while True:
                ended = self.child.poll() is not None
                data = f.read(1 << 16)
                *whole, rest = (rest + data).split(b"\n")
                self.lines += [line.decode(errors="replace") for line in whole]
                if not data:
                    if ended:
                        break
                    time.sleep(0.02)
        if rest:
            self.lines.append(rest.decode(errors="replace"))

    def wait_for(self, pattern):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            for line in list(self.lines):
                found = re.search(pattern, line)
                if found:
                    return found
            if self.child.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"{self.name} never said {pattern!r}:\n" + "\n".join(self.lines[-30:]))

    def running(self):
        return self.child.poll() is None

    def stop(self, number=signal.SIGTERM):
        """The signal, and the end; a process that stands still goes on first. Returns the exit status."""
        if self.child.poll() is None:
            self.child.send_signal(number)
            if number != signal.SIGKILL:
                self.child.send_signal(signal.SIGCONT)
        try:
            code = self.child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            code = self.child.wait()
        self.reader.join(PATIENCE_S)
        return code

    def complaints(self):
        return [line for line in self.lines
                if "Sanitizer" in line or "runtime error" in line or "check failed" in line]


class Child:
    """What Popen is for a child, for a process that is none of ours: pid and start time say which."""

    def __init__(self, pid, started):
        self.pid, self.started, self.returncode = pid, started, None
        try:
            self.fd = os.pidfd_open(pid)
        except OSError:
            self.fd = None
        if self.fd is None or started is None or start_time(pid) != started:
            self.returncode = UNKNOWN_STATUS

    def poll(self):
        if self.returncode is None and (start_time(self.pid) != self.started):
            self.returncode = UNKNOWN_STATUS
        return self.returncode

    def send_signal(self, number):
        """By the descriptor: never another process's, whatever happened to the pid."""
        if self.poll() is None:
            try:
                signal.pidfd_send_signal(self.fd, number)
            except ProcessLookupError:
                pass

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout=None):
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            select.select([self.fd], [], [], 0.1)
        return self.returncode

    def __del__(self):
        if self.fd is not None:
            os.close(self.fd)


class Found(Process):
    """A process that an earlier command started with a log file."""

    def __init__(self, name, pid, started, log):  # pylint: disable=super-init-not-called
        self.name, self.pid, self.started = name, pid, started
        self.lines = []
        self.child = Child(pid, started)
        self.reader = threading.Thread(target=self._follow, args=(log, 0), daemon=True)
        self.reader.start()
