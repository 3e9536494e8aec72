"""The control file of libfaultclock.so (README.md), for tests in Python.

    clock = FaultClock(library, directory, "node-1")  # library: build/tests/faults/libfaultclock.so
    node.environment.update(clock.environment)        # before it is started
    clock.set(wall=3600000)                           # ms; while the process runs
    clock.set(monotonic_ppm=10000)                    # what is not named stays
"""
import os
import pathlib
import time


class FaultClock:
    def __init__(self, library, directory, name="clock", keep=False):
        """keep: what the file says stays."""
        library = pathlib.Path(library).resolve()
        assert library.exists(), f"{library} is not built"
        self.control = pathlib.Path(directory).resolve() / (name + ".clock")
        self.words = {"wall": 0, "wall_ppm": 0, "monotonic_ppm": 0}
        self.environment = {
            "LD_PRELOAD": str(library), "FAULTCLOCK_CONTROL": str(self.control),
            # A sanitizer's run time would insist on being loaded first.
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}
        if not (keep and self.control.exists()):
            self.set()

    def set(self, **words):
        unknown = set(words) - set(self.words)
        assert not unknown, unknown
        self.words.update(words)
        temporary = self.control.with_name(self.control.name + ".new")
        temporary.write_text(" ".join(f"{k}={v}" for k, v in self.words.items()) + "\n")
        temporary.rename(self.control)
        time.sleep(0.02)  # the process looks every few milliseconds
