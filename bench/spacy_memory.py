"""Peak memory of an update of spaCy's default tagger on one long document: `python -m bench.spacy_memory`.

Each figure comes from a fresh process, which trains on a short document first, so that the optimiser's and
the libraries' own arrays are there already.  Then the kernel's mark of the highest resident size (VmHWM of
/proc/self/status, reset through /proc/self/clear_refs) is taken after one update and after one prediction,
less the resident size before it.  Linux alone has it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from fastact.cli.arguments import positive

from . import records, spacy_corpus, threads
from .spacy_corpus import CONTENDERS

MIB = 1 << 20
# glibc then returns each large array that is freed, so that nothing serves twice unseen
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(128 << 10)}


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) << 10
    raise OSError(f"/proc/self/status: no field {field}")


def peak_of(call: Callable[[], Any]) -> int:
    """By how many bytes the resident size exceeds its present one at the most while `call` runs."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM becomes the present size
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def document(tokens: int) -> list[spacy_corpus.Sentence]:
    """One document of that many tokens, with tags."""
    parts = spacy_corpus.sentences(tokens, random.Random(0))
    words = [word for part, _ in parts for word in part]
    return [(words, {"tags": [tag for _, gold in parts for tag in gold["tags"]]})]


def here(contender: str, tokens: int) -> dict[str, int]:
    """The peaks in this process."""
    # short sentences with all the tags there are
    pipeline = spacy_corpus.build(contender, "tagger", spacy_corpus.sentences(2000, random.Random(0)))
    short = pipeline._replace(examples=pipeline.examples[:1])
    long = pipeline._replace(examples=spacy_corpus.examples_of(pipeline.nlp, document(tokens)))
    for task in ("predict", "train"):
        short.task(task)()
    return {"predict": peak_of(long.task("predict")), "update": peak_of(long.train)}


def elsewhere(contender: str, tokens: int) -> dict[str, int]:
    """The peaks in a fresh process."""
    command = [sys.executable, "-m", "bench.spacy_memory", "--here", contender, "--tokens", str(tokens)]
    done = threads.run_process(command, capture_output=True, env=threads.process_environment(1) | MALLOC)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.spacy_memory",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--tokens", type=positive, nargs="+", default=[1000, 100_000], help="of the document (1000 100000)"
    )
    parser.add_argument("--here", choices=CONTENDERS, help=argparse.SUPPRESS)  # what a fresh process gets
    records.add_out(parser)
    options = parser.parse_args(arguments)
    if options.here:
        print(json.dumps(here(options.here, *options.tokens)))
        return 0
    records.check_option(parser, options.out, ("spacy", "peaks"))
    peaks: dict[str, dict[str, Any]] = {}
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("processes", total=len(options.tokens) * len(CONTENDERS))
        for tokens in options.tokens:
            of = peaks[str(tokens)] = {contender: {} for contender in CONTENDERS}
            for contender in CONTENDERS:
                of[contender] = elsewhere(contender, tokens)
                progress.advance(bar)
    for length, of in peaks.items():
        for contender, found in of.items():
            figures = "".join(
                f"  {task} {size / MIB:8.1f} MiB, {size // int(length)} bytes a token"
                for task, size in found.items()
            )
            print(f"{length:>7} tokens  {contender:<17}{figures}")
    records.save(options.out, {"spacy": version("spacy"), "peaks": peaks})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
