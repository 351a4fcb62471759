"""`spacy train` as a whole, with fastact's two callbacks and without them: `python -m bench.spacy_train`.

Each run is a fresh process of `python -m spacy train` on one thread, with the config that `spacy init config`
writes, on synthetic sentences.  A round has one run of each contender with the same seed, in rotating order;
fastact is `fastact.use_ops.v1` and `fastact.accelerate.v1` in the config, nothing else.  The time is that of
the command, from its start to the saved pipeline.

Scores on the development sentences differ from seed to seed, and fastact draws other dropout masks than
Thinc.  Hence a score counts as the same if the difference of its means over the seeds is within the limit of
a two-sided t-test with pooled variance at 1%, or not above 1 / words, which is one word.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from scipy import stats

from fastact.cli.arguments import positive

from . import machine, records, spacy_corpus, threads
from .spacy_corpus import CONTENDERS

SCORES = {"tagger": "tag_acc", "ner": "ents_f"}

NUMPY_BLAS = """
import spacy
from thinc.api import NumpyOps, set_current_ops

@spacy.registry.callbacks("bench.numpy_blas.v1")
def numpy_blas():
    def before_creation(language):
        set_current_ops(NumpyOps(use_blis=False))
        return language
    return before_creation
"""
OPTIONS = {
    "thinc_blis": (),
    "thinc_numpy_blas": ("--code", "numpy_blas.py", "--nlp.before_creation", "bench.numpy_blas.v1"),
    "fastact": (
        *("--nlp.before_creation", "fastact.use_ops.v1"),
        *("--nlp.after_pipeline_creation", "fastact.accelerate.v1"),
    ),
}


def _spacy(arguments: Sequence[str], folder: Path) -> None:
    """Run a command of spaCy in `folder`; raises RuntimeError with what it said if it fails."""
    command = [sys.executable, "-m", "spacy", *arguments]
    done = threads.run_process(command, capture_output=True, cwd=folder, env=threads.process_environment(1))
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)


def prepare(folder: Path, components: Sequence[str], words: int) -> None:
    """Write the config, the training and development sentences, and the callback for NumPy's BLAS."""
    import spacy
    from spacy.tokens import DocBin

    _spacy(["init", "config", "config.cfg", "--pipeline", ",".join(components)], folder)
    (folder / "numpy_blas.py").write_text(NUMPY_BLAS)
    examples = spacy_corpus.examples_of(
        spacy.blank("en"), spacy_corpus.sentences(words + words // 4, random.Random(0))
    )
    docs = [example.reference for example in examples]
    first = len(docs) * 4 // 5
    for name, part in (("train", docs[:first]), ("dev", docs[first:])):
        DocBin(docs=part).to_disk(folder / f"{name}.spacy")


def train(contender: str, seed: int, steps: int, folder: Path) -> tuple[float, dict[str, Any]]:
    """Seconds of one run, and the scores of the pipeline that it saves."""
    options = [
        option if option.startswith("-") or option.endswith(".py") else json.dumps({"@callbacks": option})
        for option in OPTIONS[contender]
    ]
    numbers = {"system.seed": seed, "training.max_steps": steps, "training.eval_frequency": steps}
    for name, value in numbers.items():
        options += [f"--{name}", str(value)]
    paths = ["--output", "out", "--paths.train", "train.spacy", "--paths.dev", "dev.spacy"]
    started = time.perf_counter()
    _spacy(["train", "config.cfg", *paths, *options], folder)
    seconds = time.perf_counter() - started
    return seconds, json.loads((folder / "out" / "model-last" / "meta.json").read_text())["performance"]


def compared(ours: Sequence[float], others: Sequence[float], words: int) -> dict[str, Any]:
    """The means, by how much they differ, and what difference the spread over the seeds allows."""
    count = len(ours)
    allowed = 1 / words
    if count > 1:
        variance = (np.var(ours, ddof=1) + np.var(others, ddof=1)) / 2
        allowed = max(allowed, stats.t.ppf(0.995, 2 * count - 2) * np.sqrt(variance * 2 / count))
    difference = float(np.mean(ours) - np.mean(others))
    return {
        "fastact": round(float(np.mean(ours)), 5),
        "thinc": round(float(np.mean(others)), 5),
        "difference": round(difference, 5),
        "allowed": round(float(allowed), 5),
        "same": bool(abs(difference) <= allowed),  # JSON takes no NumPy bool
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.spacy_train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=positive, default=5, help="seeds (%(default)s)")
    parser.add_argument("--steps", type=positive, default=300, help="of training (%(default)s)")
    parser.add_argument("--words", type=positive, default=20_000, help="to train on (%(default)s)")
    parser.add_argument(
        "--components", nargs="+", choices=SCORES, default=list(SCORES), help="with one tok2vec (tagger ner)"
    )
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("spacy", "steps", "seconds", "scores"))

    neighbours = machine.Neighbours()
    names = [SCORES[component] for component in options.components]
    seconds: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
    scores: dict[str, dict[str, list[float]]] = {
        contender: {name: [] for name in names} for contender in CONTENDERS
    }
    with tempfile.TemporaryDirectory() as place, Progress(console=Console(stderr=True)) as progress:
        folder = Path(place)
        prepare(folder, options.components, options.words)
        bar = progress.add_task("runs of spacy train", total=options.rounds * len(CONTENDERS))
        for seed in range(options.rounds):
            first = seed % len(CONTENDERS)
            for contender in CONTENDERS[first:] + CONTENDERS[:first]:
                elapsed, found = train(contender, seed, options.steps, folder)
                seconds[contender].append(round(elapsed, 2))
                for name in names:
                    scores[contender][name].append(found[name])
                progress.advance(bar)
    speedups = {
        contender: round(float(np.median(np.divide(seconds[contender], seconds["fastact"]))), 3)
        for contender in CONTENDERS[:-1]
    }
    for contender in CONTENDERS:
        note = f"  fastact {speedups[contender]:.2f}x" if contender in speedups else ""
        print(f"{contender:<17} {np.median(seconds[contender]):6.1f} s{note}")
    verdicts = {
        name: compared(scores["fastact"][name], scores["thinc_blis"][name], options.words // 4)
        for name in names
    }
    for name, verdict in verdicts.items():
        print(f"{name}: {', '.join(f'{key} {value}' for key, value in verdict.items())}")
    share = neighbours.share()
    machine.warn(share, "meanwhile")
    fields = {
        "spacy": version("spacy"),
        "neighbours": share,
        "steps": options.steps,
        "words": options.words,
        "seconds": seconds,
        "speedup_over": speedups,
        "scores": scores,
        "compared": verdicts,
    }
    records.save(options.out, fields)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
