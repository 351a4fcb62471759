"""Where the time of spaCy's default pipelines goes, part by part: `python -m bench.spacy_profile`.

One process, one thread; Thinc with NumPy's BLAS and fastact in turn, round by round.  While a profiled pass
runs, each call of a node of the model, each of its callbacks and each `finish_update` is timed without the
nodes that it calls in turn.  The nodes stay as they are, so a forward that stands for several of them is seen
as one.  "spaCy's own" is what remains of the profiled pass.  The whole is timed in other passes, without the
profile, so the parts need not sum to it.

The floor is the time of the maxout layers' products at the CPU's peak rate of multiply-adds: the forward
product, and in training two more, which take a `pieces`-th each for a kernel that multiplies by the winners
alone.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from threadpoolctl import threadpool_limits

from fastact.cli.arguments import positive

from . import limits, machine, records, spacy_corpus, threads

CONTENDERS = ("thinc_numpy_blas", "fastact")
TASKS = ("train", "predict")

# Each part with the names of its nodes; the parts without names are found otherwise.
PARTS: dict[str, tuple[str, ...]] = {
    "maxout": ("maxout",),
    "layer norm": ("layernorm",),
    "dropout: masks, products": ("dropout",),
    "hash embedding": ("hashembed",),
    "blocks of several layers in one call": (),
    "softmax, linear": ("softmax", "linear", "precomputable_affine"),
    "window, chain, residual, the rest": (),
    "optimiser": (),
    "spaCy's own": ("extract_features", "parser_model"),
}
BLOCKS, REST, OPTIMISER, OWN = list(PARTS)[4], list(PARTS)[6], "optimiser", "spaCy's own"
WHOLE = "all, timed as a whole"
_PART_OF_NAME = {name: part for part, names in PARTS.items() for name in names}


def part_of(node: Any) -> str:
    """The part that the time of a node itself belongs to."""
    if not node.layers or getattr(node._func, "__module__", "").startswith(("thinc.", "spacy.")):
        return _PART_OF_NAME.get(node.name, REST)
    below = {inner.name for inner in node.walk() if inner.param_names}
    return "hash embedding" if below == {"hashembed"} else BLOCKS


class Profile:
    """Seconds of each part while it watches."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._parts: dict[int, str] = {}  # by the node's `id`, which no two nodes of a pipeline share
        self._inner = [0.0]  # for each call that runs, the seconds of those inside it

    def _timed(self, part: str, call: Callable[..., Any], *arguments: Any) -> Any:
        started = time.perf_counter()
        self._inner.append(0.0)
        try:
            return call(*arguments)
        finally:
            elapsed = time.perf_counter() - started
            self.seconds[part] += elapsed - self._inner.pop()
            self._inner[-1] += elapsed

    def _forward(self, node: Any, X: Any, is_train: bool) -> Any:
        part = self._parts.get(node.id)
        if part is None:
            part = self._parts[node.id] = part_of(node)
        Y, backprop = self._timed(part, node._func, node, X, is_train)
        return Y, partial(self._timed, part, backprop)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the calls of all nodes; the rest of the time meanwhile is spaCy's own."""
        from thinc.api import Model

        finish_update = Model.finish_update
        exchanged = {
            "__call__": lambda node, X, is_train: self._forward(node, X, is_train),
            "begin_update": lambda node, X: self._forward(node, X, True),
            "predict": lambda node, X: self._forward(node, X, False)[0],
            "finish_update": lambda node, sgd: self._timed(OPTIMISER, finish_update, node, sgd),
        }
        before = {name: getattr(Model, name) for name in exchanged}
        for name, method in exchanged.items():
            setattr(Model, name, method)
        started = time.perf_counter()
        inner = self._inner[0]
        try:
            yield
        finally:
            self.seconds[OWN] += time.perf_counter() - started - (self._inner[0] - inner)
            for name, method in before.items():
                setattr(Model, name, method)


def floor(model: Any, gflops: float) -> dict[str, float]:
    """Microseconds a word of the maxout layers' products at `gflops` 1e9 operations a second."""
    shapes = [node.get_param("W").shape for node in model.walk() if node.name == "maxout"]
    forward = sum(2 * nO * nP * nI for nO, nP, nI in shapes)
    winners = sum(2 * nO * nI for nO, _, nI in shapes)
    counts = {
        "predict": forward,
        "train": 3 * forward,
        "train, winners alone": forward + 2 * winners,
    }
    return {name: round(count / gflops / 1e3, 2) for name, count in counts.items()}


def measure(name: str, words: int, rounds: int, gflops: float | None, console: Console) -> dict[str, Any]:
    """Microseconds a word of each part, for each task and contender: the medians of the rounds."""
    corpus = spacy_corpus.sentences(words, random.Random(0))
    pipelines = {contender: spacy_corpus.build(contender, name, corpus) for contender in CONTENDERS}
    found: dict[tuple[str, str], list[Counter[str]]]
    found = {(task, contender): [] for task in TASKS for contender in CONTENDERS}
    with Progress(console=console, auto_refresh=False) as progress:
        bar = progress.add_task(name, total=rounds)
        for number in range(-1, rounds):  # round -1 warms up and is not counted
            for (task, contender), seconds in found.items():
                pipeline = pipelines[contender]
                pipeline.use_ops()
                run, profiled = pipeline.task(task), pipeline.task(task)
                profile = Profile()
                gc.collect()
                started = time.perf_counter()
                run()
                elapsed = time.perf_counter() - started
                with profile.watching():
                    profiled()
                if number >= 0:
                    seconds.append(profile.seconds + Counter({WHOLE: elapsed}))
            progress.update(bar, completed=number + 1, refresh=True)
    parts: dict[str, dict[str, dict[str, float]]] = {task: {} for task in TASKS}
    for (task, contender), counters in found.items():
        medians = {
            part: float(np.median([1e6 * counter[part] / words for counter in counters]).round(2))
            for part in (*PARTS, WHOLE)
        }
        parts[task][contender] = {part: value for part, value in medians.items() if value}
    result: dict[str, Any] = {"microseconds_per_word": parts}
    if gflops is not None:
        nodes = [pipe.model for _, pipe in pipelines["fastact"].nlp.components]
        floors = [floor(model, gflops) for model in nodes]
        result["floor"] = {key: round(sum(each[key] for each in floors), 2) for key in floors[0]}
    return result


def show(name: str, result: dict[str, Any]) -> None:
    for task, of in result["microseconds_per_word"].items():
        print(f"{name}, {task}: us a word by part, timed apart{''.join(f'{c:>18}' for c in CONTENDERS)}")
        for part in (*PARTS, WHOLE):
            values = [of[contender].get(part) for contender in CONTENDERS]
            if any(values):
                cells = "".join(f"{'' if value is None else f'{value:.2f}':>18}" for value in values)
                print(f"  {part:<{len(name) + len(task) + 38}}{cells}")
    for what, value in result.get("floor", {}).items():
        print(f"  floor, {what}: {value} us a word")
    print(flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.spacy_profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--words", type=positive, default=8000, help="in the corpus (%(default)s)")
    parser.add_argument("--rounds", type=positive, default=5, help="of each contender, in turn (%(default)s)")
    spacy_corpus.add_pipelines(parser)
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("spacy", "words", "parts"))

    from fastact import backends, settings

    threads.pin(1)
    rates = limits.measure(1)
    gflops = None if rates is None else rates["register_fma_gflops"]
    neighbours = machine.Neighbours()
    parts = {}
    with settings.num_threads(1), threadpool_limits(1):
        for name in options.pipelines:
            parts[name] = measure(name, options.words, options.rounds, gflops, Console(stderr=True))
            show(name, parts[name])
    share = neighbours.share()
    machine.warn(share, "meanwhile")
    fields = {
        "spacy": version("spacy"),
        "backend": backends.get_backend(),
        "neighbours": share,
        "words": options.words,
        "register_fma_gflops": gflops,
        "parts": parts,
    }
    records.save(options.out, fields)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
