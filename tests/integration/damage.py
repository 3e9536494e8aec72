#!/usr/bin/env python3
"""Damage to a stopped node of a running cluster: the start is refused with a message, `node verify` says why,
`node rebuild` puts the directory aside, the node refills, and its state is that of the others. Orders go on all
the while, and none that was acknowledged is lost.

    tests/integration/damage.py BUILD [log | newest | data | current]...
"""
import pathlib
import sys

import harness  # noqa: F401
from cluster import Cluster, Load


def segments(node):
    return sorted(p for p in pathlib.Path(node.dir, "log").glob("*.wal") if not p.name.startswith("spare-"))


def flip(path, offset):
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)
        f.seek(offset)
        f.write(bytes([byte[0] ^ 0x10]))


def hurt_log(node):
    """One bit in the middle of the log. Returns what the messages must say."""
    path = segments(node)[-1]
    flip(path, 6 * 4096 + 40)
    return path.name, "offset 24576"


def hurt_newest(node):
    """All files of the log are gone."""
    for path in segments(node):
        path.unlink()
    return "log", "missing"


def hurt_data(node):
    """A page of the checkpoint that is in use: the root page of one of its trees, or a leaf."""
    path = next(pathlib.Path(node.dir, "checkpoint").glob("gen-*/data.mdb"))
    size = path.stat().st_size
    for page in range(2, size // 4096):
        flip(path, page * 4096 + 12)  # the bounds of what is used in it
    return "data.mdb", "offset"


def hurt_current(node):
    path = pathlib.Path(node.dir, "checkpoint", "CURRENT")
    path.write_text("gen-0000")
    return "CURRENT", "offset 0"


CASES = {"log": hurt_log, "newest": hurt_newest, "data": hurt_data, "current": hurt_current}


def damaged_and_rebuilt(cluster, load, node, hurt):
    assert node.stop() == 0
    assert cluster.ctl("node", "verify", node.dir).returncode == 0
    assert cluster.ctl("log", "inspect", node.dir).returncode == 0
    name, place = hurt(node)

    verified = cluster.ctl("node", "verify", node.dir, check=False)
    assert verified.returncode == 1, verified
    assert name in verified.stdout and place in verified.stdout and "node rebuild" in verified.stdout, verified.stdout
    if name.endswith(".wal"):
        inspected = cluster.ctl("log", "inspect", node.dir, "--entries", check=False)
        assert inspected.returncode == 1 and name in inspected.stdout and "damage" in inspected.stdout, inspected

    # Started nevertheless, three times: refused each time, and nothing is changed.
    for _ in range(3):
        node.start()
        assert node.process.child.wait(60) == 1
        node.process.reader.join(60)
        said = "\n".join(node.process.lines)
        assert name in said and place in said and "holdfastctl node rebuild" in said, said
    load.wait_for(20)  # the others go on

    running = cluster.ctl("node", "rebuild", cluster.node(1).dir, "--yes", check=False)
    assert running.returncode == 4 and "uses this directory" in running.stderr, running
    assert cluster.ctl("node", "rebuild", node.dir, check=False).returncode != 0  # nobody confirmed
    rebuilt = cluster.ctl("node", "rebuild", node.dir, "--yes")
    aside = [p for p in pathlib.Path(node.dir).parent.glob(pathlib.Path(node.dir).name + ".damaged-*")
             if not p.name.endswith("-kept")]
    assert len(aside) == 1 and str(aside[0]) in rebuilt.stdout, (aside, rebuilt.stdout)
    aside[0].rename(str(aside[0]) + "-kept")  # so that the next case counts its own

    node.start("--new-cluster")  # ignored: the directory knows that it refills
    node.process.wait_for("refilling: no votes")
    node.process.wait_for("the log is whole")
    cluster.wait_ready()
    assert len(set(cluster.digests().values())) == 1, cluster.digests()


def main():
    build, names = sys.argv[1], sys.argv[2:] or list(CASES)
    options = ["--checkpoint-interval", "200ms", "--checkpoint-entries", "100", "--trailing-entries", "512",
               "--segment-size", "1MiB"]
    with Cluster(build, nodes=3, node_options=options) as c:
        c.shop("S", "A", units=1000000)
        with Load(c, "S", "A", threads=3) as load:
            for name in names:
                load.wait_for(60)
                damaged_and_rebuilt(c, load, c.node(3), CASES[name])
                print(f"ok {name}", flush=True)
        load.check()
    return 0


if __name__ == "__main__":
    sys.exit(main())
