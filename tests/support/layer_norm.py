"""Layer norm's results against those in extended precision (bench/accuracy/layer_norm.py)."""

from __future__ import annotations

from bench.accuracy import layer_norm
from support.tolerance import assert_within


def assert_forward(x, weight, bias, eps, y, saved, backend):
    for actual, right in zip((y, saved), layer_norm.forward(x, weight, bias, eps, backend), strict=True):
        assert_within(actual, right.exact, right.bound)


def assert_backward(grad_y, x, weight, eps, grads, backend):
    for actual, right in zip(grads, layer_norm.backward(grad_y, x, weight, eps, backend), strict=True):
        assert_within(actual, right.exact, right.bound)
