"""PostgreSQL that dies, hangs, refuses, locks, or comes back as a standby that is behind. Orders go on meanwhile; the
persister catches up, and never writes over a hole."""
import time

import postgres

from . import Fault, Param, kind

BEHIND_S = 10  # for somebody to write


class PostgresFault(Fault):
    targets = ("pg",)
    needs = ("postgres",)

    @property
    def server(self):
        return self.stand.postgres.primary


@kind
class PgKill(PostgresFault):
    kind = "pg-kill"
    doc = "SIGKILL to every process of the server; heal starts it (it recovers)."

    def act(self):
        self.server.kill()

    def undo(self):
        if not self.server.running():
            self.server.start()


@kind
class PgFreeze(PostgresFault):
    kind = "pg-freeze"
    doc = "SIGSTOP to every process of the server; heal continues them. Sessions hang."

    def act(self):
        self.stand.postgres.pause()

    def undo(self):
        self.stand.postgres.resume()


@kind
class PgRefuse(PostgresFault):
    kind = "pg-refuse"
    doc = "Every session is ended, new ones are refused (pg_hba.conf)."

    def act(self):
        self.server.set_access(postgres.CLOSED)
        self.stand.wait("PostgreSQL refuses", self.refuses)
        self.server.query(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                          f"WHERE backend_type = 'client backend' AND usename <> '{postgres.TOOL}'")

    def refuses(self):
        return self.server.run("psql", "-X", "-h", self.server.dir, "-U", "postgres", "-d", "postgres", "-c", "SELECT 1",
                               check=False).returncode != 0

    def undo(self):
        self.server.set_access(postgres.OPEN)


@kind
class PgLock(PostgresFault):
    kind = "pg-lock"
    doc = "Somebody's session holds a table locked (ACCESS EXCLUSIVE), as a careless migration would."
    params = (Param("table", str, "outbox", "of schema holdfast", ("outbox", "orders", "watermark")),)
    NAME = "holdfast-chaos-lock"

    def act(self):
        sql = f"BEGIN; LOCK TABLE holdfast.{self.table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(86400)"
        session = self.stand.helper("pg-lock")
        session.spawn(self.server.command("psql", *self.server.psql_words(self.NAME), "-c", sql))
        self.stand.wait("the lock is held", lambda: self.server.query(
            f"SELECT 1 FROM pg_stat_activity WHERE application_name = '{self.NAME}' AND wait_event = 'PgSleep'"))

    def undo(self):
        self.stand.helper("pg-lock").kill()
        if self.server.running():  # it sleeps, and would not see that nobody is there any more
            self.server.query(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                              f"WHERE application_name = '{self.NAME}'", check=False, timeout=10)


@kind
class PgFailover(PostgresFault):
    kind = "pg-failover"
    doc = ("The standby hears nothing for a while, then the server is killed and the standby takes over: what was written "
           "meanwhile is missing. The persister says so and does not write over the hole. Heal: the server that has "
           "everything leads again (the old one, or the new one if it lacks nothing), the other becomes its standby.")
    needs = ("standby",)
    params = (Param("behind_ms", int, 1000, "how long the standby hears nothing, and then until something was written, "
                    "for some seconds at most"),)

    def act(self):
        pg = self.stand.postgres
        old, new = pg.primary, pg.standby
        self.data["old"] = old.name
        self.save()
        new.query("ALTER SYSTEM SET primary_conninfo = ''")
        new.query("SELECT pg_reload_conf()")
        self.stand.wait("the standby hears nothing", lambda: not new.query("SELECT 1 FROM pg_stat_wal_receiver"))
        begun, last = time.monotonic(), self.watermarks(new)
        while time.monotonic() - begun < self.behind_ms / 1000 or \
                self.behind_ms and self.watermarks(old) == last and time.monotonic() - begun < BEHIND_S:
            time.sleep(0.05)
        self.data["behind"] = self.watermarks(old) != last  # false: nobody wrote, it lacks nothing
        old.kill()
        new.query("SELECT pg_promote()")
        self.stand.wait("the standby leads", lambda: not new.is_standby())
        pg.set_primary(new)

    def undo(self):
        pg = self.stand.postgres
        old = pg.servers[self.data.get("old", pg.primary.name)]
        other = pg.servers["b" if old.name == "a" else "a"]
        best = old
        if other.running() and not other.is_standby():  # promoted
            old.kill()
            old.start(hidden=True)  # where no node looks: two that can be written must not be seen
            here, there = (self.watermarks(s, hidden) for s, hidden in ((old, True), (other, False)))
            old.stop()
            shards = set(here) | set(there)
            if not all(here.get(s, 0) >= there.get(s, 0) for s in shards):
                best = other
                if not all(there.get(s, 0) >= here.get(s, 0) for s in shards):
                    raise AssertionError(f"neither server has everything: {here} and {there}")
        worse = other if best is old else old
        worse.kill()
        if not best.running():
            best.start()
        pg.set_primary(best)
        pg.make_standby()

    @staticmethod
    def watermarks(server, hidden=False):
        return {int(s): int(n) for s, n in server.query("SELECT shard, sequence FROM holdfast.watermark", hidden=hidden)}
