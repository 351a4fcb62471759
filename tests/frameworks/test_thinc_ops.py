"""FastactOps' products, masks, Adam and BLAS table against Thinc's own, and the forward of LayerNorm."""

import copy
import ctypes
import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from support.layer_norm import assert_backward, assert_forward
from support.tolerance import assert_same_bits, assert_within, sum_bound
from support.variants import in_force, needs_c
from thinc.api import (
    Dropout,
    LayerNorm,
    Linear,
    Model,
    NumpyOps,
    Softmax,
    chain,
    fix_random_seed,
    use_ops,
    with_array,
)
from thinc.backends import cblas
from thinc.layers.layernorm import forward as thinc_layer_norm

from fastact import backends, settings
from fastact.thinc import FastactOps, accelerate, blas, restore
from fastact.thinc.layer_norm import ORIGINALS, layer_norm_forward
from fastact.thinc.ops import with_fast_ops, with_plain_ops

PLAIN, BLIS, FAST = NumpyOps(use_blis=False), NumpyOps(), FastactOps()
DTYPES = ("float32", "float64")
FLAGS = [(False, False), (False, True), (True, False), (True, True)]


def normal(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def operands(trans1, trans2, dtype, rows=19, columns=33, depth=50):
    x = normal((depth, rows) if trans1 else (rows, depth), dtype)
    return x, normal((columns, depth) if trans2 else (depth, columns), dtype, seed=1)


def exact(x, y, trans1, trans2):
    left, right = (x.T if trans1 else x).astype("f8"), (y.T if trans2 else y).astype("f8")
    return left @ right, abs(left) @ abs(right)


def misaligned(array):
    """A copy in C order, whose memory begins a byte beside an element."""
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    copied = memory.view(array.dtype).reshape(array.shape)
    copied[...] = array
    return copied


# ---- gemm and affine


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("trans1", "trans2"), FLAGS)
def test_gemm_is_within_the_error_bound_with_and_without_out(trans1, trans2, dtype):
    x, y = operands(trans1, trans2, dtype)
    wanted, magnitude = exact(x, y, trans1, trans2)
    bound = sum_bound(magnitude, 50, np.dtype(dtype), backends.get_backend())
    got = FAST.gemm(x, y, trans1=trans1, trans2=trans2)
    assert got.dtype == dtype
    assert_within(got, wanted, bound)
    whole = np.full((20, 33), np.nan, dtype)
    assert FAST.gemm(x, y, out=whole[1:], trans1=trans1, trans2=trans2).base is whole
    assert_same_bits(whole[1:], got)
    assert np.isnan(whole[0]).all()
    wide = np.zeros((19, 66), dtype)
    FAST.gemm(x, y, out=wide[:, ::2], trans1=trans1, trans2=trans2)
    assert_same_bits(np.ascontiguousarray(wide[:, ::2]), got)
    assert not wide[:, 1::2].any()


@pytest.mark.parametrize(("trans1", "trans2"), FLAGS)
def test_gemm_takes_strided_read_only_and_empty_operands(trans1, trans2):
    x, y = operands(trans1, trans2, "float32")
    wanted = FAST.gemm(x, y, trans1=trans1, trans2=trans2)
    x, y = np.asfortranarray(x), np.repeat(y, 2, axis=1)[:, ::2]
    x.flags.writeable = y.flags.writeable = False
    assert_same_bits(FAST.gemm(x, y, trans1=trans1, trans2=trans2), wanted)
    out = misaligned(np.zeros_like(wanted))
    assert_same_bits(FAST.gemm(misaligned(x), misaligned(y), out, trans1, trans2).copy(), wanted)
    for rows, columns, depth in ((0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)):
        x, y = operands(trans1, trans2, "float32", rows, columns, depth)
        got = FAST.gemm(x, y, trans1=trans1, trans2=trans2)
        np.testing.assert_array_equal(got, np.zeros((rows, columns), "f"))


def outcome(call):
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("use_blis", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: (x[0], y),
        lambda x, y: (x, y[None]),
        lambda x, y: (x[:, 1:], y),
        lambda x, y: (x.astype("f8"), y),
        lambda x, y: (x.astype("i8"), y.astype("i8")),
        lambda x, y: (x.astype("f2"), y.astype("f2")),
        lambda x, y: (x.tolist(), y),
    ],
    ids=["vector", "cube", "depth", "mixed", "integers", "half", "list"],
)
def test_gemm_of_what_fastact_does_not_take_is_thincs(change, use_blis):
    x, y = change(*operands(False, False, "float32"))
    ours = outcome(lambda: FastactOps(use_blis=use_blis).gemm(x, y))
    theirs = outcome(lambda: NumpyOps(use_blis=use_blis).gemm(x, y))
    np.testing.assert_equal(ours, theirs)


def test_gemm_of_a_wrong_out_raises_and_writes_nothing():
    x, y = operands(False, False, "float32")
    for out in (np.ones((33, 19), "f"), np.ones((19, 33)), np.ones(627, "f")):
        with pytest.raises(ValueError, match=r"out: got .*, wanted float32 \(19, 33\)"):
            FAST.gemm(x, y, out=out)
        assert (out == 1).all()
    locked = np.ones((19, 33), "f")
    locked.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        FAST.gemm(x, y, out=locked)
    assert (locked == 1).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 7, 1000])
def test_affine_is_within_the_error_bound(rows, dtype):
    X, W, b = normal((rows, 96), dtype), normal((17, 96), dtype, 1), normal(17, dtype, 2)
    magnitude = abs(X.astype("f8")) @ abs(W.T.astype("f8")) + abs(b)
    wanted = X.astype("f8") @ W.T.astype("f8") + b
    bound = sum_bound(magnitude, 97, np.dtype(dtype), backends.get_backend())
    Y = FAST.affine(X, W, b)
    assert Y.dtype == dtype
    assert_within(Y, wanted, bound)
    assert_within(FAST.affine(X[::-1], np.asfortranarray(W), np.repeat(b, 2)[::2]), wanted[::-1], bound[::-1])
    assert_within(FAST.affine(misaligned(X), misaligned(W), misaligned(b)), wanted, bound)


@pytest.mark.parametrize(
    "change",
    [lambda X, W, b: (X[:, 1:], W, b), lambda X, W, b: (X, W, b[:1]), lambda X, W, b: (X, W, b.astype("f8"))],
    ids=["depth", "one bias", "bias of float64"],
)
def test_affine_of_what_fastact_does_not_take_is_thincs(change):
    arguments = change(normal((4, 6)), normal((5, 6), seed=1), normal(5, seed=2))
    ours, theirs = (outcome(lambda ops=ops: ops.affine(*arguments)) for ops in (FAST, BLIS))
    if isinstance(theirs, tuple):
        assert ours == theirs
    else:
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_use_the_threads_and_the_tier_in_force(dtype):
    x, y = normal((3, 4), dtype), normal((5, 4), dtype)
    run = backends.active()
    for name, call in (
        ("matmul", lambda: FAST.gemm(x, y, trans2=True)),
        ("linear_activation", lambda: FAST.affine(x, y, y[:, 0])),
    ):
        with (
            mock.patch.object(run, name) as kernel,
            settings.num_threads(3),
            settings.float32_matmul_precision("medium"),
        ):
            call()
        assert kernel.call_args.args[-2:] == (3, "medium")


# ---- dropout masks and Adam


@pytest.mark.parametrize("shape", [(7, 96), (0, 3), (5,), 4, (2, 3, 4)], ids=str)
@pytest.mark.parametrize("drop", [None, -0.5, 0.0, 0.1, 0.5, 0.9999, 1.0, 2.0])
def test_dropout_mask_is_thincs(shape, drop):
    fix_random_seed(3)
    theirs = [PLAIN.get_dropout_mask(shape, drop) for _ in range(2)]
    fix_random_seed(3)
    ours = [FAST.get_dropout_mask(shape, drop) for _ in range(2)]
    for a, b in zip(ours, theirs, strict=True):
        assert type(a) is type(b)
        assert_same_bits(a, b)


def ops_of_a_node(same_draws):
    node = Dropout(0.3)
    node.ops = NumpyOps(use_blis=False)
    assert with_fast_ops(node, same_draws)
    return node.ops


def seeded(draw):
    fix_random_seed(3)
    return draw()


@pytest.mark.parametrize("shape", [(7, 96), (0, 3), (5,), 4, (2, 3, 4), ()], ids=str)
@pytest.mark.parametrize("drop", [1e-9, 0.1, 0.5, 0.9999])
def test_dropout_mask_without_same_draws_is_that_of_one_seed(shape, drop, backend):
    ops = ops_of_a_node(same_draws=False)
    mask = seeded(lambda: ops.get_dropout_mask(shape, drop))
    after = np.random.random_sample()  # noqa: NPY002
    seed = seeded(lambda: int(np.random.randint(0, 2**63)))  # noqa: NPY002
    assert np.random.random_sample() == after  # noqa: NPY002
    keep = np.empty(shape, np.uint8)
    backends.get("numpy").dropout_keep(seed, drop, keep)
    np.testing.assert_array_equal(mask, keep * np.float32(1 / (1 - drop)))
    assert mask.dtype == np.float32
    assert mask.shape == keep.shape


@pytest.mark.parametrize("drop", [None, -0.5, 0.0, 1.0, 2.0])
def test_dropout_mask_of_all_or_nothing_is_thincs_without_same_draws_too(drop):
    assert_same_bits(
        ops_of_a_node(False).get_dropout_mask((3, 4), drop), PLAIN.get_dropout_mask((3, 4), drop)
    )


@pytest.mark.parametrize("drop", [0.1, 0.5, 0.9])
def test_dropout_mask_without_same_draws_keeps_its_share(drop):
    mask = seeded(lambda: ops_of_a_node(False).get_dropout_mask((1000, 100), drop))
    deviation = (drop * (1 - drop) / mask.size) ** 0.5
    assert abs((mask != 0).mean() - (1 - drop)) < 5 * deviation  # chance of 6e-7, and the seed is fixed


@needs_c
def test_accelerate_chooses_the_draws_of_a_layer_outside_blocks():
    model = with_array(Dropout(0.4))
    draw = lambda: model(np.ones((9, 50), "f"), is_train=True)[0]  # noqa: E731
    thincs = seeded(draw)
    with in_force("c"):
        for same_draws in (False, True, False):
            accelerate(model, same_draws)
            assert (seeded(draw) == thincs).all() == same_draws
            assert_same_bits(seeded(draw), seeded(draw))
    with in_force("numpy"):
        accelerate(model, same_draws=True)
        assert_same_bits(seeded(draw), thincs)
    restore(model)
    assert_same_bits(seeded(draw), thincs)


def test_use_ops_alone_draws_the_masks_of_thinc():
    with use_ops("fastact"):
        model = Dropout(0.4)
    assert type(model.ops) is FastactOps
    accelerate(model)
    x = np.ones((9, 50), "f")
    mask = seeded(lambda: model(x, is_train=True)[0])
    assert_same_bits(mask, seeded(lambda: PLAIN.get_dropout_mask(x.shape, 0.4)))


def adam_state(n, dtype="float32"):
    weights, gradient, mom1 = (normal(n, dtype, seed) for seed in range(3))
    return weights, gradient, mom1, normal(n, dtype, 3) ** 2


@pytest.mark.parametrize("n", [0, 1, 3, 15, 16, 17, 97, 5000])
def test_adam_is_thincs_but_for_rounding(n):
    """A step of each is off by at most three roundings in mom1, four in mom2, some more in the quotient."""
    ours, theirs = adam_state(n), adam_state(n)
    weights, gradient, mom1, _ = (array.astype("f8") for array in adam_state(n))
    for state, ops in ((ours, FAST), (theirs, BLIS)):
        result = ops.adam(*state, 0.9, 0.999, 1e-8, 0.01, 0.5)
        assert all(a is b for a, b in zip(result, state, strict=True))
        assert not state[1].any()
    u = float(np.finfo("f").eps) / 2
    mean = 0.9 * abs(mom1) + 0.1 * abs(gradient)  # magnitudes
    quotient = mean / (np.sqrt(theirs[3].astype("f8")) + 1e-8)
    bounds = 3 * u * (abs(weights) + 0.01 * quotient) + 20 * u * 0.01 * quotient, 0, 6 * u * mean
    for got, wanted, bound in zip(ours, theirs, (*bounds, 8 * u * theirs[3]), strict=True):
        assert_within(got, wanted.astype("f8"), bound * 1.01)  # the bounds are of the first order


def test_adam_of_what_fastact_does_not_take_is_thincs():
    for state in (adam_state(5, "float64"), tuple(a.reshape(1, 5) for a in adam_state(5))):
        copies = [a.copy() for a in state]
        ours = outcome(lambda state=state: FAST.adam(*state, 0.9, 0.999, 1e-8, 0.01))
        theirs = outcome(lambda copies=copies: BLIS.adam(*copies, 0.9, 0.999, 1e-8, 0.01))
        assert ours == theirs
    weights, gradient, mom1, mom2 = adam_state(5)
    with pytest.raises(ValueError, match="incompatible shapes"):
        FAST.adam(weights, gradient[:4].copy(), mom1, mom2, 0.9, 0.999, 1e-8, 0.01)


# ---- the table of BLAS functions

SGEMM = ctypes.CFUNCTYPE(
    None, *[ctypes.c_int] * 5, ctypes.c_float, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int,
    ctypes.c_float, ctypes.c_void_p, ctypes.c_int,
)  # fmt: skip


def address_in(table, name):
    """The address of a function in Thinc's table, by the getter that Thinc has for Cython code."""
    getter = cblas.__pyx_capi__[name]
    kind = (ctypes.py_object, ctypes.c_char_p)
    get_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, *kind)(("PyCapsule_GetPointer", ctypes.pythonapi))
    return ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(pointer(getter, get_name(getter)))(table)


def sgemm(function, x, y, trans1, trans2, start, alpha=1.0, beta=0.0):
    """start (rows, columns) = alpha op(x) @ op(y) + beta start, by a function of BLAS"""
    depth = len(x) if trans1 else x.shape[1]
    function(
        trans1, trans2, *start.shape, depth, alpha, x.ctypes.data, x.shape[1], y.ctypes.data, y.shape[1],
        beta, start.ctypes.data, start.shape[1],
    )  # fmt: skip
    return start


@needs_c
def test_cblas_has_the_functions_of_c():
    run = backends.get("c")
    with mock.patch.object(backends, "_active", run):
        table = FAST.cblas()
        assert type(table) is cblas.CBlas
        assert FAST.cblas() is table
        found = tuple(address_in(table, name) for name in ("sgemm", "saxpy", "daxpy"))
        assert found == run.blas_addresses()


def test_cblas_is_thincs_on_a_backend_without_addresses(each_backend):
    own = {address_in(BLIS.cblas(), name) for name in ("sgemm", "saxpy", "daxpy")}
    found = {address_in(FAST.cblas(), name) for name in ("sgemm", "saxpy", "daxpy")}
    assert own.isdisjoint(found) if each_backend == "c" else own == found


@pytest.mark.parametrize("setters", [{}, {"set_sgemm": cblas.__pyx_capi__["set_saxpy"]}])
def test_table_keeps_thincs_function_where_the_setter_is_not_known(monkeypatch, setters):
    monkeypatch.setattr(cblas, "__pyx_capi__", setters)
    table = blas.table.__wrapped__(1, 2, 3)
    monkeypatch.undo()
    for name in ("sgemm", "saxpy", "daxpy"):
        assert address_in(table, name) == address_in(BLIS.cblas(), name)


@needs_c
@pytest.mark.parametrize(("alpha", "beta"), [(1, 0), (1, 1), (-0.5, 0.25)])
@pytest.mark.parametrize(("trans1", "trans2"), FLAGS)
def test_sgemm_is_within_the_error_bound(trans1, trans2, alpha, beta):
    function = SGEMM(backends.get("c").blas_addresses()[0])
    for rows, columns in ((1, 3), (8, 17), (64, 100), (31, 1)):
        x, y = operands(trans1, trans2, "float32", rows, columns, 64)
        product, magnitude = exact(x, y, trans1, trans2)
        start = normal((rows, columns), seed=2)
        wanted = alpha * product + beta * start.astype("f8")
        bound = sum_bound(abs(alpha) * magnitude + abs(beta * start.astype("f8")), 67, np.float32, "c")
        assert_within(sgemm(function, x, y, trans1, trans2, start, alpha, beta), wanted, bound)


@needs_c
def test_sgemm_of_several_threads_at_once_has_the_bits_of_one():
    function = SGEMM(backends.get("c").blas_addresses()[0])  # a CFUNCTYPE releases the GIL
    x, y = operands(False, True, "float32", 64, 100, 64)

    def run(_):
        return [sgemm(function, x, y, False, True, np.zeros((64, 100), "f")) for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        results = [result for results in pool.map(run, range(4)) for result in results]
    for result in results:
        assert_same_bits(result, results[0])


def test_gather_add_is_thincs_but_for_rounding():
    for dtype in DTYPES:
        table = normal((20, 96), dtype)
        indices = np.random.default_rng(0).integers(0, 20, (30, 4)).astype("i")
        ours, theirs = FAST.gather_add(table, indices), BLIS.gather_add(table, indices)
        bound = sum_bound(BLIS.gather_add(abs(table), indices), 4, np.dtype(dtype), "numpy")
        assert_within(ours, theirs.astype("f8"), 2 * bound)


# ---- Ops of a node


def test_node_gets_fast_ops_and_its_own_ops_back():
    node = Linear(3, 4)
    for plain in (NumpyOps(), NumpyOps(device_id=3, use_blis=False)):
        node.ops = plain
        assert with_fast_ops(node)
        assert type(node.ops) is FastactOps
        assert (node.ops.device_type, node.ops.device_id) == ("cpu", plain.device_id)
        assert node.ops.use_blis == plain.use_blis
        assert not with_fast_ops(node)
        assert with_plain_ops(node)
        assert node.ops is plain
        assert not with_plain_ops(node)


def test_other_ops_stay_with_a_node():
    marked = NumpyOps()
    marked.gemm = mock.Mock()
    for ops in (marked, type("Own", (NumpyOps,), {})(), FastactOps()):
        node = Linear(3, 4)
        node.ops = ops
        assert not with_fast_ops(node)
        assert not with_plain_ops(node)
        assert node.ops is ops


def fast(model: Model) -> Model:
    for node in model.walk():
        with_fast_ops(node, same_draws=True)
    return model


def test_model_with_fast_ops_is_copied_pickled_and_saved():
    model = chain(Linear(4, 3), LayerNorm(4), Softmax(5, 4)).initialize()
    model.layers[2].set_param("W", normal((5, 4)))
    X, data = normal((7, 3)), model.to_bytes()
    wanted = model.predict(X)
    assert fast(model).to_bytes() == data
    for twin in (
        model,
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        model.copy(),  # whose nodes have the current Ops
        chain(Linear(4, 3), LayerNorm(4), Softmax(5, 4)).from_bytes(data),
    ):
        np.testing.assert_allclose(twin.predict(X), wanted, rtol=1e-5, atol=1e-6)
    twin = copy.deepcopy(model)
    assert all(with_plain_ops(node) for node in twin.walk())
    assert {type(node.ops) for node in twin.walk()} == {NumpyOps}
    assert {type(node.ops) for node in model.walk()} == {FastactOps}


# ---- spaCy's parser and entity recogniser


def examples_of(nlp: Language, count: int) -> list[Example]:
    rng = random.Random(0)
    made = []
    for _ in range(count):
        words = [
            "the",
            rng.choice(["dog", "house"]),
            rng.choice(["sees", "likes"]),
            rng.choice(["Anna", "Chen"]),
        ]
        gold = {
            "heads": [1, 2, 2, 2],
            "deps": ["det", "nsubj", "ROOT", "dobj"],
            "entities": ["O", "O", "O", "U-PERSON"],
        }
        made.append(Example.from_dict(Doc(nlp.vocab, words=words), gold))
    return made


@pytest.fixture(scope="module")
def parser() -> Language:
    fix_random_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("parser", config={"min_action_freq": 1})
    nlp.add_pipe("ner")
    examples = examples_of(nlp, 20)
    optimizer = nlp.initialize(lambda: examples)
    for _ in range(15):
        nlp.update(examples, sgd=optimizer)
    return nlp


def parses(nlp):
    texts = ["the dog sees Anna", "the house likes the dog", "", "Chen", "Anna sees Chen " * 40]
    return [
        [(t.head.i, t.dep_, t.ent_iob_, t.ent_type_) for t in doc]
        for doc in [*nlp.pipe(texts), nlp(texts[0])]
    ]


@needs_c
def test_parser_and_ner_call_the_table_and_predict_the_same(parser):
    wanted = parses(parser)
    seen = {value for doc in wanted for token in doc for value in token}
    assert {"nsubj", "dobj", "PERSON"} <= seen
    calls = {"sgemm": 0, "saxpy": 0}
    run = backends.get("c")
    addresses = run.blas_addresses()
    saxpy_type = ctypes.CFUNCTYPE(
        None, ctypes.c_int, ctypes.c_float, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int
    )

    def counted(kind, name, address):
        function = kind(address)

        def call(*arguments):
            calls[name] += 1
            function(*arguments)

        return kind(call)

    counting = counted(SGEMM, "sgemm", addresses[0]), counted(saxpy_type, "saxpy", addresses[1])
    table = blas.table.__wrapped__(*(ctypes.cast(c, ctypes.c_void_p).value for c in counting), addresses[2])
    try:
        for _, pipe in parser.components:
            fast(pipe.model)
        with mock.patch.object(FastactOps, "cblas", return_value=table):
            assert parses(parser) == wanted
        assert min(calls.values()) > 10
        assert parses(parser) == wanted
    finally:
        for _, pipe in parser.components:
            for node in pipe.model.walk():
                assert with_plain_ops(node)
    assert parses(parser) == wanted


def test_parser_and_ner_train_to_the_same_loss_but_for_rounding():
    losses = []
    for prepare in (lambda model: model, fast):
        fix_random_seed(0)
        nlp = spacy.blank("en")
        nlp.add_pipe("parser", config={"min_action_freq": 1})
        nlp.add_pipe("ner")
        examples = examples_of(nlp, 20)
        optimizer = nlp.initialize(lambda examples=examples: examples)
        for _, pipe in nlp.components:
            prepare(pipe.model)
        of_run = []
        for _ in range(3):
            found: dict[str, float] = {}
            nlp.update(examples, sgd=optimizer, drop=0.1, losses=found)
            of_run.append([found["parser"], found["ner"]])
        losses.append(of_run)
    # Updates are far fewer than what lets roundings of 1e-7 grow to a thousandth of a loss.
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)


# ---- layer norm


def layer_norm(features, dtype="float32", forward=layer_norm_forward):
    model = LayerNorm(features).initialize()
    for seed, name in enumerate(("G", "b"), 5):
        model.set_param(name, normal(features, dtype, seed))
    if forward is not thinc_layer_norm:
        model.replace_callbacks(forward, init=model.init)
    return model


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(0, 5), (1, 1), (3, 16), (17, 97), (1000, 96)], ids=str)
def test_layer_norm_is_within_the_error_bound(size, dtype):
    model, x, grad_y = layer_norm(size[1], dtype), normal(size, dtype), normal(size, dtype, 1)
    y, backprop = model(x, is_train=True)
    grad_x = backprop(grad_y)
    G, b = model.get_param("G"), model.get_param("b")
    name = backends.get_backend()
    saved = np.empty((len(x), 2), dtype)
    backends.active().layer_norm(x, G, b, 1e-8, np.empty_like(x), saved)
    assert_forward(x, G, b, 1e-8, y, saved, name)
    assert_backward(grad_y, x, G, 1e-8, (grad_x, model.get_grad("G"), model.get_grad("b")), name)
    assert y.dtype == grad_x.dtype == model.get_grad("G").dtype == dtype


def test_layer_norm_gradients_add_up_in_place():
    model, x, grad_y = layer_norm(33), normal((9, 33)), normal((9, 33), seed=1)
    model(x, is_train=True)[1](grad_y)
    grads = [model.get_grad(name) for name in ("G", "b")]
    once = [grad.copy() for grad in grads]
    model(x, is_train=True)[1](grad_y)
    for name, grad, first in zip(("G", "b"), grads, once, strict=True):
        assert model.get_grad(name) is grad
        np.testing.assert_array_equal(grad, 2 * first)
    model.set_grad("b", np.repeat(once[1], 2)[::2])  # such an array cannot be added to in place
    model.set_grad("G", once[0].astype("f8"))
    model(x, is_train=True)[1](grad_y)
    np.testing.assert_array_equal(model.get_grad("b"), 2 * once[1])
    np.testing.assert_array_equal(model.get_grad("G"), 2 * once[0].astype("f8"))


@pytest.mark.parametrize(
    "x",
    [normal((4, 8), "float64"), normal((2, 4, 8)), normal((4, 8)).view(type("Own", (np.ndarray,), {}))],
    ids=["float64", "cube", "subclass"],
)
def test_layer_norm_of_what_fastact_does_not_take_is_thincs(x):
    results = []
    for forward in (layer_norm_forward, thinc_layer_norm):
        model = layer_norm(8, forward=forward)

        def run(model=model):
            y, backprop = model(x, is_train=True)
            return y, backprop(np.ones_like(x)), model.get_grad("G"), model.get_grad("b")

        results.append(outcome(run))
    np.testing.assert_equal(*results)


@pytest.mark.parametrize("shape", [(9, 8), (9, 1), (8,)], ids=str)
def test_layer_norm_backprop_of_another_dtype_or_shape_is_thincs(shape):
    results = []
    for forward in (layer_norm_forward, thinc_layer_norm):
        model = layer_norm(8, forward=forward)
        backprop = model(normal((9, 8)), is_train=True)[1]
        results.append(outcome(lambda b=backprop: b(normal(shape, "float64"))))
    np.testing.assert_equal(*results)


def test_layer_norm_takes_arrays_of_any_layout():
    model, x, grad_y = layer_norm(8), normal((9, 8)), normal((9, 8), seed=1)
    y, backprop = model(x, is_train=True)
    grad_x = backprop(grad_y)
    wide, tall = np.repeat(x, 2, axis=1)[:, ::2], np.asfortranarray(grad_y)
    wide.flags.writeable = tall.flags.writeable = False
    for other_x, other_grad_y in ((wide, tall), (misaligned(x), misaligned(grad_y))):
        other_y, backprop = model(other_x, is_train=True)
        assert_same_bits(other_y, y)
        assert_same_bits(backprop(other_grad_y), grad_x)
        for name in ("G", "b"):
            model.set_param(name, np.repeat(model.get_param(name), 2)[::2])


def test_layer_norm_survives_copies_and_gives_thincs_forward_back():
    model, x = layer_norm(8), normal((9, 8))
    assert ORIGINALS.keys() == {layer_norm_forward}
    assert ORIGINALS[layer_norm_forward] is thinc_layer_norm
    y = model.predict(x)
    for twin in (model.copy(), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin._func is layer_norm_forward
        assert_same_bits(twin.predict(x), y)
