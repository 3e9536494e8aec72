"""The link and node protocol spoken from Python: a client of a node's port, and a tap that writes down what
passes between two programs. For tests that need what no correct program sends, or bytes as they are.

proto/link.h and proto/node.proto say what this does. Standard library only.
"""
import hashlib
import os
import socket
import struct
import threading

MAGIC = 0x4B4C4648
HELLO_SIZE, MAC_SIZE = 72, 32
SERVICE_RAFT, SERVICE_NODE = 1, 2
NO_CLUSTER = bytes(16)


def _table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


_CRC = _table()


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


class Link:
    """A client's end. versions: what it claims to speak. server_versions: what the hello of the other side said."""

    def __init__(self, port, key, service=SERVICE_NODE, node_id=0, cluster_id=NO_CLUSTER, versions=(1, 1), timeout=30):
        self.buffer = b""
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        hello = struct.pack("<IHHIIQ16s32s", MAGIC, *versions, service, 0, node_id, cluster_id, os.urandom(32))
        self.socket.sendall(hello)
        reply = self._take(HELLO_SIZE + MAC_SIZE)
        self.server_versions = struct.unpack_from("<HH", reply, 4)
        chosen = struct.unpack_from("<I", reply, 12)[0]
        assert self._mac(key, b"holdfast link 1 server", hello, reply[:HELLO_SIZE]) == reply[HELLO_SIZE:], "not the key"
        if chosen == 0:
            raise ConnectionRefusedError(f"the other side speaks versions {self.server_versions}")
        self.socket.sendall(self._mac(key, b"holdfast link 1 client", hello, reply[:HELLO_SIZE]))

    @staticmethod
    def _mac(key, label, client, server):
        return hashlib.blake2b(label.ljust(24, b"\0") + client + server, digest_size=MAC_SIZE, key=key).digest()

    def _take(self, size):
        while len(self.buffer) < size:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError("the other side closed the link")
            self.buffer += data
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def send(self, payload):
        self.socket.sendall(struct.pack("<II", len(payload), crc32c(payload)) + payload + bytes(-len(payload) % 8))

    def receive(self):
        size, crc = struct.unpack("<II", self._take(8))
        payload = self._take(size + -size % 8)[:size]
        assert crc32c(payload) == crc
        return payload

    def ask(self, number, body=b"", **head):
        """A request whose body is field `number`; the response as {field: value or list of values}."""
        self.send(message({1: 1, **{FIELDS[k]: v for k, v in head.items()}, number: body}))
        return fields(self.receive())

    def close(self):
        self.socket.close()


FIELDS = {"timeout_ms": 3, "consistency": 4, "min_index": 5}


def varint(n):
    out = b""
    while n > 0x7F:
        out, n = out + bytes([n & 0x7F | 0x80]), n >> 7
    return out + bytes([n])


def message(values):
    """Protobuf of {field: int or bytes}."""
    out = b""
    for number, value in values.items():
        out += varint(number << 3) + varint(value) if isinstance(value, int) else \
            varint(number << 3 | 2) + varint(len(value)) + value
    return out


def fields(data):
    """{field: value}, a field that repeats has a list; ints and bytes."""
    out, at = {}, 0

    def take():
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return n
    while at < len(data):
        tag = take()
        if tag & 7 == 0:
            value = take()
        elif tag & 7 == 2:
            size = take()
            value, at = data[at:at + size], at + size
        else:
            raise ValueError(f"wire type {tag & 7}")
        old = out.get(tag >> 3)
        out[tag >> 3] = value if old is None else [*old, value] if isinstance(old, list) else [old, value]
    return out


class Tap:
    """Listens on a port of its own and passes everything on to `target`; frames are written down:
    self.frames holds (from_client, payload). The handshake passes untouched."""

    def __init__(self, target):
        self.target = target
        self.frames = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 10)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            for source, sink, from_client in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass, args=(source, sink, from_client), daemon=True).start()

    def _pass(self, source, sink, from_client):
        data, skip = b"", HELLO_SIZE + MAC_SIZE  # both sides send as many bytes before their first frame
        try:
            while True:
                got = source.recv(65536)
                if not got:
                    break
                sink.sendall(got)
                data += got
                data, skip = (data[skip:], 0) if len(data) >= skip else (data, skip)
                while skip == 0 and len(data) >= 8:
                    size = struct.unpack_from("<I", data)[0]
                    whole = 8 + size + -size % 8
                    if len(data) < whole:
                        break
                    with self.lock:
                        self.frames.append((from_client, data[8:8 + size]))
                    data = data[whole:]
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
