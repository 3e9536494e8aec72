"""A file system of its own for each node of a stand (root): a file, a loop device, ext4. It can really be full,
really hang, and really lose what was not synced.

What it owns: DIR/disks/nN.img and the mount DIR/node-N. What it refuses: any other mount. Failure modes: OSError with
what the program said; leftovers.sweep() removes what is there.
"""
import fcntl
import os
import struct
import subprocess

import leftovers
from faults.needs import program

SHUTDOWN, NO_LOG_FLUSH = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN: the journal is not written out, as when power is lost


def _run(*words):
    done = subprocess.run([program(words[0]), *words[1:]], capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


class Disk:
    def __init__(self, image, point, size_mib):
        self.image, self.point, self.size_mib = image, point, size_mib

    def make(self):
        os.makedirs(os.path.dirname(self.image), exist_ok=True)
        os.makedirs(self.point, exist_ok=True)
        with open(self.image, "wb") as f:
            f.truncate(self.size_mib << 20)
        _run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", self.image)
        self.mount()

    def mounted(self):
        return os.path.ismount(self.point)

    def mount(self):
        if not self.mounted():
            _run("mount", "-t", "ext4", "-o", "loop", self.image, self.point)

    def unmount(self):
        if self.mounted():
            leftovers.unmount(self.point)

    def freeze(self):
        """From here on whoever writes waits, and cannot be killed."""
        leftovers.freeze(self.point, leftovers.FREEZE)

    def thaw(self):
        if self.mounted():
            leftovers.freeze(self.point, leftovers.THAW)

    def lose_power(self):
        """From here on nothing reaches the disk, and every call fails: what was not synced is gone. Mend with
        unmount() and mount(), when nobody uses it any more."""
        fd = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def fill(self):
        """Until not one block is left."""
        with open(os.path.join(self.point, "filler"), "ab", buffering=0) as f:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        f.write(bytes(size))
                except OSError:
                    pass

    def empty(self):
        try:
            os.unlink(os.path.join(self.point, "filler"))
        except FileNotFoundError:
            pass
