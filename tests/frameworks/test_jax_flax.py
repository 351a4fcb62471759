"""The layers for Flax NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import CASES

import fastact.jax as fj
from fastact import init

nnx = pytest.importorskip("flax.nnx")
from fastact.jax.flax import LinearActivation, Maxout  # noqa: E402


@pytest.fixture
def rngs():
    return nnx.Rngs(0)


@pytest.fixture
def x(rng):
    return jnp.asarray(rng.standard_normal((6, 7)), jnp.float32)


@pytest.mark.parametrize("use_bias", [True, False])
def test_maxout_is_the_function_of_its_parameters(rngs, x, use_bias):
    layer = Maxout(7, 5, 3, use_bias=use_bias, rngs=rngs)
    bias = layer.bias[...] + 1 if use_bias else None
    if use_bias:
        layer.bias[...] = bias
    np.testing.assert_array_equal(layer(x), fj.linear_maxout(x, layer.weight[...], bias))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_linear_activation_is_the_function_of_its_parameters(rngs, x, case):
    keywords = case.keywords(5, np.float32)
    layer = LinearActivation(7, 5, case.name, rngs=rngs, **keywords)
    if case.name == "prelu":
        keywords = {"slope": layer.slope[...]}
    wanted = fj.linear_activation(x, layer.weight[...], layer.bias[...], case.name, **keywords)
    np.testing.assert_array_equal(layer(x), wanted)


def test_weights_start_as_those_of_fastact(rngs):
    std = np.std(Maxout(400, 50, 3, rngs=rngs).weight[...])
    assert std == pytest.approx(init.maxout_std(400, 3), rel=0.02)  # 60,000 numbers: 7 standard errors
    std = np.std(LinearActivation(400, 100, "selu", rngs=rngs).weight[...])
    assert std == pytest.approx(1 / 20, rel=0.02)
    layer = Maxout(4, 3, rngs=rngs, param_dtype=jnp.float16)
    assert layer.weight.dtype == layer.bias.dtype == jnp.float16


def test_network_learns_in_a_jitted_step(rngs, x):
    model = nnx.Sequential(
        Maxout(7, 16, 3, rngs=rngs), LinearActivation(16, 8, "prelu", rngs=rngs), nnx.Linear(8, 1, rngs=rngs)
    )
    target = x[:, :1] - x[:, 1:2]

    @nnx.jit
    def step(model):
        loss, grads = nnx.value_and_grad(lambda model: ((model(x) - target) ** 2).mean())(model)
        parameters = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda p, g: p - 0.05 * g, parameters, grads))
        return loss

    slope = np.asarray(model.layers[1].slope[...])
    losses = [float(step(model)) for _ in range(60)]
    assert losses[-1] < 0.05 * losses[0]
    assert model.layers[1].slope[...] != slope


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda rngs: Maxout(7, 5, 0, rngs=rngs), ValueError, "pieces: got 0, wanted 1 to 256"),
        (lambda rngs: Maxout(7, -1, rngs=rngs), ValueError, "out_features: got -1, wanted 0 or more"),
        (
            lambda rngs: Maxout(7, 5, use_bias=1, rngs=rngs),
            TypeError,
            "use_bias: got 1, wanted True or False",
        ),
        (lambda rngs: Maxout(7, 5, precision="low", rngs=rngs), ValueError, "precision: got 'low'"),
        (lambda rngs: LinearActivation(7, 5, "reluu", rngs=rngs), ValueError, "activation: got 'reluu'"),
        (
            lambda rngs: LinearActivation(7, 5, "relu", alpha=1.0, rngs=rngs),
            TypeError,
            "alpha: relu takes no",
        ),
        (
            lambda rngs: LinearActivation(7, 5, "prelu", slope=[1, 2], rngs=rngs),
            ValueError,
            "slope: got shape",
        ),
    ],
)
def test_bad_argument_is_named(rngs, make, error, message):
    with pytest.raises(error, match=f"^{message}"):
        make(rngs)
