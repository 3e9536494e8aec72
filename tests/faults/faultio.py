"""The control file of libfaultio.so (README.md), for tests in Python.

    faults = Faults(library, directory)            # library: build/tests/faults/libfaultio.so
    node.environment.update(faults.environment)    # before it is started
    faults.set("write */log/*.wal errno=EIO")      # replaces all rules, while the process runs
    faults.wait_hit("write")                       # until a call was hit
    faults.clear()                                 # all is well again; held calls go on
"""
import os
import pathlib
import time


class Faults:
    def __init__(self, library, directory, name="faults", keep=False):
        """keep: rules that are there already stay."""
        library = pathlib.Path(library).resolve()
        assert library.exists(), f"{library} is not built"
        self.control = pathlib.Path(directory).resolve() / name
        self.hits_file = self.control.with_name(name + ".hits")
        self.environment = {
            "LD_PRELOAD": str(library), "FAULTIO_CONTROL": str(self.control),
            # A sanitizer's run time would insist on being loaded first.
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}
        if not (keep and self.control.exists()):
            self.clear()

    def set(self, *rules):
        """Rules of the README, one a string. Their counters begin anew."""
        temporary = self.control.with_name(self.control.name + ".new")
        temporary.write_text("".join(rule + "\n" for rule in rules))
        temporary.rename(self.control)
        # The process looks every few milliseconds: what is called after this returns is under the new rules.
        time.sleep(0.02)

    def clear(self):
        self.set()

    def hits(self, operation=None):
        """[(pid, operation, path)] so far."""
        if not self.hits_file.exists():
            return []
        rows = [line.split(" ", 2) for line in self.hits_file.read_text().splitlines()]
        return [(int(p), op, path) for p, op, path in rows if operation in (None, op)]

    def forget_hits(self):
        self.hits_file.unlink(missing_ok=True)

    def wait_hit(self, operation=None, patience=30):
        end = time.monotonic() + patience
        while not self.hits(operation):
            assert time.monotonic() < end, f"no {operation or 'call'} was hit within {patience} s"
            time.sleep(0.02)
