"""Measures the functional API in nopython code: `python -m bench.nopython`.

Three figures: what a call costs beyond the bare C kernel; epochs of a digits network as a nopython loop and
as a Python loop of the same calls, whose losses have to be equal to the bit; the start of a second process,
whose compiled code is in the cache.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import numba
import numpy as np
from numba.extending import overload

import fastact as fa
from fastact import overloads
from fastact.overloads import native

from . import records, threads

overloads.init()
SHAPES = ((1, 8, 8, 2), (64, 288, 96, 3))  # rows, in_features, out_features, pieces
ROUNDS = 60
BATCH, WIDTH, PIECES, EPOCHS = 64, 120, 5, 40


@numba.njit
def _calls(x: Any, weight: Any, bias: Any, y: Any, argmax: Any, count: int) -> None:
    for _ in range(count):
        fa.linear_maxout(x, weight, bias)


@numba.njit
def _calls_out(x: Any, weight: Any, bias: Any, y: Any, argmax: Any, count: int) -> None:
    for _ in range(count):
        fa.linear_maxout(x, weight, bias, out=(y, argmax))


def _bare() -> Callable[..., None]:
    kernel = native.c_kernel("fa_linear_maxout")

    @numba.njit
    def bare(x: Any, weight: Any, bias: Any, y: Any, argmax: Any, count: int) -> None:
        rows, in_features = x.shape
        out_features, pieces, _ = weight.shape
        for _ in range(count):
            kernel(0, rows, in_features, out_features, pieces, x, weight, bias, y, argmax, 1, 0)

    return bare  # type: ignore[no-any-return]


def overhead(shape: tuple[int, int, int, int]) -> dict[str, float]:
    """Nanoseconds a call at the least, each contender in every round."""
    rows, in_features, out_features, pieces = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, in_features), np.float32)
    weight = rng.standard_normal((out_features, pieces, in_features), np.float32)
    bias = rng.standard_normal((out_features, pieces), np.float32)
    y, argmax = fa.linear_maxout(x, weight, bias)
    contenders = {"bare kernel": _bare(), "linear_maxout": _calls, "linear_maxout, out=": _calls_out}
    count = max(1, 2_000_000 // (weight.size * rows))
    least = dict.fromkeys(contenders, float("inf"))
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            call(x, weight, bias, y, argmax, 1)
            started = time.perf_counter()
            call(x, weight, bias, y, argmax, count)
            least[name] = min(least[name], (time.perf_counter() - started) / count * 1e9)
    return least


def descend(parameter: Any, gradient: Any, lr: Any) -> None:
    parameter -= lr * gradient


@overload(descend)
def _descend(parameter: Any, gradient: Any, lr: Any) -> Any:
    """One pass in nopython code, without a temporary array."""

    def descended(parameter: Any, gradient: Any, lr: Any) -> None:
        flat, flat_gradient = parameter.reshape(parameter.size), gradient.reshape(gradient.size)
        for i in range(flat.size):
            flat[i] -= lr * flat_gradient[i]

    return descended


def epoch(x: Any, labels: Any, w1: Any, b1: Any, w2: Any, b2: Any, lr: Any, losses: Any) -> None:
    """An epoch of SGD on a network of two maxout layers, in place."""
    grad_w1, grad_w2 = np.empty_like(w1), np.empty_like(w2)
    for step, i in enumerate(range(0, len(x), BATCH)):
        rows = x[i : i + BATCH]
        h, a1 = fa.linear_maxout(rows, w1, b1)
        z, a2 = fa.linear_maxout(h, w2, b2)
        losses[step], grad_z = fa.softmax_cross_entropy(z, labels[i : i + BATCH])
        grad_h, _, grad_b2 = fa.linear_maxout_backward(grad_z, h, w2, a2, out=(None, grad_w2, None))
        _, _, grad_b1 = fa.linear_maxout_backward(
            grad_h, rows, w1, a1, needs=(False, True, True), out=(None, grad_w1, None)
        )
        descend(w1, grad_w1, lr)
        descend(w2, grad_w2, lr)
        descend(b1, grad_b1, lr)
        descend(b2, grad_b2, lr)


compiled_epoch = numba.njit(nogil=True, cache=True)(epoch)


def train(function: Callable[..., None], x: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The seconds of the shortest epoch, and the losses of every step."""
    rng = np.random.default_rng(0)
    w1, w2 = (
        (rng.standard_normal(shape) * (2 / shape[-1]) ** 0.5).astype(np.float32)
        for shape in ((WIDTH, PIECES, x.shape[1]), (10, PIECES, WIDTH))
    )
    b1, b2 = np.zeros(w1.shape[:2], np.float32), np.zeros(w2.shape[:2], np.float32)
    losses = np.zeros((EPOCHS, -(-len(x) // BATCH)))
    shortest = float("inf")
    for row in losses:
        started = time.perf_counter()
        function(x, labels, w1, b1, w2, b2, np.float32(0.05), row)
        shortest = min(shortest, time.perf_counter() - started)
    return shortest, losses


def second_process() -> float:
    """The seconds of a whole process that runs an epoch, with its compiled code in the cache."""
    arrays = "np.ones((640, 64), np.float32), np.zeros(640, np.int64)"
    code = f"import numpy as np; from bench import nopython as n; n.train(n.compiled_epoch, {arrays})"
    with tempfile.TemporaryDirectory() as folder:
        environment = threads.process_environment(1) | {"NUMBA_CACHE_DIR": folder}
        for _ in range(2):
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True, env=environment)
            seconds = time.perf_counter() - started
    return seconds


def measure() -> dict[str, Any]:
    """The three figures, in nanoseconds a call, milliseconds an epoch and seconds a process."""
    from fastact.study.data import load_digits  # imports scikit-learn, which the second process does not need

    digits = load_digits(0)
    data = digits.x_train, digits.labels_train.astype(np.int64)
    train(compiled_epoch, *data)  # compiles
    (plain, wanted), (compiled, losses) = train(epoch, *data), train(compiled_epoch, *data)
    return {
        "calls": [{"shape": list(shape), "nanoseconds": overhead(shape)} for shape in SHAPES],
        "epoch": {"python": plain * 1e3, "nopython": compiled * 1e3, "equal": bool((losses == wanted).all())},
        "second_process": second_process(),
    }


def table(found: Mapping[str, Any]) -> str:
    """The figures as text."""
    lines = []
    for call in found["calls"]:
        bare = call["nanoseconds"]["bare kernel"]
        for name, each in call["nanoseconds"].items():
            shape = "x".join(map(str, call["shape"]))
            lines.append(
                f"{shape:12} {name:20} {each:10.1f} ns {each - bare:+9.1f} ns {each / bare - 1:+7.1%}"
            )
    epochs = found["epoch"]
    equal = "equal to the bit" if epochs["equal"] else "NOT EQUAL"
    lines.append(
        f"epoch of the digits: Python {epochs['python']:.2f} ms, nopython {epochs['nopython']:.2f} ms, "
        f"losses {equal}"
    )
    lines.append(f"second process, imports and an epoch included: {found['second_process']:.2f} s")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.nopython", description=__doc__.splitlines()[0])
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("threads", "calls", "epoch", "second_process"))
    fa.set_backend("c")
    fa.set_num_threads(1)
    found = measure()
    print(table(found))
    records.save(options.out, {"threads": 1, **found})
    return 0 if found["epoch"]["equal"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
