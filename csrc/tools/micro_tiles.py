"""Counts the instructions of the micro-tiles' loops, as GCC compiles them:

    python -m csrc.tools.micro_tiles neon    # on x86-64 with gcc-aarch64-linux-gnu

One line for each table of the ISA and number of vectors, for its tallest tile: the multiply-adds of the loop,
all its instructions, the share of the first in the second, and the instructions that reach the stack.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from csrc import build

CSRC = Path(__file__).resolve().parents[1]
MULTIPLY_ADD = re.compile(r"fmla|bfdot|vfmadd|vdpbf16ps")
STACK = re.compile(r"\[sp\b|\(%r[sb]p\b")
JUMP = re.compile(r"(?:j|b\b|cb|tb).*?\b([0-9a-f]+) <")


class Loop(NamedTuple):
    multiply_adds: int
    instructions: int
    on_stack: int


def inner_loop(listing: str) -> Loop:
    """The innermost loop with the most multiply-adds of a function, the shortest of several.

    listing: what `objdump -d --no-show-raw-insn` prints of the function.
    """
    lines = [line.split(":\t") for line in listing.splitlines() if ":\t" in line]
    place = {int(address, 16): i for i, (address, _) in enumerate(lines)}
    code = [text for _, text in lines]
    jumps = [(place.get(int(jump[1], 16)), i) for i, text in enumerate(code) if (jump := JUMP.match(text))]
    loops = [(first, last) for first, last in jumps if first is not None and first <= last]
    found = []
    for first, last in loops:
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in loops):
            body = code[first : last + 1]
            multiply_adds, on_stack = (
                sum(bool(kind.search(text)) for text in body) for kind in (MULTIPLY_ADD, STACK)
            )
            found.append(Loop(multiply_adds, len(body), on_stack))
    return max(found, key=lambda loop: (loop.multiply_adds, -loop.instructions))


def micro_tiles(source: Path, prefix: str) -> dict[tuple[int, int], str]:
    """The listing of each micro-tile of a file, by its (vectors, rows); prefix: of GCC's tools."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = f"{folder}/kernels.o"
        flags = [*build._FLAGS, "-fPIC", f"-I{CSRC}"]
        subprocess.run([f"{prefix}gcc", *flags, "-c", str(source), "-o", compiled], check=True)
        command = [f"{prefix}objdump", "-d", "--no-show-raw-insn", compiled]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = [(re.search(r"<multiply_(\d+)x(\d+)>:", part), part) for part in text.split("\n\n")]
    return {(int(name[2]), int(name[1])): part for name, part in names if name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("isa", choices=sorted(path.parent.name for path in CSRC.glob("isa/*/f32.c")))
    isa = parser.parse_args().isa
    prefix = "aarch64-linux-gnu-" if isa == "neon" and platform.machine() != "aarch64" else ""
    print("table  rows x vectors  multiply-adds  instructions  share  on the stack")
    for source in sorted(CSRC.glob(f"isa/{isa}/*.c")):
        tallest = {
            vectors: (rows, text) for (vectors, rows), text in sorted(micro_tiles(source, prefix).items())
        }
        for vectors, (rows, text) in tallest.items():
            loop = inner_loop(text)
            share = loop.multiply_adds / loop.instructions
            print(
                f"{source.stem:5}  {rows:>10} x {vectors}  {loop.multiply_adds:13}  {loop.instructions:12}"
                f"  {share:5.0%}  {loop.on_stack:12}"
            )


if __name__ == "__main__":
    main()
