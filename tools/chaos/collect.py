"""What a cluster and its PostgreSQL hold at the end of a run, written down for the checkers: final.json.

    {"orders": {id: {…as GET /v1/orders…}}, "skus": {id: {…}}, "leases": [{…}], "rights": {"SALE/USER": granted},
     "nodes": {"1": {"digest": "…"}}, "audit": {"exit": 0, "rows": [{check, subject, ok, detail}]},
     "postgres": null | {"cluster": …, "orders": […], "order_lines": […], "eligibilities": […], "payments": […],
                         "outbox": […], "watermark": […]}, "errors": […]}

The engine is read through the gateway with strong reads, PostgreSQL through psql: neither with the code of
`holdfastctl audit`, whose verdict stands beside. Nothing may change while this reads (Workload.settle): what
changes all the same shows as a difference.
"""
import glob
import json
import pathlib
import subprocess
import time

from caller import Caller, Request

TABLES = ("orders", "order_lines", "eligibilities", "payments", "outbox", "watermark", "cluster")
PAGE = 500
AUDIT_S = 150


class CannotRead(Exception):
    pass


def _get(caller, path, patience_s=20):
    """(body, log index) of a strong read."""
    end = time.monotonic() + patience_s
    joint = "&" if "?" in path else "?"
    while True:
        body, index, why = _once(caller, f"{path}{joint}consistency=strong")
        if body is not None:
            return body, index
        if time.monotonic() > end:
            raise CannotRead(f"GET {path}: {why}")
        time.sleep(0.1)


def _once(caller, path):
    r = Request("GET", path)
    try:
        connection, _ = caller._connection("admin", 10)  # it has all routes
        connection.request(r.method, r.path, None, caller._headers(r))
        answer = connection.getresponse()
        data = answer.read()
        if answer.status == 200:
            return json.loads(data), int(answer.getheader("Holdfast-Log-Index")), ""
        return None, 0, f"{answer.status} {data[:200]!r}"
    except (ValueError, *caller.ERRORS) as e:
        caller.close()
        return None, 0, repr(e)


def _list(caller, path):
    items, cursor = [], None
    joint = "&" if "?" in path else "?"
    while True:
        page, _ = _get(caller, f"{path}{joint}limit={PAGE}" + (f"&cursor={cursor}" if cursor else ""))
        items += page["items"]
        cursor = page.get("next_cursor")
        if not cursor:
            return items


def wait_for_deadlines(cluster, sales, patience_s):
    """Until no order of these sales waits for payment. Quietly gives up: the checkers judge what is there."""
    caller, end = Caller(cluster, {}), time.monotonic() + patience_s
    try:
        while time.monotonic() < end:
            if not any(o["status"] == "pending_payment" for s in sales
                       for o in _list(caller, f"/v1/orders?sale_id={s}")):
                return True
            time.sleep(0.3)
    except CannotRead:
        pass
    finally:
        caller.close()
    return False


def psql(url, statement, timeout=120):
    program = (sorted(glob.glob("/usr/lib/postgresql/*/bin/psql")) + ["psql"])[-1]
    done = subprocess.run([program, "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", statement], text=True,
                          capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise CannotRead(f"psql: {done.stderr.strip()}")
    return done.stdout


def read_postgres(url):
    """All tables, of one moment: one statement is one snapshot."""
    union = " UNION ALL ".join(f"SELECT '{t}' AS name, to_jsonb(x) AS line FROM holdfast.{t} AS x" for t in TABLES)
    out = {t: [] for t in TABLES}
    for text in psql(url, f"SELECT jsonb_build_array(name, line) FROM ({union}) AS u").splitlines():
        name, row = json.loads(text)
        out[name].append(row)
    out["cluster"] = out["cluster"][0] if out["cluster"] else None
    return out


def _audit(cluster, url):
    words = ["--postgres-url", url] if url else ["--no-postgres"]
    done = cluster.ctl("audit", "-o", "json", "--wait", "60s", *words, check=False, timeout=AUDIT_S)
    try:
        rows = json.loads(done.stdout)
    except ValueError:
        rows = []
    return {"exit": done.returncode, "rows": rows, "stderr": done.stderr[-2000:]}


def _nodes(cluster):
    """Asked again for a while: a node that just came back may be slower than holdfastctl is patient."""
    end = time.monotonic() + 30
    while True:
        done = cluster.ctl("endpoint", "hash", "-o", "json", "--timeout", "15s", check=False)
        try:
            return {str(row["id"]): row for row in json.loads(done.stdout)}
        except ValueError:
            if time.monotonic() > end:
                raise CannotRead(f"endpoint hash: {done.returncode} {done.stderr.strip()}") from None
        time.sleep(0.5)


def write(cluster, directory, postgres_url=None):
    """Reads everything, writes directory/final.json and returns it. What cannot be read is in "errors", and the
    checker that needs it fails."""
    caller = Caller(cluster, {})
    final = {"errors": [], "postgres": None}

    def part(name, read):
        try:
            final[name] = read()
        except Exception as e:  # whatever it is: the checker that misses it says so
            final["errors"].append(f"{name}: {e!r}"[:1000])
    part("audit", lambda: _audit(cluster, postgres_url))  # waits until the persister has taken everything
    part("nodes", lambda: _nodes(cluster))
    part("skus", lambda: {s["id"]: s for s in _list(caller, "/v1/skus")})
    part("sales", lambda: {s["id"]: s for s in _list(caller, "/v1/sales")})
    part("orders", lambda: {o["order_id"]: o for o in _list(caller, "/v1/orders")})
    part("rights", lambda: {f"{sale}/{e['user_id']}": e["granted"] for sale in final["sales"]
                            for e in _list(caller, f"/v1/sales/{sale}/eligibilities")})
    part("leases", lambda: _list(caller, "/v1/leases"))
    if postgres_url:
        part("postgres", lambda: read_postgres(postgres_url))
    caller.close()
    with open(pathlib.Path(directory) / "final.json", "w", encoding="utf-8") as f:
        json.dump(final, f, separators=(",", ":"))
    return final
