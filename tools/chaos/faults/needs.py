"""What faults need, and whether it is here."""
import functools
import glob
import os
import shutil
import subprocess

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21
SBIN = ["/usr/local/sbin", "/usr/sbin", "/sbin"]


def program(name):
    """Its path, also when sbin is not in PATH; None when it is not installed."""
    return shutil.which(name) or shutil.which(name, path=":".join(SBIN))


@functools.cache
def _capabilities():
    with open("/proc/self/status", encoding="ascii") as f:
        return int(next(line for line in f if line.startswith("CapEff:")).split()[1], 16)


@functools.cache
def _works(*words):
    """Whether this command ends well: a container's root may be refused what its capabilities promise."""
    done = subprocess.run([program(words[0]) or words[0], *words[1:]], capture_output=True, check=False, timeout=20)
    return done.returncode == 0


def _root(stand):
    if os.geteuid() != 0:
        return "needs root"
    wanted = 1 << CAP_SYS_ADMIN | 1 << CAP_NET_ADMIN
    return None if _capabilities() & wanted == wanted else "needs root with CAP_SYS_ADMIN and CAP_NET_ADMIN"


def _nft(stand):
    reason = _root(stand) or (None if program("nft") else "needs nft (Debian: nftables)")
    if reason is None and not _works("unshare", "--net", program("nft"), "add", "table", "ip", "probe"):
        reason = "needs a kernel with network namespaces and nf_tables"
    return reason


def _namespaces(stand):
    reason = _nft(stand) or (None if program("ip") else "needs ip (Debian: iproute2)")
    if reason is None and stand is not None and stand.network_kind != "namespaces":
        reason = "the stand was not made with network namespaces"
    return reason


def _proxy(stand):
    if stand is not None and stand.network_kind != "proxy":
        return "the stand's network is not the proxy's"
    return None


def _own_disk(stand):
    reason = _root(stand)
    for name in ("mkfs.ext4", "losetup", "mount", "fsfreeze"):
        if reason is None and not program(name):
            reason = f"needs {name} (Debian: e2fsprogs, util-linux, mount)"
    if reason is None and not (os.path.exists("/dev/loop-control") and _works("losetup", "-f")):
        reason = "needs loop devices"
    if reason is None and stand is not None and not stand.own_disks:
        reason = "the stand's nodes have no file systems of their own"
    return reason


def _library(name):
    def check(stand):
        if stand is not None and not os.path.exists(stand.library(name)):
            return f"needs tests/faults/lib{name}.so in the build directory"
        return "the stand's nodes run without it" if stand is not None and not stand.preloaded else None
    return check


def _postgres(stand):
    if not glob.glob("/usr/lib/postgresql/*/bin/postgres"):
        return "needs PostgreSQL's programs"
    return "the stand has no PostgreSQL" if stand is not None and stand.postgres is None else None


def _standby(stand):
    reason = _postgres(stand)
    if reason is None and stand is not None and not stand.postgres.with_standby:
        reason = "the stand's PostgreSQL has no standby"
    return reason


def _gateway(stand):
    return "the stand has no gateway" if stand is not None and not stand.gateways else None


def _failpoints(stand):
    return None if stand is not None and stand.failpoints else "needs programs built with -Dfailpoints=true"


CHECKS = {"failpoints": _failpoints, "root": _root, "nft": _nft, "namespaces": _namespaces, "proxy": _proxy,
          "own-disk": _own_disk,
          "faultio": _library("faultio"), "faultclock": _library("faultclock"), "postgres": _postgres,
          "standby": _standby, "gateway": _gateway}


def missing(needs, stand):
    """None, or the first reason why these needs are not met. stand None: on this machine, with any stand."""
    for need in needs:
        reason = CHECKS[need](stand)
        if reason:
            return reason
    return None
