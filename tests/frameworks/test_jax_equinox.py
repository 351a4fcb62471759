"""The layers for Equinox."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.cases import CASES

import fastact.jax as fj

eqx = pytest.importorskip("equinox")
from fastact.jax.equinox import LinearActivation, Maxout  # noqa: E402


@pytest.fixture
def keys():
    return jax.random.split(jax.random.key(0), 3)


@pytest.fixture
def x(rng):
    return jnp.asarray(rng.standard_normal((6, 7)), jnp.float32)


@pytest.mark.parametrize("use_bias", [True, False])
def test_maxout_is_the_function_of_its_parameters(keys, x, use_bias):
    layer = Maxout(7, 5, 3, use_bias, key=keys[0])
    wanted = fj.linear_maxout(x, layer.weight, layer.bias)
    np.testing.assert_array_equal(layer(x), wanted)
    np.testing.assert_array_equal(jax.vmap(layer)(x), wanted)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_linear_activation_is_the_function_of_its_parameters(keys, x, case):
    keywords = case.keywords(5, np.float32)
    layer = LinearActivation(7, 5, case.name, key=keys[0], **keywords)
    if case.name == "prelu":
        keywords = {"slope": layer.slope}
    wanted = fj.linear_activation(x, layer.weight, layer.bias, case.name, **keywords)
    np.testing.assert_array_equal(jax.vmap(layer)(x), wanted)


def test_network_learns_in_a_jitted_step(keys, x):
    model = eqx.nn.Sequential(
        [
            Maxout(7, 16, 3, key=keys[0]),
            LinearActivation(16, 8, "prelu", key=keys[1]),
            eqx.nn.Linear(8, 1, key=keys[2]),
        ]
    )
    target = x[:, :1] - x[:, 1:2]

    @eqx.filter_jit
    def step(model):
        loss, grads = eqx.filter_value_and_grad(lambda m: ((jax.vmap(m)(x) - target) ** 2).mean())(model)
        return eqx.apply_updates(model, jax.tree.map(lambda g: -0.05 * g, grads)), loss

    losses = []
    for _ in range(60):
        model, loss = step(model)
        losses.append(float(loss))
    assert losses[-1] < 0.05 * losses[0]
    assert model.layers[1].slope != 0.25


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda key: Maxout(7, 5, 257, key=key), ValueError, "pieces: got 257, wanted 1 to 256"),
        (lambda key: Maxout(7.0, 5, key=key), TypeError, "in_features: got 7.0, wanted an int"),
        (lambda key: Maxout(7, 5, precision="low", key=key), ValueError, "precision: got 'low'"),
        (
            lambda key: LinearActivation(7, 5, "elu", alpha="1", key=key),
            TypeError,
            "alpha: got '1', wanted a number",
        ),
    ],
)
def test_bad_argument_is_named(keys, make, error, message):
    with pytest.raises(error, match=f"^{message}"):
        make(keys[0])
