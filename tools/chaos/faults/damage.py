"""Bits that flip in what a stopped node has stored. It must refuse to start; heal rebuilds it from the others."""
import glob
import os
import shutil
import struct

from . import Fault, Param, kind

BLOCK, SALT_AT, WRITE_MAGIC = 4096, 56, b"WHFW"


def flip(path, offset, bit):
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 1 << bit]))


def used(path):
    """How many bytes of it matter: of a segment not the last write, which is the mark of a clean stop."""
    with open(path, "rb") as f:
        data = f.read()
    if not path.endswith(".wal"):
        return len(data)
    # A recycled segment has writes of an earlier life behind its own; their salt is another (raft/wal_format.h).
    salt, at, last = data[SALT_AT:SALT_AT + 8], BLOCK, BLOCK
    while data[at:at + 4] == WRITE_MAGIC and data[at + 8:at + 16] == salt:
        last, at = at, at + -(-struct.unpack_from("<I", data, at + 24)[0] // BLOCK) * BLOCK
    return last


def newest_segment(node):
    return max(p for p in glob.glob(os.path.join(node.dir, "log", "0*.wal")))


def checkpoint_data(node):
    with open(os.path.join(node.dir, "checkpoint", "CURRENT"), encoding="ascii") as f:
        return os.path.join(node.dir, "checkpoint", f.read().strip(), "data.mdb")


@kind
class BitFlip(Fault):
    kind = "bit-flip"
    doc = ("The node is stopped, bits flip in a file, it is started: it must refuse, with file and offset, exit status 1 "
           "(data.outcome: refused, or harmless when the bits were of no use). Heal: holdfastctl node rebuild; it refills.")
    targets = ("any", "leader", "follower", "nID")
    alone = True
    params = (Param("file", str, "log", "log: the newest segment; checkpoint: LMDB's file, a bit in each page that is used; "
                    "current: CURRENT; identity", ("log", "checkpoint", "current", "identity")),)

    def act(self):
        node = self.stand.parts(self.victims)[0]
        node.stop()
        self.data["flipped"] = self.flips(node)
        self.save()  # before it is done: heal must know
        for path, offset, bit in self.data["flipped"]:
            flip(path, offset, bit)
        node.start()
        process = node.process
        self.stand.wait("the node to refuse, or to run", lambda: not node.running() or node.status() is not None)
        if node.running():
            self.data["outcome"] = "harmless"
            return
        process.reader.join(10)
        code = process.child.wait()
        said = [line for line in process.lines if " error " in line]
        self.data["outcome"] = f"refused: status {code}: {said[-1] if said else '(nothing said)'}"

    def flips(self, node):
        """[(path, offset, bit)]"""
        chance = self.stand.random
        if self.file == "checkpoint":
            path = checkpoint_data(node)
            # The bounds of what is used in a page: bits in the gap between would be of no use.
            return [(path, page + chance.randrange(12, 16), chance.randrange(8))
                    for page in range(2 * BLOCK, used(path), BLOCK)]
        path = {"log": lambda: newest_segment(node), "current": lambda: os.path.join(node.dir, "checkpoint", "CURRENT"),
                "identity": lambda: os.path.join(node.dir, "identity")}[self.file]()
        return [(path, chance.randrange(used(path)), chance.randrange(8))]

    def undo(self):
        node = self.stand.parts(self.victims)[0]
        if node.running():
            node.stop()
        if not os.path.isdir(node.dir):
            return
        if self.stand.ctl("node", "verify", node.dir, check=False).returncode != 0:
            self.stand.ctl("node", "rebuild", node.dir, "--yes")
            for aside in glob.glob(node.dir + ".damaged-*"):
                shutil.rmtree(aside)
        node.start()
