"""Fuzzes `fastact.load` with atheris: a checkpoint's bytes, or its members packed with right checksums.

    python -m tests.coverage_guided.checkpoint [OPTION OF LIBFUZZER...] [CORPUS...]

Needs PyPI's atheris; `-max_total_time=SECONDS` ends the run.  A file may load, or raise ValueError that
begins with its path, and then the objects are as they were.  Another exception, more than 1 GiB of memory
or 10 seconds for an input end the run with a status other than 0, and leave the input in crash-*, oom-*
or timeout-*.
"""

from __future__ import annotations

import io
import sys
import tempfile
import zipfile
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["fastact.nn.checkpoint", "fastact.nn.npz", "zipfile"]):
    import fastact as fa
    import fastact.nn.checkpoint

# Pieces of zip archives and .npy headers.
TOKENS = [b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\7\x08", b"\1\0", b"\xff\xff\xff\xff"]
TOKENS += [
    b"\x93NUMPY",
    b"'descr': ",
    b"'fortran_order': ",
    b"'shape': ",
    b"'<f4'",
    b"'|O'",
    b"True",
    b"(",
    b",)",
]
TOKENS += [
    b"4611686018427387904",
    b"-1",
    b".npy",
    b"../",
    b'{"version": 1, "entries": [',
    b'"bit_generator": ',
]


def objects() -> dict:
    model = fa.Sequential(fa.Linear(3, 2, rng=0), fa.PReLU(2))
    return {"model": model, "optimizer": fa.SGD(model.parameters(), lr=1), "rng": np.random.default_rng(1)}


def bits(named: dict) -> str:
    rng = named["rng"].bit_generator.state
    return f"{rng} {named['model'].state_dict()} {named['optimizer'].state_dict()}"


def edited(data: atheris.FuzzedDataProvider, content: bytes) -> bytes:
    """`content` with some of its bytes replaced by tokens or by bytes of the input."""
    for _ in range(data.ConsumeIntInRange(0, 3)):
        start = data.ConsumeIntInRange(0, len(content))
        end = min(len(content), start + data.ConsumeIntInRange(0, 12))
        new = data.PickValueInList(TOKENS) if data.ConsumeBool() else data.ConsumeBytes(8)
        content = content[:start] + new + content[end:]
    return content


def repacked(data: atheris.FuzzedDataProvider, whole: bytes) -> bytes:
    """The members of the archive `whole`, some of them edited, lost, doubled or renamed."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(made, "w") as new:
        for info in old.infolist():
            for _ in range(data.PickValueInList([1, 1, 1, 1, 1, 1, 0, 2])):
                name, content = info.filename, old.read(info)
                if data.ConsumeIntInRange(0, 7) == 0:
                    name += data.ConsumeUnicodeNoSurrogates(6)
                if data.ConsumeBool():
                    content = edited(data, content)
                method = zipfile.ZIP_DEFLATED if data.ConsumeBool() else zipfile.ZIP_STORED
                new.writestr(name, content, method)
    return made.getvalue()


def main() -> None:
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "run.npz"
    fa.save(path, **objects())
    whole = path.read_bytes()
    into = objects()
    before = bits(into)

    def test_one_input(given: bytes) -> None:
        nonlocal into
        data = atheris.FuzzedDataProvider(given)
        make = data.ConsumeIntInRange(0, 3)
        if make == 0:
            content = data.ConsumeBytes(sys.maxsize)
        else:
            content = edited(data, whole) if make == 1 else repacked(data, whole)
        path.write_bytes(content)
        try:
            fa.load(path)
            fa.load(path, **into)
        except ValueError as error:
            if not str(error).startswith(f"{path}: "):
                raise
            if bits(into) != before:
                raise AssertionError("a load that failed has changed an object") from error
        else:
            into = objects()

    limits = ["-rss_limit_mb=1024", "-timeout=10", "-max_len=1024", "-len_control=0"]
    atheris.Setup([sys.argv[0], *limits, *sys.argv[1:]], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")  # zipfile's on doubled names, the parser's on headers
    main()
