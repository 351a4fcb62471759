"""`FusedOptimizer` against Thinc's Optimizer, and how it reaches models and spaCy's pipelines."""

import copy
import importlib.util
import inspect
import itertools
import pickle

import numpy as np
import pytest
from thinc.api import SGD, Adam, Linear, Model, Optimizer, RAdam, chain, fix_random_seed, registry

import fastact.thinc.optimizer as fused
from fastact.thinc.optimizer import (
    FusedOptimizer,
    UpdatedModel,
    exchange,
    fuse_updates,
    give_back,
    restore_updates,
)

STEPS = 30
LR = 0.01
U = float(np.finfo(np.float32).eps) / 2
SHAPES = [(1,), (7,), (97,), (4, 5), (2, 3, 5)]


def gradients(shape, steps=STEPS, seed=1):
    """Gradients whose largest number is at most twice their root mean square."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        yield (rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1, shape)).astype(np.float32)


def weights(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def bound(size, steps=STEPS, lr=LR):
    """How far weights and averages, up to 1 in size, may be from Thinc's after `steps` updates.

    An update by Adam is lr times at most 4.  Both round a gradient up to 5 times, its norm as often as half
    its terms, the moments 6 times a step, and the weights and their average 6 times a step.
    """
    roundings = 5 + size / 2 + 6 * steps
    return 2 * steps * U * (6 + 4 * lr * roundings)


def pair(make, **options):
    """An optimiser of Thinc's, and another that is exchanged."""
    theirs, ours = make(**options), make(**options)
    assert exchange(ours)
    return theirs, ours


def assert_same_state(theirs, ours, size):
    assert dict(theirs.nr_update) == dict(ours.nr_update)
    assert dict(theirs.last_seen) == dict(ours.last_seen)
    for name in ("mom1", "mom2", "averages"):
        a, b = getattr(theirs, name), getattr(ours, name)
        assert (a is None) == (b is None)
        assert list(a or ()) == list(b or ())
        for key in a or ():
            assert (a[key].dtype, a[key].shape) == (b[key].dtype, b[key].shape)
            np.testing.assert_allclose(b[key], a[key], rtol=bound(size), atol=bound(size))


@pytest.fixture
def own_steps(monkeypatch):
    """How often Thinc's own steps run."""
    calls = []
    call = Optimizer.__call__

    def counted(self, *arguments, **options):
        calls.append(arguments[0])
        return call(self, *arguments, **options)

    monkeypatch.setattr(Optimizer, "__call__", counted)
    return calls


RULES = {
    "adam": (Adam, {}),
    "adam with other betas": (Adam, {"beta1": 0.5, "beta2": 0.9, "eps": 1e-4}),
    "sgd": (SGD, {}),
    "adam without beta2, which is sgd": (Adam, {"beta2": 0.0}),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("averages", [True, False])
@pytest.mark.parametrize(
    ("decay", "is_weight_decay"), [(0.0, True), (0.01, True), (0.01, False)], ids=["no L2", "decay", "L2"]
)
@pytest.mark.parametrize("clip", [0.0, 0.3, 1.0, 1e9])
@pytest.mark.parametrize("rule", RULES)
def test_fused_optimizer_updates_as_thinc_does(
    backend, own_steps, rule, clip, decay, is_weight_decay, averages, shape
):
    make, options = RULES[rule]
    options = options | {
        "learn_rate": LR,
        "L2": decay,
        "L2_is_weight_decay": is_weight_decay,
        "grad_clip": clip,
        "use_averages": averages,
    }
    theirs, ours = pair(make, **options)
    w, v = weights(shape), weights(shape)
    size = w.size
    for grad in gradients(shape):
        g = grad.copy()
        w, _ = theirs((3, "W"), w, grad)
        own_steps.clear()
        returned = ours((3, "W"), v, g)
        assert not own_steps
        assert returned[0] is v
        assert returned[1] is g
        assert not g.any()
        np.testing.assert_allclose(v, w, rtol=0, atol=bound(size))
    assert_same_state(theirs, ours, size)


@pytest.mark.parametrize("scale", [0.5, 2.0, 0.0])
def test_fused_optimizer_scales_the_rate(scale):
    for make in (Adam, SGD):
        theirs, ours = pair(make, learn_rate=LR, L2=0.1)
        w, v = weights(97), weights(97)
        for grad in gradients(97):
            theirs((3, "W"), w, grad.copy(), lr_scale=scale)
            ours((3, "W"), v, grad, lr_scale=scale)
        np.testing.assert_allclose(v, w, rtol=0, atol=bound(97, lr=LR * scale))
        assert_same_state(theirs, ours, 97)


def test_fused_optimizer_follows_schedules():
    def rates():
        return {
            "learn_rate": (LR / (1 + i) for i in itertools.count()),
            "L2": [0.1, 0.05, 0.0, 0.01],
            "beta1": [0.5, 0.7, 0.9],
            "grad_clip": iter([0.5, 1.0, np.float64(2.0)]),
            "eps": iter([1e-8, 1e-6]),
        }

    theirs, ours = (Adam(**rates()) for _ in range(2))
    exchange(ours)
    w, v = weights(97), weights(97)
    for grad in gradients(97):
        theirs((3, "W"), w, grad.copy())
        ours((3, "W"), v, grad)
        theirs.step_schedules()
        ours.step_schedules()
        assert theirs.learn_rate == ours.learn_rate
    np.testing.assert_allclose(v, w, rtol=0, atol=bound(97))
    assert_same_state(theirs, ours, 97)


@pytest.mark.parametrize("norm", [0.999999, 1.0, 1.000001])
def test_fused_optimizer_clips_near_the_threshold_as_thinc_does(norm):
    theirs, ours = pair(SGD, learn_rate=1.0, grad_clip=norm)
    w, v = np.zeros(4, np.float32), np.zeros(4, np.float32)
    grad = np.full(4, 0.5, np.float32)  # its norm is 1
    theirs((3, "W"), w, grad.copy())
    ours((3, "W"), v, grad)
    np.testing.assert_allclose(v, w, rtol=4 * U)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_fused_optimizer_takes_extreme_gradients_as_thinc_does(value):
    for make, clip in itertools.product((Adam, SGD), (0.0, 1.0)):
        theirs, ours = pair(make, learn_rate=LR, grad_clip=clip)
        w, v = weights(33), weights(33)
        for i, grad in enumerate(gradients(33, steps=3)):
            if i == 1:
                grad[5] = value
            g = grad.copy()
            theirs((3, "W"), w, grad)
            ours((3, "W"), v, g)
            np.testing.assert_array_equal(g, grad)
            np.testing.assert_allclose(v, w, rtol=bound(33), atol=bound(33))
        for name in ("mom1", "mom2", "averages"):
            for key, wanted in getattr(theirs, name).items():
                got = getattr(ours, name)[key]
                np.testing.assert_allclose(got, wanted, rtol=bound(33), atol=bound(33))


# ---- what is left to Thinc


def run(optimizer, arrays, steps=3):
    """What a few steps return or raise, and leave in the state."""
    outcome = []
    w, _ = arrays()
    for _ in range(steps):
        _, g = arrays()
        try:
            w, g = optimizer((3, "W"), w, g)
        except Exception as error:
            outcome.append((type(error), str(error)))
            break
        outcome += [np.array(w), np.array(g)]
    state = [dict(getattr(optimizer, name) or {}) for name in ("mom1", "mom2", "averages")]
    return outcome + [np.array(array) for arrays in state for array in arrays.values()]


def assert_same_outcome(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        if isinstance(x, tuple):
            assert x == y
        else:
            np.testing.assert_array_equal(x, y)


def ones(*shape, dtype=np.float32, order="C"):
    return np.ones(shape or 6, dtype, order)


def read_only():
    array = ones()
    array.flags.writeable = False
    return array


LEFT_TO_THINC = {
    "float64 weights": (Adam, {}, lambda: (ones(dtype=np.float64), ones())),
    "float64 gradient": (SGD, {}, lambda: (ones(), ones(dtype=np.float64))),
    "strided weights": (Adam, {}, lambda: (ones(6, 2)[:, 0], ones())),
    "transposed weights": (SGD, {}, lambda: (ones(3, 2).T, ones(2, 3))),
    "Fortran weights": (Adam, {}, lambda: (ones(2, 3, order="F"), ones(2, 3))),
    "strided gradient": (SGD, {}, lambda: (ones(), ones(6, 2)[:, 0])),
    "read-only weights": (Adam, {}, lambda: (read_only(), ones())),
    "weights that SGD can't write": (SGD, {}, lambda: (read_only(), ones())),
    "no axis": (Adam, {}, lambda: (np.array(1, np.float32), np.array(1, np.float32))),
    "empty": (Adam, {}, lambda: (ones(0, 3), ones(0, 3))),
    "empty columns": (Adam, {}, lambda: (ones(3, 0), ones(3, 0))),
    "another shape": (Adam, {}, lambda: (ones(), ones(5))),
    "another number of axes": (SGD, {}, lambda: (ones(), ones(1, 6))),
    "a list": (SGD, {}, lambda: (ones(), [1.0] * 6)),
    "RAdam": (RAdam, {}, lambda: (ones(), ones())),
    "beta1 of 0": (Adam, {"beta1": 0.0}, lambda: (ones(), ones())),
    "beta1 of 1": (Adam, {"beta1": 1.0}, lambda: (ones(), ones())),
    "negative clip": (Adam, {"grad_clip": -1.0}, lambda: (ones(), ones())),
    "tiny clip": (SGD, {"grad_clip": 1e-30}, lambda: (ones(), ones())),
    "infinite clip": (SGD, {"grad_clip": np.inf}, lambda: (ones(), ones())),
    "rate of float32": (SGD, {"learn_rate": [np.float32(0.1)]}, lambda: (ones(), ones())),
}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("what", LEFT_TO_THINC)
def test_fused_optimizer_leaves_to_thinc_what_it_does_not_take(what, own_steps):
    make, options, arrays = LEFT_TO_THINC[what]
    theirs, ours = pair(make, **{"learn_rate": 0.1} | options)
    wanted = run(theirs, arrays)
    own_steps.clear()
    assert_same_outcome(run(ours, arrays), wanted)
    assert own_steps
    assert {k: n for k, n in ours.nr_update.items() if n} == dict(theirs.nr_update)


def test_fused_optimizer_takes_weights_that_share_memory_as_thinc_does():
    outcomes = []
    for optimizer in pair(SGD, learn_rate=0.1, use_averages=False):
        memory = np.arange(12, dtype=np.float32)
        for _ in range(3):
            optimizer((3, "W"), memory[:8], memory[4:])
        outcomes.append(memory)
    np.testing.assert_array_equal(*outcomes)


@pytest.mark.parametrize("which", ["mom1", "mom2", "averages"])
def test_fused_optimizer_goes_on_from_restored_state(own_steps, which):
    theirs, ours = pair(Adam, learn_rate=LR)
    w, v = weights(97), weights(97)
    state = np.random.default_rng(5).uniform(0.1, 1, 97).astype(np.float32)
    for optimizer in (theirs, ours):
        getattr(optimizer, which)[3, "W"] = state.copy()
        optimizer.nr_update[3, "W"] = 7
    for grad in gradients(97):
        theirs((3, "W"), w, grad.copy())
        own_steps.clear()
        ours((3, "W"), v, grad)
        assert not own_steps
    np.testing.assert_allclose(v, w, rtol=0, atol=bound(97))
    assert set(map(len, (ours.mom1, ours.mom2, ours.averages, ours.nr_update))) == {1}


@pytest.mark.parametrize("state", [np.ones(5, np.float32), np.ones(6), np.ones((2, 3), np.float32)])
def test_fused_optimizer_refuses_other_moments_as_thinc_does(state):
    outcomes = []
    for optimizer in pair(Adam, learn_rate=LR):
        optimizer.mom1[3, "W"] = state.copy()
        outcomes.append(run(optimizer, lambda: (ones(), ones())))
    assert_same_outcome(*outcomes)


def test_fused_optimizer_of_a_class_of_its_own_is_left_alone():
    class Own(Optimizer):
        pass

    optimizer = Own(0.1)
    assert not exchange(optimizer)
    give_back(optimizer)
    assert type(optimizer) is Own
    assert not exchange(lambda key, w, grad: (w, grad))
    assert not exchange(None)


# ---- the class of an optimiser


def test_class_may_change_at_any_step():
    theirs, ours = Adam(LR, L2=0.1), Adam(LR, L2=0.1)
    w, v = weights(97), weights(97)
    for i, grad in enumerate(gradients(97)):
        if i % 4 == 0:
            assert exchange(ours)
            assert not exchange(ours)
        if i % 4 == 2:
            give_back(ours)
            assert type(ours) is Optimizer
        theirs((3, "W"), w, grad.copy())
        ours((3, "W"), v, grad)
    np.testing.assert_allclose(v, w, rtol=0, atol=bound(97))
    assert_same_state(theirs, ours, 97)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_fused_optimizer_is_copied_with_its_state(copied):
    optimizer = fused.Adam(LR)
    v = weights(97)
    for grad in gradients(97, steps=3):
        optimizer((3, "W"), v, grad)
    other, w = copied(optimizer), v.copy()
    assert type(other) is FusedOptimizer
    for each, values in ((optimizer, v), (other, w)):
        for grad in gradients(97, steps=3):
            each((3, "W"), values, grad)
    np.testing.assert_array_equal(v, w)
    assert other.mom1[3, "W"] is not optimizer.mom1[3, "W"]


def test_adam_of_the_registry_has_the_arguments_of_thincs():
    theirs, ours = registry.optimizers.get("Adam.v1"), registry.optimizers.get("fastact.Adam.v1")
    assert ours is fused.Adam
    assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters
    config = {"optimizer": {"@optimizers": "fastact.Adam.v1", "learn_rate": 0.5, "L2": 0.1, "beta1": 0.3}}
    optimizer = registry.resolve(config)["optimizer"]
    assert type(optimizer) is FusedOptimizer
    assert (optimizer.learn_rate, optimizer.L2, optimizer.b1, optimizer.b2) == (0.5, 0.1, 0.3, 0.999)
    assert optimizer.averages == {}


# ---- models


def model():
    fix_random_seed(0)
    return chain(Linear(4, 3), Linear(2, 4)).initialize()


def train(node, optimizer, steps=STEPS):
    rng = np.random.default_rng(0)
    for _ in range(steps):
        y, backward = node.begin_update(rng.standard_normal((5, 3), dtype=np.float32))
        backward(y)
        node.finish_update(optimizer)
    return [layer.get_param(name) for layer in node.walk() for name in layer.param_names]


def test_updated_model_trains_as_thincs_and_gives_the_optimizer_back(own_steps):
    theirs = train(model(), Adam(LR))
    node, optimizer = model(), Adam(LR)
    assert fuse_updates(node)
    assert not fuse_updates(node)
    own_steps.clear()
    for got, wanted in zip(train(node, optimizer), theirs, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5)
    assert not own_steps
    assert type(optimizer) is Optimizer
    restore_updates(node)
    assert type(node) is Model
    train(node, optimizer, steps=1)
    assert len(own_steps) == 4


def test_updated_model_gives_the_optimizer_back_after_an_error():
    node, optimizer = model(), Adam(LR)
    fuse_updates(node)
    train(node, optimizer, steps=1)
    optimizer.b1 = None
    with pytest.raises(TypeError):
        train(node, optimizer, steps=1)
    assert type(optimizer) is Optimizer


def test_updated_model_takes_any_callable():
    node, keys = model(), []
    fuse_updates(node)

    def own(key, w, grad, **_):
        keys.append(key)
        return w, grad

    train(node, own, steps=1)
    assert len(keys) == 4
    optimizer = fused.Adam(LR)
    train(node, optimizer, steps=1)
    assert type(optimizer) is FusedOptimizer


def test_updated_model_is_copied_and_saved():
    node = model()
    content = node.to_bytes()
    fuse_updates(node)
    assert node.to_bytes() == content
    assert type(copy.deepcopy(node)) is UpdatedModel
    assert type(pickle.loads(pickle.dumps(node))) is UpdatedModel
    assert node.copy().to_bytes() == content
    assert model().from_bytes(content).to_bytes() == content


def test_model_of_a_class_of_its_own_is_left_alone():
    class Own(Model):
        pass

    node = Own("own", lambda model, X, is_train: (X, lambda dY: dY))
    assert not fuse_updates(node)
    restore_updates(node)
    assert type(node) is Own
    assert not fuse_updates(None)


# ---- spaCy


needs_spacy = pytest.mark.skipif(importlib.util.find_spec("spacy") is None, reason="needs spaCy")

TAGS = {"the": "D", "dog": "N", "cat": "N", "sees": "V", "old": "A"}


def example(nlp, text, **gold):
    from spacy.training import Example

    return Example.from_dict(nlp.make_doc(text), gold)


def tagger(prepare=lambda nlp: None):
    import spacy

    fix_random_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("tagger")
    texts = ["the old dog sees the cat", "the cat sees the dog", "old cat"]
    examples = [example(nlp, text, tags=[TAGS[word] for word in text.split()]) for text in texts]
    nlp.initialize(lambda: examples)
    prepare(nlp)
    return nlp, examples


def parameters(nlp):
    nodes = nlp.get_pipe("tagger").model.walk()
    return {(node.id, name): node.get_param(name) for node in nodes for name in node.param_names}


def fuse_all(nlp):
    for _, pipe in nlp.components:
        if hasattr(pipe, "model"):
            fuse_updates(pipe.model)


@needs_spacy
def test_tagger_trains_as_with_thincs_optimizer(own_steps):
    trained = []
    for prepare in (lambda nlp: None, fuse_all):
        nlp, examples = tagger(prepare)
        own_steps.clear()
        losses = [nlp.update(examples, drop=0.0)["tagger"] for _ in range(STEPS)]
        trained.append((losses, list(parameters(nlp).values()), len(own_steps)))
    (theirs, wanted, count), (ours, got, ours_count) = trained
    assert count == STEPS * len(wanted)
    assert ours_count == 0
    # roundings are passed on by all later gradients, which has no useful bound: a tenth of one update
    np.testing.assert_allclose(ours, theirs, rtol=0.01, atol=1e-3)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


@needs_spacy
@pytest.mark.parametrize("clip", [1e9, 0.05])
def test_each_update_of_a_tagger_is_within_roundings_of_thincs(clip):
    nlp, examples = tagger()
    options = {"learn_rate": 0.001, "L2": 0.01, "grad_clip": clip}
    theirs, ours = pair(Adam, **options)

    def both(key, w, g):
        scale = max(1.0, float(np.linalg.norm(g.astype(np.float64))) / clip)
        start, magnitude = w.copy(), np.abs(g).reshape(-1) / scale
        for name in ("mom1", "mom2", "averages", "nr_update"):
            getattr(theirs, name).update(copy.deepcopy(dict(getattr(ours, name))))
        magnitude = 0.9 * np.abs(ours.mom1.get(key, 0)) + 0.1 * magnitude
        wanted, _ = theirs(key, w.copy(), g.copy())
        updated = ours(key, w, g)
        # both: gradient 5, moments 6, change 4, weights and average 6; a float32 norm that clips: a rounding
        # for each of its terms in 8 lanes or more, halved by the root
        roundings = 2 * (15 + (g.size / 16 if scale > 1 else 0)) * U
        rate = 0.001 * (1 - 0.999 ** ours.nr_update[key]) ** 0.5 / (1 - 0.9 ** ours.nr_update[key])
        change = rate * magnitude / (np.sqrt(ours.mom2[key]) + 1e-8)
        off = roundings * change.reshape(w.shape) + 12 * U * np.abs(start) + 1e-12
        assert (np.abs(w - wanted) <= off).all()
        average = off + 6 * U * (np.abs(ours.averages[key]) + np.abs(w))
        assert (np.abs(ours.averages[key] - theirs.averages[key]) <= average).all()
        return updated

    for _ in range(STEPS):
        nlp.update(examples, drop=0.0, sgd=both)
    assert set(ours.nr_update.values()) == {STEPS}


@needs_spacy
def test_tagger_is_evaluated_with_the_averages():
    nlp, examples = tagger(fuse_all)
    optimizer = Adam(LR)
    for _ in range(3):
        nlp.update(examples, sgd=optimizer)
    assert optimizer.averages.keys() >= parameters(nlp).keys()
    before = {key: value.copy() for key, value in parameters(nlp).items()}
    with nlp.use_params(optimizer.averages):
        for key, value in parameters(nlp).items():
            np.testing.assert_array_equal(value, optimizer.averages[key])
    for key, value in parameters(nlp).items():
        np.testing.assert_array_equal(value, before[key])


@needs_spacy
@pytest.mark.parametrize("component", ["tagger", "parser", "ner"])
def test_component_updates_by_a_fused_optimizer(own_steps, component):
    import spacy

    nlp = spacy.blank("en")
    nlp.add_pipe(component, config={"min_action_freq": 1} if component == "parser" else {})
    gold = {"tags": ["A", "B"], "heads": [0, 0], "deps": ["ROOT", "x"], "entities": ["U-X", "O"]}
    examples = [example(nlp, "a b", **gold)]
    optimizer = nlp.initialize(lambda: examples)
    fuse_all(nlp)
    for _ in range(2):
        nlp.update(examples, sgd=False)
        nlp.get_pipe(component).finish_update(optimizer)  # as spacy train does
    assert optimizer.nr_update
    assert not own_steps
    assert type(optimizer) is Optimizer


@needs_spacy
def test_pipeline_with_the_optimizer_in_its_config_uses_it(own_steps, tmp_path):
    import spacy

    config = {"training": {"optimizer": {"@optimizers": "fastact.Adam.v1"}}}
    nlp = spacy.blank("en", config=config)
    nlp.add_pipe("tagger")
    examples = [example(nlp, "a b", tags=["A", "B"])]
    assert type(nlp.initialize(lambda: examples)) is FusedOptimizer
    nlp.update(examples)
    assert not own_steps
    nlp.to_disk(tmp_path)
    assert type(spacy.load(tmp_path).create_optimizer()) is FusedOptimizer
