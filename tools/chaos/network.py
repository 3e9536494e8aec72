"""The network between the nodes of a cluster, through which each message passes and may not.

    net = Network(cluster)                # before the nodes start: members' Raft addresses become the proxies'
    net.cut({1}, {2, 3})                  # nothing from node 1 to 2 and 3 any more; nothing is closed
    net.isolate(1)                        # both ways
    net.delay_s = 0.05                    # each way, each message
    net.heal()

A cut swallows: connections stay open and silent, as with a cable that was pulled. What comes to a node comes
through its own proxy, which reads from the first bytes of a connection (proto/link_handshake.h) who calls.
"""
import queue
import socket
import struct
import threading
import time

from processes import free_port


class Network:
    def __init__(self, cluster):
        self.delay_s = 0.0
        self.silent = set()  # (from id, to id)
        for node in cluster.nodes:
            port = free_port()
            listener = socket.create_server(("127.0.0.1", 0))
            node.options += ["--listen-raft", f"127.0.0.1:{port}"]
            node.raft = f"127.0.0.1:{listener.getsockname()[1]}"
            threading.Thread(target=self._accept, args=(listener, node.id, port), daemon=True).start()

    def cut(self, senders, receivers):
        self.silent |= {(a, b) for a in senders for b in receivers if a != b}

    def isolate(self, node_id, others=(1, 2, 3, 4, 5)):
        self.cut({node_id}, others)
        self.cut(others, {node_id})

    def heal(self):
        """What was swallowed is missing from the middle of its stream, so those connections end."""
        self.silent = set()

    def _accept(self, listener, to_id, port):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=self._connection, args=(client, to_id, port), daemon=True).start()

    def _connection(self, client, to_id, port):
        try:
            hello = b""
            while len(hello) < 24:
                data = client.recv(24 - len(hello))
                if not data:
                    return client.close()
                hello += data
            from_id = struct.unpack_from("<Q", hello, 16)[0]
            server = socket.create_connection(("127.0.0.1", port), 5)
            server.settimeout(None)
            server.sendall(hello) if (from_id, to_id) not in self.silent else None
        except OSError:
            return client.close()
        for source, sink, way in ((client, server, (from_id, to_id)), (server, client, (to_id, from_id))):
            waiting = queue.Queue()
            threading.Thread(target=self._read, args=(source, way, waiting), daemon=True).start()
            threading.Thread(target=self._write, args=(source, sink, way, waiting), daemon=True).start()
        return None

    def _read(self, source, way, waiting):
        swallowed = False
        try:
            while data := source.recv(1 << 16):
                if way in self.silent:
                    swallowed = True
                elif swallowed:
                    break  # healed, but a piece is missing
                else:
                    waiting.put((time.monotonic() + self.delay_s, data))
        except OSError:
            pass
        waiting.put((0, b""))

    def _write(self, source, sink, way, waiting):
        try:
            while True:
                due, data = waiting.get()
                if not data:
                    break
                time.sleep(max(0, due - time.monotonic()))
                if way not in self.silent:
                    sink.sendall(data)
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
