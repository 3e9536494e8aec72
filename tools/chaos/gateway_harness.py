"""A gateway in front of one node, callers of every kind, and an HTTP client that sees every byte.

Used by gateway_http.py (the table of cases) and gateway_behaviour.py. Standard library only.
"""
import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
import uuid

from processes import PATIENCE_S, Process, free_port


class Answer:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers  # lower-case name -> value
        self.body = body
        self.json = None
        if "json" in headers.get("content-type", "") and body:
            self.json = json.loads(body)

    @property
    def code(self):
        return self.json.get("code") if isinstance(self.json, dict) else None


class Wire:
    """One connection. Reads answers strictly; a byte that should not be there is an error."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, data):
        self.socket.sendall(data)

    def end(self):
        self.socket.shutdown(socket.SHUT_WR)

    def close(self):
        self.socket.close()

    def _more(self):
        data = self.socket.recv(65536)
        if not data:
            raise EOFError("the gateway closed the connection")
        self.buffer += data

    def read(self, head_only=False):
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) [ -~]+", lines[0])
        assert found, f"status line {lines[0]!r}"
        headers = {}
        for line in lines[1:]:
            name, colon, value = line.partition(": ")
            assert colon and re.fullmatch(r"[A-Za-z-]+", name), f"header line {line!r}"
            assert name.lower() not in headers or name == "Link", f"{name} is there twice"
            headers[name.lower()] = value
        status = int(found[1])
        if status == 100:
            return self.read(head_only)
        size = 0 if head_only or status in (204, 304) else int(headers["content-length"])
        while len(self.buffer) < size:
            self._more()
        body, self.buffer = self.buffer[:size], self.buffer[size:]
        return Answer(status, headers, body)

    def at_end(self):
        """Waits until the gateway closes; returns what came before that."""
        left = self.buffer
        try:
            while True:
                data = self.socket.recv(65536)
                if not data:
                    return left
                left += data
        except ConnectionResetError:
            return left


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Stage:
    """Node, gateway, secrets."""

    def __init__(self, gateway, node, options=(), folder=None, secrets=None):
        """folder: where secrets and data are, kept at the end; None: a new one, removed at the end. secrets: what
        secrets() said of a stage in that folder, to be it again."""
        self.keep_folder = folder is not None
        self.folder = folder or tempfile.mkdtemp(prefix="holdfast-gateway-")
        if secrets is not None:
            self.keys, self.user_secret, self.cluster_id = secrets["keys"], secrets["user"], secrets["cluster_id"]
            self.payment_secret = bytes.fromhex(secrets["payment"])
        else:
            self.keys = {role: f"{role}-key-{uuid.uuid4().hex}" for role in
                         ("admin", "backend", "viewer", "payments")}
            self.keys["backend2"] = f"backend2-key-{uuid.uuid4().hex}"
            self.user_secret = os.urandom(24).hex()
            self.payment_secret = os.urandom(32)
            self.cluster_id = str(uuid.uuid4())
            self._write_secrets()
        self.options = options
        self.gateway_path = gateway
        self.node_path = node
        self.node_port = free_port()
        self.raft_port = free_port()
        self.processes = []
        self.node = self.gateway = None

    def secrets(self):
        """All that another process needs to be this stage: JSON."""
        return {"keys": self.keys, "user": self.user_secret, "payment": self.payment_secret.hex(),
                "cluster_id": self.cluster_id}

    def path(self, name):
        return os.path.join(self.folder, name)

    def _write(self, name, text):
        with open(os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
            f.write(text)

    def _write_secrets(self):
        self._write("cluster.key", os.urandom(32).hex() + "\n")
        lines = []
        for name, key in self.keys.items():
            role = name.rstrip("0123456789")
            lines.append(f"{name} {role} {hashlib.sha256(key.encode()).hexdigest()}\n")
        self._write("api-keys", "".join(lines))
        self._write("user.secret", self.user_secret + "\n")
        self._write("payment.secret", "whsec_" + base64.b64encode(self.payment_secret).decode() + "\n")

    def start_node(self):
        if os.path.basename(self.node_path) == "fake_node":
            argv = [self.node_path, self.path("cluster.key"), str(self.node_port)]
        else:
            argv = [self.node_path, "--id", "1", "--data-dir", self.path("node"),
                    "--new-cluster", "--cluster-id", self.cluster_id, "--cluster-key-file", self.path("cluster.key"),
                    "--member", f"1=127.0.0.1:{self.raft_port}/127.0.0.1:{self.node_port}"]
        self.node = Process("node", argv)
        self.processes.append(self.node)

    def start_gateway(self, *options):
        argv = [self.gateway_path, "--listen", "127.0.0.1:0", "--listen-admin", "127.0.0.1:0",
                "--nodes", f"127.0.0.1:{self.node_port}", "--cluster-key-file", self.path("cluster.key"),
                "--api-keys-file", self.path("api-keys"),
                "--user-token-secret-file", self.path("user.secret"),
                "--payment-secret-file", self.path("payment.secret"), *self.options, *options]
        self.gateway = Process("gateway", argv)
        self.processes.append(self.gateway)
        self.ports = {kind: int(self.gateway.wait_for(rf"listening kind={kind} .*port=(\d+)")[1])
                      for kind in ("public", "admin")}
        return self.gateway

    def wait_ready(self):
        end = time.monotonic() + PATIENCE_S
        answer = None
        while time.monotonic() < end:
            answer = self.call("GET", "/readyz?verbose")
            if answer.status == 200:
                return
            time.sleep(0.02)
        raise AssertionError(f"never ready: {answer.body}\n" + "\n".join(self.node.lines[-20:]))

    def close(self):
        """Ends all; returns what is wrong with how they ended."""
        wrong = []
        for p in reversed(self.processes):
            running = p.child.poll() is None
            code = p.stop()
            if running and code != 0 and not (code == -signal.SIGTERM and
                                              os.path.basename(self.node_path) == "fake_node"):
                wrong.append(f"{p.name} ended with {code}")
            wrong += [f"{p.name}: {line}" for line in p.complaints()]
            if wrong:
                wrong += p.lines[-15:]
        if not self.keep_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        return wrong

    # ---- callers ----

    def user_token(self, user, **changes):
        claims = {"sub": user, "exp": int(time.time()) + 3600}
        header = changes.pop("header", {"alg": "HS256", "typ": "JWT"})
        secret = changes.pop("secret", self.user_secret)
        claims.update(changes)
        signed = base64url(json.dumps(header).encode()) + "." + base64url(json.dumps(claims).encode())
        mac = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
        return signed + "." + base64url(mac)

    def authorization(self, who):
        """admin | backend | … | user:NAME | expired:NAME | forged:NAME | none:NAME | nobody."""
        if who in (None, "nobody"):
            return {}
        kind, _, name = who.partition(":")
        if kind == "user":
            token = self.user_token(name)
        elif kind == "expired":
            token = self.user_token(name, exp=int(time.time()) - 60)
        elif kind == "early":
            token = self.user_token(name, nbf=int(time.time()) + 600)
        elif kind == "forged":
            token = self.user_token(name, secret="x" * 48)
        elif kind == "none":
            token = self.user_token(name, header={"alg": "none"}).rsplit(".", 1)[0] + "."
        else:
            token = self.keys[who]
        return {"Authorization": "Bearer " + token}

    def signature(self, event, body, offset=0, **changes):
        timestamp = str(int(time.time()) + offset)
        secret = changes.get("secret", self.payment_secret)
        mac = hmac.new(secret, f"{event}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        return {"webhook-id": event, "webhook-timestamp": timestamp,
                "webhook-signature": "v1," + base64.b64encode(mac).decode()}

    # ---- calls ----

    def request_bytes(self, method, path, body=None, headers=None, host=True):
        lines = [f"{method} {path} HTTP/1.1"]
        if host:
            lines.append("Host: localhost")
        names = {n.lower() for n in (headers or {})}
        for name, value in (headers or {}).items():
            if value is not None:
                lines.append(f"{name}: {value}")
        if body is not None:
            if "content-type" not in names:
                lines.append("Content-Type: application/json")
            if "content-length" not in names and "transfer-encoding" not in names:
                lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")

    def call(self, method, path, body=None, who=None, key=None, headers=None, listener="public"):
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        all_headers = dict(self.authorization(who))
        if key is not None:
            all_headers["Idempotency-Key"] = f'"{key}"'
        all_headers.update(headers or {})
        wire = Wire(self.ports[listener])
        try:
            wire.send(self.request_bytes(method, path, body, all_headers))
            return wire.read(head_only=method == "HEAD")
        finally:
            wire.close()

    def expect(self, status, *args, **kwargs):
        answer = self.call(*args, **kwargs)
        assert answer.status == status, f"{args}: {answer.status} {answer.body!r}, expected {status}"
        return answer

    # ---- a shop ----

    def put_sku(self, sku, units):
        self.expect(201, "PUT", f"/v1/skus/{sku}", {"title": sku}, who="admin", listener="admin",
                    headers={"If-None-Match": "*"})
        if units:
            self.expect(201, "POST", f"/v1/skus/{sku}/adjustments", {"delta": units}, who="admin",
                        key=f"stock-{sku}", listener="admin")

    def put_sale(self, sale, skus, **changes):
        body = {"title": sale, "currency": "EUR", "opens_at": "2020-01-01T00:00:00Z",
                "closes_at": "2120-01-01T00:00:00Z", "orders_per_user_max": 100,
                "offers": [{"sku": s, "unit_price": 250} for s in skus]}
        body.update(changes)
        return self.expect(201, "PUT", f"/v1/sales/{sale}", body, who="admin", listener="admin",
                           headers={"If-None-Match": "*"})

    def place(self, sale, user, key, sku="A", quantity=1):
        return self.call("POST", "/v1/orders", {"sale_id": sale, "user_id": user,
                                                "lines": [{"sku": sku, "quantity": quantity}]},
                         who="backend", key=key)

    def pay(self, order, event, amount, currency="EUR"):
        body = json.dumps({"type": "payment.succeeded", "order_id": order, "amount": amount,
                           "currency": currency}).encode()
        return self.call("POST", "/v1/payments/events", body, headers=self.signature(event, body))


def main(run):
    """run(stage factory): a test program's frame. Arguments: GATEWAY NODE."""
    if len(sys.argv) < 3:
        print(f"usage: {sys.argv[0]} GATEWAY NODE [NAME …]", file=sys.stderr)
        return 2
    return run(sys.argv[1], sys.argv[2], sys.argv[3:])
