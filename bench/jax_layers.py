"""Times linear + maxout in JAX, of its own operators and of `fastact.jax`: `python -m bench.jax_layers`.

One process; every contender takes its turn in every round, and all results are compared with NumPy's first.

- Called from Python, jitted: the forward alone, and the forward with all three gradients.  JAX has its
  weights as (in_features, units), as its own layers keep them, and once more in fastact's order.
- A floor: jitted functions of as many arguments and results, all of one number, to which they add 1.
- Within one jitted function, without what a call from Python costs: a small layer, from the time of a
  network of many less that of one; and a handler that does next to nothing, in the same way.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fastact
import fastact.jax as fj
from fastact.backends import c
from fastact.cli.arguments import positive

from . import records, threads
from .timing import Sample, interleaved

MAIN, TINY = (1024, 288, 96, 3), (8, 32, 32, 2)  # rows, in_features, out_features, pieces
LAYERS = 5  # of the network, beside the first: with 20, XLA runs JAX's own on threads, 4 times as slowly
GOALS = {"forward": {MAIN: 1.15, TINY: 1.5}, "forward_backward": {MAIN: 1.7, TINY: 1.5}}

Shape = tuple[int, int, int, int]
Layer = Callable[[Any, Any, Any], Any]


def layers(shape: Shape) -> dict[str, Layer]:
    rows, _, out_features, pieces = shape

    def units(x: Any, weight: Any, bias: Any) -> Any:
        return (x @ weight + bias).reshape(rows, out_features, pieces).max(-1)

    def grouped(x: Any, weight: Any, bias: Any) -> Any:
        return (jnp.einsum("ni,jki->njk", x, weight) + bias).max(-1)

    return {"JAX": units, "JAX, weights as fastact's": grouped, "fastact": fj.linear_maxout}


def operands(shape: Shape) -> tuple[tuple[Any, ...], Any]:
    """x, weight and bias, of a scale that a network of layers keeps; and grad_y."""
    rows, in_features, out_features, pieces = shape
    rng = np.random.default_rng(0)
    std = fastact.init.maxout_std(in_features, pieces)
    arrays = [
        rng.standard_normal(size) * scale
        for size, scale in (
            ((rows, in_features), 1),
            ((out_features, pieces, in_features), std),
            ((out_features, pieces), 0.1),
            ((rows, out_features), 1),
        )
    ]
    x, weight, bias, grad_y = (jnp.asarray(array, jnp.float32) for array in arrays)
    return (x, weight, bias), grad_y


def as_units(x: Any, weight: Any, bias: Any) -> tuple[Any, Any, Any]:
    """The same for a weight (in_features, units)."""
    return x, jnp.asarray(np.asarray(weight).reshape(-1, weight.shape[-1]).T.copy()), bias.reshape(-1)


def pull_back(layer: Layer) -> Callable[..., Any]:
    return lambda x, weight, bias, grad_y: jax.vjp(layer, x, weight, bias)[1](grad_y)


def check(name: str, shape: Shape, results: tuple[Any, ...]) -> None:
    """Compare y and the gradients with float64's, to half the digits: rounding may decide between pieces."""
    (x, weight, bias), grad_y = (
        jax.tree.map(lambda a: np.asarray(a, np.float64), v) for v in operands(shape)
    )
    y, argmax = fastact.linear_maxout(x, weight, bias, backend="numpy")
    grads = fastact.linear_maxout_backward(grad_y, x, weight, argmax, backend="numpy")
    for result, wanted in zip(results, (y, *grads), strict=True):
        got = np.asarray(result, np.float64)
        if name == "JAX" and got.shape != wanted.shape:
            got = (got.T if got.ndim == 2 else got).reshape(wanted.shape)
        error = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
        if not error < 3e-4:
            raise ValueError(f"{name}: off by {error:.1e} of the norm")


def from_python(shape: Shape, seconds: float) -> dict[str, dict[str, Sample]]:
    given, grad_y = operands(shape)
    forwards: dict[str, Callable[[], Any]] = {}
    both: dict[str, Callable[[], Any]] = {}
    for name, layer in layers(shape).items():
        args = as_units(*given) if name == "JAX" else given
        forward, backward = jax.jit(layer), jax.jit(pull_back(layer))
        check(name, shape, (forward(*args), *backward(*args, grad_y)))
        forwards[name] = lambda f=forward, args=args: f(*args).block_until_ready()
        both[name] = lambda f=backward, args=args: jax.block_until_ready(f(*args, grad_y))
    add_one, add_three = jax.jit(lambda x, *_: x + 1), jax.jit(lambda *xs: tuple(x + 1 for x in xs[:3]))
    one = jnp.ones((1, 1))
    forwards["floor"] = lambda: add_one(one, one, one).block_until_ready()
    both["floor"] = lambda: jax.block_until_ready(add_three(one, one, one, one))
    return {
        "forward": interleaved(forwards, seconds),
        "forward_backward": interleaved(both, seconds),
    }


def within_jit(seconds: float) -> dict[str, dict[str, float]]:
    """Microseconds of a TINY layer within one jitted function, and of a handler of one number."""
    given, _ = operands(TINY)
    calls: dict[str, Callable[[], Any]] = {}

    def network(layer: Layer, count: int) -> Callable[..., Any]:
        def run(x: Any, *parameters: Any) -> Any:
            for _ in range(count):
                x = layer(x, *parameters)
            return x

        return run

    def add(name: str, layer: Layer, args: tuple[Any, ...], gradients: bool) -> None:
        for count in (1, LAYERS + 1):
            run = network(layer, count)
            if gradients:
                run = jax.grad(lambda *args, run=run: (run(*args) ** 2).sum(), (0, 1, 2))
            jitted = jax.jit(run)
            calls[f"{name} {count}"] = lambda f=jitted: jax.block_until_ready(f(*args))

    for name, layer in layers(TINY).items():
        args = as_units(*given) if name == "JAX" else given
        add(f"{name} forward", layer, args, False)
        add(f"{name} forward_backward", layer, args, True)
    add("handler", lambda x: fj.relu(x), (jnp.ones((1, 1)),), False)
    x, weight, bias = map(np.asarray, given)
    y = np.empty((len(x), len(weight)), np.float32)
    calls["C call"] = lambda: c.linear_maxout(x, weight, bias, y, None, 1)
    times = {name: sample.p50 for name, sample in interleaved(calls, seconds).items()}

    def per_layer(name: str) -> float:
        return round((times[f"{name} {LAYERS + 1}"] - times[f"{name} 1"]) / LAYERS, 3)

    found = {mode: {name: per_layer(f"{name} {mode}") for name in layers(TINY)} for mode in GOALS}
    return found | {
        "calls": {"handler of one number": per_layer("handler"), "C call from Python": times["C call"]}
    }


def report(shape: Shape, mode: str, samples: dict[str, Sample]) -> str:
    ratio = samples["JAX"].p50 / samples["fastact"].p50
    figures = "  ".join(f"{name} {sample.p50:,.1f}" for name, sample in samples.items())
    return f"{shape} {mode}: {ratio:.2f}x, wanted {GOALS[mode][shape]}x  ({figures} us)"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.jax_layers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=positive, default=1, help="of every contender (%(default)s)")
    parser.add_argument("--seconds", type=float, default=15.0, help="for each table (%(default)s)")
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("threads", "from_python", "within_jit"))

    threads.pin(options.threads)
    fastact.set_num_threads(options.threads)
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # a second thread would only dispatch
    tables = {shape: from_python(shape, options.seconds) for shape in (MAIN, TINY)}
    inside = within_jit(options.seconds)
    for shape, modes in tables.items():
        for mode, samples in modes.items():
            print(report(shape, mode, samples))
    for mode, times in inside.items():
        print(f"{TINY} within jit, {mode}: {times} us")
    fields = {
        "threads": options.threads,
        "from_python": {
            "x".join(map(str, shape)): {
                mode: {
                    "us": {name: sample._asdict() for name, sample in samples.items()},
                    "speedup": round(samples["JAX"].p50 / samples["fastact"].p50, 3),
                    "wanted": GOALS[mode][shape],
                }
                for mode, samples in modes.items()
            }
            for shape, modes in tables.items()
        },
        "within_jit": inside,
    }
    records.save(options.out, fields)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
