"""What a stand leaves behind when whoever made it was killed, and how to get rid of all of it.

What it owns: the list of stands of this user (one file each in home()), and the end of everything a stand made:
stopped and running processes, frozen and mounted file systems, loop devices, network namespaces, shared memory of a
PostgreSQL that was killed, the directory. What it refuses: anything that does not carry the stand's mark. The mark is
a random token: in the environment of each process, in the names of namespaces; mounts and loop devices are inside the
directory; PostgreSQL, which writes over its environment, is known by its working directory.

Happy path: register before anything is made → sweep() at the end. Failure modes: killed anywhere in between: sweep()
by whoever comes next (sweep_abandoned() by every command) finds all by the mark, not by what was written down last.
sweep() may be interrupted and run again; it raises when something stays.
"""
import ctypes
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

from faults.needs import program
from processes import start_time

MARK = "HOLDFAST_CHAOS_STAND"  # an environment variable: the token
FREEZE, THAW = 0xC0045877, 0xC0045878  # FIFREEZE, FITHAW
IPC_RMID = 0


def home():
    """Where this user's stands are listed, and live unless told otherwise. Others may pass, not read: PostgreSQL
    runs as another user when we are root."""
    path = pathlib.Path("/tmp") / f"holdfast-chaos.{os.getuid()}"
    path.mkdir(mode=0o711, exist_ok=True)
    found = path.lstat()
    if not path.is_dir() or path.is_symlink() or found.st_uid != os.getuid():
        raise PermissionError(f"{path} is not a directory of this user")
    return path


def _entry(token):
    return home() / f"{token}.stand"


def register(directory, token, keep):
    """keep: it outlives its maker. Otherwise it is abandoned as soon as this process is gone."""
    row = {"directory": str(directory), "token": token, "keep": keep, "owner": [os.getpid(), start_time(os.getpid())]}
    new = _entry(token).with_suffix(".new")
    new.write_text(json.dumps(row))
    new.rename(_entry(token))


def stands():
    """Rows as written by register, and "abandoned": whether its owner is gone and nobody wants it."""
    rows = []
    for path in sorted(home().glob("*.stand")):
        try:
            row = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        pid, started = row["owner"]
        row["abandoned"] = not row["keep"] and start_time(pid) != started
        rows.append(row)
    return rows


def token_of(directory):
    """Of the stand in this directory; None when there is none."""
    try:
        return (pathlib.Path(directory) / "token").read_text().strip() or None
    except OSError:
        return None


# ---- what belongs to a stand ----

def processes(token, directory):
    """Pids. Ours is never among them."""
    mark, inside, found = f"{MARK}={token}".encode(), str(directory) + "/", []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as f:
                ours = mark in f.read().split(b"\0")
            if not ours and os.path.basename(os.readlink(f"/proc/{name}/exe")) == "postgres":
                ours = os.readlink(f"/proc/{name}/cwd").startswith(inside)
        except OSError:
            continue  # gone, or another user's
        if ours and start_time(int(name)) is not None:
            found.append(int(name))
    return found


def mounts(directory):
    """Mount points at or below the directory, the deepest first."""
    found = []
    with open("/proc/self/mounts", encoding="utf-8") as f:
        for line in f:
            point = line.split(" ")[1].encode().decode("unicode_escape")
            if point == str(directory) or point.startswith(str(directory) + "/"):
                found.append(point)
    return sorted(found, key=len, reverse=True)


def loop_devices(directory):
    """Devices backed by a file in the directory."""
    found = []
    for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if path.read_text().startswith(str(directory) + "/"):
                found.append("/dev/" + path.parts[3])
        except OSError:
            continue
    return found


def namespaces(token):
    folder = pathlib.Path("/run/netns")
    return sorted(p.name for p in folder.glob(f"hf{token}-*")) if folder.is_dir() else []


def postmasters(directory):
    """(pid, key, id) of the shared memory that each postmaster.pid at or below here names."""
    for path in pathlib.Path(directory).rglob("postmaster.pid"):
        try:
            lines = path.read_text().splitlines()
            key, ident = lines[6].split()
            yield int(lines[0]), int(key), int(ident)
        except (OSError, ValueError, IndexError):
            continue


# ---- the end of it ----

def freeze(point, request):
    """FREEZE or THAW a mounted file system; nothing when it is so already."""
    fd = os.open(point, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, request, 0)
    except OSError:
        if request == FREEZE:
            raise
    finally:
        os.close(fd)


def unmount(point):
    for attempt in range(50):
        done = subprocess.run(["umount", point], capture_output=True, text=True, check=False)
        if done.returncode == 0 or not os.path.ismount(point):
            return
        time.sleep(0.1)
    raise OSError(f"cannot unmount {point}: {done.stderr.strip()}")


def end_processes(token, directory, patience_s=30):
    """SIGKILL, also to what is stopped, until there is none left."""
    end, count = time.monotonic() + patience_s, 0
    while True:
        pids = processes(token, directory)
        if not pids:
            return count
        count = max(count, len(pids))
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)  # where it is our child
            except (ProcessLookupError, ChildProcessError):
                pass
        if time.monotonic() > end:
            raise OSError(f"these processes do not end: {pids}")
        time.sleep(0.02)


def remove_shared_memory(rows):
    """Of postmasters that ended."""
    libc = ctypes.CDLL(None)
    with open("/proc/sysvipc/shm", encoding="ascii") as f:
        there = {(int(w[0]), int(w[1]), int(w[4])) for w in (line.split() for line in list(f)[1:])}
    return sum(libc.shmctl(ident, IPC_RMID, None) == 0 for pid, key, ident in rows if (key, ident, pid) in there)


def sweep(directory, keep_files=False):
    """Ends and removes all of the stand in this directory; {what: how many}. Nothing when there is none."""
    directory = pathlib.Path(directory).resolve()
    token = token_of(directory)
    if token is None:
        return {}
    done = {}
    for point in mounts(directory):
        freeze(point, THAW)  # first: nothing on a frozen file system can end
    memory = list(postmasters(directory / "pg"))
    done["processes"] = end_processes(token, directory)
    done["shared memory"] = remove_shared_memory(memory)
    done["namespaces"] = 0
    for name in namespaces(token):
        subprocess.run([program("ip"), "netns", "del", name], check=True, capture_output=True)
        done["namespaces"] += 1
    points, done["mounts"], done["loop devices"] = mounts(directory), 0, 0
    for point in points:
        unmount(point)
        done["mounts"] += 1
    for device in loop_devices(directory):  # those that did not go with their mount
        subprocess.run([program("losetup"), "-d", device], check=False, capture_output=True)
        done["loop devices"] += 1
    if not keep_files:
        shutil.rmtree(directory)
        done["directory"] = str(directory)
    _entry(token).unlink(missing_ok=True)
    return done


def sweep_abandoned():
    """Every stand of this user whose owner was killed; [(directory, what was removed)]."""
    swept = []
    for row in stands():
        if row["abandoned"]:
            if token_of(row["directory"]) == row["token"]:
                swept.append((row["directory"], sweep(row["directory"])))
            elif token_of(row["directory"]) is None:
                try:
                    os.rmdir(row["directory"])  # killed before anything was in it
                except OSError:
                    pass
            _entry(row["token"]).unlink(missing_ok=True)
    return swept
