"""Writes a file as a C array: embed.py INPUT OUTPUT NAME HEADER."""
import sys

source, target, name, header = sys.argv[1:]
with open(source, "rb") as f:
    data = f.read()
with open(target, "w", encoding="ascii") as f:
    f.write(f'#include "{header}"\n\nconst unsigned char {name}[] = {{')
    for i, byte in enumerate(data):
        f.write(("\n    " if i % 16 == 0 else " ") + f"{byte},")
    f.write(f"\n}};\nconst size_t {name}_size = sizeof {name};\n")
