"""Optimisers and the clipping of gradients, against PyTorch's in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fastact as fa

SHAPES = ((7, 33), (33,), (4, 2, 5))


def pairs(rng):
    """Parameters of fastact, all of which decay, and of PyTorch, with the same values."""
    arrays = [rng.standard_normal(shape) for shape in SHAPES]
    ours = [fa.Parameter(array, f"p{i}") for i, array in enumerate(arrays)]
    return ours, [torch.nn.Parameter(torch.tensor(array)) for array in arrays]


def set_gradients(rng, ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        a.grad = rng.standard_normal(a.data.shape)
        b.grad = torch.tensor(a.grad)


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_steps_are_those_of_pytorch(backend, rng, kind, weight_decay):
    ours, theirs = pairs(rng)
    mine = getattr(fa, kind)(ours, 0.05, 0.8, 0.99, 1e-6, weight_decay)
    other = getattr(torch.optim, kind)(theirs, 0.05, (0.8, 0.99), 1e-6, weight_decay)
    for step in range(8):
        set_gradients(rng, ours, theirs)
        mine.lr = other.param_groups[0]["lr"] = 0.05 / (1 + step)
        mine.step()
        other.step()
        for a, b in zip(ours, theirs, strict=True):
            # a step rounds numbers below about 5 a dozen times in each of the two
            np.testing.assert_allclose(a.data, b.detach().numpy(), rtol=1e-13, atol=1e-13)
    for i, theirs_i in enumerate(theirs):
        moments = other.state[theirs_i]
        for name, array in (("mean", moments["exp_avg"]), ("square", moments["exp_avg_sq"])):
            np.testing.assert_allclose(
                mine.state_dict()[f"{name}.{i}"], array.numpy(), rtol=1e-13, atol=1e-13
            )


def test_defaults_of_adamw_are_those_of_pytorch(rng):
    ours, theirs = pairs(rng)
    mine, other = fa.AdamW(ours), torch.optim.AdamW(theirs).defaults
    assert (mine.lr, (mine.beta1, mine.beta2), mine.eps) == (other["lr"], other["betas"], other["eps"])
    assert mine.weight_decay == other["weight_decay"]


@pytest.mark.parametrize("max_norm", [0.0, 1e-3, 1.0, 1e3, math.inf])
def test_clipping_is_that_of_pytorch(backend, rng, max_norm):
    ours, theirs = pairs(rng)
    set_gradients(rng, ours, theirs)
    ours[1].grad = theirs[1].grad = None
    norm = fa.clip_grad_norm_(ours, max_norm)
    # a sum of 271 squares in any order, its root, the sum of two norms, a quotient and a product
    bound = (271 / 2 + 8) * 2.0**-52
    assert math.isclose(norm, torch.nn.utils.clip_grad_norm_(theirs, max_norm).item(), rel_tol=bound)
    for a, b in zip(ours[::2], theirs[::2], strict=True):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=2 * bound)


@pytest.mark.parametrize("max_norm", [1.0, math.inf])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_clipping_of_numbers_that_are_not_finite_is_that_of_pytorch(backend, rng, value, max_norm):
    ours, theirs = pairs(rng)
    set_gradients(rng, ours, theirs)
    ours[1].grad[3] = value
    theirs[1].grad[3] = value
    norm = fa.clip_grad_norm_(ours, max_norm)
    np.testing.assert_equal(norm, torch.nn.utils.clip_grad_norm_(theirs, max_norm).item())
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a.grad, b.grad.numpy())
