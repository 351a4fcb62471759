"""Times spaCy's default tagger on Thinc's maxout layers and on fastact's: `python -m bench.spacy_tagger`.

One process, one thread.  Three pipelines that start alike train on, and then tag, the same synthetic
documents, round by round in turn, so that a drifting clock or a busy neighbour meets all.  The tagger is
`nlp.add_pipe("tagger")` with all its defaults: HashEmbedCNN, width 96, depth 4, 3 pieces.

Thinc runs twice: with the BLIS of its wheel, its default, and with NumPy's BLAS (`NumpyOps(use_blis=False)`).
On a CPU that this BLIS does not know, BLIS falls back to generic kernels (`BLIS_ARCH_DEBUG=1` prints which).
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from threadpoolctl import threadpool_limits

from fastact.cli.arguments import positive

from . import records, threads
from .timing import summarise

BATCH_WORDS = 1000  # largest batch of spaCy's default training config
VOCABULARY = 5000
DROPOUT = 0.1  # the default of the training config


def sentences(words: int, rng: random.Random) -> list[tuple[list[str], list[str]]]:
    """Words and tags of sentences of 5 to 40 words, `words` in all, few of them frequent as in a language."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(VOCABULARY)]
    found = []
    while words > 0:
        length = min(rng.randint(5, 40), words)
        ranks = [min(int(rng.paretovariate(0.7)), VOCABULARY) - 1 for _ in range(length)]
        found.append(([vocabulary[rank] for rank in ranks], [f"T{rank % 17}" for rank in ranks]))
        words -= length
    return found


def batches(examples: list[Any]) -> list[list[Any]]:
    """Consecutive examples in batches of at least BATCH_WORDS words, except the last."""
    result: list[list[Any]] = [[]]
    for example in examples:
        if sum(len(e) for e in result[-1]) >= BATCH_WORDS:
            result.append([])
        result[-1].append(example)
    return result


CONTENDERS = ("thinc_blis", "thinc_numpy_blas", "fastact")


def build(contender: str, corpus: list[tuple[list[str], list[str]]]) -> dict[str, Callable[[], None]]:
    """The two timed functions of one pipeline: a pass of training over the corpus, and tagging it."""
    import spacy
    from spacy.tokens import Doc
    from spacy.training import Example
    from thinc.api import NumpyOps, fix_random_seed, set_current_ops

    from fastact.thinc import accelerate

    # A model keeps the Ops that it was made with.
    set_current_ops(NumpyOps(use_blis=contender != "thinc_numpy_blas"))
    fix_random_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("tagger")
    examples = [Example.from_dict(Doc(nlp.vocab, words=words), {"tags": tags}) for words, tags in corpus]
    optimizer = nlp.initialize(lambda: examples)
    if contender == "fastact":
        accelerate(nlp)
    docs = [Doc(nlp.vocab, words=words) for words, _ in corpus]

    def train() -> None:
        for batch in batches(examples):
            nlp.update(batch, sgd=optimizer, drop=DROPOUT)

    def predict() -> None:
        for _ in nlp.pipe(docs):
            pass

    return {"train": train, "predict": predict}


def measure(words: int, rounds: int, console: Console) -> dict[str, Any]:
    """Microseconds a word of each pipeline, and Thinc's over fastact's time, round by round."""
    corpus = sentences(words, random.Random(0))
    pipelines = {name: build(name, corpus) for name in CONTENDERS}
    seconds: dict[str, dict[str, list[float]]]
    seconds = {task: {name: [] for name in CONTENDERS} for task in ("train", "predict")}
    # auto_refresh: its thread would disturb the measurement
    with Progress(console=console, auto_refresh=False) as progress:
        bar = progress.add_task("rounds", total=rounds)
        for number in range(-1, rounds):  # round -1 warms up and is not counted
            for task, times in seconds.items():
                first = number % len(CONTENDERS)
                for name in CONTENDERS[first:] + CONTENDERS[:first]:
                    gc.collect()
                    started = time.perf_counter()
                    pipelines[name][task]()
                    if number >= 0:
                        times[name].append((time.perf_counter() - started) / words)
            progress.update(bar, completed=number + 1, refresh=True)
    return {
        task: {
            "microseconds_per_word": {name: summarise(values, 1)._asdict() for name, values in times.items()},
            "speedup_over": {
                name: float(np.median(np.divide(times[name], times["fastact"])).round(3))
                for name in CONTENDERS[:-1]
            },
        }
        for task, times in seconds.items()
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.spacy_tagger", description=__doc__.splitlines()[0])
    parser.add_argument("--words", type=positive, default=8000, help="in the corpus (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=11, help="of each pipeline, in turn (%(default)s)")
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("spacy", "words", "results"))

    from fastact import backends, settings

    threads.pin(1)
    with settings.num_threads(1), threadpool_limits(1):
        results = measure(options.words, options.rounds, Console(stderr=True))
    for task, result in results.items():
        for name, sample in result["microseconds_per_word"].items():
            speedup = result["speedup_over"].get(name)
            note = "" if speedup is None else f"  fastact {speedup:.2f}x"
            print(f"{task:<8} {name:<17} {sample['p50']:6.1f} us a word{note}")
    fields = {
        "spacy": version("spacy"),
        "backend": backends.get_backend(),
        "words": options.words,
        "batch_words": BATCH_WORDS,
        "results": results,
    }
    records.save(options.out, fields)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
