"""Hash embeddings in Thinc: the forwards in one call against Thinc's own layers, to the bit."""

import copy

import numpy as np
import pytest
from support.tolerance import assert_same_bits
from support.variants import needs_c
from thinc.api import (
    Adam,
    Embed,
    HashEmbed,
    Model,
    NumpyOps,
    Ragged,
    chain,
    concatenate,
    fix_random_seed,
    with_array,
)
from thinc.layers.array_getitem import ints_getitem
from thinc.util import data_validation

import fastact
from fastact.thinc import FastactOps, embedding

pytestmark = needs_c

ROWS = (0, 1, 3, 15, 16, 17, 31, 32, 33, 64, 97)


def accelerated(model: Model) -> Model:
    """A copy of `model` with the forwards of `embedding`; nodes have other ids, parameters are the same."""
    model = copy.deepcopy(model)
    theirs = {thinc_forward: forward for forward, thinc_forward in embedding.ORIGINALS.items()}
    for node in model.walk():
        if node._func in theirs:
            node.replace_callbacks(theirs[node._func], init=node.init)
    return model


def hash_nodes(model: Model) -> list[Model]:
    return [node for node in model.walk() if node.name == "hashembed"]


def make_model(*sizes, dropout=None, seed=0) -> Model:
    """HashEmbeds of (rows, width) side by side, each of a column; one alone has no column."""
    fix_random_seed(seed)
    if len(sizes) == 1:
        (rows, width), columns = sizes[0], [None]
        model = HashEmbed(width, rows, seed=7, dropout=dropout)
    else:
        columns = range(len(sizes))
        embeds = [
            HashEmbed(width, rows, seed=7 + i, column=i, dropout=dropout)
            for i, (rows, width) in zip(columns, sizes, strict=True)
        ]
        model = concatenate(*embeds)
    model.initialize()
    return model


def make_ids(rows, columns=None, dtype=np.uint64):
    rng = np.random.default_rng(rows)
    shape = (rows,) if columns is None else (rows, columns)
    return rng.choice(np.array([0, 1, 2**31 - 1, *range(100, 130)]), shape).astype(dtype)


def outcome(model: Model, ids, is_train=True, backwards=1, seed=3):
    """Y, dX and the gradients after `backwards` calls of the callback with different dY."""
    fix_random_seed(seed)
    y, backprop = model(ids, is_train=is_train)
    rng = np.random.default_rng(1)
    for _ in range(backwards):
        grad_x = backprop(rng.standard_normal(y.shape).astype(y.dtype))
    grads = [node.get_grad("E") for node in hash_nodes(model)]
    return (y, grad_x, *grads, np.array(np.random.random()))  # noqa: NPY002, the draws that are left


def assert_ran_in_c(model: Model, ids, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(embedding, "thinc_hash_embed", None)
        patch.setattr(embedding, "thinc_concatenate", None)
        model(ids, is_train=False)


# ---- the same as Thinc's, to the bit


@pytest.mark.parametrize("rows", ROWS[1:])
@pytest.mark.parametrize("width", [1, 5, 16, 33, 96])
@pytest.mark.parametrize("dropout", [None, 0.0, 0.4, 1.0])
def test_hash_embed_alone_equals_thincs(rows, width, dropout, monkeypatch):
    model = make_model((50, width), dropout=dropout)
    ours = accelerated(model)
    assert_same_bits(outcome(ours, make_ids(rows)), outcome(model, make_ids(rows)))
    assert_ran_in_c(ours, make_ids(rows), monkeypatch)


@pytest.mark.parametrize("rows", ROWS[1:])
@pytest.mark.parametrize("dropout", [None, 0.3])
@pytest.mark.parametrize("sizes", [[(50, 96), (25, 96)], [(7, 1), (13, 33), (1, 17)], [(50, 32)] * 5])
def test_embeddings_side_by_side_equal_thincs(rows, sizes, dropout, monkeypatch):
    model = make_model(*sizes, dropout=dropout)
    ours, ids = accelerated(model), make_ids(rows, len(sizes) + 1)
    assert_same_bits(outcome(ours, ids), outcome(model, ids))
    assert_ran_in_c(ours, ids, monkeypatch)


def test_inference_draws_nothing_and_its_callback_works(monkeypatch):
    model = make_model((50, 8), (20, 8), dropout=0.5)
    ids = make_ids(9, 2)
    assert_same_bits(outcome(accelerated(model), ids, is_train=False), outcome(model, ids, is_train=False))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint16, np.ulonglong])
@pytest.mark.parametrize("columns", [None, 2])
def test_ids_of_other_integer_types_are_taken(dtype, columns, monkeypatch):
    model = make_model(*[(50, 8)] * (columns or 1))
    ids = make_ids(33, columns, dtype)
    if np.issubdtype(dtype, np.signedinteger):
        ids -= 5
    ours = accelerated(model)
    assert_same_bits(outcome(ours, ids), outcome(model, ids))
    assert_ran_in_c(ours, ids, monkeypatch)


@pytest.mark.parametrize(
    "view",
    [
        lambda ids: ids[::-1],
        lambda ids: np.asfortranarray(ids),
        lambda ids: np.repeat(ids, 2, axis=-1)[..., ::2],
        lambda ids: np.broadcast_to(ids[:1], ids.shape),
        lambda ids: ids.astype(ids.dtype.newbyteorder()),
    ],
    ids=["backwards", "fortran", "spaced", "broadcast", "byteswapped"],
)
@pytest.mark.parametrize("columns", [None, 3])
def test_ids_of_any_layout_are_taken(view, columns, monkeypatch):
    model = make_model(*[(50, 8)] * (columns or 1))
    ids = view(make_ids(17, columns))
    ours = accelerated(model)
    assert_same_bits(outcome(ours, ids), outcome(model, ids))
    assert_ran_in_c(ours, ids, monkeypatch)


def test_columns_in_any_order_and_repeated_equal_thincs(monkeypatch):
    fix_random_seed(0)
    columns = (3, 0, 3, 1)
    model = concatenate(*(HashEmbed(8, 30, seed=i, column=i_col) for i, i_col in enumerate(columns)))
    model.initialize()
    ours, ids = accelerated(model), make_ids(20, 4)
    assert_same_bits(outcome(ours, ids), outcome(model, ids))
    assert_ran_in_c(ours, ids, monkeypatch)


def test_embeddings_of_whole_ids_side_by_side_equal_thincs(monkeypatch):
    fix_random_seed(0)
    model = concatenate(HashEmbed(8, 30, seed=1), HashEmbed(5, 20, seed=2))
    model.initialize()
    ours, ids = accelerated(model), make_ids(20)
    assert_same_bits(outcome(ours, ids), outcome(model, ids))
    assert_ran_in_c(ours, ids, monkeypatch)


def test_float64_tables_equal_thincs_forward_and_get_a_float64_gradient(monkeypatch):
    model = make_model((50, 33), (20, 5))
    for node in hash_nodes(model):
        node.set_param("E", node.get_param("E").astype(np.float64))
    ours, ids = accelerated(model), make_ids(20, 2)
    got, wanted = outcome(ours, ids), outcome(model, ids)
    assert_same_bits(got[:2], wanted[:2])
    for grad, single in zip(got[2:4], wanted[2:4], strict=True):
        assert grad.dtype == np.float64
        assert single.dtype == np.float32  # Thinc sums in float32: 20 rows, 4 keys each
        np.testing.assert_allclose(grad, single, rtol=0, atol=80 * 2**-23 * 80 * 4)
    assert_ran_in_c(ours, ids, monkeypatch)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_are_the_same_for_any_number_of_threads(threads):
    model = make_model((500, 96), (250, 96), (250, 96), (250, 96), dropout=0.2)
    ids = make_ids(1200, 4)
    with fastact.num_threads(threads):
        got = outcome(accelerated(model), ids)
    assert_same_bits(got, outcome(model, ids))


# ---- gradients


@pytest.mark.parametrize("backwards", [2, 3])
def test_callback_that_is_called_again_adds_again(backwards):
    model = make_model((50, 16), (20, 16))
    ours, ids = accelerated(model), make_ids(31, 2)
    got, wanted = (outcome(each, ids, backwards=backwards) for each in (ours, model))
    assert_same_bits(got[:2], wanted[:2])
    for grad, other in zip(got[2:4], wanted[2:4], strict=True):
        # Thinc adds up each call apart: at most 31 * 4 terms, of magnitudes below 5, for each call
        np.testing.assert_allclose(grad, other, rtol=0, atol=124 * backwards * 2**-24 * 124 * 5 * backwards)


def test_callback_with_dropout_leaves_its_argument_and_masks_each_call_once():
    model = make_model((50, 16), dropout=0.5)
    ours, ids = accelerated(model), make_ids(9)
    y, backprop = ours(ids, is_train=True)
    grad_y = np.ones_like(y)
    backprop(grad_y)
    once = ours.get_grad("E").copy()
    backprop(grad_y)
    assert (grad_y == 1).all()
    np.testing.assert_array_equal(ours.get_grad("E"), 2 * once)


def test_gradient_is_added_in_place_where_it_is_plain():
    model = accelerated(make_model((50, 16), (20, 16)))
    ids = make_ids(9, 2)
    outcome(model, ids)
    grads = [node.get_grad("E") for node in hash_nodes(model)]
    before = [grad.copy() for grad in grads]
    outcome(model, ids)
    for node, grad, old in zip(hash_nodes(model), grads, before, strict=True):
        assert node.get_grad("E") is grad
        assert (grad != old).any()


@pytest.mark.parametrize(
    "start",
    [
        lambda shape: np.ones(shape, np.float64),
        lambda shape: np.ones(shape, np.float32, order="F"),
        lambda shape: np.ones((shape[0], 2 * shape[1]), np.float32)[:, ::2],
    ],
    ids=["float64", "fortran", "strided"],
)
def test_gradient_that_c_cannot_add_to_is_incremented_by_thinc(start):
    model = make_model((50, 16), (20, 16))
    ours, ids = accelerated(model), make_ids(9, 2)
    for each in (model, ours):
        for node in hash_nodes(each):
            node.set_grad("E", start(node.get_param("E").shape))
    assert_same_bits(outcome(ours, ids), outcome(model, ids))


def test_layer_that_is_there_twice_gets_the_gradients_of_both():
    fix_random_seed(0)
    embed = HashEmbed(16, 30, seed=1)
    model = concatenate(embed, embed)
    model.initialize()
    ours, ids = accelerated(model), make_ids(20)
    for _ in range(2):  # without a gradient, and with one
        got, wanted = outcome(ours, ids), outcome(model, ids)
        assert_same_bits(got[:2], wanted[:2])
        np.testing.assert_allclose(got[2], wanted[2], rtol=0, atol=320 * 2**-24 * 320 * 5)


def test_training_gives_the_parameters_of_thincs(monkeypatch):
    model = make_model((50, 16), (20, 16), dropout=0.1)
    ours, ids = accelerated(model), make_ids(33, 2)
    for each in (model, ours):
        fix_random_seed(0)
        optimizer = Adam(0.01)
        for step in range(5):
            y, backprop = each(ids, is_train=True)
            backprop(y - step)
            each.finish_update(optimizer)
    for node, other in zip(hash_nodes(ours), hash_nodes(model), strict=True):
        assert_same_bits(node.get_param("E"), other.get_param("E"))


@pytest.mark.parametrize("view", [np.asfortranarray, lambda a: np.repeat(a, 2, axis=1)[:, ::2]])
def test_d_output_of_any_layout_is_taken(view):
    model = make_model((50, 16), (20, 16))
    ids = make_ids(9, 2)
    grads = []
    for each in (model, accelerated(model)):
        y, backprop = each(ids, is_train=True)
        backprop(view(np.random.default_rng(1).standard_normal(y.shape).astype("f")))
        grads.append(tuple(node.get_grad("E") for node in hash_nodes(each)))
    assert_same_bits(*grads)


def test_d_output_of_another_shape_raises_and_writes_nothing():
    model = accelerated(make_model((50, 16), (20, 16)))
    _, backprop = model(make_ids(9, 2), is_train=True)
    with pytest.raises(ValueError, match=r"^d_output: got shape \(8, 32\), wanted \(9, 32\)$"):
        backprop(np.zeros((8, 32), "f"))
    assert not any(node.has_grad("E") for node in hash_nodes(model))


# ---- empty input


@pytest.mark.parametrize("columns", [None, 2])
def test_empty_ids_give_empty_vectors_and_leave_the_gradient(columns):
    model = make_model(*[(50, 8)] * (columns or 1), dropout=0.5)
    ours, ids = accelerated(model), make_ids(0, columns)
    assert_same_bits(ours.predict(ids), model.predict(ids))
    y, backprop = ours(ids, is_train=True)  # Thinc's own callback raises NameError here
    grad_x = backprop(y)
    assert grad_x.shape == ids.shape
    assert not any(node.get_grad("E").any() for node in hash_nodes(ours))


# ---- where Thinc's own forward runs


def thincs_calls(monkeypatch):
    """The names of Thinc's own forwards that those of `embedding` call from now on."""
    calls = []

    def spy(name):
        original = getattr(embedding, name)

        def spied(*arguments):
            calls.append(name)
            return original(*arguments)

        return spied

    for name in ("thinc_hash_embed", "thinc_concatenate"):
        monkeypatch.setattr(embedding, name, spy(name))
    return calls


def first_getitem(model):
    return next(node for node in model.walk() if node.name == "ints-getitem")


CHANGES = {
    "seed of another type": lambda model: hash_nodes(model)[0].attrs.update(seed=np.int64(3)),
    "column of another type": lambda model: first_getitem(model).attrs.update(
        index=(slice(0, None), np.int64(1))
    ),
    "negative column": lambda model: first_getitem(model).attrs.update(index=(slice(0, None), -1)),
    "a row for each id": lambda model: first_getitem(model).attrs.update(index=(slice(0, None), [0])),
    "mixed dtypes": lambda model: hash_nodes(model)[0].set_param("E", np.ones((5, 8))),
    "fortran table": lambda model: hash_nodes(model)[0].set_param("E", np.ones((5, 8), "f", order="F")),
    "read-only table": lambda model: hash_nodes(model)[0].get_param("E").setflags(write=False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_layer_runs_as_in_thinc(change, monkeypatch):
    model = make_model((50, 8), (20, 8))
    ours, ids = accelerated(model), make_ids(9, 2)
    calls = thincs_calls(monkeypatch)
    results = []
    for each in (model, ours):
        CHANGES[change](each)
        try:
            results.append((each.predict(ids),))
        except Exception as error:  # the column of a list has two axes
            results.append((np.array(repr(error)),))
    assert calls[:1] == ["thinc_concatenate"]
    assert_same_bits(*results)


@pytest.mark.parametrize("ids", [make_ids(5).astype("f"), make_ids(5) % 2 == 0], ids=["float", "bool"])
def test_ids_that_are_no_integers_run_as_in_thinc(ids, monkeypatch):
    model = make_model((50, 8))
    ours = accelerated(model)
    calls = thincs_calls(monkeypatch)
    assert_same_bits(outcome(ours, ids), outcome(model, ids))
    assert calls == ["thinc_hash_embed"]


@pytest.mark.parametrize("columns", [None, 2])
def test_ids_of_other_axes_raise_as_in_thinc(columns):
    model = make_model(*[(50, 8)] * (columns or 1))
    ids = make_ids(5, 3) if columns is None else make_ids(5)
    errors = []
    for each in (model, accelerated(model)):
        with pytest.raises((ValueError, IndexError)) as raised:
            each.predict(ids)
        errors.append(repr(raised.value))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("method", ["hash", "gather_add", "scatter_add", "get_dropout_mask", "as_contig"])
def test_ops_with_a_method_of_their_own_are_called(method):
    calls = []

    class OwnOps(NumpyOps):
        pass

    def own(self, *arguments, **keywords):
        calls.append(method)
        return getattr(NumpyOps, method)(self, *arguments, **keywords)

    setattr(OwnOps, method, own)
    model = accelerated(make_model((50, 8), (20, 8), dropout=0.5))
    for node in model.walk():
        node.ops = OwnOps()
    outcome(model, make_ids(9, 2)[:, ::-1])
    assert calls


def test_ops_of_fastact_are_known(monkeypatch):
    model = make_model((50, 8), (20, 8))
    for node in model.walk():
        node.ops = FastactOps()
    assert_ran_in_c(accelerated(model), make_ids(9, 2), monkeypatch)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_other_backends_run_thincs_own_forward(backend, monkeypatch):
    model = make_model((50, 8), (20, 8))
    ours, ids = accelerated(model), make_ids(9, 2)
    calls = thincs_calls(monkeypatch)
    fastact.set_backend(backend)
    try:
        assert_same_bits(outcome(ours, ids), outcome(model, ids))
    finally:
        fastact.set_backend(None)
    assert calls[0] == "thinc_concatenate"


def test_other_layers_beside_run_as_in_thinc(monkeypatch):
    fix_random_seed(0)
    model = concatenate(HashEmbed(8, 30, column=0, seed=1), Embed(5, 200, column=1))
    model.initialize()
    ours, ids = accelerated(model), make_ids(20, 2) % 100
    calls = thincs_calls(monkeypatch)
    assert_same_bits(outcome(ours, ids), outcome(model, ids))
    assert calls == ["thinc_concatenate"]  # and the hash embedding alone in C


def test_lists_and_raggeds_of_other_layers_run_as_in_thinc():
    fix_random_seed(0)
    flat = [chain(ints_getitem((slice(0, None), i)), HashEmbed(8, 30, seed=i)) for i in range(2)]
    model = concatenate(*(with_array(layer) for layer in flat))
    model.initialize()
    ours, ids = accelerated(model), make_ids(20, 2)
    for data in ([ids[:12], ids[12:]], Ragged(ids, np.array([12, 8], "i"))):
        got, wanted = (each.predict(data) for each in (ours, model))
        if isinstance(data, Ragged):
            got, wanted = [got.dataXd, got.lengths], [wanted.dataXd, wanted.lengths]
        assert_same_bits(tuple(got), tuple(wanted))


# ---- what a model can do


@pytest.mark.parametrize("copied", [Model.copy, copy.deepcopy])
def test_copy_uses_its_own_parameters(copied):
    model = accelerated(make_model((50, 8), (20, 8)))
    ids = make_ids(9, 2)
    before = model.predict(ids)
    other = copied(model)
    for node in hash_nodes(other):
        node.set_param("E", 0 * node.get_param("E"))
    assert not other.predict(ids).any()
    assert_same_bits(model.predict(ids), before)


def test_bytes_of_a_model_load_into_thincs_own():
    model = make_model((50, 8), (20, 8))
    ours, ids = accelerated(model), make_ids(9, 2)
    for node in hash_nodes(ours):
        node.set_param("E", 2 * node.get_param("E"))
    assert_same_bits(model.from_bytes(ours.to_bytes()).predict(ids), ours.predict(ids))


def test_data_validation_passes():
    model = accelerated(make_model((50, 8), (20, 8)))
    with data_validation(True):
        assert model.predict(make_ids(9, 2)).shape == (9, 16)


# ---- spaCy's embeddings


def tokens(vectors_width=0):
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("en")
    docs = [nlp(text) for text in ("This is a sentence , and it is short .", "", "Another one", "a a a a")]
    for word in {token.text for doc in docs for token in doc} if vectors_width else ():
        nlp.vocab.set_vector(word, np.random.default_rng(len(word)).standard_normal(vectors_width, "f"))
    return docs


def spacy_outcome(model, docs):
    fix_random_seed(1)
    ys, backprop = model(docs, is_train=True)
    backprop([y + 1 for y in ys])
    grads = [node.get_grad(name) for node in model.walk() for name in node.param_names if node.has_grad(name)]
    return (*ys, *grads)


@pytest.mark.parametrize(
    ("attrs", "rows", "width"),
    [
        (["NORM", "PREFIX", "SUFFIX", "SHAPE"], [5000, 1000, 2500, 2500], 96),
        (["NORM", "SPACY"], [300, 10], 33),
        (["LOWER"], [100], 16),
        (["ORTH", "LOWER", "PREFIX", "SUFFIX", "SHAPE", "ID"], [64, 32, 16, 8, 4, 2], 8),
    ],
)
def test_multi_hash_embed_of_spacy_equals_thincs(attrs, rows, width, monkeypatch):
    docs = tokens()
    from spacy.ml.models.tok2vec import MultiHashEmbed

    fix_random_seed(0)
    model = MultiHashEmbed(width, attrs, rows, False)
    model.initialize(X=docs)
    ours = accelerated(model)
    assert_same_bits(spacy_outcome(ours, docs), spacy_outcome(model, docs))
    if len(attrs) > 1:  # a chain of one layer has its own forward
        calls = thincs_calls(monkeypatch)
        spacy_outcome(ours, docs)
        assert calls == []


def test_multi_hash_embed_with_static_vectors_equals_thincs(monkeypatch):
    docs = tokens(vectors_width=7)
    from spacy.ml.models.tok2vec import MultiHashEmbed

    fix_random_seed(0)
    model = MultiHashEmbed(16, ["NORM", "SHAPE"], [50, 20], True)
    model.initialize(X=docs)
    ours = accelerated(model)
    assert_same_bits(spacy_outcome(ours, docs), spacy_outcome(model, docs))
    calls = thincs_calls(monkeypatch)
    spacy_outcome(ours, docs)
    assert calls == ["thinc_concatenate"]  # of the embeddings, which run in C, and the static vectors


def test_character_embed_of_spacy_equals_thincs():
    docs = tokens()
    from spacy.ml.models.tok2vec import CharacterEmbed

    fix_random_seed(0)
    model = CharacterEmbed(16, 50, 8, 3, False)
    model.initialize(X=docs)
    assert_same_bits(spacy_outcome(accelerated(model), docs), spacy_outcome(model, docs))


def test_gradients_that_share_memory_are_added_by_one_thread_at_a_time():
    model = accelerated(concatenate(HashEmbed(8, 50, seed=1), HashEmbed(8, 50, seed=2)).initialize())
    ids = np.arange(300_000, dtype="u8")
    with fastact.num_threads(4):
        y, backprop = model(ids, True)
        for _ in range(10):
            shared = np.zeros((50, 8), "f")
            for layer in model.layers:
                layer.set_grad("E", shared[:])
            backprop(np.ones_like(y))
            assert shared.sum(dtype="f8") == 2 * 4 * 8 * len(ids)  # of whole numbers below 2**24, so exact
