"""spaCy pipelines with fused maxout layers: the same predictions, before and after saving and loading."""

import copy
import gc
import json
import pickle
import random
import re
import shlex
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import spacy
import spacy.cli
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from support.spacy_examples import make_examples, sentence, texts, without_fastact
from thinc.api import (
    Config,
    ConfigValidationError,
    Model,
    NumpyOps,
    fix_random_seed,
    set_current_ops,
    use_ops,
)
from thinc.layers.maxout import forward as thinc_forward

import fastact
from fastact.thinc import FastactOps, accelerate, blocks, restore
from fastact.thinc.fused import forward as fused_forward

COMPONENTS = ("tagger", "parser", "ner")


def train(prepare=lambda nlp: None) -> Language:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    for name in COMPONENTS:
        nlp.add_pipe(name, config={"min_action_freq": 1} if name == "parser" else {})
    examples = make_examples(nlp, 60)
    optimizer = nlp.initialize(lambda: examples)
    prepare(nlp)
    for _ in range(12):
        for start in range(0, len(examples), 20):
            nlp.update(examples[start : start + 20], sgd=optimizer, drop=0.1)
    return nlp


@pytest.fixture(scope="module")
def trained() -> bytes:
    return train().to_bytes()


@pytest.fixture
def nlp(trained) -> Language:
    nlp = spacy.blank("en")
    for name in COMPONENTS:
        nlp.add_pipe(name)
    return nlp.from_bytes(trained)


def annotations(docs) -> list:
    """All that the three components predict."""
    return [
        [(t.text, t.tag_, t.head.i, t.dep_, t.ent_iob_, t.ent_type_, t.is_sent_start) for t in doc]
        for doc in docs
    ]


def forwards(nlp: Language) -> set:
    models = [pipe.model for _, pipe in nlp.components if hasattr(pipe, "model")]
    return {node._func for model in models for node in model.walk() if node.name == "maxout"}


# ---- predictions


def test_predictions_of_fused_layers_are_the_same(nlp):
    plain = annotations(nlp.pipe(texts()))
    report = accelerate(nlp)
    assert [layer.component for layer in report.replaced] == [name for name in COMPONENTS for _ in range(5)]
    assert "tagger: 4 x Maxout(nO=96, nP=3, nI=288)" in repr(report)
    assert "precomputable_affine: the maxout layer that is compiled into spaCy's parser" in repr(report)
    assert annotations(nlp.pipe(texts())) == plain
    assert annotations(map(nlp, texts())) == plain  # one document at a time
    assert annotations(nlp.pipe(texts(), batch_size=3)) == plain
    restore(nlp)
    assert forwards(nlp) == {thinc_forward}
    # the pipeline has learnt enough for its predictions to say something
    seen = {value for doc in plain for token in doc for value in token}
    assert {"NOUN", "VERB", "PROPN", "nsubj", "ROOT", "PERSON"} <= seen


def in_float64(model: Model) -> Model:
    model = model.copy()
    for node in model.walk():
        node.ops = NumpyOps(use_blis=False)  # BLIS takes float32 alone
        for name in node.param_names:
            node.set_param(name, node.get_param(name).astype("f8"))
    restore(model)
    return model


@pytest.mark.parametrize("component", COMPONENTS)
def test_scores_of_fused_layers_are_as_accurate_as_thincs(nlp, component):
    """At most twice Thinc's own error, both against float64: the same rounding, in another order."""
    docs = [nlp.make_doc(text) for text in texts()]
    model = nlp.get_pipe(component).model
    if component != "tagger":
        model = model.get_ref("tok2vec")  # what follows is not fastact's, nor a plain forward
    scores = {"thinc": model.predict(docs), "exact": in_float64(model).predict(docs)}
    accelerate(model)
    scores["fused"] = model.predict(docs)
    stacked = {name: np.vstack(values) for name, values in scores.items()}
    assert stacked["exact"].dtype == np.float64
    assert stacked["fused"].shape == stacked["thinc"].shape
    error = {name: np.linalg.norm(stacked[name] - stacked["exact"]) for name in ("thinc", "fused")}
    assert error["fused"] <= 2 * error["thinc"]


def exchanged(nlp: Language) -> list:
    """All that `accelerate` exchanges."""
    nodes = [node for _, pipe in nlp.components for node in pipe.model.walk()]
    return [(type(node), node._func, node.ops, node.init) for node in nodes]


def test_restore_gives_a_pipeline_back_as_it_was(nlp):
    before, attributes = exchanged(nlp), [dict(node.attrs) for node in nlp.get_pipe("ner").model.walk()]
    for same_draws in (False, True, False):
        accelerate(nlp, same_draws=same_draws)
    assert exchanged(nlp) != before
    assert [dict(node.attrs) for node in nlp.get_pipe("ner").model.walk()] == attributes
    restore(nlp)
    assert exchanged(nlp) == before


@pytest.mark.skipif(fastact.get_backend() != "c", reason="blocks run on the C backend")
def test_each_component_has_its_embeddings_encoder_and_first_layer_in_blocks(nlp):
    report = accelerate(nlp)
    for component in COMPONENTS:
        found = [block.text for block in report.blocks if block.component == component]
        assert found == [
            "concatenation of 4 hash embeddings",
            "Maxout(nO=96, nP=3, nI=384), layer norm, dropout",
            "encoder of 4 blocks (window 1, Maxout(nO=96, nP=3, nI=288), layer norm, dropout, residual)",
        ]
    encoder = nlp.get_pipe("tagger").model.get_ref("tok2vec").layers[1].layers[0]
    assert encoder._func is blocks.chain_forward


def losses(prepare) -> np.ndarray:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("tagger")
    examples = make_examples(nlp, 100)
    optimizer = nlp.initialize(lambda: examples)
    prepare(nlp)
    steps = [nlp.update(examples[20 * i : 20 * i + 20], sgd=optimizer, drop=0.2) for i in range(5)]
    return np.array([step["tagger"] for step in steps])


def test_losses_with_same_draws_are_thincs():
    """Up to a small multiple of float32's epsilon for each update: sums are rounded in another order."""
    thinc = losses(lambda nlp: None)
    same = losses(lambda nlp: accelerate(nlp, same_draws=True))
    np.testing.assert_allclose(same, thinc, rtol=100 * np.finfo("f").eps)
    assert (losses(accelerate) != thinc).any() or fastact.get_backend() != "c"
    np.testing.assert_array_equal(losses(accelerate), losses(accelerate))


def test_copies_and_selected_pipes_predict_the_same(nlp):
    plain = annotations(nlp.pipe(texts()))
    accelerate(nlp)
    twin = copy.deepcopy(nlp)
    assert annotations(twin.pipe(texts())) == plain
    with nlp.select_pipes(enable="tagger"):
        tags = [[(token.text, token.tag_) for token in doc] for doc in nlp.pipe(texts())]
    assert tags == [[token[:2] for token in doc] for doc in plain]
    assert annotations(nlp.pipe(texts())) == plain
    restore(twin)
    assert annotations(nlp.pipe(texts())) == plain


def test_frozen_component_keeps_its_parameters():
    nlp = train()
    accelerate(nlp)
    frozen = nlp.get_pipe("tagger").model.to_bytes()
    examples = make_examples(nlp, 20)
    with nlp.select_pipes(disable="tagger"):
        nlp.update(examples, sgd=nlp.resume_training(), exclude=["tagger"])
    assert nlp.get_pipe("tagger").model.to_bytes() == frozen


def test_long_document_and_short_ones_predict_the_same(nlp):
    words = [word for _ in range(1500) for word in sentence(random.Random(3))[0]]
    docs = [Doc(nlp.vocab, words=words[:length]) for length in (0, 1, 2, len(words))]
    tagger = nlp.get_pipe("tagger").model
    plain = tagger.predict(docs)
    accelerate(nlp)
    for ours, theirs in zip(tagger.predict(docs), plain, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_training_with_fused_layers_learns_the_same_task():
    nlp = train(accelerate)
    assert forwards(nlp) == {fused_forward}
    scores = nlp.evaluate(make_examples(nlp, 60))
    assert min(scores[name] for name in ("tag_acc", "dep_uas", "dep_las", "ents_f")) > 0.95


def test_accelerate_fuses_shared_tok2vec_and_disabled_components():
    nlp = spacy.blank("en")
    nlp.add_pipe("tok2vec")
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 96}
    nlp.add_pipe("tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": listener}})
    nlp.add_pipe("sentencizer")  # has no model
    nlp.disable_pipe("tok2vec")
    assert [layer.component for layer in accelerate(nlp).replaced] == ["tok2vec"] * 5
    nlp.enable_pipe("tok2vec")
    nlp.replace_listeners("tok2vec", "tagger", ["model.tok2vec"])
    assert forwards(nlp) == {fused_forward}


def test_pipeline_trained_under_fastact_ops_is_accurate():
    with use_ops("fastact"):
        nlp = train()
    assert all(type(node.ops) is FastactOps for node in nlp.get_pipe("tagger").model.walk())
    assert nlp.evaluate(make_examples(nlp, 60))["tag_acc"] > 0.95


# ---- saved, loaded, in other processes

SAVED = """
import json, sys, spacy
if __name__ == "__main__":
    if len(sys.argv) > 3:
        import multiprocessing
        multiprocessing.set_start_method(sys.argv[3])
    nlp = spacy.load(sys.argv[1])
    {prepare}
    docs = nlp.pipe(json.loads(sys.argv[2]){pipe})
    print(json.dumps([[[t.tag_, t.head.i, t.dep_, t.ent_type_] for t in doc] for doc in docs]))
"""


def predict_elsewhere(path: Path, *arguments: str, prepare: str = "", pipe: str = "", **kwargs) -> list:
    """What the saved pipeline predicts in a new interpreter, which runs a file, as spawning needs."""
    script = path.parent / "predict.py"
    script.write_text(SAVED.format(prepare=prepare, pipe=pipe))
    command = [
        sys.executable,
        *kwargs.pop("flags", ()),
        str(script),
        str(path),
        json.dumps(texts()),
        *arguments,
    ]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=path.parent, **kwargs)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def brief(docs) -> list:
    return [[[t.tag_, t.head.i, t.dep_, t.ent_type_] for t in doc] for doc in docs]


def test_pipeline_saved_after_accelerate_loads_with_and_without_fastact(nlp, tmp_path):
    plain = brief(nlp.pipe(texts()))
    plain_bytes = nlp.to_bytes()
    accelerate(nlp)
    assert nlp.to_bytes() == plain_bytes
    nlp.to_disk(tmp_path / "saved")
    loaded = spacy.load(tmp_path / "saved")
    assert forwards(loaded) == {thinc_forward}
    assert len(accelerate(loaded).replaced) == 15
    assert brief(loaded.pipe(texts())) == plain
    gone = "import importlib.util; assert importlib.util.find_spec('fastact') is None"
    assert predict_elsewhere(tmp_path / "saved", prepare=gone, **without_fastact(tmp_path)) == plain


def test_pickled_pipeline_predicts_the_same(nlp):
    accelerate(nlp)
    twin = pickle.loads(pickle.dumps(nlp))
    assert forwards(twin) == {fused_forward}
    assert brief(twin.pipe(texts())) == brief(nlp.pipe(texts()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pipeline_in_two_processes_predicts_the_same(nlp, tmp_path, method):
    plain = brief(nlp.pipe(texts()))
    nlp.to_disk(tmp_path / "saved")
    # a document before it: the kernels, and their threads, have run in the parent when it forks
    prepare = "from fastact.thinc import accelerate; accelerate(nlp); nlp('the dog sees the river .')"
    assert predict_elsewhere(tmp_path / "saved", method, prepare=prepare, pipe=", n_process=2") == plain


# ---- from a config alone

CALLBACKS = {
    "before_creation": {"@callbacks": "fastact.use_ops.v1"},
    "after_pipeline_creation": {"@callbacks": "fastact.accelerate.v1"},
}


@pytest.fixture
def kept_ops():
    """The Ops are current for the whole thread: put back what they were."""
    with use_ops("numpy"):
        yield


@pytest.mark.usefixtures("kept_ops")
def test_callbacks_in_a_config_are_saved_and_in_force_again(nlp, tmp_path):
    plain = brief(nlp.pipe(texts()))
    config = nlp.config.copy()
    config["nlp"].update(CALLBACKS)
    fused = spacy.util.load_model_from_config(config, auto_fill=True)
    assert forwards(fused) == {fused_forward}
    fused.from_bytes(nlp.to_bytes(), exclude=["config"])  # which would bring its own callbacks
    assert forwards(fused) == {fused_forward}
    fused.to_disk(tmp_path / "saved")
    loaded = spacy.load(tmp_path / "saved")
    assert forwards(loaded) == {fused_forward}
    assert type(loaded.get_pipe("tagger").model.ops) is FastactOps
    assert brief(loaded.pipe(texts())) == plain
    with pytest.raises(AssertionError, match=r"Could not find function .*fastact\.(use_ops|accelerate)\.v1"):
        predict_elsewhere(tmp_path / "saved", **without_fastact(tmp_path))


ACCELERATE = {"nlp": {"after_pipeline_creation": CALLBACKS["after_pipeline_creation"]}}


def fused_layers(nlp: Language) -> dict[str, list[bool]]:
    """Each component with a model: which of its maxout layers are fused."""
    return {
        name: [node._func is fused_forward for node in pipe.model.walk() if node.name == "maxout"]
        for name, pipe in nlp.components
        if hasattr(pipe, "model")
    }


ALL = [True] * 5


@pytest.fixture
def blank() -> Language:
    """A pipeline without components, whose config asks for fused layers."""
    return spacy.blank("en", config=ACCELERATE)


def test_callback_components_added_later_are_fused_and_train(blank):
    blank.add_pipe("tagger")
    assert fused_layers(blank) == {"tagger": ALL}
    examples = make_examples(blank, 60)
    optimizer = blank.initialize(lambda: examples)
    for _ in range(12):
        blank.update(examples, sgd=optimizer)
    assert fused_layers(blank) == {"tagger": ALL}
    assert blank.evaluate(examples)["tag_acc"] > 0.95


def test_callback_components_replaced_renamed_removed_and_sourced_are_fused(blank, nlp):
    blank.add_pipe("tagger", first=True)
    blank.add_pipe("sentencizer")
    blank.replace_pipe("sentencizer", "parser")
    blank.rename_pipe("sentencizer", "syntax")
    blank.remove_pipe("tagger")
    assert fused_layers(blank) == {"syntax": ALL}
    source = pickle.loads(pickle.dumps(nlp))  # its nodes have the ids of nlp's
    blank.add_pipe("ner", source=nlp)
    blank.add_pipe("ner", name="again", source=source)
    assert fused_layers(blank) == {"syntax": ALL, "ner": ALL, "again": ALL}


def test_callback_a_shared_tok2vec_and_replaced_listeners_are_fused(blank):
    blank.add_pipe("tok2vec")
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 96}
    blank.add_pipe("tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": listener}})
    assert fused_layers(blank) == {"tok2vec": ALL, "tagger": []}
    assert blank.get_pipe("tok2vec").listening_components == ["tagger"]
    blank.replace_listeners("tok2vec", "tagger", ["model.tok2vec"])
    assert fused_layers(blank) == {"tok2vec": ALL, "tagger": ALL}


def test_callback_leaves_listeners_of_a_disabled_component_linked():
    config = spacy.blank("en")
    config.add_pipe("tok2vec")
    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 96}
    config.add_pipe("tagger", config={"model": {"@architectures": "spacy.Tagger.v2", "tok2vec": listener}})
    config = config.config.copy()
    config["nlp"].update(ACCELERATE["nlp"])
    loaded = spacy.util.load_model_from_config(config, auto_fill=True, disable=["tagger"])
    assert fused_layers(loaded) == {"tok2vec": ALL, "tagger": []}
    assert loaded.get_pipe("tok2vec").listening_components == ["tagger"]


@Language.factory("late_model", assigns=["token.tag"])
class LateModel:
    """A component that builds its model when it is initialised."""

    def __init__(self, nlp: Language, name: str) -> None:
        self.name = name
        self.model = None

    def __call__(self, doc: Doc) -> Doc:
        return doc

    def initialize(self, get_examples, nlp=None) -> None:
        self.model = spacy.blank("en").add_pipe("tagger").model


def test_callback_models_built_by_initialize_are_fused(blank):
    blank.add_pipe("late_model")
    blank.initialize()
    assert fused_layers(blank) == {"late_model": ALL}


def test_callback_components_loaded_and_trained_without_initialize_are_fused(blank, nlp, trained, tmp_path):
    plain = annotations(nlp.pipe(texts()))
    nlp.to_disk(tmp_path / "saved")
    for name in COMPONENTS:
        blank.add_pipe(name)
    blank.from_disk(tmp_path / "saved")
    wanted = dict.fromkeys(COMPONENTS, ALL)
    assert fused_layers(blank) == wanted
    assert annotations(blank.pipe(texts())) == plain
    assert fused_layers(blank.from_bytes(trained)) == wanted
    blank.update(make_examples(blank, 4), sgd=blank.resume_training())
    assert fused_layers(blank) == wanted


@pytest.mark.parametrize("twin_of", [copy.deepcopy, lambda nlp: pickle.loads(pickle.dumps(nlp))])
def test_callback_outlives_pickle_and_deepcopy(blank, twin_of):
    blank.add_pipe("tagger")
    twin = twin_of(blank)
    twin.add_pipe("ner")
    assert fused_layers(twin) == {"tagger": ALL, "ner": ALL}
    assert fused_layers(blank) == {"tagger": ALL}
    del blank
    gc.collect()
    assert fused_layers(twin_of(twin)) == {"tagger": ALL, "ner": ALL}


def test_callback_does_not_keep_the_pipeline_alive():
    nlp = spacy.blank("en", config=ACCELERATE)
    nlp.add_pipe("tagger")
    gc.collect()
    gc.disable()  # what is in no cycle goes at once
    try:
        reference = weakref.ref(nlp)
        del nlp
        assert reference() is None
    finally:
        gc.enable()


def test_callback_restore_leaves_later_components_alone(blank, tmp_path):
    blank.add_pipe("tagger")
    restore(blank)
    restore(blank)
    blank.add_pipe("ner")
    assert fused_layers(blank) == {"tagger": [False] * 5, "ner": [False] * 5}
    assert "_link_components" not in vars(blank)
    examples = make_examples(blank, 20)
    blank.initialize(lambda: examples)
    blank.to_disk(tmp_path / "saved")
    assert fused_layers(spacy.load(tmp_path / "saved")) == {"tagger": ALL, "ner": ALL}


def test_accelerate_fuses_the_present_components_alone():
    nlp = spacy.blank("en")
    nlp.add_pipe("tagger")
    accelerate(nlp)
    nlp.add_pipe("ner")
    assert fused_layers(nlp) == {"tagger": ALL, "ner": [False] * 5}


def test_callback_keeps_the_draws_for_later_components(blank):
    blank.add_pipe("tagger")
    accelerate(blank, same_draws=True)
    for nlp in (blank, copy.deepcopy(blank)):
        nlp.add_pipe("ner")
        dropouts = [n for _, pipe in nlp.components for n in pipe.model.walk() if n.name == "dropout"]
        assert {node._func for node in dropouts} == {blocks.same_draws_dropout}
        assert len(dropouts) == 10


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_callback_pipeline_in_two_processes_predicts_the_same(nlp, tmp_path, method):
    plain = brief(nlp.pipe(texts()))
    config = nlp.config.copy()
    config["nlp"].update(ACCELERATE["nlp"])
    fused = spacy.util.load_model_from_config(config, auto_fill=True)
    fused.from_bytes(nlp.to_bytes(), exclude=["config"])
    fused.to_disk(tmp_path / "saved")
    assert predict_elsewhere(tmp_path / "saved", method, pipe=", n_process=2") == plain


class OwnOps(FastactOps):
    """A user's subclass."""


@pytest.mark.usefixtures("kept_ops")
@pytest.mark.parametrize(
    ("before", "kind", "use_blis"),
    [
        (NumpyOps(), FastactOps, True),
        (NumpyOps(use_blis=False), FastactOps, False),
        (OwnOps(use_blis=False), OwnOps, False),
    ],
)
def test_use_ops_callback_keeps_use_blis_and_subclasses(before, kind, use_blis):
    set_current_ops(before)
    nlp = spacy.blank("en", config={"nlp": {"before_creation": CALLBACKS["before_creation"]}})
    for node in nlp.add_pipe("tagger").model.walk():
        assert type(node.ops) is kind
        assert node.ops.use_blis == use_blis


# ---- what fastact/thinc/README.md says

README = (Path(__file__).parents[2] / "fastact" / "thinc" / "README.md").read_text(encoding="utf-8")


def readme_blocks(language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in blocks if name == language]


@pytest.mark.skipif(fastact.get_backend() != "c", reason="blocks run on the C backend")
def test_readme_report_is_what_accelerate_prints(capsys):
    exec(readme_blocks("python")[0], {})
    assert capsys.readouterr().out in readme_blocks("")


@pytest.mark.usefixtures("kept_ops")
def test_readme_lines_in_the_config_of_init_config_fuse_its_layers():
    text = spacy.cli.init_config(lang="en", pipeline=["tagger", "ner"]).to_str()
    lines = "".join(readme_blocks("ini")).splitlines()
    assert [line.partition(" = ")[0] for line in lines] == ["after_pipeline_creation", "before_creation"]
    for line in lines:
        name = line.partition(" = ")[0]
        assert text.count(f"\n{name} = null\n") == 1
        text = text.replace(f"\n{name} = null\n", f"\n{line}\n")
    nlp = spacy.util.load_model_from_config(Config().from_str(text), auto_fill=True)
    assert fused_layers(nlp) == {"tok2vec": ALL, "tagger": [], "ner": []}
    assert type(nlp.get_pipe("tok2vec").model.ops) is FastactOps


def test_readme_section_beside_the_line_of_init_config_is_an_error():
    text = spacy.cli.init_config(lang="en", pipeline=["tagger"]).to_str()
    section = '\n[nlp.after_pipeline_creation]\n@callbacks = "fastact.accelerate.v1"\n'
    with pytest.raises(ConfigValidationError, match="found conflicting values"):
        Config().from_str(text + section)
    without = text.replace("\nafter_pipeline_creation = null\n", "\n") + section
    nlp = spacy.util.load_model_from_config(Config().from_str(without), auto_fill=True)
    assert fused_layers(nlp) == {"tok2vec": ALL, "tagger": []}


def run_here(command: list[str], directory: Path) -> None:
    command = [sys.executable if word == "python" else word for word in command]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
    assert run.returncode == 0, run.stdout + run.stderr


def test_readme_commands_train_a_fused_pipeline(tmp_path):
    blank = spacy.blank("en")
    examples = make_examples(blank, 60)
    for name in ("train", "dev"):
        DocBin(docs=[example.reference for example in examples]).to_disk(tmp_path / f"{name}.spacy")
    init = shlex.split(re.search(r"`(python -m spacy init config [^`]*)`", README)[1])
    train = shlex.split(next(block for block in readme_blocks("") if "spacy train" in block))
    run_here(init, tmp_path)
    run_here([*train, "--training.max_steps", "20", "--training.eval_frequency", "20"], tmp_path)
    nlp = spacy.load(tmp_path / "out" / "model-last")
    assert fused_layers(nlp) == {"tok2vec": ALL, "tagger": []}
    assert nlp.evaluate([Example(blank.make_doc(e.text), e.reference) for e in examples])["tag_acc"] > 0.95
