#!/usr/bin/env python3
"""What is written from the command table works where it is used: bash completes with the script, the man
pages are roff without warnings, fish and zsh scripts parse where those shells are installed.

Usage: test_ctl_pages.py HOLDFASTCTL MAN_DIRECTORY
"""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

CTL, MAN = os.path.abspath(sys.argv[1]), sys.argv[2]


def ctl(*arguments):
    return subprocess.run([CTL, *arguments], capture_output=True, text=True, check=True, timeout=60).stdout


class Completion(unittest.TestCase):
    def complete(self, *words):
        """The candidates for the last word."""
        quoted = " ".join("'" + w + "'" for w in ("holdfastctl", *words))
        script = (ctl("completion", "bash") + f"\nCOMP_WORDS=({quoted})\nCOMP_CWORD={len(words)}\n"
                  "_holdfastctl\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n")
        done = subprocess.run(["bash", "-u", "-c", script], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return set(done.stdout.split())

    def test_commands(self):
        self.assertLessEqual({"sale", "sku", "demo", "audit", "status"}, self.complete(""))
        self.assertEqual(self.complete("sa"), {"sale"})
        self.assertEqual(self.complete("sale", ""), {"put", "get", "list", "pause", "resume", "close"})
        self.assertEqual(self.complete("sale", "p"), {"put", "pause"})

    def test_options(self):
        self.assertEqual(self.complete("sale", "put", "x", "--opens", "now", "--clo"), {"--closes"})
        self.assertIn("--expected-version", self.complete("sale", "put", "--"))
        self.assertIn("--confirm", self.complete("sale", "close", "x", "--"))
        self.assertNotIn("--confirm", self.complete("sale", "pause", "x", "--"))
        self.assertIn("--postgres-url", self.complete("audit", "--"))

    def test_choices(self):
        self.assertEqual(self.complete("sku", "list", "--output", ""), {"table", "json", "plain"})
        self.assertEqual(self.complete("sku", "list", "-o", "j"), {"json"})
        self.assertEqual(self.complete("order", "list", "--status", "p"), {"pending_payment", "paid"})
        self.assertEqual(self.complete("completion", "z"), {"zsh"})

    def test_other_shells(self):
        for shell in ("zsh", "fish"):
            script = ctl("completion", shell)
            self.assertIn("pause", script)
            if shutil.which(shell):
                with tempfile.NamedTemporaryFile("w", suffix="." + shell) as f:
                    f.write(script)
                    f.flush()
                    subprocess.run([shell, "-n", f.name], check=True, timeout=60)


class ManPages(unittest.TestCase):
    def test_no_warnings(self):
        pages = sorted(glob.glob(os.path.join(MAN, "holdfastctl*.1")))
        self.assertGreater(len(pages), 10)
        if not shutil.which("groff"):
            self.skipTest("no groff")
        for page in pages:
            done = subprocess.run(["groff", "-man", "-ww", "-z", "-Kutf8", page], capture_output=True, text=True,
                                  timeout=60)
            self.assertEqual((done.returncode, done.stderr), (0, ""), page)


class Help(unittest.TestCase):
    def test_examples_come_first(self):
        for topic in ("--help", "sale put --help", "audit --help", "help demo up"):
            text = ctl(*topic.split())
            self.assertLess(text.index("Examples:"), text.index("Usage:"))

    def test_nothing_is_wider_than_a_page(self):
        for line in ctl("--help").splitlines():
            self.assertLess(len(line), 140, line)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
