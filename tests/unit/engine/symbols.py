#!/usr/bin/env python3
"""What the engine's objects may import: nothing that could ask for time, chance, files or threads.

Usage: symbols.py LIBENGINE_A      Prints each other symbol; exits 1 if there is one.
"""
import re
import subprocess
import sys

ALLOWED = {
    # memory and bytes
    "memcpy", "memset", "memcmp", "bcmp", "memmove", "strlen",
    # laying out the state (memory.c), blocks that come before the root block (load.c)
    "mmap", "mmap64", "munmap", "madvise", "malloc", "free",
    # bugs end the process
    "check_failed",
    # the text of what engine_check found
    "vsnprintf",
    # proto/ and base/: pure as well
    "command_decode", "batch_open", "batch_next", "result_code",
    "order_id_make", "order_id_index", "order_id_shard", "shard_of_user",
}
# What compilers add: stack protector, checked copies, position-independent code, sanitizers.
COMPILER = re.compile(r"^(__stack_chk_fail|__(mem|vsnprintf|str)\w*_chk|_GLOBAL_OFFSET_TABLE_|__(asan|ubsan|tsan|sanitizer|gcov)_\w+"
                      r"|__llvm\w*)$")


def main():
    out = subprocess.run(["nm", "-A", sys.argv[1]], capture_output=True, text=True, check=True).stdout
    defined, wanted = set(), {}
    for line in out.splitlines():
        place, _, rest = line.rpartition(":")
        fields = rest.split()
        kind, name = fields[-2], fields[-1]
        if kind == "U":
            wanted.setdefault(name, place.split(":")[-1])
        else:
            defined.add(name)
    bad = sorted(n for n in wanted if n not in defined and n not in ALLOWED and not COMPILER.match(n))
    for name in bad:
        print(f"{wanted[name]}: imports {name}")
    print(f"{len(wanted)} symbols, {len(bad)} not allowed")
    return 1 if bad or not defined else 0


if __name__ == "__main__":
    sys.exit(main())
