"""The benchmarks of spaCy's pipelines: their corpus, the profile by part, the comparison of scores."""

import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from support.variants import needs_proc
from thinc.api import Linear, Model, chain, use_ops

# `bench` is not installed: it is found from the repository's root
sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import spacy_corpus, spacy_memory, spacy_pipelines, spacy_profile, spacy_train


@pytest.fixture(autouse=True)
def kept_ops():
    """The contenders set the current Ops: put back what they were."""
    with use_ops("numpy"):
        yield


def test_sentences_have_the_wanted_words_and_annotations_that_spacy_reads():
    corpus = spacy_corpus.sentences(1000, random.Random(0))
    assert sum(len(words) for words, _ in corpus) == 1000
    pipeline = spacy_corpus.build("thinc_blis", "shared", corpus)
    docs = [example.reference for example in pipeline.examples]
    assert {entity.label_ for doc in docs for entity in doc.ents} == {"E0", "E1", "E2", "E3"}
    assert {len(entity) for doc in docs for entity in doc.ents} == {1, 2, 3}
    assert all(sum(token.head == token for token in doc) == 1 for doc in docs)
    assert len({token.tag_ for doc in docs for token in doc}) == 17


def test_batches_have_every_example_in_order():
    examples = [[0] * length for length in (600, 600, 5, 1000, 30)]
    assert spacy_corpus.batches(examples) == [examples[:2], examples[2:4], examples[4:]]


@pytest.mark.parametrize("name", ["tagger", pytest.param("shared", marks=pytest.mark.full)])
def test_measure_times_each_contender(name):
    # with fewer words spaCy's parser has no moves of some kinds, and raises
    result = spacy_pipelines.measure(name, 1000, 2, Console(quiet=True))
    assert set(result) == {"train", "predict"}
    for figures in result.values():
        times = figures["microseconds_per_word"]
        assert set(times) == set(spacy_corpus.CONTENDERS)
        assert all(sample["p50"] > 0 and sample["rounds"] == 2 for sample in times.values())
        assert set(figures["speedup_over"]) == {"thinc_blis", "thinc_numpy_blas"}


def sleeping(name: str, seconds: float, layers: tuple = ()) -> Model:
    """A node that sleeps, forward and backward, and then runs its layers."""

    def forward(model, X, is_train):
        time.sleep(seconds)
        callbacks = [layer(X, is_train)[1] for layer in model.layers]

        def backprop(dY):
            time.sleep(2 * seconds)
            for callback in callbacks:
                callback(dY)
            return dY

        return X, backprop

    forward.__module__ = "thinc.layers.sleeping"
    return Model(name, forward, layers=layers)


def test_profile_times_each_node_without_those_inside_it():
    model = sleeping("residual", 0.01, (sleeping("maxout", 0.02), sleeping("layernorm", 0.005)))
    profile = spacy_profile.Profile()
    started = time.perf_counter()
    with profile.watching():
        model.predict(np.zeros((1, 1)))
        _, backprop = model.begin_update(np.zeros((1, 1)))
        backprop(np.zeros((1, 1)))
        time.sleep(0.03)
        model.finish_update(lambda key, weights, gradient: (weights, gradient))
    elapsed = time.perf_counter() - started
    # two forwards and a backward that sleeps twice as long; a sleep is never shorter than asked for
    assert profile.seconds["maxout"] >= 0.08
    assert profile.seconds["layer norm"] >= 0.02
    assert profile.seconds[spacy_profile.REST] >= 0.04
    assert profile.seconds[spacy_profile.OWN] >= 0.03
    assert profile.seconds[spacy_profile.OPTIMISER] > 0
    assert sum(profile.seconds.values()) <= elapsed
    assert Model.predict.__qualname__ == "Model.predict"  # Thinc's own again


def test_part_of_a_node_that_stands_for_several_is_a_block():
    inner = sleeping("maxout", 0)
    block = sleeping("residual", 0, (inner,))
    assert [spacy_profile.part_of(node) for node in (block, inner)] == [spacy_profile.REST, "maxout"]
    block._func.__module__ = "fastact.thinc.blocks"
    assert spacy_profile.part_of(block) == spacy_profile.BLOCKS
    hashes = Model("concatenate", block._func, layers=[Model("hashembed", block._func, params={"E": None})])
    assert spacy_profile.part_of(hashes) == "hash embedding"
    assert spacy_profile.part_of(chain(Linear(2, 2), Linear(2, 2))) == spacy_profile.REST


def test_floor_counts_the_products_of_maxout_layers():
    pipeline = spacy_corpus.build("thinc_blis", "tagger", spacy_corpus.sentences(300, random.Random(0)))
    forward = 2 * 96 * (384 + 4 * 288)  # operations a word and piece
    floor = spacy_profile.floor(pipeline.nlp.get_pipe("tagger").model, gflops=1.0)
    wanted = {"predict": 3 * forward, "train": 9 * forward, "train, winners alone": 5 * forward}
    assert floor == {name: round(count / 1e3, 2) for name, count in wanted.items()}


def test_profile_of_a_pipeline_has_a_figure_for_each_part():
    found = spacy_profile.measure("tagger", 300, 1, None, Console(quiet=True))["microseconds_per_word"]
    parts = set(found["train"]["thinc_numpy_blas"])
    assert parts == {*spacy_profile.PARTS, spacy_profile.WHOLE} - {spacy_profile.BLOCKS}
    assert set(found["predict"]) == set(spacy_profile.CONTENDERS)


@needs_proc
def test_peak_of_a_call_is_what_it_holds_at_once():
    def call() -> None:
        for _ in range(3):
            np.ones(32 << 20, np.uint8)

    # the kernel counts the pages of a thread in lots, so a part of a MiB may be missing
    assert 31 << 20 <= spacy_memory.peak_of(call) < 48 << 20


def test_scores_are_the_same_within_their_spread_over_seeds():
    thinc = [0.90, 0.91, 0.92]
    assert json.loads(json.dumps(spacy_train.compared(thinc, thinc, 1000)))["same"]
    assert spacy_train.compared([0.92, 0.90, 0.93], thinc, 1000)["same"]
    assert not spacy_train.compared([0.85, 0.86, 0.84], thinc, 1000)["same"]
    assert spacy_train.compared([0.9, 0.9], [0.9, 0.9], 1000)["allowed"] == 0.001
    assert not spacy_train.compared([0.9], [0.95], 1000)["same"]
