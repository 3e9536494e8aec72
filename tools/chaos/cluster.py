"""A cluster of real holdfastd processes with a gateway in front, each node with its own options and
environment, and a load that knows what was acknowledged. Standard library only.

    with Cluster(bin_dir, nodes=3) as c:          # bin_dir: the build directory
        c.shop("S", "A", units=100000)            # a sale S of SKU A, open now
        with Load(c, "S", "A", threads=4) as load:
            c.node(2).kill()                      # SIGKILL
            c.node(2).start(); c.wait_ready()
        load.check()                              # every acknowledged order is there, once; no unit twice

Each node's stderr is kept (node.process.lines, node.process.wait_for(pattern)). On the way out everything is
stopped, and whatever a sanitizer or a failed check wrote is an error.
"""
import json
import os
import pathlib
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid

import gateway_harness
from processes import PATIENCE_S, Process, free_port


class Node:
    """A member. Stopped until start()."""

    def __init__(self, cluster, number, options=(), environment=None):
        self.cluster = cluster
        self.id = number
        self.options = list(options)
        self.environment = dict(environment or {})
        self.raft = f"127.0.0.1:{free_port()}"
        self.address = f"127.0.0.1:{free_port()}"
        self.dir = cluster.path(f"node-{number}")
        self.process = None

    def member(self):
        return f"{self.id}={self.raft}/{self.address}"

    def start(self, *options, members=None, environment=None):
        """members: whom it is told of (default: all of the cluster)."""
        argv = self.argv(*options, members=members)
        self.process = Process(f"node {self.id}", argv, environment={**self.environment, **(environment or {})})
        self.cluster.processes.append(self.process)
        return self

    def argv(self, *options, members=None):
        argv = [str(self.cluster.holdfastd), "--id", str(self.id), "--data-dir", self.dir,
                "--cluster-id", self.cluster.id, "--cluster-key-file", self.cluster.path("cluster.key")]
        for node in members or self.cluster.nodes:
            argv += ["--member", node.member()]
        return argv + [*self.cluster.node_options, *self.options, *options]

    def running(self):
        return self.process is not None and self.process.child.poll() is None

    def signal(self, number):
        self.process.child.send_signal(number)

    def kill(self):
        self.process.stop(signal.SIGKILL)

    def stop(self):
        """SIGTERM; returns the exit status."""
        return self.process.stop()

    def status(self):
        """holdfastctl endpoint status of this node, or None when it does not answer."""
        done = self.cluster.ctl("endpoint", "status", "-o", "json", "--endpoints", self.address, check=False)
        try:
            rows = json.loads(done.stdout)  # of every member that this one knows
        except ValueError:
            return None
        return next((r for r in rows if r["id"] == self.id and r["reachable"]), None)


class Cluster:
    def __init__(self, build, nodes=3, node_options=(), gateway=True, gateway_options=(), folder=None, secrets=None):
        """folder, secrets: as Stage's."""
        build = pathlib.Path(build).resolve()
        self.holdfastd = build / "server/holdfastd"
        self.holdfastctl = build / "tools/ctl/holdfastctl"
        # Secrets and HTTP calls are those of the gateway's own tests.
        self.stage = gateway_harness.Stage(str(build / "gateway/holdfast-gateway"), str(self.holdfastd), gateway_options,
                                           folder, secrets)
        self.id = self.stage.cluster_id
        self.processes = self.stage.processes
        self.node_options = list(node_options)
        self.nodes = []
        for _ in range(nodes):
            self.add_node()
        self.with_gateway = gateway

    def path(self, name):
        return self.stage.path(name)

    def add_node(self, options=(), environment=None):
        """One more, not started and unknown to the others."""
        node = Node(self, len(self.nodes) + 1, options, environment)
        self.nodes.append(node)
        return node

    def node(self, number):
        return self.nodes[number - 1]

    def __enter__(self):
        try:
            for node in self.nodes:
                node.start("--new-cluster")
            if self.with_gateway:
                self.start_gateway()
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            for p in self.processes:
                print(f"--- {p.name} ---", *p.lines[-25:], sep="\n", flush=True)
        wrong = self.close()
        if kind is None and wrong:
            raise AssertionError("\n".join(wrong))

    def close(self):
        wrong = []
        for p in reversed(self.processes):
            p.stop(signal.SIGTERM if p.child.poll() is None else signal.SIGKILL)
            wrong += [f"{p.name}: {line}" for line in p.complaints()]
        self.stage.processes = []
        self.stage.close()
        return wrong

    def start_gateway(self, nodes=None):
        stage = self.stage
        stage.gateway = Process("gateway", self.gateway_argv(nodes or self.nodes))
        stage.processes.append(stage.gateway)
        stage.ports = {kind: int(stage.gateway.wait_for(rf"listening kind={kind} .*port=(\d+)")[1])
                       for kind in ("public", "admin")}

    def gateway_argv(self, nodes, listen="127.0.0.1:0", listen_admin="127.0.0.1:0"):
        stage = self.stage
        addresses = [option for n in nodes for option in ("--nodes", n.address)]
        return [stage.gateway_path, "--listen", listen, "--listen-admin", listen_admin, *addresses,
                "--cluster-key-file", stage.path("cluster.key"), "--api-keys-file", stage.path("api-keys"),
                "--user-token-secret-file", stage.path("user.secret"),
                "--payment-secret-file", stage.path("payment.secret"), *stage.options]

    def ctl(self, *arguments, check=True, timeout=60):
        """holdfastctl with this cluster's endpoints and key; the finished process (text)."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HOLDFAST_", "PG"))}
        environment["HOLDFAST_ENDPOINTS"] = ",".join(self.endpoints())
        environment["HOLDFAST_CLUSTER_KEY_FILE"] = self.path("cluster.key")
        done = subprocess.run([str(self.holdfastctl), *map(str, arguments)], capture_output=True, text=True,
                              timeout=timeout, env=environment, stdin=subprocess.DEVNULL)
        if check and done.returncode != 0:
            raise AssertionError(f"holdfastctl {' '.join(map(str, arguments))}: {done.returncode}\n"
                                 f"{done.stdout}\n{done.stderr}")
        return done

    def endpoints(self):
        """Where holdfastctl asks."""
        return [n.address for n in self.nodes if n.process is not None]

    def leader(self):
        """The node that leads and is ready, or None."""
        for node in self.nodes:
            status = node.status() if node.running() else None
            if status and status["role"] == "leader" and status["ready"]:
                return node
        return None

    def wait(self, what, condition, patience=PATIENCE_S):
        """Until condition() is true; its value."""
        end = time.monotonic() + patience
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > end:
                raise AssertionError(f"not within {patience} s: {what}")
            time.sleep(0.1)

    def wait_ready(self, nodes=None):
        """Until there is a ready leader and every running node (or these) has applied what it has."""
        wanted = nodes or [n for n in self.nodes if n.running()]

        def ready():
            leader = self.leader()
            index = leader.status()["applied_index"] if leader else 0
            states = [n.status() for n in wanted]
            return leader is not None and all(s and s["ready"] and s["applied_index"] >= index for s in states)
        self.wait("a leader, and all nodes with it", ready)

    def digests(self):
        """{node id: digest} at one log index; they must be equal."""
        done = self.ctl("endpoint", "hash", "-o", "json")
        return {row["id"]: row["digest"] for row in json.loads(done.stdout)}

    def shop(self, sale, sku, units, **changes):
        """A SKU and a sale of it, open now. changes: fields of the sale."""
        self.stage.put_sku(sku, units)
        self.stage.put_sale(sale, [sku], orders_per_user_max=1000000, **changes)


class Load:
    """Threads that place orders through the gateway and ask again, with the same key, until they have an answer."""

    def __init__(self, cluster, sale, sku, threads=4, pause_s=0.01):
        self.cluster, self.sale, self.sku, self.pause_s = cluster, sale, sku, pause_s
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.placed = {}      # key -> order id, acknowledged
        self.refused = {}     # problem code -> count
        self.retries = 0
        self.latencies_s = []  # from the first attempt to the acknowledgement
        self.times = []        # of acknowledgements, monotonic
        self.threads = [threading.Thread(target=self._run, args=(i,), daemon=True) for i in range(threads)]

    def __enter__(self):
        for t in self.threads:
            t.start()
        self.wait_for(1)
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join(2 * PATIENCE_S)
            assert not t.is_alive(), "a caller never got an answer"

    def wait_for(self, count):
        """Until so many more orders are acknowledged."""
        target = len(self.times) + count
        self.cluster.wait(f"{count} more orders acknowledged", lambda: len(self.times) >= target)

    def _attempt(self, key, user):
        body = json.dumps({"sale_id": self.sale, "user_id": user,
                           "lines": [{"sku": self.sku, "quantity": 1}]}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.cluster.stage.ports['public']}/v1/orders", body,
            {"Content-Type": "application/json", "Idempotency-Key": f'"{key}"',
             "Authorization": "Bearer " + self.cluster.stage.keys["backend"]}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as e:
            return e.code, json.loads(e.read() or b"{}")
        except (OSError, ValueError):
            return 0, {}

    def _run(self, number):
        user = f"user-{number}"
        while not self.stopping.is_set():
            key = uuid.uuid4().hex
            begun = time.monotonic()
            while True:
                status, answer = self._attempt(key, user)
                if status in (200, 201):
                    with self.lock:
                        self.placed[key] = answer["order_id"]
                        self.latencies_s.append(time.monotonic() - begun)
                        self.times.append(time.monotonic())
                    break
                if 400 <= status < 500 and status != 429:
                    with self.lock:
                        code = answer.get("code", str(status))
                        self.refused[code] = self.refused.get(code, 0) + 1
                    break
                with self.lock:
                    self.retries += 1
                if time.monotonic() - begun > PATIENCE_S:
                    raise AssertionError(f"no answer to {key}: {status} {answer}")
                time.sleep(0.05)
            time.sleep(self.pause_s)

    def longest_gap_s(self):
        """Between two acknowledgements: how long nobody was served."""
        times = sorted(self.times)
        return max((b - a for a, b in zip(times, times[1:])), default=0)

    def check(self):
        """Every acknowledged order is listed, once; nothing else is; the stock agrees."""
        listed, cursor = [], ""
        while True:
            answer = self.cluster.stage.expect(200, "GET", f"/v1/orders?sale_id={self.sale}&limit=500&consistency=strong"
                                               + (f"&cursor={cursor}" if cursor else ""), who="backend").json
            listed += [o["order_id"] for o in answer["items"]]
            cursor = answer.get("next_cursor")
            if not cursor:
                break
        lost = set(self.placed.values()) - set(listed)
        assert not lost, f"{len(lost)} acknowledged orders are lost: {sorted(lost)[:5]}"
        assert len(set(self.placed.values())) == len(self.placed), "two keys got one order"
        assert len(listed) == len(set(listed)) == len(self.placed), \
            f"{len(listed)} orders listed, {len(self.placed)} acknowledged"
        sku = self.cluster.stage.expect(200, "GET", f"/v1/skus/{self.sku}?consistency=strong", who="backend").json
        assert sku["available"] + sku["reserved"] + sku["sold"] == sku["received"], sku
        assert sku["reserved"] + sku["sold"] == len(listed), sku
        assert len(set(self.cluster.digests().values())) == 1, self.cluster.digests()
