"""`Sequential`: which layer an error names, neighbours that do not fit, the list of layers; `summary`."""

from __future__ import annotations

import dataclasses
import sys
import traceback

import numpy as np
import pytest

import fastact as fa
from fastact import backends

F32 = np.float32
NOTES = sys.version_info >= (3, 11)


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


class MyError(Exception):
    """An error with arguments of its own."""

    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code


class MyValueError(ValueError):
    pass


def raising(error):
    def call(*arguments):
        raise error

    return call


def message_of(kind, call):
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    return str(caught.value)


# ---- the place of a layer in an error


def test_forward_error_names_the_layer_and_its_place():
    model = fa.Sequential(fa.Dropout(0.5), Own(lambda x: x[:, :230]), fa.Linear(240, 10))
    x = np.ones((100, 240), F32)
    wanted = "layers[2], Linear(240, 10): x: got shape (100, 230), wanted (..., 240) to match weight"
    for training in (False, True):
        assert message_of(ValueError, lambda: model(x, training)) == wanted  # noqa: B023


def test_forward_error_in_nested_sequentials_has_one_path():
    inner = fa.Sequential(fa.Dropout(0.5), fa.Maxout(4, 3))
    model = fa.Sequential(fa.Activation("relu"), fa.Sequential(fa.Sequential(), inner))
    message = message_of(ValueError, lambda: model(np.ones((2, 5), F32)))
    assert message.startswith("layers[1].layers[1].layers[1], Maxout(4, 3, pieces=2): x: got shape (2, 5)")


@pytest.mark.parametrize(
    ("layer", "x", "error", "message"),
    [
        (
            fa.Linear(4, 2, bias=False),
            np.ones((3, 2), F32),
            ValueError,
            "x: got shape (3, 2), wanted (..., 4)",
        ),
        (fa.Maxout(4, 2), np.ones((3, 4)), TypeError, "x: got dtype float64, wanted float32"),
        (fa.Activation("relu"), np.ones((3, 4), int), TypeError, "x: got dtype int64, wanted float32 or"),
        (
            fa.PReLU(4),
            np.ones((3, 5), F32),
            ValueError,
            "x: got shape (3, 5), wanted (..., 4) to match slope",
        ),
        (fa.Dropout(), [1.0], TypeError, "x: got list, wanted a numpy.ndarray"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_forward_error_of_each_kind_of_layer_names_x(layer, x, error, message):
    for model, place in ((layer, ""), (fa.Sequential(layer), f"layers[0], {layer!r}: ")):
        assert message_of(error, lambda: model(x)).startswith(place + message)  # noqa: B023


def test_backward_error_names_the_layer_and_its_place():
    model = fa.Sequential(
        fa.Linear(4, 3), fa.Sequential(fa.Linear(3, 2), Own(backward=lambda grad: grad[:1]))
    )
    y = model(np.ones((5, 4), F32), training=True)
    message = message_of(ValueError, lambda: model.backward(y))
    assert message == "layers[1].layers[0], Linear(3, 2): grad_y: got shape (1, 2), wanted (5, 2)"


def test_backward_of_a_layer_that_ran_elsewhere_names_it_once():
    model = fa.Sequential(fa.Linear(4, 3), fa.Sequential(fa.Linear(3, 2)))
    for used, place in ((model[0], "layers[0], Linear(4, 3)"), (model[1], "layers[1], Sequential")):
        y = model(np.ones((5, 4), F32), training=True)
        used.backward(np.ones_like(model.layers[0](np.ones((5, 4), F32)) if used is model[0] else y))
        message = message_of(RuntimeError, lambda: model.backward(y))  # noqa: B023
        assert message.startswith(f"{place}: backward without a training forward")


def test_error_of_replaced_data_names_the_layer_and_its_place():
    model = fa.Sequential(fa.Dropout(), fa.Sequential(fa.Linear(4, 3)))
    model[1][0].weight.data = [[1.0]]
    x = np.ones((5, 4), F32)
    place = "layers[1].layers[0], Linear(4, 3): weight: got list"
    for call in (lambda: model(x), lambda: fa.piece_usage(model, x), lambda: fa.summary(model)):
        assert message_of(TypeError, call).startswith(place)
    assert message_of(TypeError, lambda: fa.freeze(model)).startswith(f"model: {place}")
    assert message_of(TypeError, model.state_dict).startswith("1.0.weight: got list")


def test_layer_that_is_not_piecewise_linear_is_named_with_its_place():
    model = fa.Sequential(fa.Linear(4, 3), fa.Sequential(fa.Activation("tanh")))
    x = np.ones(4, F32)
    for call in (lambda: fa.linear_region(model, x), lambda: fa.region_boundaries(model, x, 2 * x)):
        message = message_of(ValueError, call)
        assert message.startswith(
            "model: got layers[1].layers[0], Activation('tanh'), wanted layers that are"
        )


def test_out_of_memory_stays_a_memory_error_and_notes_the_layer():
    model = fa.Sequential(fa.Dropout(), fa.Linear(0, 2**20))
    x = np.empty((2**32, 0), F32)  # y takes 16 PiB
    with pytest.raises(MemoryError) as caught:
        model(x)
    if NOTES:
        assert caught.value.__notes__ == ["layers[1], Linear(0, 1048576)"]


def test_out_of_memory_in_a_kernel_names_the_layer(one_by_one, monkeypatch):
    if reason := backends.why_c_is_missing():
        pytest.skip(f"no C extension: {reason}")
    from fastact.backends import c

    monkeypatch.setattr(c._native, "linear_maxout", lambda *arguments: c.lib.FA_NO_MEMORY)
    model = fa.Sequential(fa.Dropout(), fa.Maxout(4, 3))
    message = message_of(MemoryError, lambda: model(np.ones((5, 4), F32)))
    assert message == "layers[1], Maxout(4, 3, pieces=2): fastact: no memory for packed operands"


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize(
    "error",
    [
        MyError(3, "mine"),
        MyValueError("mine"),
        ValueError("mine"),
        KeyError("mine"),
        StopIteration(),
        RuntimeError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_of_a_layer_of_ones_own_is_unchanged(error, where, training):
    before = type(error), error.args, str(error)
    own = Own(**{where: raising(error)})
    model = fa.Sequential(fa.Activation("relu"), fa.Sequential(fa.Dropout(), own))
    if hasattr(error, "__notes__"):
        del error.__notes__
    with pytest.raises(type(error)) as caught:  # noqa: PT012
        y = model(np.ones((2, 3), F32), training or where == "backward")
        model.backward(y)
    assert caught.value is error
    assert (type(error), error.args, str(error)) == before
    assert error.__cause__ is None
    assert error.__context__ is None
    if NOTES:
        assert error.__notes__ == ["layers[1].layers[1], Own()"]


def test_error_that_cannot_be_changed_still_arrives():
    @dataclasses.dataclass(frozen=True)
    class Frozen(Exception):
        code: int

    error = Frozen(3)
    with pytest.raises(Frozen) as caught:
        fa.Sequential(fa.Sequential(Own(raising(error))))(np.ones(3, F32))
    assert caught.value is error


def test_error_of_a_kernel_inside_a_layer_of_ones_own_names_that_layer():
    model = fa.Sequential(fa.Dropout(), Own(lambda x: fa.relu(x.astype(np.float16))))
    message = message_of(TypeError, lambda: model(np.ones(3, F32)))
    assert message.startswith("layers[1], Own(): z: got dtype float16")


def test_error_of_a_layer_without_a_repr_still_arrives():
    class Bare(fa.Layer):
        def _forward(self, x, training):
            raise MyError(1, "mine")

    assert message_of(MyError, lambda: fa.Sequential(Bare())(np.ones(3, F32))) == "(1, 'mine')"


def test_traceback_of_an_error_shows_no_second_exception():
    with pytest.raises(ValueError, match="x: got shape") as caught:
        fa.Sequential(fa.Sequential(fa.Linear(4, 3)))(np.ones(3, F32))
    text = "".join(traceback.format_exception(caught.value))
    assert "another exception" not in text
    assert "direct cause" not in text


# ---- neighbours


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            lambda: [fa.Maxout(784, 240, pieces=5), fa.Linear(230, 10)],
            "layers[1], Linear(230, 10): in_features: got 230, wanted 240 to match layers[0], "
            "Maxout(784, 240, pieces=5)",
        ),
        (
            lambda: [fa.Linear(4, 3), fa.Activation("relu"), fa.Dropout(), fa.PReLU(), fa.Maxout(4, 3)],
            "layers[4], Maxout(4, 3, pieces=2): in_features: got 4, wanted 3 to match layers[0], "
            "Linear(4, 3)",
        ),
        (
            lambda: [fa.Linear(4, 3), fa.PReLU(4)],
            "layers[1], PReLU(4): in_features: got 4, wanted 3 to match layers[0], Linear(4, 3)",
        ),
        (
            lambda: [fa.PReLU(4), fa.Dropout(), fa.Linear(3, 2)],
            "layers[2], Linear(3, 2): in_features: got 3, wanted 4 to match layers[0], PReLU(4)",
        ),
        (
            lambda: [
                fa.Sequential(fa.Linear(4, 3), fa.Sequential()),
                fa.Sequential(fa.Dropout(), fa.Linear(4, 3)),
            ],
            "layers[1].layers[1], Linear(4, 3): in_features: got 4, wanted 3 to match layers[0].layers[0], "
            "Linear(4, 3)",
        ),
        (
            lambda: [Own(), fa.Linear(4, 3), fa.Linear(4, 3)],
            "layers[2], Linear(4, 3): in_features: got 4, wanted 3 to match layers[1], Linear(4, 3)",
        ),
    ],
)
def test_neighbours_of_other_sizes_are_refused_by_name(layers, message):
    given = layers()
    assert message_of(ValueError, lambda: fa.Sequential(*given)) == message


@pytest.mark.parametrize(
    "after", [lambda: fa.Linear(3, 2, dtype=np.float64), lambda: fa.PReLU(dtype=np.float64)]
)
def test_neighbours_of_other_dtypes_are_refused_by_name(after):
    layer = after()
    message = message_of(TypeError, lambda: fa.Sequential(fa.Linear(4, 3), fa.Dropout(), layer))
    wanted = "dtype: got float64, wanted float32 to match layers[0], Linear(4, 3)"
    assert message == f"layers[2], {layer!r}: {wanted}"


class Halves(fa.Linear):
    """A subclass with a forward of its own returns other sizes."""

    def _forward(self, x, training):
        y, saved = super()._forward(x, training)
        return y[..., ::2], saved


class Called(fa.Linear):
    """A subclass with a call of its own."""

    def __call__(self, x, training=False):
        return super().__call__(x, training)[..., ::2]


class Branches(fa.Sequential):
    """A Sequential that runs its layers beside each other."""

    def _forward(self, x, training):
        return np.concatenate([layer(x, training) for layer in self.layers], axis=-1), ()


class Named(fa.Linear):
    """A subclass with the forward of its base."""


def test_layers_of_ones_own_end_the_check():
    x = np.ones((2, 4), F32)
    for layers in (
        [fa.Linear(4, 3), Own(lambda x: x[:, :2].astype(np.float64)), fa.Linear(2, 5, dtype=np.float64)],
        [Halves(4, 4), fa.Linear(2, 5)],
        [Called(4, 4), fa.Linear(2, 5)],
        [Branches(fa.Linear(4, 3), fa.Linear(4, 3)), fa.Linear(6, 5)],
    ):
        assert fa.Sequential(*layers)(x).shape == (2, 5)
    with pytest.raises(ValueError, match=r"layers\[1\], Linear\(2, 5\): in_features: got 2, wanted 4"):
        fa.Sequential(Named(4, 4), fa.Linear(2, 5))


def test_sizes_are_those_of_replaced_data():
    layer = fa.Linear(4, 3)
    layer.weight.data, layer.bias.data = np.ones((5, 4), F32), np.ones(5, F32)
    assert fa.Sequential(layer, fa.Linear(5, 2))(np.ones((1, 4), F32)).shape == (1, 2)
    with pytest.raises(ValueError, match="in_features: got 3, wanted 5"):
        fa.Sequential(layer, fa.Linear(3, 2))


# ---- a list of layers


def three():
    return fa.Linear(4, 3), fa.Activation("relu"), fa.Linear(3, 2)


def test_sequential_has_length_items_and_iteration():
    layers = three()
    model = fa.Sequential(*layers)
    assert len(model) == 3
    assert len(fa.Sequential()) == 0
    for i, layer in enumerate(layers):
        assert model[i] is layer
        assert model[i - 3] is layer
        assert model[np.int64(i)] is layer
        assert layer in model
    assert list(model) == list(layers)
    assert list(reversed(model)) == list(layers[::-1])
    assert fa.Linear(4, 3) not in model


def test_sequential_slice_is_a_sequential_of_the_same_layers():
    layers = three()
    model = fa.Sequential(*layers)
    for index in (slice(1), slice(-1), slice(1, None), slice(None), slice(5, 9)):
        part = model[index]
        assert type(part) is fa.Sequential
        assert part.layers == layers[index]
    x = np.ones((2, 4), F32)
    np.testing.assert_array_equal(model[1:](model[:1](x)), model(x))
    model[:1].load_state_dict({"0.weight": np.zeros((3, 4), F32), "0.bias": np.zeros(3, F32)})
    assert not layers[0].weight.data.any()


def test_sequential_index_out_of_range_or_of_another_type_is_refused():
    model = fa.Sequential(*three())
    for i in (3, -4, 10**400):
        with pytest.raises(IndexError, match=r"^index: got .*, wanted -3 to 2"):
            model[i]
    for index in ("0", 1.0, None, True, (0, 1)):
        with pytest.raises(TypeError, match=r"^index: got .*, wanted an int"):
            model[index]


def test_a_layer_that_appears_twice_is_named_with_both_places():
    layer, empty = fa.Linear(4, 4), fa.Sequential()
    with pytest.raises(
        ValueError, match=r"^Linear\(4, 4\) appears twice, as layers\[0\] and layers\[1\]\.layers\[1\]"
    ):
        fa.Sequential(layer, fa.Sequential(fa.Activation("relu"), layer))
    with pytest.raises(ValueError, match=r"^Sequential appears twice, as layers\[0\] and layers\[1\]"):
        fa.Sequential(empty, empty)


@pytest.mark.parametrize("given", [list, tuple])
def test_layers_in_a_list_are_refused_with_the_cure(given):
    message = message_of(TypeError, lambda: fa.Sequential(given(three())))
    assert message == f"layers[0]: got {given.__name__}, wanted a Layer of fastact: try Sequential(*layers)"


# ---- summary


def small():
    inner = fa.Sequential(fa.Linear(240, 10, activation="prelu"), fa.Activation("tanh"))
    return fa.Sequential(fa.Dropout(0.2), fa.Maxout(784, 240, pieces=5), inner)


def test_summary_lists_layers_shapes_and_parameters():
    table = fa.summary(small(), (100, 784))
    assert [(row.name, row.layer, row.output_shape, row.parameters, row.nbytes) for row in table.rows] == [
        ("0", "Dropout(0.2)", "(100, 784)", 0, 0),
        ("1", "Maxout(784, 240, pieces=5)", "(100, 240)", 942_000, 3_768_000),
        ("2.0", "Linear(240, 10, activation='prelu')", "(100, 10)", 2_411, 9_644),
        ("2.1", "Activation('tanh')", "(100, 10)", 0, 0),
    ]
    assert (table.parameters, table.nbytes) == (944_411, 3_777_644)
    lines = str(table).split("\n")
    assert len(lines) == 6
    assert lines[1].split() == ["0", "Dropout(0.2)", "(100,", "784)", "0"]
    assert lines[-1].strip() == "944,411 parameters, 3,777,644 bytes"


def test_summary_without_an_input_shape_shows_what_the_layers_fix():
    assert [row.output_shape for row in fa.summary(small()).rows] == [
        "?",
        "(..., 240)",
        "(..., 10)",
        "(..., 10)",
    ]
    model = fa.Sequential(fa.Linear(4, 3), Own(), fa.Dropout(), fa.PReLU(3))
    assert [row.output_shape for row in fa.summary(model).rows] == ["(..., 3)", "?", "?", "(..., 3)"]


@pytest.mark.parametrize("shape", [(784,), [7, 784], (2, 3, 784)])
def test_summary_takes_any_leading_shape(shape):
    assert fa.summary(small(), shape).rows[-1].output_shape == f"{(*shape[:-1], 10)}"


def test_summary_of_one_layer_and_of_layers_of_ones_own():
    table = fa.summary(fa.Linear(3, 2, dtype=np.float64), (5, 3))
    assert table.rows == (("", "Linear(3, 2, dtype=float64)", "(5, 2)", 8, 64),)
    halves = fa.summary(fa.Sequential(Own(lambda x: x[:, ::2])), (5, 4))
    assert halves.rows[0].output_shape == "(5, 2)"


def test_summary_fits_80_columns():
    model = fa.Sequential(
        fa.Linear(8, 123_456, activation="leaky_relu", negative_slope=0.123456789012, precision="medium"),
        fa.Maxout(123_456, 2),
    )
    for table in (fa.summary(model), fa.summary(model, (64, 8)), fa.summary(fa.Sequential())):
        assert max(len(line) for line in str(table).split("\n")) <= 80
    assert "..." in str(fa.summary(model)).split("\n")[1]


def test_summary_leaves_the_model_as_it_was():
    model = small()
    y = model(np.ones((2, 784), F32), training=True)
    state = model[0].rng.bit_generator.state
    fa.summary(model, (100, 784))
    assert model[0].rng.bit_generator.state == state
    assert model.backward(np.ones_like(y)).shape == (2, 784)


def test_summary_of_a_shape_that_does_not_fit_names_the_layer():
    with pytest.raises(ValueError, match=r"^layers\[1\], Maxout\(784, .*\): x: got shape \(3, 5\)"):
        fa.summary(small(), (3, 5))


def test_pytorch_module_for_a_layer_is_pointed_to_the_adapter():
    class Linear:  # a module of PyTorch, as far as a message can tell without importing it
        __module__ = "torch.nn.modules.linear"

    with pytest.raises(TypeError) as error:
        fa.Sequential(fa.Linear(3, 4), Linear())
    wanted = "layers[1]: got Linear, wanted a Layer of fastact: for PyTorch's modules use fastact.torch"
    assert str(error.value) == wanted
