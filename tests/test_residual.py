"""`Residual`: x + layer(x), its gradients, sizes, places in messages, and the walks through a model."""

from __future__ import annotations

import copy
import itertools
import pickle
import sys

import numpy as np
import pytest
from support.differences import TOLERANCE, differences
from support.tolerance import assert_same_bits

import fastact as fa

F32 = np.float32
X = np.random.default_rng(7).standard_normal((5, 4)).astype(F32)


class Own(fa.Layer):
    """A user's layer, whose forward and backward do what they are told."""

    def __init__(self, forward=lambda x: x, backward=lambda grad: grad):
        self.forward, self.back = forward, backward

    def _forward(self, x, training):
        return self.forward(x), ()

    def _backward(self, grad_y, saved, accumulate, needs_input_grad):
        return self.back(grad_y)

    def _describe(self):
        return []


def message_of(kind, call):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


def nested(dtype=F32, rng=0):
    """A Residual in a Sequential in a Residual in a Sequential."""
    rng = np.random.default_rng(rng)
    inner = fa.Residual(
        fa.Sequential(
            fa.Linear(4, 6, activation="leaky_relu", rng=rng, dtype=dtype),
            fa.Maxout(6, 4, pieces=3, rng=rng, dtype=dtype),
        )
    )
    outer = fa.Residual(fa.Sequential(inner, fa.Linear(4, 4, rng=rng, dtype=dtype)))
    model = fa.Sequential(fa.Linear(4, 4, rng=rng, dtype=dtype), outer, fa.Linear(4, 2, rng=rng, dtype=dtype))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data[...] = rng.standard_normal(parameter.data.shape)
    return model


# ---- values and gradients


@pytest.mark.parametrize("shape", [(4,), (0, 4), (5, 4), (2, 3, 4)], ids=str)
def test_residual_adds_its_input_and_its_gradient(each_backend, dtype, shape, rng):
    layer = fa.Linear(4, 4, activation="tanh", dtype=dtype)
    residual = fa.Residual(layer)
    x, grad_y = rng.standard_normal((2, *shape)).astype(dtype)
    y, inside = residual(x, training=True), layer(x)
    assert_same_bits(y, x + inside)
    assert_same_bits(residual(x), y)
    grad_x = residual.backward(grad_y)
    grads = [parameter.grad.copy() for parameter in residual.parameters()]
    layer(x, training=True)
    assert_same_bits(grad_x, grad_y + layer.backward(grad_y))
    assert_same_bits(tuple(grads), tuple(parameter.grad for parameter in layer.parameters()))


def test_residual_of_a_layer_that_returns_x_itself_is_twice_x():
    for layer in (fa.Sequential(), fa.Dropout(0.5), fa.Residual(fa.Sequential())):
        before = X.copy()
        y = fa.Residual(layer)(X)
        np.testing.assert_array_equal(X, before)
        np.testing.assert_array_equal(y, X + layer(X))
    empty = fa.Residual(fa.Sequential())
    empty(X, training=True)
    np.testing.assert_array_equal(empty.backward(X), 2 * X)
    number = empty(np.array(1.5, F32))
    assert isinstance(number, np.ndarray)
    assert (number.shape, number.dtype, number) == ((), F32, 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nested(np.float64),
        lambda: fa.Residual(fa.LayerNorm(4, 0.5, dtype=np.float64)),
        lambda: fa.Sequential(
            fa.LayerNorm(4, 0.5, dtype=np.float64),
            fa.Residual(
                fa.Sequential(
                    fa.Linear(4, 8, activation="gelu", rng=1, dtype=np.float64),
                    fa.LayerNorm(8, 0.5, dtype=np.float64),
                    fa.Linear(8, 4, rng=1, dtype=np.float64),
                )
            ),
        ),
    ],
    ids=["nested", "layer norm", "block"],
)
def test_residual_gradients_equal_finite_differences(each_backend, rng, make):
    model, x = make(), rng.standard_normal((2, 3, 4))
    weights = rng.standard_normal(model(x).shape)

    def loss():
        return float(np.sum(weights * model(x, training=True)))

    loss()
    grad_x = model.backward(weights)
    grads = [parameter.grad.copy() for parameter in model.parameters()]
    for grad, array in zip((grad_x, *grads), (x, *(p.data for p in model.parameters())), strict=True):
        np.testing.assert_allclose(grad, differences(loss, array), rtol=TOLERANCE, atol=TOLERANCE)


def test_residual_of_a_strided_input_has_the_same_bits():
    wide = np.repeat(X, 2, axis=1)
    residual = nested()[1]
    y = residual(wide[:, ::2], training=True)
    grad_x = residual.backward(wide[:, ::2])
    assert y.flags.c_contiguous
    assert_same_bits(y, residual(X, training=True))
    assert_same_bits(grad_x, residual.backward(X))


def test_residual_sum_ignores_the_callers_errstate():
    x = np.array([3e38, np.inf, -np.inf, np.nan, 1e-45], F32)
    with np.errstate(all="raise"):
        y = fa.Residual(Own(lambda x: np.where(np.isinf(x), -x, x)))(x)
    np.testing.assert_array_equal(y, np.array([np.inf, np.nan, np.nan, np.nan, 3e-45], F32))


def test_backward_overwrites_accumulates_and_skips_the_input():
    model, grad_y = nested(), np.ones((5, 2), F32)

    def gradients(**keywords):
        model(X, training=True)
        grad_x = model.backward(grad_y, **keywords)
        return grad_x, {name: parameter.grad.copy() for name, parameter in model.named_parameters()}

    grad_x, first = gradients()
    none, second = gradients(needs_input_grad=False)
    again, third = gradients(accumulate=True)
    assert none is None
    assert_same_bits(again, grad_x)
    for name, grad in first.items():
        assert_same_bits(second[name], grad)
        np.testing.assert_array_equal(third[name], grad + grad)
    residual = model[1]
    residual(X, training=True)
    assert residual.backward(X, needs_input_grad=False) is None


def test_residual_of_a_dropout_draws_a_mask_in_training_alone():
    model = fa.Residual(fa.Dropout(0.5, rng=0))
    assert_same_bits(model(X), X + X)
    y = model(X, training=True)
    dropped = y == X
    assert dropped.any()
    np.testing.assert_array_equal(model.backward(np.ones_like(X)), np.where(dropped, F32(1), F32(3)))


def test_backward_without_a_training_forward_is_refused():
    model = nested()
    model(X)
    message = message_of(RuntimeError, lambda: model[1].backward(X))
    assert message.startswith("Residual: backward without a training forward")
    y = model(X, training=True)
    model[1].layer.backward(X)
    message = message_of(RuntimeError, lambda: model.backward(y))
    assert message.startswith("layers[1].layer, Sequential: backward without a training forward")


def test_backward_of_an_invalid_gradient_leaves_the_layer_ready():
    for layer in (fa.Linear(4, 4), fa.Sequential(), fa.Dropout(), Own()):
        residual = fa.Residual(layer)
        y = residual(X, training=True)
        message = message_of(ValueError, lambda: residual.backward(y[:2]))  # noqa: B023
        assert message == "grad_y: got shape (2, 4), wanted (5, 4)"
        message = message_of(TypeError, lambda: residual.backward(y.astype("d")))  # noqa: B023
        assert message.startswith("grad_y: got dtype float64, wanted float32")
        assert all(parameter.grad is None for parameter in residual.parameters())
        assert residual.backward(y).shape == X.shape


# ---- sizes


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: fa.Residual(fa.Linear(4, 3)),
            ValueError,
            "layer: got Linear(4, 3), which returns 3 features for 4, wanted one that keeps their number",
        ),
        (
            lambda: fa.Residual(fa.Sequential(fa.Dropout(), fa.Linear(4, 5), fa.PReLU(), fa.Maxout(5, 3))),
            ValueError,
            "layer: got Sequential, which returns 3 features for 4, wanted one that keeps their number",
        ),
        (
            lambda: fa.Residual(fa.Sequential(fa.PReLU(), Own(), fa.PReLU(dtype=np.float64))),
            TypeError,
            "layer: got Sequential, which returns float64 for float32, wanted one that keeps the dtype",
        ),
        (lambda: fa.Residual(None), TypeError, "layer: got NoneType, wanted a Layer of fastact"),
        (lambda: fa.Residual([fa.PReLU()]), TypeError, "layer: got list, wanted a Layer of fastact: try Seq"),
        (
            lambda: fa.Sequential(fa.Linear(3, 5), fa.Residual(fa.Linear(4, 4))),
            ValueError,
            "layers[1], Residual: in_features: got 4, wanted 5 to match layers[0], Linear(3, 5)",
        ),
        (
            lambda: fa.Sequential(fa.Residual(fa.Linear(4, 4)), fa.Linear(3, 5)),
            ValueError,
            "layers[1], Linear(3, 5): in_features: got 3, wanted 4 to match layers[0], Residual",
        ),
        (
            lambda: fa.Sequential(fa.Linear(4, 3), fa.Residual(Own()), fa.Linear(4, 2)),
            ValueError,
            "layers[2], Linear(4, 2): in_features: got 4, wanted 3 to match layers[0], Linear(4, 3)",
        ),
        (
            lambda: fa.Sequential(fa.Linear(4, 3), fa.Residual(fa.Sequential(Own(), fa.Linear(7, 5)))),
            ValueError,
            "layers[1], Residual: in_features: got 5, wanted 3 to match layers[0], Linear(4, 3)",
        ),
        (
            lambda: fa.Sequential(fa.Residual(fa.PReLU(dtype=np.float64)), fa.Linear(4, 3)),
            TypeError,
            "layers[1], Linear(4, 3): dtype: got float32, wanted float64 to match layers[0], Residual",
        ),
    ],
)
def test_layer_that_does_not_fit_is_refused_by_name(make, kind, message):
    assert message_of(kind, make).startswith(message)


def test_layers_that_fit_are_accepted():
    for layer in (
        fa.Activation("tanh"),
        fa.PReLU(4),
        fa.Sequential(fa.Linear(4, 7), Own(lambda x: x[:, :4])),
        fa.Sequential(Own(), fa.Linear(4, 4)),
        fa.Residual(fa.Residual(fa.Linear(4, 4))),
    ):
        assert fa.Sequential(fa.Linear(4, 4), fa.Residual(layer), fa.Linear(4, 3))(X).shape == (5, 3)


@pytest.mark.parametrize(
    ("forward", "kind", "message"),
    [
        (lambda x: x[:, :1], ValueError, "returned shape (5, 1), wanted (5, 4) to match x"),
        (lambda x: x[:1], ValueError, "returned shape (1, 4), wanted (5, 4) to match x"),
        (lambda x: x.astype(np.float64), TypeError, "returned dtype float64, wanted float32 to match x"),
        (lambda x: x.tolist(), TypeError, "returned list, wanted a numpy.ndarray"),
        (lambda x: None, TypeError, "returned NoneType, wanted a numpy.ndarray"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_forward_of_another_shape_or_dtype_is_refused(forward, kind, message, training):
    residual = fa.Residual(Own(forward))
    assert message_of(kind, lambda: residual(X, training)) == f"layer: {message}"
    model = fa.Sequential(fa.Dropout(), residual)
    for call in (lambda: model(X), lambda: fa.piece_usage(model, X), lambda: fa.summary(model, (5, 4))):
        assert message_of(kind, call) == f"layers[1], Residual: layer: {message}"


def test_backward_of_another_shape_is_refused():
    model = fa.Sequential(fa.Residual(Own(backward=lambda grad: grad[:1])))
    y = model(X, training=True)
    wanted = "layers[0], Residual: layer's backward: returned shape (1, 4), wanted (5, 4) to match grad_y"
    assert message_of(ValueError, lambda: model.backward(y)) == wanted


# ---- places


def test_errors_name_the_place_of_the_layer():
    model = nested()
    model[1].layer[0].layer[1].weight.data = [1.0]
    place = "layers[1].layer.layers[0].layer.layers[1], Maxout(6, 4, pieces=3): weight: got list, wanted"
    for call in (
        lambda: model(X),
        lambda: model(X, training=True),
        lambda: fa.piece_usage(model, X),
        lambda: fa.summary(model),
        lambda: fa.summary(model, (5, 4)),
        lambda: fa.linear_region(model, X[0]),
    ):
        assert message_of(TypeError, call).startswith(place)
    message = message_of(ValueError, lambda: fa.Residual(fa.Residual(fa.Linear(4, 4)))(X[:, :3]))
    assert message.startswith("layer.layer, Linear(4, 4): x: got shape (5, 3)")
    message = message_of(ValueError, lambda: fa.Residual(fa.Linear(4, 4))(X[:, :3]))
    assert message == "layer, Linear(4, 4): x: got shape (5, 3), wanted (..., 4) to match weight"
    assert message_of(TypeError, lambda: fa.Residual(fa.Linear(4, 4))(X.tolist())).startswith("x: got list")


def test_error_of_a_backward_names_the_place_of_the_layer():
    model = nested()
    y = model(X, training=True)
    model[1].layer[0].layer[1].weight.data = np.ones((4, 3, 5), F32)
    message = message_of(ValueError, lambda: model.backward(y))
    assert message.startswith("layers[1].layer.layers[0].layer.layers[1], Maxout(6, 4, pieces=3): ")
    assert model[1]._saved is not None


def test_error_of_a_layer_of_ones_own_is_unchanged_and_notes_its_place():
    error = ValueError("layers, mine")

    def fail(x):
        raise error

    model = fa.Sequential(fa.Residual(fa.Sequential(fa.Dropout(), fa.Residual(Own(fail)))))
    with pytest.raises(ValueError, match="mine") as caught:
        model(X)
    assert caught.value is error
    assert error.args == ("layers, mine",)
    assert error.__cause__ is None
    assert error.__context__ is None
    if sys.version_info >= (3, 11):
        assert error.__notes__ == ["layers[0].layer.layers[1].layer, Own()"]


def test_layer_that_appears_twice_is_named_with_both_places():
    layer = fa.Linear(4, 4)
    for layers, places in (
        ([layer, fa.Residual(layer)], "layers[0] and layers[1].layer"),
        ([fa.Residual(layer), layer], "layers[0].layer and layers[1]"),
        (
            [fa.Residual(fa.Sequential(layer)), fa.Residual(layer)],
            "layers[0].layer.layers[0] and layers[1].layer",
        ),
    ):
        message = message_of(ValueError, lambda: fa.Sequential(*layers))  # noqa: B023
        assert message == f"Linear(4, 4) appears twice, as {places}, wanted each layer once"
    twice = fa.Residual(layer)
    assert message_of(ValueError, lambda: fa.Sequential(twice, twice)).startswith("Residual appears twice")


# ---- names, files, repr, summary


def test_parameters_have_the_names_of_their_places(tmp_path):
    one, other, third = nested(rng=1), nested(rng=2), nested(rng=3)
    places = ("0", "1.layer.0.layer.0", "1.layer.0.layer.1", "1.layer.1", "2")
    names = [f"{place}.{name}" for place in places for name in ("weight", "bias")]
    assert [name for name, _ in one.named_parameters()] == names
    assert [name for name, _ in fa.Residual(fa.PReLU()).named_parameters()] == ["layer.slope"]
    fa.save(tmp_path / "run.npz", model=one)
    fa.load(tmp_path / "run.npz", model=other)
    third.load_state_dict(one.state_dict())
    for twin in (other, third, copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert_same_bits(twin(X), one(X))


def test_copied_residual_has_no_saved_activations():
    model = nested()
    model(X, training=True)
    twin = pickle.loads(pickle.dumps(model))
    assert message_of(RuntimeError, lambda: twin[1].backward(X)).startswith("Residual: backward without")


def test_repr_shows_the_layer():
    assert repr(fa.Residual(fa.LayerNorm(4))) == "Residual(LayerNorm(4))"
    assert repr(fa.Sequential(fa.Residual(fa.Sequential(fa.Linear(4, 4), fa.PReLU())))) == (
        "Sequential(\n"
        "  0: Residual(\n"
        "    Sequential(\n"
        "      0: Linear(4, 4)\n"
        "      1: PReLU(1)\n"
        "    )  # 21 parameters\n"
        "  )\n"
        ")  # 21 parameters"
    )


def test_summary_shows_the_layers_inside_then_the_sum():
    rows = [
        ("0", "Linear(4, 4)", 20),
        ("1.layer.0.layer.0", "Linear(4, 6, activation='leaky_relu')", 30),
        ("1.layer.0.layer.1", "Maxout(6, 4, pieces=3)", 84),
        ("1.layer.0", "Residual", 0),
        ("1.layer.1", "Linear(4, 4)", 20),
        ("1", "Residual", 0),
        ("2", "Linear(4, 2)", 10),
    ]
    shapes = [4, 6, 4, 4, 4, 4, 2]
    for table, lead in ((fa.summary(nested(), (5, 4)), "5"), (fa.summary(nested()), "...")):
        assert [(row.name, row.layer, row.parameters) for row in table.rows] == rows
        assert [row.output_shape for row in table.rows] == [f"({lead}, {features})" for features in shapes]
        assert (table.parameters, table.nbytes) == (164, 656)
        assert max(map(len, str(table).split("\n"))) <= 80
    alone = fa.summary(fa.Residual(fa.PReLU(4)), (5, 4))
    assert [row[:3] for row in alone.rows] == [("layer", "PReLU(4)", "(5, 4)"), ("", "Residual", "(5, 4)")]
    unknown = fa.summary(fa.Sequential(fa.Linear(4, 3), fa.Residual(Own())))
    assert [row.output_shape for row in unknown.rows] == ["(..., 3)", "?", "(..., 3)"]


# ---- inspection


def test_piece_usage_counts_the_winners_inside(rng):
    model = nested()
    x = rng.standard_normal((50, 4)).astype(F32)
    usage = fa.piece_usage(model, x)
    assert list(usage) == ["1.layer.0.layer.1"]
    hidden = model[1].layer[0].layer[0](model[0](x))
    expected = fa.piece_usage(model[1].layer[0].layer[1], hidden)[""]
    np.testing.assert_array_equal(usage["1.layer.0.layer.1"], expected)
    assert list(fa.piece_usage(fa.Residual(fa.Maxout(4, 4)), x)) == ["layer"]
    stacked = fa.Sequential(fa.Residual(fa.Linear(4, 4, rng=0)), fa.Maxout(4, 3, rng=0))
    expected = fa.piece_usage(stacked[1], stacked[0](x))[""]
    np.testing.assert_array_equal(fa.piece_usage(stacked, x)["1"], expected)


def test_linear_region_is_the_map_around_the_sample(rng):
    model = nested(np.float64)
    for x in rng.standard_normal((20, 4)):
        weight, bias = fa.linear_region(model, x)
        near = x + 1e-9 * rng.standard_normal(4)
        for point in (x, near):
            np.testing.assert_allclose(model(point), weight @ point + bias, rtol=1e-12, atol=1e-12)
        for unit in range(2):  # a row of the weight is the gradient of that output
            model(x, training=True)
            np.testing.assert_allclose(model.backward(np.eye(2)[unit]), weight[unit], rtol=1e-12, atol=1e-12)


def test_region_boundaries_are_where_the_linear_map_changes(rng):
    model = nested(np.float64)
    found = 0
    for start, end in 3 * rng.standard_normal((4, 2, 4)):
        t = fa.region_boundaries(model, start, end)
        maps = []
        for left, right in itertools.pairwise([0, *t, 1]):
            inside = [start + (left + share * (right - left)) * (end - start) for share in (0.1, 0.5, 0.9)]
            weights = [fa.linear_region(model, point)[0] for point in inside]
            np.testing.assert_allclose(weights[0], weights[1], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(weights[2], weights[1], rtol=1e-12, atol=1e-12)
            maps.append(weights[1])
        assert all(abs(one - other).max() > 1e-9 for one, other in itertools.pairwise(maps))
        found += len(t)
    assert found > 10
    own = fa.region_boundaries(fa.Residual(fa.Activation("relu")), -np.ones(1), np.ones(1))
    np.testing.assert_array_equal(own, [0.5])


class Halved(fa.Residual):
    """A subclass with a forward of its own."""

    def _forward(self, x, training):
        y, saved = super()._forward(x, training)
        return y[..., ::2], saved


def test_subclass_with_a_forward_of_its_own_is_one_layer():
    model = fa.Sequential(Halved(fa.Maxout(4, 4)), fa.Linear(2, 3))
    assert model(X).shape == (5, 3)
    assert list(fa.piece_usage(model, X)) == []
    assert [row.name for row in fa.summary(model, (5, 4)).rows] == ["0", "1"]
    with pytest.raises(
        ValueError, match=r"^model: got layers\[0\], Halved, wanted layers that are piecewise"
    ):
        fa.linear_region(model, X[0])


# ---- training


def test_network_with_norms_and_residuals_trains_and_resumes(each_backend, tmp_path):
    def model():
        def block(seed):
            layers = (
                fa.LayerNorm(16),
                fa.Linear(16, 16, activation="relu", rng=seed),
                fa.Linear(16, 16, rng=seed),
            )
            return fa.Residual(fa.Sequential(*layers, fa.Dropout(0.1, rng=seed)))

        return fa.Sequential(
            fa.Linear(4, 16, rng=0), block(1), block(2), fa.LayerNorm(16), fa.Linear(16, 3, rng=3)
        )

    def train(model, optimizer, steps):
        losses = []
        for _ in range(steps):
            loss, grad = fa.softmax_cross_entropy(model(x, training=True), labels)
            model.backward(grad, needs_input_grad=False)
            optimizer.step()
            losses.append(loss)
        return losses

    def run(model):
        optimizer = fa.Adam(model.parameters(), lr=0.01)
        generators = {f"dropout{i}": model[i].layer[3].rng for i in (1, 2)}
        return optimizer, {"model": model, "optimizer": optimizer, **generators}

    x = np.random.default_rng(0).standard_normal((60, 4)).astype(F32)
    labels = np.argmax(x[:, :3], axis=1)
    one, other = model(), model()
    optimizer, states = run(one)
    losses = train(one, optimizer, 60)
    assert losses[-1] < losses[0] / 4
    fa.save(tmp_path / "run.npz", **states)
    resumed, other_states = run(other)
    fa.load(tmp_path / "run.npz", **other_states)
    assert train(one, optimizer, 5) == train(other, resumed, 5)
    assert_same_bits(tuple(one.state_dict().values()), tuple(other.state_dict().values()))
