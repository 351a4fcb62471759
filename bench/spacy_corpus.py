"""Synthetic documents, and spaCy's default pipelines with Thinc's layers and with fastact's."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

VOCABULARY = 5000
BATCH_WORDS = 1000  # largest batch of spaCy's default training config
DROPOUT = 0.1  # the default of the training config

# Thinc runs twice: with the BLIS of its wheel, its default, and with NumPy's BLAS.  On a CPU that this BLIS
# does not know, BLIS falls back to generic kernels (`BLIS_ARCH_DEBUG=1` prints which).
CONTENDERS = ("thinc_blis", "thinc_numpy_blas", "fastact")

# Components with all their defaults; in "shared" they listen to one tok2vec.
PIPELINES = {
    "tagger": ("tagger",),
    "ner": ("ner",),
    "parser": ("parser",),
    "shared": ("tok2vec", "tagger", "parser", "ner"),
}

Sentence = tuple[list[str], dict[str, Any]]


def sentences(words: int, rng: random.Random) -> list[Sentence]:
    """Sentences of 5 to 40 words, `words` in all, few of them frequent as in a language, and what they are.

    A word's rank decides its tag, its dependency label and whether an entity of one to three words begins
    with it.  Each word hangs on its neighbour towards the root.
    """
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(VOCABULARY)]
    found = []
    while words > 0:
        length = min(rng.randint(5, 40), words)
        ranks = [min(int(rng.paretovariate(0.7)), VOCABULARY) - 1 for _ in range(length)]
        root = ranks[0] % length
        annotations = {
            "tags": [f"T{rank % 17}" for rank in ranks],
            "entities": _entities(ranks),
            "heads": [i + (i < root) - (i > root) for i in range(length)],
            "deps": ["ROOT" if i == root else f"D{rank % 7}" for i, rank in enumerate(ranks)],
        }
        found.append(([vocabulary[rank] for rank in ranks], annotations))
        words -= length
    return found


def _entities(ranks: list[int]) -> list[str]:
    """The BILUO label of each word."""
    labels = ["O"] * len(ranks)
    i = 0
    while i < len(ranks):
        length = min(1 + ranks[i] % 3, len(ranks) - i)
        if ranks[i] % 5 == 3:
            parts = "U" if length == 1 else f"B{'I' * (length - 2)}L"
            labels[i : i + length] = [f"{part}-E{ranks[i] % 4}" for part in parts]
            i += length
        else:
            i += 1
    return labels


class Pipeline(NamedTuple):
    """A pipeline that is initialised, its optimiser, and the Ops that were current when it was made."""

    nlp: Any
    optimizer: Any
    ops: Any
    examples: list[Any]

    def use_ops(self) -> None:
        """Make its Ops the current ones again, for the little that asks for these while it runs."""
        from thinc.api import set_current_ops

        set_current_ops(self.ops)

    def train(self) -> None:
        """Train once on each example."""
        for batch in batches(self.examples):
            self.nlp.update(batch, sgd=self.optimizer, drop=DROPOUT)

    def docs(self) -> list[Any]:
        """The documents without annotations; the NER would keep those of an earlier pass."""
        from spacy.tokens import Doc

        return [
            Doc(self.nlp.vocab, words=[token.text for token in example.reference])
            for example in self.examples
        ]

    def predict(self, docs: list[Any]) -> None:
        """Annotate new documents."""
        for _ in self.nlp.pipe(docs):
            pass

    def task(self, name: str) -> Callable[[], None]:
        """What to time: "train" or "predict", the latter once for each call of this method."""
        return self.train if name == "train" else partial(self.predict, self.docs())


def batches(examples: list[Any]) -> list[list[Any]]:
    """Consecutive examples in batches of at least BATCH_WORDS words, except the last."""
    result: list[list[Any]] = [[]]
    for example in examples:
        if sum(len(e) for e in result[-1]) >= BATCH_WORDS:
            result.append([])
        result[-1].append(example)
    return result


def build(contender: str, name: str, corpus: list[Sentence]) -> Pipeline:
    """A pipeline of PIPELINES, initialised alike for all contenders.

    fastact is what `accelerate` alone makes of it after `initialize`.
    """
    import spacy
    from thinc.api import NumpyOps, fix_random_seed, set_current_ops

    from fastact.thinc import accelerate

    # A model keeps the Ops that it was made with.
    ops = NumpyOps(use_blis=contender != "thinc_numpy_blas")
    set_current_ops(ops)
    fix_random_seed(0)
    nlp = spacy.blank("en")
    components = PIPELINES[name]
    for component in components:
        nlp.add_pipe(component, config=_listener(component) if components[0] == "tok2vec" else {})
    examples = examples_of(nlp, corpus)
    optimizer = nlp.initialize(lambda: examples)
    if contender == "fastact":
        accelerate(nlp)
    return Pipeline(nlp, optimizer, ops, examples)


def examples_of(nlp: Any, corpus: list[Sentence]) -> list[Any]:
    """spaCy's examples of these sentences."""
    from spacy.tokens import Doc
    from spacy.training import Example

    return [Example.from_dict(Doc(nlp.vocab, words=words), gold) for words, gold in corpus]


def _listener(component: str) -> dict[str, Any]:
    """The config of a component that takes its token vectors from the pipeline's tok2vec."""
    if component == "tok2vec":
        return {}
    return {"model": {"tok2vec": {"@architectures": "spacy.Tok2VecListener.v1", "width": 96}}}


def add_pipelines(parser: argparse.ArgumentParser) -> None:
    """Add the option `--pipelines`."""
    parser.add_argument(
        "--pipelines",
        nargs="+",
        choices=PIPELINES,
        default=["tagger", "ner"],
        metavar="NAME",
        help=f"of {', '.join(PIPELINES)} (tagger ner)",
    )
