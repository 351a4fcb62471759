"""Times spaCy's default pipelines on Thinc's layers and on fastact's: `python -m bench.spacy_pipelines`.

One process, one thread.  Three pipelines that start alike train on, and then annotate, the same synthetic
documents, round by round in turn, so that a drifting clock or a busy neighbour meets all.  The default tagger
is `nlp.add_pipe("tagger")` with all its defaults: HashEmbedCNN, width 96, depth 4, 3 pieces; so are the NER
and the parser.  "shared" is tagger, parser and NER with one tok2vec.

Thinc runs twice: with the BLIS of its wheel, its default, and with NumPy's BLAS (`NumpyOps(use_blis=False)`).
fastact is `accelerate(nlp)` alone, called after `nlp.initialize`.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from importlib.metadata import version
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from threadpoolctl import threadpool_limits

from fastact.cli.arguments import positive

from . import machine, records, spacy_corpus, threads
from .spacy_corpus import BATCH_WORDS, CONTENDERS
from .timing import summarise

TASKS = ("train", "predict")


def measure(name: str, words: int, rounds: int, console: Console) -> dict[str, Any]:
    """Microseconds a word of each contender, and Thinc's over fastact's time, round by round."""
    corpus = spacy_corpus.sentences(words, random.Random(0))
    pipelines = {contender: spacy_corpus.build(contender, name, corpus) for contender in CONTENDERS}
    seconds: dict[str, dict[str, list[float]]]
    seconds = {task: {contender: [] for contender in CONTENDERS} for task in TASKS}
    # auto_refresh: its thread would disturb the measurement
    with Progress(console=console, auto_refresh=False) as progress:
        bar = progress.add_task(name, total=rounds)
        for number in range(-1, rounds):  # round -1 warms up and is not counted
            for task, times in seconds.items():
                first = number % len(CONTENDERS)
                for contender in CONTENDERS[first:] + CONTENDERS[:first]:
                    pipelines[contender].use_ops()
                    run = pipelines[contender].task(task)
                    gc.collect()
                    started = time.perf_counter()
                    run()
                    if number >= 0:
                        times[contender].append((time.perf_counter() - started) / words)
            progress.update(bar, completed=number + 1, refresh=True)
    return {
        task: {
            "microseconds_per_word": {
                contender: summarise(values, 1)._asdict() for contender, values in times.items()
            },
            "speedup_over": {
                contender: float(np.median(np.divide(times[contender], times["fastact"])).round(3))
                for contender in CONTENDERS[:-1]
            },
        }
        for task, times in seconds.items()
    }


def show(name: str, result: dict[str, Any]) -> None:
    for task, figures in result.items():
        for contender, sample in figures["microseconds_per_word"].items():
            speedup = figures["speedup_over"].get(contender)
            note = "" if speedup is None else f"  fastact {speedup:.2f}x"
            print(f"{name:<7} {task:<8} {contender:<17} {sample['p50']:6.1f} us a word{note}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.spacy_pipelines", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--words", type=positive, default=8000, help="in the corpus (%(default)s)")
    parser.add_argument(
        "--rounds", type=positive, default=11, help="of each contender, in turn (%(default)s)"
    )
    spacy_corpus.add_pipelines(parser)
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("spacy", "words", "results"))

    from fastact import backends, settings

    threads.pin(1)
    neighbours = machine.Neighbours()
    results = {}
    with settings.num_threads(1), threadpool_limits(1):
        for name in options.pipelines:
            results[name] = measure(name, options.words, options.rounds, Console(stderr=True))
            show(name, results[name])
    share = neighbours.share()
    machine.warn(share, "meanwhile")
    fields = {
        "spacy": version("spacy"),
        "backend": backends.get_backend(),
        "neighbours": share,
        "words": options.words,
        "batch_words": BATCH_WORDS,
        "results": results,
    }
    records.save(options.out, fields)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
