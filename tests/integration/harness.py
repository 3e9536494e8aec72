"""Puts the harness of real processes (tools/chaos) and the faulty disk and clock (tests/faults) where a test
imports them from: `import harness  # noqa: F401` first."""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools/chaos"), str(ROOT / "tests/faults")]
