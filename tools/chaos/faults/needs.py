"""What faults need, and whether it is here."""
import glob
import os
import shutil

SBIN = ["/usr/local/sbin", "/usr/sbin", "/sbin"]


def program(name):
    """Its path, also when sbin is not in PATH; None when it is not installed."""
    return shutil.which(name) or shutil.which(name, path=":".join(SBIN))


def _root(stand):
    return None if os.geteuid() == 0 else "needs root"


def _nft(stand):
    return _root(stand) or (None if program("nft") else "needs nft (Debian: nftables)")


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
    if reason is None and not os.path.exists("/dev/loop-control"):
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
