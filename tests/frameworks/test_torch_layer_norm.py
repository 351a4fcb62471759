"""Layer norm and residual networks against PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fastact as fa

# Both compute in float64, with sums in other orders: less than 100 roundings of numbers below 100 apart.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def leaf(array):
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (2, 5, 17), (300, 97), (20, 1000), (64,)], ids=str)
def test_layer_norm_is_that_of_pytorch(each_backend, rng, shape, eps, bias):
    layer = fa.LayerNorm(shape[-1], eps, bias, dtype=np.float64)
    theirs = torch.nn.LayerNorm(shape[-1], eps, bias=bias, dtype=torch.float64)
    assert [name for name, _ in layer.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    for ours, parameter in zip(layer.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_array_equal(ours.data, parameter.detach().numpy())  # how they start
        ours.data[...] = rng.standard_normal(ours.data.shape)
        parameter.data.copy_(torch.from_numpy(ours.data))
    x, grad_y = rng.standard_normal((2, *shape))
    given = leaf(x)
    y = theirs(given)
    y.backward(torch.from_numpy(grad_y))
    np.testing.assert_allclose(layer(x, training=True), y.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(layer.backward(grad_y), given.grad.numpy(), **CLOSE)
    for ours, parameter in zip(layer.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(ours.grad, parameter.grad.numpy(), **CLOSE)


@pytest.mark.parametrize("affine", ["none", "weight", "bias", "both"])
def test_layer_norm_function_is_that_of_pytorch(each_backend, rng, affine):
    x, grad_y = rng.standard_normal((2, 9, 33))
    weight = rng.standard_normal(33) if affine in ("weight", "both") else None
    bias = rng.standard_normal(33) if affine in ("bias", "both") else None
    given = [None if array is None else leaf(array) for array in (x, weight, bias)]
    y = torch.nn.functional.layer_norm(given[0], (33,), given[1], given[2], 1e-3)
    y.backward(torch.from_numpy(grad_y))
    ours, saved = fa.layer_norm(x, weight, bias, 1e-3)
    np.testing.assert_allclose(ours, y.detach().numpy(), **CLOSE)
    for grad, tensor in zip(fa.layer_norm_backward(grad_y, x, weight, saved), given, strict=True):
        if tensor is not None:
            np.testing.assert_allclose(grad, tensor.grad.numpy(), **CLOSE)


def test_variance_of_zero_without_eps_is_nan_as_in_pytorch(each_backend):
    x = np.full((2, 8), 3.0)
    expected = torch.nn.functional.layer_norm(torch.from_numpy(x), (8,), eps=0.0).numpy()
    np.testing.assert_array_equal(fa.layer_norm(x, eps=0.0)[0], expected)


class Block(torch.nn.Module):
    """x + layer(x)"""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return x + self.layer(x)


def test_residual_network_is_that_of_pytorch(each_backend, rng):
    def made(sequential, residual, norm, linear, relu):
        block = sequential(norm(6), linear(6, 8), relu(), residual(linear(8, 8)), linear(8, 6))
        return sequential(linear(4, 6), residual(block), norm(6), linear(6, 3))

    ours = made(
        fa.Sequential,
        fa.Residual,
        lambda n: fa.LayerNorm(n, dtype=np.float64),
        lambda n, m: fa.Linear(n, m, dtype=np.float64, rng=rng),
        lambda: fa.Activation("relu"),
    )
    theirs = made(torch.nn.Sequential, Block, torch.nn.LayerNorm, torch.nn.Linear, torch.nn.ReLU).double()
    state = ours.state_dict()
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})  # the same names
    x, grad_y = rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    given = leaf(x)
    y = theirs(given)
    y.backward(torch.from_numpy(grad_y))
    np.testing.assert_allclose(ours(x, training=True), y.detach().numpy(), **CLOSE)
    np.testing.assert_allclose(ours.backward(grad_y), given.grad.numpy(), **CLOSE)
    for (name, parameter), theirs_too in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(parameter.grad, theirs_too.grad.numpy(), **CLOSE, err_msg=name)
