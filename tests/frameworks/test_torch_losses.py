"""The losses against PyTorch's, in value and gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fastact as fa

RELATIVE = {np.float32: 1e-5, np.float64: 1e-13}  # PyTorch's own roundings, over the magnitudes drawn here


def of_torch(loss, y, *arguments, **keywords):
    """The loss of a PyTorch function, and its gradient with respect to y."""
    y = torch.from_numpy(y).requires_grad_()
    value = loss(y, *map(torch.from_numpy, arguments), **keywords)
    value.backward()
    return value.item(), y.grad.numpy()


def assert_equal(actual, expected, dtype):
    np.testing.assert_allclose(actual[0], expected[0], rtol=RELATIVE[dtype.type])
    scale = np.abs(expected[1]).max(initial=0)
    np.testing.assert_allclose(actual[1], expected[1], rtol=0, atol=RELATIVE[dtype.type] * scale)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignore_index", [-100, -1, 2])
@pytest.mark.parametrize("shape", [(40, 3), (5, 97), (1, 4), (33, 33)])
def test_softmax_cross_entropy_equals_that_of_pytorch(rng, backend, dtype, shape, ignore_index, smoothing):
    logits = rng.normal(0, 3, shape).astype(dtype)
    labels = rng.integers(0, shape[1], shape[0])
    labels[1::3] = ignore_index
    options = {"label_smoothing": smoothing, "ignore_index": ignore_index}
    if (labels == ignore_index).all():
        pytest.skip("PyTorch's mean over no rows is NaN")
    expected = of_torch(F.cross_entropy, logits, labels, **options)
    assert_equal(fa.softmax_cross_entropy(logits, labels, **options), expected, dtype)


def test_softmax_cross_entropy_of_infinite_logits_equals_that_of_pytorch(backend):
    logits = np.array([[0.0, -np.inf, 1.0], [np.inf, 0.0, 1.0], [-np.inf, -np.inf, -np.inf]])
    for row in logits:
        for label in range(3):
            for smoothing in (0.0, 0.1):
                arguments = row[np.newaxis].copy(), np.array([label])
                expected, _ = of_torch(F.cross_entropy, *arguments, label_smoothing=smoothing)
                actual, _ = fa.softmax_cross_entropy(*arguments, label_smoothing=smoothing)
                np.testing.assert_allclose(actual, expected)


@pytest.mark.parametrize("shape", [(40, 3), (), (5, 4, 33)])
def test_binary_cross_entropy_equals_that_of_pytorch(rng, backend, dtype, shape):
    logits = np.asarray(rng.normal(0, 3, shape), dtype)
    target = np.asarray(rng.uniform(-0.5, 1.5, shape), dtype)  # PyTorch refuses no target
    expected = of_torch(F.binary_cross_entropy_with_logits, logits, target)
    assert_equal(fa.binary_cross_entropy_with_logits(logits, target), expected, dtype)


@pytest.mark.parametrize("delta", [0.5, 1.0, 3.0])
def test_huber_equals_that_of_pytorch(rng, backend, dtype, delta):
    y, target = (rng.normal(0, 2, (7, 33)).astype(dtype) for _ in range(2))
    assert_equal(fa.huber(y, target, delta=delta), of_torch(F.huber_loss, y, target, delta=delta), dtype)


def test_mse_equals_that_of_pytorch(rng, backend, dtype):
    y, target = (rng.normal(0, 2, (7, 33)).astype(dtype) for _ in range(2))
    assert_equal(fa.mse(y, target), of_torch(F.mse_loss, y, target), dtype)
