"""A small corpus for spaCy pipelines, and an interpreter that lacks fastact."""

from __future__ import annotations

import functools
import os
import random
from pathlib import Path

import numpy as np
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example


def noun_phrase(rng: random.Random, label: str, head: int) -> list[tuple[str, str, int, str]]:
    """A name, or a determiner, perhaps an adjective, and a noun; `head` tokens from its end is its head."""
    if rng.random() < 0.3:
        first, last = rng.choice(["Anna", "Boris", "Chen", "Dora"]), rng.choice(["Berg", "Okoye", "Silva"])
        return [(first, "PROPN", 1, "compound"), (last, "PROPN", head, label)]
    adjective = [(rng.choice(["old", "green", "quick"]), "ADJ", 1, "amod")] * int(rng.random() < 0.5)
    noun = (rng.choice(["dog", "river", "house", "teacher", "song"]), "NOUN", head, label)
    return [("the", "DET", 1 + len(adjective), "det"), *adjective, noun]


def sentence(rng: random.Random) -> tuple[list[str], dict]:
    """Words, and what each of spaCy's trainable components learns of them."""
    subject = noun_phrase(rng, "nsubj", 1)
    verb = (rng.choice(["sees", "likes", "hears", "paints"]), "VERB", 0, "ROOT")
    phrase = noun_phrase(rng, "dobj", 0)
    tokens = [*subject, verb, *phrase, (".", "PUNCT", -1 - len(phrase), "punct")]
    last = len(tokens) - 2
    heads = [i + distance for i, (_, _, distance, _) in enumerate(tokens)]
    heads[last] = len(subject)
    words, tags, _, deps = zip(*tokens, strict=True)
    entities = ["O"] * len(words)
    for i, dep in enumerate(deps):
        if dep == "compound":  # the first word of a name of two
            entities[i : i + 2] = ["B-PERSON", "L-PERSON"]
    starts = np.cumsum([0, *(len(word) + 1 for word in words)]).tolist()
    return list(words), {
        "tags": tags,
        "pos": tags,
        "morphs": ["Case=Nom" if dep == "nsubj" else "" for dep in deps],
        "lemmas": [
            word[:-1] if tag == "VERB" else word.lower() for word, tag in zip(words, tags, strict=True)
        ],
        "heads": heads,
        "deps": deps,
        "entities": entities,
        "cats": {"LONG": float(len(words) > 6), "SHORT": float(len(words) <= 6)},
        "spans": {
            "sc": [
                (start, start + len(word), dep)
                for start, word, dep in zip(starts, words, deps, strict=False)
                if dep in ("nsubj", "dobj")
            ]
        },
    }


def make_examples(nlp: Language, count: int) -> list[Example]:
    rng = random.Random(0)
    sentences = [sentence(rng) for _ in range(count)]
    return [Example.from_dict(Doc(nlp.vocab, words=words), gold) for words, gold in sentences]


def texts() -> list[str]:
    """New sentences of many lengths, an empty text, one token, words never seen."""
    rng = random.Random(1)
    joined = [" ".join(word for _ in range(n) for word in sentence(rng)[0]) for n in (1, 1, 2, 5, 20)]
    return [*joined, "", "dog", " ", "Anna Berg zorkifies the quixotic wug !", ""]


@functools.cache
def site_without_fastact(directory: Path) -> Path:
    """A directory of links to all that is installed, but for fastact and what says that it is."""
    site = directory / "site"
    site.mkdir()
    for place in {Path(spacy.__file__).parents[1], Path(np.__file__).parents[1]}:
        for entry in place.iterdir():
            if "fastact" not in entry.name.lower() and not (site / entry.name).exists():
                (site / entry.name).symlink_to(entry)
    return site


def without_fastact(directory: Path) -> dict:
    # -S leaves out the site directories, and with them any .pth file that an editable install made
    return {"flags": ("-S",), "env": os.environ | {"PYTHONPATH": str(site_without_fastact(directory))}}
