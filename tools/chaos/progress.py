"""What is shown while something runs: one line, written over at a terminal; else a plain line now and then.

    progress = Progress("leader-killed")          # a terminal or not is found out by itself
    progress.show(phase="faults", t=12.3, active=["kill n1"], rate=412, open_=3, leader="n2")
    progress.say("n1 is dead already: left out")   # stays
    progress.close()

Goes to standard error: standard output is for results. Any thread may call.
"""
import os
import shutil
import sys
import threading
import time

PLAIN_EVERY_S = 5.0
LINE_EVERY_S = 0.2


class Progress:
    def __init__(self, name, stream=None, terminal=None, quiet=False, clock=time.monotonic):
        self.name, self.stream, self.quiet, self.clock = name, stream or sys.stderr, quiet, clock
        self.terminal = (self.stream.isatty() and os.environ.get("TERM") != "dumb") if terminal is None else terminal
        self.lock = threading.Lock()
        self.last = None    # when a line was written
        self.phase = None
        self.open = False   # a line stands that will be written over

    def show(self, phase, t, active=(), rate=None, open_=0, leader=None):
        if self.quiet:
            return
        with self.lock:
            now = self.clock()
            every = LINE_EVERY_S if self.terminal else PLAIN_EVERY_S
            if self.last is not None and now - self.last < every and phase == self.phase:
                return
            self.last, self.phase = now, phase
            words = [f"{self.name}  {t:6.1f} s  {phase:8}"]
            if rate is not None:
                words.append(f"{rate:5.0f} ok/s  {open_:2} open")
            words.append(f"leader {leader or '-'}")
            words.append("faults: " + (", ".join(active) or "none"))
            self._write("  ".join(words))

    def say(self, text):
        """A line of its own."""
        if self.quiet:
            return
        with self.lock:
            if self.open:
                self.stream.write("\r\x1b[K")
                self.open = False
            self.stream.write(f"{self.name}  {text}\n")
            self.stream.flush()
            self.last = None

    def close(self):
        with self.lock:
            if self.open:
                self.stream.write("\n")
                self.stream.flush()
                self.open = False

    def _write(self, text):
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            self.stream.write("\r\x1b[K" + (text if len(text) <= width else text[:width - 1] + "…"))
            self.open = True
        else:
            self.stream.write(text + "\n")
        self.stream.flush()
