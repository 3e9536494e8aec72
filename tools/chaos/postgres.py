"""A private PostgreSQL of a stand, and a standby of it that can be made to stay behind.

What it owns: two servers, each in DIR/pg/a and DIR/pg/b with its data and its Unix socket; never TCP. Nodes are given
both and take the one that can be written (target_session_attrs), as they would be in production. As root the servers
run as user postgres. What it refuses: any other server.

Happy path: make() → start() → url for the nodes; with a standby: make_standby(). Failure modes: AssertionError with
the end of the server's log.
"""
import glob
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import leftovers
from processes import PATIENCE_S, is_stopped, start_time

SETTINGS = {"listen_addresses": "''", "fsync": "off", "max_connections": "60", "shared_buffers": "32MB",
            "wal_level": "replica", "hot_standby": "on", "max_wal_senders": "4", "wal_keep_size": "256MB",
            "log_min_messages": "warning"}
OPEN = "local all all trust\nlocal replication all trust\n"
TOOL = "holdfast_chaos"  # the role by which this tool asks; it is never refused
CLOSED = f"local all {TOOL} trust\nlocal replication all trust\nlocal all all reject\n"


def binaries():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: [int(n) for n in re.findall(r"\d+", p)])
    if not found:
        raise OSError("PostgreSQL is not installed")
    return found[-1]


class Server:
    """One of the two. Its life is in data/postmaster.pid."""

    def __init__(self, stand, name):
        self.stand, self.name = stand, name
        self.dir = pathlib.Path(stand.path(f"pg/{name}"))
        self.data = self.dir / "data"

    # ---- programs ----

    def command(self, program, *words):
        argv = [f"{binaries()}/{program}", *map(str, words)]
        if os.geteuid() == 0:
            argv = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--", *argv]
        return argv

    def run(self, program, *words, check=True, text=None, environment=None, timeout=PATIENCE_S):
        done = subprocess.run(self.command(program, *words), cwd="/", input=text, capture_output=True, text=True,
                              timeout=timeout, env={**self.environment(), **(environment or {})}, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{program} of server {self.name}: {done.stderr.strip()}\n{self.tail()}")
        return done

    def environment(self):
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        return {**clean, leftovers.MARK: self.stand.token}

    def tail(self):
        log = self.dir / "log"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    def make(self):
        self.dir.mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(self.dir, "postgres", "postgres")
        self.run("initdb", "-D", self.data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
        self.set_access(OPEN)

    def copy_of(self, primary):
        """A standby of a running primary."""
        if self.dir.exists():
            shutil.rmtree(self.dir)
        self.dir.mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(self.dir, "postgres", "postgres")
        self.run("pg_basebackup", "-D", self.data, "-h", primary.dir, "-U", "postgres", "-R", "-X", "stream",
                 "-c", "fast", "--no-sync")

    def socket(self, hidden=False):
        return self.dir / "hidden" if hidden else self.dir

    def start(self, hidden=False):
        """hidden: on a socket that no node knows."""
        self.forget_the_dead()
        socket = self.socket(hidden)
        if hidden and not socket.exists():
            socket.mkdir()
            if os.geteuid() == 0:
                shutil.chown(socket, "postgres", "postgres")
        options = " ".join(f"-c {k}={v}" for k, v in SETTINGS.items()) + f" -c unix_socket_directories={socket}"
        self.run("pg_ctl", "-D", self.data, "-s", "-w", "-t", PATIENCE_S,
                 "-l", self.dir / "log", "-o", options, "start", timeout=PATIENCE_S + 10)

    def forget_the_dead(self):
        """After a SIGKILL its pid may still be there for a moment, though dead: PostgreSQL would not start beside it."""
        if self.data.exists() and not self.pids():
            leftovers.remove_shared_memory(list(leftovers.postmasters(self.data)))
            for path in (self.data / "postmaster.pid", *self.dir.rglob(".s.PGSQL.*")):
                path.unlink(missing_ok=True)

    # ---- processes ----

    def pid(self):
        """Of the postmaster, or None."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n")[0])
            if os.readlink(f"/proc/{pid}/cwd") == str(self.data) and start_time(pid) is not None:
                return pid
        except (OSError, ValueError):
            pass
        return None

    def pids(self):
        """The postmaster first, and everything it started."""
        return [int(p) for p in sorted(
            (name for name in os.listdir("/proc") if name.isdigit() and self._mine(name)), key=int)]

    def _mine(self, name):
        try:
            return os.readlink(f"/proc/{name}/cwd") == str(self.data) and \
                os.path.basename(os.readlink(f"/proc/{name}/exe")) == "postgres" and start_time(name) is not None
        except OSError:
            return False

    def signal(self, number):
        """To all of it; those that appear meanwhile as well."""
        seen = set()
        while new := [p for p in self.pids() if p not in seen]:
            for pid in new:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            seen.update(new)

    def running(self):
        return self.pid() is not None

    def stopped(self):
        pid = self.pid()
        return pid is not None and is_stopped(pid)

    def kill(self):
        end = time.monotonic() + PATIENCE_S
        while self.pids():
            self.signal(signal.SIGKILL)
            if time.monotonic() > end:
                raise AssertionError(f"server {self.name} does not end")
            time.sleep(0.02)
        self.forget_the_dead()

    def stop(self):
        if self.running():
            self.signal(signal.SIGCONT)
            self.run("pg_ctl", "-D", self.data, "-s", "-w", "-t", PATIENCE_S, "-m", "immediate", "stop", check=False)
            self.kill()

    # ---- talking to it ----

    def psql_words(self, name="holdfast-chaos", hidden=False):
        return ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
                f"host={self.socket(hidden)} user={TOOL} dbname=postgres application_name={name} connect_timeout=10"]

    def query(self, sql, check=True, timeout=PATIENCE_S, hidden=False):
        """Rows, each a list of texts."""
        done = self.run("psql", *self.psql_words(hidden=hidden), "-F", "\t", "-c", sql, check=check, timeout=timeout)
        return [line.split("\t") for line in done.stdout.splitlines()]

    def set_access(self, text):
        path = self.data / "pg_hba.conf"
        new = path.with_name("pg_hba.new")
        new.write_text(text)
        if os.geteuid() == 0:
            shutil.chown(new, "postgres", "postgres")
        new.rename(path)
        pid = self.pid()
        if pid:
            os.kill(pid, signal.SIGHUP)

    def is_standby(self):
        return self.query("SELECT pg_is_in_recovery()") == [["t"]]


class Postgres:
    """A part of a stand: signals and restarts are for the server that can be written."""
    name = "pg"

    def __init__(self, stand, with_standby=False):
        self.stand, self.with_standby = stand, with_standby
        self.servers = {n: Server(stand, n) for n in ("a", "b")}
        self.url = " ".join([f"host={self.servers['a'].dir},{self.servers['b'].dir}" if with_standby else
                             f"host={self.servers['a'].dir}", "user=postgres dbname=postgres connect_timeout=5",
                             *(["target_session_attrs=read-write"] if with_standby else [])])

    # ---- which one it is ----

    @property
    def primary(self):
        return self.servers[self.stand.read("pg-primary.json") or "a"]

    @property
    def standby(self):
        return self.servers["b" if self.primary.name == "a" else "a"]

    def set_primary(self, server):
        self.stand.write("pg-primary.json", server.name)

    # ---- life ----

    def make(self):
        a = self.servers["a"]
        a.make()
        a.start()
        a.run("psql", "-X", "-q", "-h", a.dir, "-U", "postgres", "-d", "postgres", "-c",
              f"CREATE ROLE {TOOL} SUPERUSER LOGIN REPLICATION")
        self.stand.ctl("migrate", "up", "--postgres-url", f"host={a.dir} user=postgres dbname=postgres")
        if self.with_standby:
            self.make_standby()

    def make_standby(self):
        self.standby.kill()
        self.standby.copy_of(self.primary)
        self.standby.start()

    def running(self):
        return self.primary.running()

    def start(self):
        self.primary.start()

    def stop(self):
        self.primary.stop()

    def kill(self):
        self.primary.kill()

    def signal(self, number):
        self.primary.signal(number)

    def pause(self):
        """Returns when all of it stands still."""
        end = time.monotonic() + PATIENCE_S
        while not all(is_stopped(p) for p in self.primary.pids()):
            self.primary.signal(signal.SIGSTOP)
            if time.monotonic() > end:
                raise AssertionError("PostgreSQL does not stand still")
            time.sleep(0.01)

    def resume(self):
        self.primary.signal(signal.SIGCONT)

    def query(self, sql, **how):
        """Of the one that can be written."""
        return self.primary.query(sql, **how)
