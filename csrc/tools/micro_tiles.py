"""Counts the instructions of the micro-tiles' loops, as a compiler makes them:

    python csrc/tools/micro_tiles.py neon                    # cross-compiles on x86-64
    python csrc/tools/micro_tiles.py avx2 --compiler clang

For each table and number of vectors: the tallest tile, the multiply-adds of its loop, all instructions of the
loop, and those that reach the stack.  The loop is the innermost one with the most multiply-adds.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from csrc import build  # noqa: E402  the path has to be set first

MULTIPLY_ADD = re.compile(r"vfn?m(add|sub)|fml[as]|bfdot|vdpbf16ps")
STACK = re.compile(r"\[sp\b|\(%r[sb]p\b")
BRANCH = re.compile(r"(?:b|b\.\w+|cbn?z|tbn?z|j\w+)\s.*?\b(?:0x)?([0-9a-f]+) <")


class Loop(NamedTuple):
    multiply_adds: int
    instructions: int
    on_stack: int


def loop_of(listing: str) -> Loop:
    """The innermost loop with the most multiply-adds in a function of `objdump -d --no-show-raw-insn`."""
    lines = [line.split(":\t", 1) for line in listing.splitlines() if ":\t" in line]
    code = [text for _, text in lines]
    index = {int(address, 16): i for i, (address, _) in enumerate(lines)}
    jumps = [(index.get(int(m[1], 16), len(code)), i) for i, text in enumerate(code) if (m := BRANCH.match(text))]
    backward = [(first, last) for first, last in jumps if first <= last]
    found = [Loop(0, 0, 0)]
    for first, last in backward:
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in backward):
            body = code[first : last + 1]
            counts = (sum(bool(pattern.search(text)) for text in body) for pattern in (MULTIPLY_ADD, STACK))
            multiply_adds, on_stack = counts
            found.append(Loop(multiply_adds, len(body), on_stack))
    return max(found, key=lambda loop: (loop.multiply_adds, -loop.instructions))


def functions_of(source: Path, compiler: str, objdump: str) -> dict[str, str]:
    """The listing of each function of a C file."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = f"{folder}/kernels.o"
        command = [compiler, *build._FLAGS, "-fPIC", f"-I{ROOT / 'csrc'}", "-c", str(source), "-o", compiled]
        subprocess.run(command, check=True)
        command = [objdump, "-d", "--no-show-raw-insn", compiled]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {m[1]: part for part in text.split("\n\n") if (m := re.match(r"\s*[0-9a-f]+ <(\w+)>:", part))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("isa", choices=sorted(path.parent.name for path in ROOT.glob("csrc/isa/*/f32.c")))
    parser.add_argument("--compiler", help="default: gcc, for neon GCC's cross-compiler")
    options = parser.parse_args()
    cross = "aarch64-linux-gnu-" if options.isa == "neon" and platform.machine() != "aarch64" else ""
    print("table  rows x vectors  multiply-adds  instructions  share  on the stack")
    for source in sorted(ROOT.glob(f"csrc/isa/{options.isa}/*.c")):
        functions = functions_of(source, options.compiler or f"{cross}gcc", f"{cross}objdump")
        tiles = [tuple(map(int, m.groups())) for name in functions if (m := re.match(r"multiply_(\d+)x(\d+)$", name))]
        for vectors in sorted({vectors for _, vectors in tiles}):
            rows = max(rows for rows, width in tiles if width == vectors)
            loop = loop_of(functions[f"multiply_{rows}x{vectors}"])
            share = loop.multiply_adds / loop.instructions if loop.instructions else 0
            shape = f"{rows} x {vectors}"
            print(
                f"{source.stem:5}  {shape:>14}  {loop.multiply_adds:13}  {loop.instructions:12}  {share:5.0%}"
                f"  {loop.on_stack:12}"
            )


if __name__ == "__main__":
    main()
