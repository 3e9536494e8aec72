"""The peers that holdfast is measured against: each is started privately on a free loopback port in a
directory of its own, loaded, and stopped. measure.py uses them; alone: peers.py NAME [SECONDS].

    nginx     HTTP ceiling: one worker, a constant JSON answer to a POST, wrk with one thread
    redis     Redis + Lua in one script: eligibility, one per user, check, deduct, append to a stream;
              append-only file synced every second
    etcd      three members, one transaction per order over the JSON gateway; no stock counter at all
    postgres  hot-row UPDATE and INSERT in one transaction, synced
"""
import base64
import contextlib
import json
import os
import pathlib
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@contextlib.contextmanager
def folder():
    path = tempfile.mkdtemp(prefix="holdfast-bench.", dir="/var/tmp")
    os.chmod(path, 0o755)
    try:
        yield pathlib.Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running(*command, **options):
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_port(port):
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens at port {port}")


def output(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, stdout=subprocess.PIPE, text=True, **options).stdout


def wrk(url, connections, seconds, script, environment=None):
    text = output("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", script, url,
                  env={**os.environ, **(environment or {})}, timeout=seconds + 60)
    return json.loads(re.search(r"^RESULT (.*)$", text, re.M).group(1))


NGINX = """daemon off; worker_processes 1; pid {d}/pid; error_log {d}/error;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
client_body_temp_path {d}/b; proxy_temp_path {d}/p; fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/u; scgi_temp_path {d}/s;
server {{ listen 127.0.0.1:{port} reuseport; location / {{ default_type application/json;
return 201 '{{"order_id":"0J00000000000","status":"pending_payment"}}'; }} }} }}
"""


@contextlib.contextmanager
def nginx_server():
    with folder() as d:
        (port,) = free_ports(1)
        (d / "nginx.conf").write_text(NGINX.format(d=d, port=port))
        with running("nginx", "-c", d / "nginx.conf"):
            wait_port(port)
            yield f"http://127.0.0.1:{port}"


def nginx(seconds, connections=64):
    with nginx_server() as url:
        return wrk(url, connections, seconds, HERE / "orders.lua")


LUA = """if redis.call('SADD',KEYS[2],ARGV[1])==0 then return -2 end
local s=tonumber(redis.call('GET',KEYS[1]))
if s<=0 then redis.call('SREM',KEYS[2],ARGV[1]) return -1 end
redis.call('DECR',KEYS[1])
redis.call('XADD',KEYS[3],'MAXLEN','~',100000,'*','user',ARGV[1],'sku','1','qty','1')
return s-1"""


def redis(seconds, connections=128):
    with folder() as d:
        (port,) = free_ports(1)
        with running("redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", d, "--appendonly", "yes",
                     "--appendfsync", "everysec", "--save", ""):
            wait_port(port)
            cli = ["redis-cli", "-p", port]
            output(*cli, "set", "stock", 100000000)
            sha = output(*cli, "script", "load", LUA).strip()
            text = output("redis-benchmark", "-p", port, "-n", 18000 * seconds, "-c", connections, "-r", 1000000000,
                          "--csv", "EVALSHA", sha, 3, "stock", "buyers", "orders", "u__rand_int__")
    row = text.strip().splitlines()[-1].replace('"', "").split(",")
    return {"rate": float(row[-7]), "p50_ms": float(row[-4]), "p99_ms": float(row[-2])}


ETCD_LUA = """wrk.method="POST"; wrk.headers["Content-Type"]="application/json"
local n, keys = 0, {}
for line in io.lines(os.getenv("KEYS")) do keys[#keys+1] = line end
request = function() n = n + 1; local k = keys[n % #keys + 1]
return wrk.format(nil, "/v3/kv/txn", nil, '{"compare":[{"key":"'..k..'","target":"CREATE","result":"GREATER","create_revision":"-1"}],"success":[{"requestPut":{"key":"'..k..'","value":"eyJzYWxlIjoiczEifQ=="}}]}') end
"""


def etcd(seconds, connections=128):
    with folder() as d, contextlib.ExitStack() as members:
        ports = free_ports(6)
        clients = [f"http://127.0.0.1:{p}" for p in ports[:3]]
        peers = [f"http://127.0.0.1:{p}" for p in ports[3:]]
        cluster = ",".join(f"n{i}={url}" for i, url in enumerate(peers))
        for i in range(3):
            members.enter_context(running(
                "etcd", "--name", f"n{i}", "--data-dir", d / str(i), "--listen-client-urls", clients[i],
                "--advertise-client-urls", clients[i], "--listen-peer-urls", peers[i],
                "--initial-advertise-peer-urls", peers[i], "--initial-cluster", cluster,
                "--initial-cluster-state", "new", "--log-level", "error"))
        for port in ports[:3]:
            wait_port(port)
        time.sleep(4)
        status = output("etcdctl", "--endpoints=" + ",".join(clients), "endpoint", "status", "-w", "simple",
                        env={**os.environ, "ETCDCTL_API": "3"})
        leader = next(line.split(", ")[0] for line in status.splitlines() if line.split(", ")[4] == "true")
        script = d / "etcd.lua"
        done = (HERE / "orders.lua").read_text().partition("done =")[2]
        script.write_text(ETCD_LUA + "done =" + done)
        run = str(time.time_ns())
        (d / "keys").write_text("\n".join(base64.b64encode(f"order/{run}/{i:06}".encode()).decode()
                                          for i in range(200000)))
        return wrk(leader, connections, seconds, script, {"KEYS": str(d / "keys")})


ORDER_SQL = """\\set u random(1,1000000000)
WITH d AS (UPDATE stock SET available=available-1 WHERE sku=1 AND available>0 RETURNING sku)
INSERT INTO orders(user_id,sku,qty,status) SELECT :u,1,1,'pending' FROM d;
"""


def postgres(seconds, connections=32):
    binaries = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    options = {"cwd": "/"}
    with folder() as d:
        if os.getuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(d, user.pw_uid, user.pw_gid)
            options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        output(binaries / "initdb", "-D", d / "data", "-A", "trust", "-U", "postgres", **options)
        settings = f"-k {d} -c listen_addresses= -c shared_buffers=512MB -c max_wal_size=4GB"
        control = [binaries / "pg_ctl", "-D", d / "data", "-s", "-w"]
        subprocess.run([str(c) for c in [*control, "-l", d / "log", "-o", settings, "start"]], check=True,
                       stdout=subprocess.DEVNULL, **options)
        try:
            access = ["-h", d, "-U", "postgres"]
            output("psql", "-q", *access, "-c",
                   "create table stock(sku int primary key, available bigint); insert into stock values(1,1000000000);"
                   "create table orders(id bigserial primary key, user_id bigint, sku int, qty int, status text,"
                   "created timestamptz default now())", **options)
            (d / "order.sql").write_text(ORDER_SQL)
            text = output(binaries / "pgbench", "-n", *access, "-f", d / "order.sql", "-c", connections, "-j", 1, "-T",
                          seconds, "-M", "prepared", "postgres", **options)
        finally:
            subprocess.run([str(c) for c in [*control, "-m", "immediate", "stop"]], check=False, **options)
    return {"rate": float(re.search(r"tps = ([\d.]+)", text).group(1)),
            "mean_ms": float(re.search(r"latency average = ([\d.]+)", text).group(1))}


PEERS = {"nginx": nginx, "redis": redis, "etcd": etcd, "postgres": postgres}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in PEERS:
        sys.exit(f"{__doc__}\nusage: peers.py {'|'.join(PEERS)} [SECONDS]")
    print(json.dumps(PEERS[sys.argv[1]](int(sys.argv[2]) if len(sys.argv) > 2 else 8)))
