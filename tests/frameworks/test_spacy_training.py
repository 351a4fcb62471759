"""Training spaCy pipelines after `accelerate`: Thinc's losses, and its pipeline in every other respect.

Losses are compared over 30 updates with Thinc's own, dropout included. How far rounding may take them apart
is found as follows. A float32 product over n terms, summed in any order, is the exact product of weights
that differ from the given ones by a relative n u at the most, u = 2**-24 (Higham, Accuracy and Stability of
Numerical Algorithms, 2nd ed., section 3.1). Therefore Thinc itself trains on weights that are moved at
random within n u. The largest difference from its own losses so far is what rounding may do; n u of the
loss itself is added for the sums of the loss. A smaller rate of learning than spaCy's default keeps that
difference small. At the default one, a unit of maxout whose winner changes by rounding changes later losses
by some 1e-3, for Thinc with BLIS and with NumPy's BLAS as well.
"""

import copy
import inspect
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from support.spacy_examples import make_examples, texts, without_fastact
from thinc.api import NumpyOps, fix_random_seed, set_current_ops, use_ops
from threadpoolctl import threadpool_limits

from fastact import settings
from fastact.thinc import accelerate, restore

UNIT = 2.0**-24
UPDATES = 30
DROPOUT = 0.1


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread, as in spaCy's processes: these batches are small.  The current Ops come back."""
    with use_ops("numpy"), settings.num_threads(1), threadpool_limits(1):
        yield


def same_draws(nlp: Language) -> None:
    """Accelerate, with Thinc's own dropout masks."""
    supported = "same_draws" in inspect.signature(accelerate).parameters
    accelerate(nlp, **({"same_draws": True} if supported else {}))


# ---- pipelines

HASH_EMBED = {
    "@architectures": "spacy.MultiHashEmbed.v2",
    "width": 96,
    "attrs": ["NORM", "PREFIX", "SUFFIX", "SHAPE"],
    "rows": [500, 250, 250, 250],
    "include_static_vectors": False,
}
CHARACTER_EMBED = {
    "@architectures": "spacy.CharacterEmbed.v2",
    "width": 96,
    "rows": 500,
    "nM": 8,
    "nC": 4,
    "include_static_vectors": False,
}
LISTENER = {"@architectures": "spacy.Tok2VecListener.v1", "width": 96}


def encoder(
    width: int = 96, depth: int = 4, window: int = 1, pieces: int = 3, embed: dict = HASH_EMBED
) -> dict:
    """The config of a tok2vec model."""
    return {
        "@architectures": "spacy.Tok2Vec.v2",
        "embed": embed | {"width": width},
        "encode": {
            "@architectures": "spacy.MaxoutWindowEncoder.v2",
            "width": width,
            "depth": depth,
            "window_size": window,
            "maxout_pieces": pieces,
        },
    }


class Case(NamedTuple):
    """A pipeline, and how it is trained.

    Attributes:
        components: in their order.
        tok2vec: the config of each component's own encoder, or the shared one's if "tok2vec" is a component;
            None for the default.
        update: further arguments of `nlp.update`.
        rate: Adam's; spaCy's default is 1e-3.
        resumed: whether the pipeline is trained a little, saved and loaded before.
        awkward: whether each batch also has empty documents and one of a token.
    """

    components: tuple[str, ...] = ("tagger",)
    tok2vec: dict | None = None
    update: Mapping = MappingProxyType({})
    rate: float = 1e-4
    resumed: bool = False
    awkward: bool = False

    def pipeline(self) -> Language:
        nlp = spacy.blank("en")
        for name in self.components:
            if name == "tok2vec":
                config = {} if self.tok2vec is None else {"model": self.tok2vec}
            elif "tok2vec" in self.components:
                config = {"model": {"tok2vec": LISTENER}}
            else:
                config = {} if self.tok2vec is None else {"model": {"tok2vec": self.tok2vec}}
            if name == "parser":
                config["min_action_freq"] = 1
            nlp.add_pipe(name, config=config)
        return nlp


EACH = ("tagger", "morphologizer", "parser", "ner", "trainable_lemmatizer", "textcat", "spancat")
SHARED = ("tok2vec", "tagger", "parser", "ner")
CASES = {
    **{name: Case((name,)) for name in EACH},
    "independent": Case(("tagger", "parser", "ner")),
    "shared": Case(SHARED),
    "all of them shared": Case(("tok2vec", *EACH)),
    "frozen": Case(SHARED, update={"exclude": ["tok2vec", "parser"], "annotates": ["tok2vec"]}),
    "resumed": Case(SHARED, resumed=True),
    "awkward": Case(SHARED, awkward=True),
    "default rate": Case(rate=1e-3),
    "no dropout": Case(update={"drop": 0.0}),
    "MultiHashEmbed": Case(tok2vec=encoder(depth=2)),
    "one hash embedding": Case(
        tok2vec=encoder(embed=HASH_EMBED | {"attrs": ["NORM"], "rows": [500]}, depth=1)
    ),
    "CharacterEmbed": Case(("ner",), tok2vec=encoder(embed=CHARACTER_EMBED, depth=2)),
    "odd width": Case(("parser",), tok2vec=encoder(width=33, depth=1, window=2, pieces=2)),
    "deep": Case(tok2vec=encoder(width=64, depth=8, pieces=4)),
    "wide window": Case(tok2vec=encoder(width=17, depth=3, window=3)),
    "one piece": Case(tok2vec=encoder(width=32, depth=2, pieces=1)),
    "shared, CharacterEmbed": Case(SHARED, tok2vec=encoder(embed=CHARACTER_EMBED)),
}
# The rest runs with --full.
USUAL = ("tagger", "ner", "shared", "odd width")


def some(cases: dict[str, Case]) -> Any:
    marks = {name: () if name in USUAL else pytest.mark.full for name in cases}
    return pytest.mark.parametrize(
        "case", [pytest.param(case, id=name, marks=marks[name]) for name, case in cases.items()]
    )


# ---- training


def awkward_examples(nlp: Language) -> list[Example]:
    """Examples of no token and of one."""
    empty = Example.from_dict(Doc(nlp.vocab), {})
    one = Example.from_dict(
        Doc(nlp.vocab, words=["dog"]), {"tags": ["NOUN"], "heads": [0], "deps": ["ROOT"], "entities": ["O"]}
    )
    return [empty, one, empty]


def started(
    case: Case, prepare: Callable[[Language], Any], seed: int = 0
) -> tuple[Language, Any, list[Example]]:
    """The case's pipeline, initialised and then prepared, its optimiser and the examples."""
    set_current_ops(NumpyOps(use_blis=False))
    fix_random_seed(seed)
    nlp = case.pipeline()
    examples = make_examples(nlp, 60)
    optimizer = nlp.initialize(lambda: examples)
    if case.resumed:
        for _ in range(3):
            nlp.update(examples, sgd=optimizer, drop=DROPOUT)
        trained = nlp.to_bytes()
        nlp = case.pipeline().from_bytes(trained)
        prepare(nlp)
        optimizer = nlp.resume_training()
    else:
        prepare(nlp)
    optimizer.learn_rate = case.rate
    return nlp, optimizer, examples


def trained(case: Case, prepare: Callable[[Language], Any] = lambda nlp: None) -> tuple[np.ndarray, Language]:
    """The losses of the updates, (updates, components), and the pipeline."""
    nlp, optimizer, examples = started(case, prepare)
    fix_random_seed(1)
    extra = awkward_examples(nlp) if case.awkward else []
    losses = []
    for start in range(0, 10 * UPDATES, 10):
        first = start % len(examples)
        batch = [*extra, *examples[first : first + 10], *extra]
        found = nlp.update(batch, sgd=optimizer, **{"drop": DROPOUT, **case.update})
        losses.append([found[name] for name in case.components if name in found])
    return np.array(losses, "f8"), nlp


def weights(nlp: Language) -> Iterator[tuple[Any, str]]:
    """Each parameter of the pipeline: the node, and the parameter's name."""
    for _, pipe in nlp.components:
        for node in pipe.model.walk():
            for name in node.param_names:
                if node.has_param(name):
                    yield node, name


def moved(terms: int, seed: int) -> Callable[[Language], None]:
    """Multiplies each weight by 1 + a number of at most terms * UNIT."""

    def prepare(nlp: Language) -> None:
        rng = np.random.default_rng(seed)
        for node, name in weights(nlp):
            weight = node.get_param(name)
            error = rng.uniform(-terms * UNIT, terms * UNIT, weight.shape)
            node.set_param(name, (weight * (1 + error)).astype(weight.dtype))

    return prepare


def terms_of(nlp: Language) -> int:
    """The terms of the longest product."""
    return max(node.get_param(name).shape[-1] for node, name in weights(nlp) if name == "W")


def rounding_bound(case: Case, losses: np.ndarray, nlp: Language) -> np.ndarray:
    """How far float32 rounding may take other losses from these of Thinc: the text at the head says why."""
    terms = terms_of(nlp)
    apart = [np.abs(trained(case, moved(terms, seed))[0] - losses) for seed in (0, 1)]
    return np.maximum.accumulate(np.max(apart, axis=0)) + terms * UNIT * np.abs(losses)


def annotations(docs) -> list:
    """All that the components predict, the scores of text categories but to 3 digits."""
    return [
        {
            "tokens": [
                [t.text, t.tag_, t.pos_, str(t.morph), t.lemma_, t.head.i, t.dep_, t.ent_iob_, t.ent_type_]
                for t in doc
            ],
            "cats": {name: round(score, 3) for name, score in doc.cats.items()},
            "spans": [[s.start, s.end, s.label_] for spans in doc.spans.values() for s in spans],
        }
        for doc in docs
    ]


@some(CASES)
def test_losses_of_thirty_updates_equal_thincs_within_rounding(case):
    losses, nlp = trained(case)
    ours, _ = trained(case, same_draws)
    assert losses.shape[0] == UPDATES
    assert losses.shape[1] >= 1
    assert np.isfinite(losses).all()
    assert (losses[0] != losses[-1]).all()  # something was learnt
    bound = rounding_bound(case, losses, nlp)
    difference = np.abs(ours - losses)
    worst = np.unravel_index((difference - bound).argmax(), bound.shape)
    assert difference[worst] <= bound[worst], f"update, component {worst}: {ours[worst]} for {losses[worst]}"


@some({name: case for name, case in CASES.items() if not case.update})
def test_predictions_of_a_trained_pipeline_are_thincs(case):
    _, nlp = trained(case._replace(rate=2e-3))
    plain = annotations(nlp.pipe(texts()))
    alone = annotations(map(nlp, texts()))  # a textcat scores an empty document by itself as 0
    accelerate(nlp)
    assert annotations(nlp.pipe(texts())) == plain
    assert annotations(map(nlp, texts())) == alone
    restore(nlp)
    assert annotations(nlp.pipe(texts())) == plain


@pytest.mark.full
def test_document_of_many_tokens_trains_and_predicts_as_in_thinc():
    case = Case()

    def run(prepare: Callable[[Language], Any] = lambda nlp: None) -> tuple[np.ndarray, np.ndarray, Language]:
        nlp, optimizer, examples = started(case, prepare)
        words = [token.text for example in examples for token in example.reference]
        tags = [token.tag_ for example in examples for token in example.reference]
        count = -(-100_000 // len(words))
        doc = Doc(nlp.vocab, words=(words * count)[:100_000])
        example = Example.from_dict(doc, {"tags": (tags * count)[:100_000]})
        fix_random_seed(1)
        losses = [nlp.update([example], sgd=optimizer, drop=DROPOUT)["tagger"] for _ in range(2)]
        return np.array(losses), nlp.get_pipe("tagger").model.predict([doc])[0], nlp

    losses, scores, nlp = run()
    terms = terms_of(nlp)
    moved_losses, moved_scores, _ = run(moved(terms, 0))
    our_losses, our_scores, _ = run(same_draws)
    assert our_scores.shape == scores.shape == (100_000, 6)
    assert (np.abs(our_losses - losses) <= np.abs(moved_losses - losses).max() + terms * UNIT * losses).all()
    assert np.linalg.norm(our_scores - scores) <= np.linalg.norm(moved_scores - scores)


def test_dropout_is_reproducible_after_fix_random_seed():
    """With fastact's own masks, which differ from Thinc's."""

    def losses(seed: int, threads: int = 1) -> list[float]:
        nlp, optimizer, examples = started(Case(SHARED), accelerate)
        fix_random_seed(seed)
        with settings.num_threads(threads):
            return [sum(nlp.update(examples, sgd=optimizer, drop=DROPOUT).values()) for _ in range(4)]

    first = losses(3)
    assert losses(3) == first
    assert losses(3, threads=2) == first  # to the bit
    assert losses(4) != first


# ---- the rest of the pipeline's life


@pytest.fixture(scope="module")
def whole() -> bytes:
    """A trained pipeline of each component, with one tok2vec."""
    with use_ops("numpy"):
        nlp, optimizer, examples = started(CASES["all of them shared"], lambda nlp: None)
        optimizer.learn_rate = 1e-3
        for _ in range(12):
            for start in range(0, 60, 20):
                nlp.update(examples[start : start + 20], sgd=optimizer, drop=DROPOUT)
        return nlp.to_bytes()


@pytest.fixture
def nlp(whole) -> Language:
    return CASES["all of them shared"].pipeline().from_bytes(whole)


SAVED = """
import importlib.util, json, sys, spacy
assert importlib.util.find_spec("fastact") is None
nlp = spacy.load(sys.argv[1])
docs = list(nlp.pipe(json.loads(sys.argv[2])))
print(json.dumps([json.loads(json.dumps(doc.to_json())) for doc in docs]))
"""


def as_json(docs) -> list:
    return [json.loads(json.dumps(doc.to_json())) for doc in docs]


def rounded(value: Any) -> Any:
    """The same JSON, its floats to 3 digits."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 3) if isinstance(value, float) else value


def test_pipeline_of_every_component_has_learnt_what_it_predicts(nlp):
    """The other tests compare predictions that say something."""
    found = annotations(nlp.pipe(texts()))
    tokens = {value for doc in found for token in doc["tokens"] for value in token}
    assert {"NOUN", "VERB", "PROPN", "Case=Nom", "nsubj", "ROOT", "PERSON"} <= tokens
    assert {label for doc in found for _, _, label in doc["spans"]} >= {"nsubj"}
    assert {round(doc["cats"]["LONG"]) for doc in found if doc["tokens"]} == {0, 1}


def test_trained_after_accelerate_and_saved_loads_without_fastact(nlp, tmp_path):
    accelerate(nlp)
    nlp.update(make_examples(nlp, 20), sgd=nlp.resume_training(), drop=DROPOUT)
    accelerated = as_json(nlp.pipe(texts()))
    nlp.to_disk(tmp_path / "saved")
    options = without_fastact(tmp_path)
    command = [sys.executable, *options.pop("flags"), "-c", SAVED, tmp_path / "saved", json.dumps(texts())]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, **options)
    assert run.returncode == 0, run.stderr
    assert rounded(json.loads(run.stdout)) == rounded(accelerated)


@pytest.mark.parametrize(
    "twin_of",
    [
        copy.deepcopy,
        lambda nlp: pickle.loads(pickle.dumps(nlp)),
        lambda nlp: CASES["all of them shared"].pipeline().from_bytes(nlp.to_bytes()),
    ],
    ids=["deepcopy", "pickle", "to_bytes"],
)
def test_copies_of_an_accelerated_pipeline_are_independent(nlp, twin_of):
    accelerate(nlp)
    plain = annotations(nlp.pipe(texts()))
    twin = twin_of(nlp)
    assert annotations(twin.pipe(texts())) == plain
    before = {(node.id, name): node.get_param(name).copy() for node, name in weights(nlp)}
    optimizer = twin.resume_training()
    for _ in range(2):
        twin.update(make_examples(twin, 20), sgd=optimizer, drop=DROPOUT)
    for node, name in weights(twin):
        if name == "W" and node.name == "maxout":
            node.set_param(name, np.zeros_like(node.get_param(name)))
    assert annotations(twin.pipe(texts())) != plain
    for node, name in weights(nlp):
        np.testing.assert_array_equal(node.get_param(name), before[node.id, name])
        assert not node.has_grad(name) or not node.get_grad(name).any()
    assert annotations(nlp.pipe(texts())) == plain


def test_copied_model_uses_its_own_nodes(nlp):
    model = nlp.get_pipe("tok2vec").model
    accelerate(nlp)
    docs = [nlp.make_doc(text) for text in texts()]
    plain = model.predict(docs)
    twin = model.copy()
    for mine, theirs in zip(plain, twin.predict(docs), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for node in twin.walk():
        if node.has_param("G"):
            node.set_param("G", node.get_param("G") * 0)
    assert all(not np.array_equal(a, b) for a, b in zip(plain, twin.predict(docs), strict=True) if len(a))
    for mine, again in zip(plain, model.predict(docs), strict=True):
        np.testing.assert_array_equal(mine, again)


def test_disabled_components_of_an_accelerated_pipeline_stay_out(nlp):
    plain = annotations(nlp.pipe(texts()))
    accelerate(nlp)
    with nlp.select_pipes(disable=["ner", "tagger"]):
        found = annotations(nlp.pipe(texts()))
        assert all(token[1] == "" and token[8] == "" for doc in found for token in doc["tokens"])
    assert annotations(nlp.pipe(texts())) == plain
    before = {(node.id, name): node.get_param(name).copy() for node, name in weights(nlp)}
    optimizer = nlp.resume_training()
    # spaCy trains the tok2vec with its last listener, and by the gradient of the update before
    with nlp.select_pipes(enable=["tok2vec", "spancat"]):
        for _ in range(2):
            nlp.update(make_examples(nlp, 20), sgd=optimizer, drop=DROPOUT)
    enabled = {node.id for name in ("tok2vec", "spancat") for node in nlp.get_pipe(name).model.walk()}
    changed = {
        node.id for node, name in weights(nlp) if (node.get_param(name) != before[node.id, name]).any()
    }
    assert changed <= enabled
    assert changed & {node.id for node in nlp.get_pipe("tok2vec").model.walk() if node.name == "maxout"}


def test_empty_documents_alone_train_and_predict(nlp):
    accelerate(nlp)
    empty = Example.from_dict(Doc(nlp.vocab), {})
    before = [node.get_param(name).copy() for node, name in weights(nlp)]
    nlp.update([empty, empty], sgd=nlp.resume_training(), drop=DROPOUT)
    assert all(np.isfinite(node.get_param(name)).all() for node, name in weights(nlp))
    assert len(before) == sum(1 for _ in weights(nlp))
    assert [len(doc) for doc in nlp.pipe(["", ""])] == [0, 0]


def state(nlp: Language, optimizer: Any) -> dict:
    """What `accelerate` may exchange, and what it may not."""
    nodes = {
        node.id: (
            node._func,
            type(node.ops),
            node.init,
            node.name,
            dict(node.attrs),
            {name: node.maybe_get_dim(name) for name in node.dim_names},
            node.param_names,
            {name: node.maybe_get_ref(name) and node.get_ref(name).id for name in node.ref_names},
            [layer.id for layer in node.layers],
        )
        for _, pipe in nlp.components
        for node in pipe.model.walk()
    }
    return {"nodes": nodes, "optimizer": type(optimizer), "pipeline": sorted(vars(nlp))}


def test_restore_gives_everything_back(nlp):
    optimizer = nlp.resume_training()
    examples = make_examples(nlp, 20)
    nlp.update(examples, sgd=optimizer, drop=DROPOUT)
    before = state(nlp, optimizer)
    accelerate(nlp)
    assert state(nlp, optimizer)["nodes"] != before["nodes"]
    nlp.update(examples, sgd=optimizer, drop=DROPOUT)
    restore(nlp)
    assert state(nlp, optimizer) == before


def test_restored_pipeline_trains_as_one_never_accelerated():
    def there_and_back(nlp: Language) -> None:
        accelerate(nlp)
        restore(nlp)

    case = CASES["shared"]
    losses, nlp = trained(case)
    ours, restored = trained(case, there_and_back)
    np.testing.assert_array_equal(ours, losses)
    for (node, name), (twin, _) in zip(weights(nlp), weights(restored), strict=True):
        np.testing.assert_array_equal(twin.get_param(name), node.get_param(name))
