"""libfaultio.so does what its README says, on a process that opens, writes, syncs, reads and asks for space."""
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from faultio import Faults  # noqa: E402

CHILD = r"""
import errno, os, sys
path = sys.argv[1]
def attempt(name, call):
    try:
        value = call()
        print(name, "ok", value if isinstance(value, int) else "", flush=True)
    except OSError as e:
        print(name, errno.errorcode[e.errno], flush=True)
fd = os.open(path, os.O_RDWR | os.O_CREAT)
for line in sys.stdin:
    what = line.strip()
    if what == "write": attempt("write", lambda: os.pwrite(fd, b"x" * 4096, 0))
    elif what == "other": attempt("other", lambda: os.pwrite(fd, b"y" * 4096, 0))
    elif what == "writev": attempt("writev", lambda: os.pwritev(fd, [b"x" * 512, b"y" * 512], 0))
    elif what == "sync": attempt("sync", lambda: os.fdatasync(fd))
    elif what == "read": attempt("read", lambda: len(os.pread(fd, 4096, 0)))
    elif what == "allocate": attempt("allocate", lambda: os.posix_fallocate(fd, 0, 8192))
    elif what == "open": attempt("open", lambda: os.close(os.open(path, os.O_RDONLY)))
    elif what == "name": attempt("name", lambda: os.rename(path + ".a", path + ".b"))
    elif what == "space": attempt("space", lambda: (lambda s: s.f_bavail * s.f_frsize)(os.statvfs(os.path.dirname(path))))
"""


class Child:
    def __init__(self, faults, path):
        self.process = subprocess.Popen(["/usr/bin/python3", "-c", CHILD, path], text=True, bufsize=1,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**faults.environment})

    def tell(self, what):
        self.process.stdin.write(what + "\n")

    def hear(self):
        return self.process.stdout.readline().strip()

    def ask(self, what):
        self.tell(what)
        return self.hear()


def expect(got, wanted):
    assert got == wanted, f"{got!r}, expected {wanted!r}"


def main():
    with tempfile.TemporaryDirectory(prefix="holdfast-faultio-", dir="/var/tmp") as directory:
        faults = Faults(sys.argv[1], directory)
        path = directory + "/data"
        open(path + ".a", "w").close()
        child = Child(faults, path)
        try:
            run(faults, child, path)
        finally:
            child.process.stdin.close()
            child.process.wait(30)
    print("ok")


def run(faults, child, path):
    expect(child.ask("write"), "write ok 4096")
    for operation, rule, call in (("write", "write", "write"), ("write", "write", "writev"), ("sync", "sync", "sync"),
                                  ("read", "read", "read"), ("allocate", "allocate", "allocate"),
                                  ("open", "open", "open"), ("name", "name", "name")):
        faults.forget_hits()
        faults.set(f"{rule} *data* errno=EIO")
        expect(child.ask(call), f"{call} EIO")
        assert len(faults.hits(operation)) == 1, faults.hits()
        faults.set(f"{rule} */elsewhere errno=EIO")
        assert " ok" in child.ask(call), call
    faults.set("write *data errno=ENOSPC from=2 count=1", "space * free=1MiB", "write *data short=512 from=1")
    expect([child.ask("write") for _ in range(4)], ["write ok 512", "write ENOSPC", "write ok 512", "write ok 512"])
    expect(child.ask("space"), f"space ok {1 << 20}")
    faults.set("write *data errno=EIO probability=0")
    expect(child.ask("write"), "write ok 4096")

    # A held call ends when the rules change, not before; other calls of the process are not held.
    faults.forget_hits()
    faults.set("sync *data hold")
    child.tell("sync")
    faults.wait_hit("sync")
    answers = []
    listener = threading.Thread(target=lambda: answers.append(child.hear()))
    listener.start()
    time.sleep(0.1)
    assert not answers, "the call was not held"
    faults.clear()
    listener.join(30)
    expect(answers, ["sync ok"])
    faults.set("sync *data delay=50ms errno=EIO")
    begun = time.monotonic()
    expect(child.ask("sync"), "sync EIO")
    assert time.monotonic() - begun >= 0.05

    # A torn write is the last thing a process does.
    for rule, wanted in (("short=512 kill", b"y" * 512 + b"x" * 3584), ("late=1024 kill", b"x" * 3072 + b"y" * 1024),
                         ("errno=EIO kill", b"x" * 4096), ("kill", b"y" * 4096)):
        faults.clear()
        torn = Child(faults, path)
        expect(torn.ask("write"), "write ok 4096")
        faults.set(f"write *data {rule}")
        torn.tell("other")
        expect(torn.process.wait(30), -9)
        with open(path, "rb") as f:
            expect(f.read(4096), wanted)

    # A rule with a mistake ends the process: no test may pass because nothing failed.
    faults.set("wirte *data errno=EIO")
    child.tell("write")
    expect(child.process.wait(30), 99)


main()
