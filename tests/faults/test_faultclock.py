"""libfaultclock.so does what its README says: test_faultclock.py LIBRARY"""
import contextlib
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

import faultclock

LIBRARY = sys.argv.pop(1)
# Tells its clocks for each line it reads.
CHILD = "import sys, time\nfor _ in sys.stdin: print(time.time_ns(), time.monotonic_ns(), flush=True)"


class TheClock(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.clock = faultclock.FaultClock(LIBRARY, self.directory.name)
        self.child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True, env=self.clock.environment)

    def tearDown(self):
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.close()
        self.child.wait(20)
        self.child.stdout.close()
        self.child.stderr.close()
        self.directory.cleanup()

    def errors(self):
        """(least, most) by which its (wall, monotonic) clock can be ahead of ours, in ms."""
        before = time.time_ns(), time.monotonic_ns()
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        told = [int(word) for word in self.child.stdout.readline().split()]
        after = time.time_ns(), time.monotonic_ns()
        return [((t - a) / 1e6, (t - b) / 1e6) for t, a, b in zip(told, after, before)]

    def assert_error(self, span, expected):
        self.assertLessEqual(span[0] - 1, expected)
        self.assertGreaterEqual(span[1] + 1, expected)

    def test_true_without_a_word(self):
        wall, monotonic = self.errors()
        self.assert_error(wall, 0)
        self.assert_error(monotonic, 0)

    def test_the_wall_clock_jumps_and_nothing_else(self):
        for off in 3600000, -3600000, 0:
            self.clock.set(wall=off)
            wall, monotonic = self.errors()
            self.assert_error(wall, off)
            self.assert_error(monotonic, 0)

    def test_rates(self):
        self.clock.set(monotonic_ppm=100000)
        self.errors()  # now it has looked
        begun = time.monotonic()
        _, at_first = self.errors()
        time.sleep(0.5)
        wall, monotonic = self.errors()
        ended = time.monotonic()
        self.assert_error(wall, 0)
        self.assertGreater(monotonic[1] - at_first[0], 0.1 * 500 - 1)
        self.assertLess(monotonic[0] - at_first[1], 0.1 * (ended - begun) * 1000 + 1)
        self.clock.set(monotonic_ppm=0)  # it keeps what it gained
        _, kept = self.errors()
        self.assertGreaterEqual(kept[1] + 1, monotonic[0])

    def test_a_word_that_is_none(self):
        self.clock.control.write_text("wal=3\n")
        with contextlib.suppress(BrokenPipeError):  # it may have looked at its clock already
            for _ in range(3):
                self.child.stdin.write("\n")
                self.child.stdin.flush()
                time.sleep(0.02)
        self.assertEqual(self.child.wait(20), 99)


if __name__ == "__main__":
    assert pathlib.Path(LIBRARY).exists()
    unittest.main()
