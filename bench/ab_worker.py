"""Times operations of the `fastact` that this process imports: `python ab_worker.py REQUEST`.

REQUEST is JSON: {"cases": [{"operation", "shape", "threads", "precision"}, ...], "seconds": of each case,
"errors": whether to measure errors instead}.  The answer is JSON on standard output: {"fastact": its folder,
"figures": [microseconds a call, or the error as a multiple of that of NumPy's float32, ...]}.

This file imports only fastact and NumPy, since `bench.ab` also runs it on checkouts that do not have it.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fastact as fa

SAMPLE_SECONDS = 0.002  # a sample is at least this long
ROUNDS = 3  # medians of each case, of which the smallest counts
PAUSE_SECONDS = 0.02  # pause before each call of "paused", part of its time
MIN_SAMPLES, MAX_SAMPLES = 3, 101

Call = Callable[[], Any]


def _aligned(array: Any) -> Any:
    """A copy that begins at a cache line.

    NumPy leaves the address to chance: one row of x takes 1.4 times as long where the vectors of weights
    cross cache lines.
    """
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _normal(*shape: int) -> Any:
    return _aligned(np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32))


def _maxout_arrays(shape: list[int]) -> tuple[Any, Any, Any, Any]:
    """x, weight, bias and grad_y."""
    rows, in_features, out_features, pieces = shape
    weight = _normal(out_features, pieces, in_features)
    weight /= np.float32(max(1, in_features) ** 0.5)
    return _normal(rows, in_features), weight, _normal(out_features, pieces), _normal(rows, out_features)


def _maxout_call(operation: str, shape: list[int], tier: str) -> Call:
    rows, in_features, out_features, pieces = shape
    x, weight, bias, grad_y = _maxout_arrays(shape)
    if operation == "frozen":
        layer = fa.Maxout(in_features, out_features, pieces, precision=tier)
        layer.load_state_dict({"weight": weight, "bias": bias})
        frozen, to = fa.freeze(layer), np.empty((rows, out_features), np.float32)
        return lambda: frozen(x, out=to)
    y, argmax = fa.linear_maxout(x, weight, bias, precision=tier)
    grads = tuple(_aligned(array) for array in (x, weight, bias))

    def forward() -> Any:
        return fa.linear_maxout(x, weight, bias, out=(y, argmax), precision=tier)

    def backward(needs: tuple[bool, bool, bool] = (True, True, True)) -> Any:
        return fa.linear_maxout_backward(grad_y, x, weight, argmax, needs=needs, out=grads, precision=tier)

    def forward_backward() -> None:
        forward()
        backward()

    return {
        "forward": forward,
        "backward": backward,
        "forward_backward": forward_backward,
        "grad_x": lambda: backward((True, False, False)),
        "grad_weight": lambda: backward((False, True, False)),
        "paused": lambda: (time.sleep(PAUSE_SECONDS), forward()),
        "public": lambda: fa.linear_maxout(x, weight, bias, precision=tier),
    }[operation]


def _linear_call(operation: str, shape: list[int], tier: str) -> Call:
    rows, in_features, out_features, _ = shape
    x, weight = _normal(rows, in_features), _normal(out_features, in_features)
    y, _ = fa.linear_activation(x, weight, None, "linear", precision=tier)
    grads = (np.empty_like(x), np.empty_like(weight), None)
    needs = (operation == "linear_grad_x", operation == "linear_grad_weight", False)
    if operation == "linear":
        return lambda: fa.linear_activation(x, weight, None, "linear", out=(y, None), precision=tier)
    return lambda: fa.linear_activation_backward(
        y, x, weight, y, "linear", needs=needs, out=grads, precision=tier
    )


def _element_call(operation: str, shape: list[int]) -> Call:
    z, grad_y = _normal(*shape), _normal(*shape)
    name, _, activation = operation.partition(" ")
    if name == "activation":
        return lambda: fa.activation(z, activation, out=z)
    if name == "activation_backward":
        to = np.empty_like(z)
        return lambda: fa.activation_backward(grad_y, z, activation, out=to)
    if name == "sgd":
        parameter = fa.Parameter(z, "weight")
        parameter.grad = grad_y
        return fa.SGD([parameter], lr=1e-6, momentum=0.9).step
    return lambda: fa.mse(z, grad_y)


def call(case: dict[str, Any]) -> Call:
    """The call that a case times."""
    operation, shape = case["operation"], case["shape"]
    if operation.partition(" ")[0] in ("activation", "activation_backward", "mse", "sgd"):
        return _element_call(operation, shape)
    if operation.startswith("linear"):
        return _linear_call(operation, shape, case["precision"])
    return _maxout_call(operation, shape, case["precision"])


def _elapsed(run: Call, calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - started) / calls


def _median(run: Call, seconds: float) -> float:
    """The median of as many samples as `seconds` allow, each the mean of some calls."""
    length = min(_elapsed(run, 1) for _ in range(2))  # warms up as well
    calls = max(1, int(SAMPLE_SECONDS / max(length, 1e-7)))
    samples = int(seconds / (calls * max(length, 1e-7)))
    return statistics.median(_elapsed(run, calls) for _ in range(min(MAX_SAMPLES, max(MIN_SAMPLES, samples))))


def _medians(cases: list[dict[str, Any]], seconds: float) -> list[float]:
    """The smallest of each case's medians, in seconds."""
    medians = [float("inf")] * len(cases)
    for _ in range(ROUNDS):
        for i, case in enumerate(cases):
            with fa.num_threads(case["threads"]):
                medians[i] = min(medians[i], _median(call(case), seconds / ROUNDS))
    return medians


def _error(case: dict[str, Any]) -> float:
    """The norm of the error of "forward", "grad_x" or "grad_weight" over that of NumPy's float32 products."""
    operation, tier, arrays = case["operation"], case["precision"], _maxout_arrays(case["shape"])
    argmax = fa.linear_maxout(*arrays[:3], precision=tier)[1]

    def result(dtype: type, backend: str) -> Any:
        x, weight, bias, grad_y = (array.astype(dtype) for array in arrays)
        if operation == "forward":
            return fa.linear_maxout(x, weight, bias, backend=backend, precision=tier)[0]
        grads = fa.linear_maxout_backward(grad_y, x, weight, argmax, backend=backend, precision=tier)
        return grads[("grad_x", "grad_weight").index(operation)]

    exact = result(np.float64, "numpy")
    ours, numpys = (np.linalg.norm(result(np.float32, backend) - exact) for backend in ("c", "numpy"))
    return float(ours / numpys)


def main(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request."""
    cases = request["cases"]
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[: max(case["threads"] for case in cases)])
    fa.set_backend("c")
    gc.disable()
    if request["errors"]:
        figures = [_error(case) for case in cases]
    else:
        figures = [1e6 * median for median in _medians(cases, request["seconds"])]
    folder = str(Path(fa.__file__).resolve().parent)
    return {"fastact": folder, "figures": [float(f"{figure:.5g}") for figure in figures]}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
