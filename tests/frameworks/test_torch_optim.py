"""Optimisers, against PyTorch's in float64."""

from __future__ import annotations

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
