#!/usr/bin/env python3
"""No function or variable is defined in two of our static libraries: the linker would take either without a
word, and one caller would call the other's.

Usage: duplicate_symbols.py LIBRARY...     Prints each name with its libraries; exits 1 if there is one.
"""
import subprocess
import sys


def main():
    defined = {}
    for library in sys.argv[1:]:
        out = subprocess.run(["nm", "-g", "--defined-only", library], capture_output=True, text=True, check=True).stdout
        for line in out.splitlines():
            words = line.split()
            if len(words) == 3:
                defined.setdefault(words[2], []).append(library)
    twice = {name: libraries for name, libraries in defined.items() if len(libraries) > 1}
    for name, libraries in sorted(twice.items()):
        print(f"{name}: {' '.join(libraries)}")
    print(f"{len(defined)} names, {len(twice)} defined twice")
    return 1 if twice else 0


if __name__ == "__main__":
    sys.exit(main())
