"""The network of a stand: a proxy process for what comes to each node; with network namespaces, packets as well.

What it owns: addresses, the proxies, the namespaces (names hfTOKEN-…), the rules in both. What it refuses: to touch
the machine's own network: namespaces have no way out, and nft's tables are inside of them.

    127.0.0.1 of the machine, or                 with namespaces: a bridge in hfTOKEN-hub, a namespace for each node

    node 2's peers ──► proxy of node 2 ──► node 2         (for Raft; gateways and clients likewise)

Rules are those of proxy.py; with namespaces also, between nodes or (0) everything in the hub:

    {"from": 1, "to": 2, "drop": true}          no packet passes
    {"from": 1, "to": 2, "loss": 20}            percent of packets that do not arrive
    {"from": 1, "to": 2, "duplicate": 20}       percent that arrive twice

apply() puts exactly the rules that it is given in force, and returns when they are.
"""
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import time

from faults.needs import program
from processes import PATIENCE_S, free_port

CLONE_NEWNET = 0x40000000
PROXY = pathlib.Path(__file__).resolve().parent / "proxy.py"
SUBNET = "10.99.0"
HUB = 254


class Links:
    """Proxies alone, on loopback."""
    kind = "proxy"

    def __init__(self, stand):
        self.stand = stand

    def addresses(self, _number):
        """(raft as others know it, node as others know it, where it listens for each)."""
        return tuple(f"127.0.0.1:{free_port()}" for _ in range(4))

    def listen_address(self):
        """Of a gateway, without port."""
        return "127.0.0.1"

    def prefix(self, _name):
        """Words before a command, so that it runs where the part (n1; anything else: where clients are) belongs."""
        return []

    def make(self):
        """Before anything is started."""

    def front_argv(self):
        """Of a process that makes gateways reachable from outside; None when they are."""
        return None

    def enter(self):
        """From here on this process can reach nodes and gateways; new threads and children as well."""

    def leave(self):
        pass

    def proxy_argv(self, node):
        return [*self.prefix(node.name), sys.executable, str(PROXY), str(node.id), str(self.control(node.id)),
                f"{node.raft}={node.raft_listen}=raft", f"{node.address}={node.direct}=clients"]

    def control(self, number):
        return pathlib.Path(self.stand.path(f"net/n{number}.json"))

    def write(self, number, rules):
        generation = time.monotonic_ns()
        path = self.control(number)
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"generation": generation, "rules": rules}))
        new.rename(path)
        return generation

    def apply(self, rules):
        """All rules that shall hold from now on."""
        told = {}
        for node in self.stand.nodes:
            mine = [r for r in rules if node.id in (r["from"], r["to"])]
            told[node.id] = self.write(node.id, mine)
        end = time.monotonic() + PATIENCE_S
        for number, generation in told.items():
            ack = pathlib.Path(str(self.control(number)) + ".ack")
            proxy = self.stand.proxies[number - 1]
            while proxy.running() and int(ack.read_text() or 0 if ack.exists() else 0) < generation:
                if time.monotonic() > end:
                    raise AssertionError(f"{proxy.name} does not take its rules")
                time.sleep(0.005)


class Namespaces(Links):
    """Packets between nodes, too."""
    kind = "namespaces"

    def __init__(self, stand):
        super().__init__(stand)
        self.outside = None

    def name(self, part):
        return f"hf{self.stand.token}-{part}"

    def of(self, part):
        return self.name(part if part.startswith("n") and part[1:].isdigit() else "hub")

    def addresses(self, number):
        host = f"{SUBNET}.{number}"
        return f"{host}:7001", f"{host}:7101", "127.0.0.1:7002", f"{host}:7102"

    def prefix(self, name):
        return [program("nsenter"), f"--net=/run/netns/{self.of(name)}", "--"]

    def run(self, *words, within=None, text=None):
        argv = [program(words[0]), *words[1:]]
        if within is not None:
            argv = [program("nsenter"), f"--net=/run/netns/{self.name(within)}", "--", *argv]
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode != 0:
            raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")

    def make(self):
        self.run("ip", "netns", "add", self.name("hub"))
        self.run("ip", "link", "set", "lo", "up", within="hub")
        self.run("ip", "link", "add", "br0", "type", "bridge", within="hub")
        self.run("ip", "addr", "add", f"{SUBNET}.{HUB}/24", "dev", "br0", within="hub")
        self.run("ip", "link", "set", "br0", "up", within="hub")
        for node in self.stand.nodes:
            name = node.name
            self.run("ip", "netns", "add", self.name(name))
            self.run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns",
                     self.name(name), within="hub")
            self.run("ip", "link", "set", f"to-{name}", "master", "br0", "up", within="hub")
            self.run("ip", "link", "set", "lo", "up", within=name)
            self.run("ip", "addr", "add", f"{SUBNET}.{node.id}/24", "dev", "eth0", within=name)
            self.run("ip", "link", "set", "eth0", "up", within=name)

    def front_argv(self):
        hub = f"/run/netns/{self.name('hub')}"
        routes = [f"127.0.0.1:{port}=127.0.0.1:{port}={hub}" for g in self.stand.gateways for port in g.ports.values()]
        return [sys.executable, str(PROXY), "0", str(self.control(0)), *routes] if routes else None

    def enter(self):
        if self.outside is None:
            self.outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._set(f"/run/netns/{self.name('hub')}")

    def leave(self):
        if self.outside is not None:
            self._setns(self.outside)
            os.close(self.outside)
            self.outside = None

    def _set(self, path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._setns(fd)
        finally:
            os.close(fd)

    @staticmethod
    def _setns(fd):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def apply(self, rules):
        for node in self.stand.nodes:
            self.run("nft", "-f", "-", within=node.name, text=self.incoming(node.id, rules))
        self.run("nft", "-f", "-", within="hub", text=self.crossing(rules))
        super().apply([r for r in rules if not {"drop", "loss", "duplicate"} & set(r)])

    @staticmethod
    def incoming(number, rules):
        """A node's table: what does not come in."""
        lines = ["table ip hold {}", "delete table ip hold", "table ip hold {", "chain in {",
                 "type filter hook input priority 0;"]
        for r in rules:
            source = f"ip saddr {SUBNET}.{r['from'] or HUB}"
            if r["to"] == number and r.get("drop"):
                lines.append(f"{source} drop")
            elif r["to"] == number and "loss" in r:
                lines.append(f"{source} numgen random mod 1000 < {round(r['loss'] * 10)} drop")
        # What a node sends to the hub is not an input of any node.
        lines += ["}", "chain out {", "type filter hook output priority 0;"]
        for r in rules:
            if r["from"] == number and r["to"] == 0:
                chance = f"numgen random mod 1000 < {round(r['loss'] * 10)} " if "loss" in r else ""
                if chance or r.get("drop"):
                    lines.append(f"ip daddr {SUBNET}.{HUB} {chance}drop")
        return "\n".join(lines + ["}", "}"]) + "\n"

    def crossing(self, rules):
        """The hub's table: what passes twice."""
        lines = ["table netdev twice {}", "delete table netdev twice", "table netdev twice {"]
        for node in self.stand.nodes:
            mine = [r for r in rules if r["from"] == node.id and "duplicate" in r and r["to"] != 0]
            if mine:
                lines += [f"chain {node.name} {{", f'type filter hook ingress device "to-{node.name}" priority 0;']
                lines += [f"ip daddr {SUBNET}.{r['to']} numgen random mod 1000 < {round(r['duplicate'] * 10)} "
                          f'dup to "to-n{r["to"]}"' for r in mine]
                lines.append("}")
        return "\n".join(lines + ["}"]) + "\n"
