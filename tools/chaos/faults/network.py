"""Faults of the network between nodes, and between clients (node 0: gateways, tools) and nodes.

Over TCP a lost or doubled message is not to be had from outside: a stream is whole and in order, or it ends. What
stands for it, without root: `reset` (half of a frame arrives, then both ends are reset; the sender connects and sends
again: lost and repeated messages, reconnect storms) and `stall` (all that was sent arrives late, at once). With
network namespaces packets are really lost (`loss`) and really arrive twice (`duplicate`), below TCP, which mends it at
the price of time.
"""
from . import NODE_TARGETS, Fault, Param, kind

CLIENTS = Param("clients", str, "no", "gateways and tools are cut off as well, as when the host's cable is pulled",
                ("no", "yes"))


class LinkFault(Fault):
    """Puts rules (links.py) for some ways between nodes."""

    def act(self):
        self.data["links"] = [{"from": a, "to": b, **self.rule()} for a, b in self.ways()]
        self.save()
        self.stand.apply()

    def undo(self):
        self.stand.apply(but=self)

    def numbers(self):
        return [int(name[1:]) for name in self.victims]

    def everyone(self):
        return [n.id for n in self.stand.nodes] + ([0] if self.values.get("clients") == "yes" else [])

    def between(self):
        """All ways that have a victim at one end."""
        mine, everyone = self.numbers(), self.everyone()
        return sorted({(a, b) for a in mine for b in everyone if a != b} | {(b, a) for a in mine for b in everyone if a != b})

    def ways(self):
        return self.between()

    def rule(self):
        raise NotImplementedError


@kind
class Partition(LinkFault):
    kind = "partition"
    doc = ("Nothing passes between parts of the cluster; connections stay open and silent. A cut-off leader is replaced "
           "and steps down.")
    params = (Param("shape", str, "isolate",
                    "isolate: the victims from all others; majority-ring: each node sees a majority, no two the same "
                    "(5 nodes; with 3 one link is cut); bridge: two halves that only the victim reaches; "
                    "deaf: the victims hear nothing; mute: nobody hears them",
                    ("isolate", "majority-ring", "bridge", "deaf", "mute")), CLIENTS)

    def rule(self):
        return {"drop": True} if self.stand.network_kind == "namespaces" else {"cut": True}

    def ways(self):
        mine, everyone = set(self.numbers()), self.everyone()
        rest = [n for n in everyone if n not in mine]
        out, into = [(a, b) for a in mine for b in rest], [(b, a) for a in mine for b in rest]
        if self.shape == "isolate":
            return sorted(out + into)
        if self.shape == "deaf":
            return sorted(into)
        if self.shape == "mute":
            return sorted(out)
        nodes = [n.id for n in self.stand.nodes]
        if self.shape == "bridge":
            bridge = min(mine)
            others = [n for n in nodes if n != bridge]
            self.stand.random.shuffle(others)
            half = set(others[:len(others) // 2])
            return sorted((a, b) for a in others for b in others if (a in half) != (b in half))
        self.stand.random.shuffle(nodes)  # majority-ring
        count, near = len(nodes), len(nodes) // 4 if len(nodes) > 3 else 0
        if not near:
            return [(nodes[0], nodes[1]), (nodes[1], nodes[0])]
        return sorted((nodes[i], nodes[j]) for i in range(count) for j in range(count)
                      if i != j and min((i - j) % count, (j - i) % count) > near)


@kind
class Delay(LinkFault):
    kind = "delay"
    doc = "Each message takes longer, each way. Orders take a round trip longer; no change of leader while it is short."
    targets = ("network", *NODE_TARGETS)
    params = (Param("delay_ms", int, 50, "each way"), Param("jitter_ms", int, 0, "up to so much more, at random"), CLIENTS)

    def rule(self):
        return {"delay_ms": self.delay_ms, "jitter_ms": self.jitter_ms}


@kind
class Slow(LinkFault):
    kind = "slow-link"
    doc = "So many bytes pass in a second, each way."
    targets = ("network", *NODE_TARGETS)
    params = (Param("rate", int, 20000, "bytes in a second"), CLIENTS)

    def rule(self):
        return {"rate": self.rate}


@kind
class Stall(LinkFault):
    kind = "stall"
    doc = ("What is sent is kept, and arrives all at once at the end: messages of an old term, late. Meanwhile as a "
           "partition.")
    params = (CLIENTS,)

    def rule(self):
        return {"hold": True}


@kind
class Reset(LinkFault):
    kind = "reset"
    doc = ("Connections end in the middle of a frame, again and again: half of it has arrived. Messages are lost and "
           "sent again on a new connection. Stands for loss and duplicates.")
    targets = ("network", *NODE_TARGETS)
    params = (Param("every_ms", int, 500, "each connection, about"), CLIENTS)

    def rule(self):
        return {"reset_every_ms": self.every_ms}


@kind
class Loss(LinkFault):
    kind = "loss"
    doc = "So many packets in a hundred do not arrive (nft). TCP sends them again: slow, uneven, no hole in a stream."
    targets = ("network", *NODE_TARGETS)
    needs = ("namespaces",)
    params = (Param("percent", float, 10, "of packets, each way"), CLIENTS)

    def rule(self):
        return {"loss": self.percent}


@kind
class Duplicate(LinkFault):
    kind = "duplicate"
    doc = "So many packets in a hundred arrive twice (nft dup). TCP drops the second: a test of the kernel more than of us."
    targets = ("network", *NODE_TARGETS)
    needs = ("namespaces",)
    params = (Param("percent", float, 10, "of packets between nodes, each way"),)

    def rule(self):
        return {"duplicate": self.percent}
