#!/usr/bin/env python3
"""What comes to one node, through which each byte passes and may not: a process of its own, told by a file what to do.

    proxy.py NODE_ID CONTROL LISTEN=TARGET=raft|clients|NETNS …       addresses HOST:PORT

NETNS (a path, the last word of the last route): listens where it was started, connects from that network namespace.

What it owns: the listening sockets, the connections through them. What it refuses: to make up, change or repeat bytes:
a stream of TCP is in order and whole, or it ends.

Happy path: a connection comes → its first 24 bytes (proto/link_handshake.h) say which node calls, clients are node
0 → bytes pass both ways under the rules of CONTROL, which is looked at every LOOK_S; CONTROL.ack has the generation
that is in force. A rule is for bytes from one node to another:

    {"from": 1, "to": 2, "cut": true}              swallowed; what passed a hole ends when the cut is over
    {"from": 1, "to": 2, "hold": true}             kept, and passed on when the hold is over
    {"from": 1, "to": 2, "delay_ms": 50, "jitter_ms": 10}
    {"from": 1, "to": 2, "rate": 20000}            bytes in a second
    {"from": 1, "to": 2, "reset_every_ms": 500}    half of what is at hand passes, then both ends are reset

Several rules for one way: all hold. Failure modes: the node does not listen: the caller's connection is reset, as it
would be without us. CONTROL is not there or not JSON: the last rules stay.
"""
import asyncio
import ctypes
import json
import os
import random
import socket
import struct
import sys

LOOK_S = 0.01
CHUNK = 1 << 16
CLONE_NEWNET = 0x40000000
HELD_MAX = 64 << 20  # bytes kept for one way of one connection; then we stop reading, as a full socket would


class Rules:
    def __init__(self, path):
        self.path, self.stamp, self.rules = path, None, []
        self.changed = asyncio.Event()
        self.look()

    def look(self):
        try:
            found = os.stat(self.path)
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp == self.stamp:
                return
            with open(self.path, encoding="utf-8") as f:
                said = json.load(f)
        except (OSError, ValueError):
            return
        self.stamp, self.rules = stamp, said["rules"]
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()
        with open(self.path + ".ack.new", "w", encoding="utf-8") as f:
            f.write(str(said["generation"]))
        os.rename(self.path + ".ack.new", self.path + ".ack")

    def of(self, source, sink, what, default=None):
        """Values of this word for this way, or the default."""
        values = [r[what] for r in self.rules if r["from"] == source and r["to"] == sink and what in r]
        return values or default

    async def watch(self):
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()


class Pipe:
    """One way of one connection."""

    def __init__(self, rules, way, reader, writer, end):
        self.rules, self.way, self.reader, self.writer, self.end = rules, way, reader, writer, end
        self.waiting = asyncio.Queue()
        self.kept = 0
        self.hole = False

    def is_on(self, what):
        return self.rules.of(*self.way, what) is not None

    async def take(self):
        loop = asyncio.get_running_loop()
        try:
            while data := await self.reader.read(CHUNK):
                if self.is_on("cut"):
                    self.hole = True
                    continue
                if self.hole:
                    break
                delay = sum(self.rules.of(*self.way, "delay_ms", []))
                delay += sum(random.uniform(0, j) for j in self.rules.of(*self.way, "jitter_ms", []))
                self.kept += len(data)
                await self.waiting.put((loop.time() + delay / 1000, data))
                while self.kept > HELD_MAX:
                    await asyncio.sleep(LOOK_S)
        except OSError:
            pass
        await self.waiting.put((0, b""))

    async def give(self):
        loop = asyncio.get_running_loop()
        opened = loop.time()
        try:
            while True:
                due, data = await self.waiting.get()
                if not data:
                    break
                await asyncio.sleep(max(0, due - loop.time()))
                while self.is_on("hold"):
                    await self.rules.changed.wait()
                if self.is_on("cut"):
                    self.hole = True
                elif not self.hole:
                    every = self.rules.of(*self.way, "reset_every_ms")
                    if every and loop.time() - opened > random.uniform(0.5, 1.5) * min(every) / 1000:
                        self.writer.write(data[:(len(data) + 1) // 2])
                        await self.writer.drain()
                        return self.end(reset=True)
                    await self.write(data)
                self.kept -= len(data)
        except OSError:
            pass
        return self.end()

    async def write(self, data):
        while data:
            rate = self.rules.of(*self.way, "rate")
            piece = data if not rate else data[:max(1, int(min(rate) * 0.02))]
            self.writer.write(piece)
            await self.writer.drain()
            data = data[len(piece):]
            if rate:
                await asyncio.sleep(len(piece) / min(rate))


class Proxy:
    def __init__(self, node, rules):
        self.node, self.rules = node, rules
        self.tasks = set()

    def spawn(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def connection(self, reader, writer, target, kind):
        hello, source = b"", 0
        try:
            if kind == "raft":
                hello = await asyncio.wait_for(reader.readexactly(24), 10)
                source = struct.unpack_from("<Q", hello, 16)[0]
            host, _, port = target.rpartition(":")
            server_reader, server_writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 5)
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
            return self.close(writer, reset=True)
        for w in (writer, server_writer):
            w.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ended = False

        def end(reset=False):
            nonlocal ended
            if not ended:
                ended = True
                self.close(writer, reset)
                self.close(server_writer, reset)

        come = Pipe(self.rules, (source, self.node), reader, server_writer, end)
        go = Pipe(self.rules, (self.node, source), server_reader, writer, end)
        if hello:
            come.kept = len(hello)
            await come.waiting.put((0.001, hello))
        for pipe in (come, go):
            self.spawn(pipe.take())
            self.spawn(pipe.give())
        self.spawn(self.holes(come, go, end))
        return None

    async def holes(self, come, go, end):
        """A cut that is over: what was swallowed is missing from the middle of its stream, so it ends."""
        while not come.writer.is_closing():
            await self.rules.changed.wait()
            if any(p.hole and not p.is_on("cut") for p in (come, go)):
                return end()
        return None

    @staticmethod
    def close(writer, reset=False):
        if reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()


def enter(path):
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"cannot enter {path}")
    os.close(fd)


async def main(node, control, *routes):
    rules = Rules(control)
    proxy = Proxy(int(node), rules)
    for route in routes:
        listen, target, kind = route.split("=")
        host, _, port = listen.rpartition(":")
        await asyncio.start_server(lambda r, w, t=target, k=kind: proxy.connection(r, w, t, k), host, int(port))
    if kind.startswith("/"):
        enter(kind)
    print("listening", file=sys.stderr, flush=True)
    await rules.watch()


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
