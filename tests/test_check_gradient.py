"""check_gradient: wrong gradients are noticed and named, right ones pass, kinks are skipped."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support import custom

import fastact as fa
from fastact import activations

F64 = np.float64


class Scale(fa.Layer):
    """A user's own layer: x times a weight per feature; `wrong` factors of its gradients."""

    def __init__(self, features, wrong_x=1.0, wrong_weight=1.0, dtype=F64):
        self.weight = fa.Parameter(np.linspace(0.5, 2, features).astype(dtype), "weight")
        self.wrong_x, self.wrong_weight = wrong_x, wrong_weight

    def _forward(self, x, training):
        return x * self.weight.data, x

    def _backward(self, grad_y, saved, accumulate, needs_input_grad):
        self.weight.grad = self.wrong_weight * (grad_y * saved).sum(axis=0)
        return self.wrong_x * grad_y * self.weight.data

    def _describe(self):
        return [str(self.weight.data.size)]


def points(rng, *shape):
    return 2 * rng.standard_normal(shape)


# ---- right gradients


@pytest.mark.parametrize("name", [name for name in activations.NAMES if name != "prelu"])
def test_every_activation_of_the_table_passes(each_backend, name, rng):
    z = points(rng, 6, 7)
    saved = z if name in activations.SAVES_Z else fa.activation(z, name)
    found = fa.check_gradient(
        lambda z: fa.activation(z, name),
        z,
        backward=lambda grad_y: fa.activation_backward(grad_y, saved, name),
    )
    assert found.checked + found.skipped == 42
    assert found.skipped <= 2
    assert found.largest < 1e-6


@pytest.mark.parametrize(
    "layer",
    [
        fa.Linear(5, 4, rng=0, dtype=F64),
        fa.Linear(5, 4, activation="prelu", slope=[0.1, 0.2, 0.3, 0.4], rng=0, dtype=F64),
        fa.Linear(5, 4, activation=custom.learned_swish, rng=0, dtype=F64),
        fa.Maxout(5, 4, pieces=3, rng=0, dtype=F64),
        fa.LayerNorm(5, dtype=F64),
        fa.PReLU(5, dtype=F64),
        fa.Residual(fa.Linear(5, 5, activation="mish", rng=0, dtype=F64)),
        fa.Sequential(fa.Linear(5, 6, activation="gelu", rng=0, dtype=F64), fa.Dropout(0.5, rng=0), Scale(6)),
        Scale(5),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_pass_and_stay_as_they_are(each_backend, layer, rng):
    x = points(rng, 3, 5)
    before, state = x.copy(), layer.state_dict()
    found = fa.check_gradient(layer, x)
    assert found.checked >= x.size
    assert found.largest < 1e-6
    np.testing.assert_array_equal(x, before)
    for name, values in layer.state_dict().items():
        np.testing.assert_array_equal(values, state[name])
    assert all(parameter.grad is None for parameter in layer.parameters())
    with pytest.raises(RuntimeError, match="backward without a training forward"):
        layer.backward(x)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 30.0, 1e3])
def test_smooth_functions_of_every_scale_pass(scale, rng):
    x = scale * rng.standard_normal((5, 8))
    cases = {
        "sin": (np.sin, np.cos),
        "square": (np.square, lambda x: 2 * x),
        "cubic": (lambda x: x**3 - x, lambda x: 3 * x**2 - 1),
        "runge": (lambda x: 1 / (1 + 25 * x**2), lambda x: -50 * x / (1 + 25 * x**2) ** 2),
        "steep": (lambda x: np.tanh(20 * x), lambda x: 20 / np.cosh(np.minimum(abs(20 * x), 300)) ** 2),
        "shifted": (lambda x: 1e3 + np.sin(x), np.cos),
    }
    if scale > 1:
        del cases["steep"]  # 1 everywhere, which decides nothing
    for name, (function, derivative) in cases.items():
        found = fa.check_gradient(function, x, backward=lambda grad_y, d=derivative: grad_y * d(x))
        assert found.checked, name


def test_only_some_points_of_a_large_array_are_checked(rng):
    x = rng.standard_normal((100, 50))
    found = fa.check_gradient(Scale(50), x, points=7)
    assert found.checked + found.skipped == 14
    assert fa.check_gradient(Scale(50), x, points=7, rng=np.random.default_rng(0)) == found


def test_single_number_and_empty_array_are_accepted():
    assert fa.check_gradient(np.sin, np.array(0.5), backward=lambda g: g * np.cos(0.5)).checked == 1
    assert fa.check_gradient(np.sin, np.zeros((0, 3)), backward=lambda g: g) == (0, 0, 0.0)


# ---- wrong gradients


@pytest.mark.parametrize("error", [1e-4, -1e-4, 3e-5])
@pytest.mark.parametrize("name", ["silu", "tanh", "softplus", "gelu", "leaky_relu"])
def test_relative_error_of_a_derivative_is_noticed(each_backend, name, error, rng):
    z = points(rng, 4, 5)
    saved = z if name in activations.SAVES_Z else fa.activation(z, name)

    def f(z):
        return fa.activation(z, name)

    def backward(grad_y):
        return (1 + error) * fa.activation_backward(grad_y, saved, name)

    with pytest.raises(AssertionError, match=r"^f: gradient of x: wrong at .* of 20 numbers; at x\["):
        fa.check_gradient(f, z, backward=backward)


def test_message_names_the_layer_the_parameter_the_place_and_both_values(rng):
    x = points(rng, 3, 5)
    message = r"^Scale\(5\): gradient of weight: wrong at 5 of 5 numbers; at weight\[(\d)\] = "
    with pytest.raises(AssertionError, match=message) as raised:
        fa.check_gradient(Scale(5, wrong_weight=1.001), x)
    got, wanted, relative = re.search(
        r"backward gives (\S+), and central differences (\S+) \+- \S+: a relative difference of (\S+)$",
        str(raised.value),
    ).groups()
    assert float(got) == pytest.approx(1.001 * float(wanted), rel=1e-6)
    assert float(relative) == pytest.approx(0.001, rel=0.01)
    with pytest.raises(AssertionError, match=r"^Scale\(5\): gradient of x: wrong at 15 of 15"):
        fa.check_gradient(Scale(5, wrong_x=-1), x)


def test_single_wrong_number_is_found_and_named(rng):
    x = points(rng, 4, 6)

    def backward(grad_y):
        grad_x = grad_y * np.cos(x)
        grad_x[2, 3] *= 1.01
        return grad_x

    with pytest.raises(
        AssertionError, match=r"^sin: gradient of x: wrong at 1 of 24 numbers; at x\[2, 3\] = "
    ):
        fa.check_gradient(np.sin, x, backward=backward)


@pytest.mark.parametrize("argument", ["derivative", "slope_derivative"])
def test_wrong_derivative_of_a_custom_activation_is_noticed(each_backend, argument, rng):
    functions = {
        "forward": lambda z, p: z / (1 + p * p + z * z),
        "derivative": lambda z, p: (1 + p * p - z * z) / (1 + p * p + z * z) ** 2,
        "slope_derivative": lambda z, p: -2 * p * z / (1 + p * p + z * z) ** 2,
    }
    x = points(rng, 4, 5)
    assert fa.check_gradient(fa.custom_activation("witch", slope=0.5, **functions), x).skipped == 0
    wrong = {
        **functions,
        argument: {"derivative": lambda z, p: 1.0, "slope_derivative": lambda z, p: z}[argument],
    }
    name = {"derivative": "x", "slope_derivative": "slope"}[argument]
    with pytest.raises(AssertionError, match=f"^<custom activation witch>: gradient of {name}: wrong at"):
        fa.check_gradient(fa.custom_activation("witch", slope=0.5, **wrong), x)


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (np.nan, r"at x\[0\] = .* backward gives nan"),
        (0.0, r"at x\[\d\] = .* backward gives 0, and central differences"),
        (None, r"gradient of x: got None, wanted shape \(4,\) and dtype float64$"),
        (np.ones(3), r"gradient of x: got shape \(3,\) and dtype float64, wanted shape \(4,\)"),
        (
            np.ones(4, np.float32),
            r"got shape \(4,\) and dtype float32, wanted shape \(4,\) and dtype float64",
        ),
    ],
)
def test_gradient_that_is_no_gradient_is_named(gradient, message):
    x = np.linspace(0.1, 1, 4)

    def backward(grad_y):
        return gradient * grad_y if isinstance(gradient, float) else gradient

    with pytest.raises(AssertionError, match=message):
        fa.check_gradient(np.exp, x, backward=backward)


# ---- kinks


def test_kink_is_skipped_and_its_neighbours_are_checked():
    z = np.array([0.0, 1e-7, 1e-3, 0.01, 1.0, -1.0, -0.02, -0.0])
    found = fa.check_gradient(fa.relu, z, backward=lambda grad_y: fa.relu_backward(grad_y, fa.relu(z)))
    assert found.skipped >= 3
    assert found.checked >= 4
    assert found.checked + found.skipped == z.size
    with pytest.raises(AssertionError, match=r"wrong at 1 of 8 numbers; at x\[3\]"):
        fa.check_gradient(
            fa.relu,
            z,
            backward=lambda grad_y: np.where(z == 0.01, 0.5, 1) * fa.relu_backward(grad_y, fa.relu(z)),
        )


def test_function_that_has_kinks_everywhere_decides_nothing():
    with pytest.raises(AssertionError, match=r"^relu: central differences decide at none of 3 numbers"):
        fa.check_gradient(fa.relu, np.zeros(3), backward=lambda grad_y: grad_y)


def test_number_where_the_function_is_not_finite_is_skipped():
    x = np.array([0.0, 1.0, 4.0])
    found = fa.check_gradient(np.sqrt, x, backward=lambda grad_y: grad_y / (2 * np.sqrt(np.maximum(x, 1))))
    assert (found.checked, found.skipped) == (2, 1)


# ---- errors


def test_parameter_of_float32_is_refused_by_name():
    with pytest.raises(
        TypeError, match=r"^weight: got dtype float32, wanted float64: make the layer with dtype"
    ):
        fa.check_gradient(Scale(3, dtype=np.float32), np.ones((2, 3)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.ones(3, np.float32)}, TypeError, "x: got dtype float32, wanted float64"),
        ({"x": [1.0]}, TypeError, "x: got list, wanted a numpy.ndarray"),
        (
            {"function": "silu"},
            TypeError,
            "function: got 'silu', wanted a layer, a custom activation or a function",
        ),
        ({"backward": None}, TypeError, "backward: got None, wanted grad_y -> grad_x"),
        ({"points": 0}, ValueError, "points: got 0, wanted"),
        ({"points": 1.5}, TypeError, "points: got 1.5, wanted an int"),
        ({"rng": "a"}, TypeError, "rng: got 'a', wanted a numpy.random.Generator"),
        ({"slope": 1.0}, TypeError, "slope: a function takes no keyword here"),
        ({"function": fa.PReLU(dtype=F64)}, TypeError, "backward: got a function, wanted None"),
        (
            {"function": fa.PReLU(dtype=F64), "backward": None, "alpha": 1},
            TypeError,
            "alpha: a layer takes no keyword",
        ),
        ({"function": custom.swish, "backward": None, "alpha": 1}, TypeError, "alpha: swish takes parameter"),
        (
            {"function": custom.learned_swish, "backward": None, "slope": 1.0},
            TypeError,
            "slope: got float, wanted a",
        ),
    ],
)
def test_invalid_argument_is_refused_by_name(change, error, message):
    good = {"function": np.sin, "x": np.ones(3), "backward": lambda grad_y: grad_y * np.cos(1.0)}
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        fa.check_gradient(**good | change)
