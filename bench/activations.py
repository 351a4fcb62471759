"""Times the element-wise activations beside PyTorch's and NumPy's: `python -m bench.activations`.

One thread.  Each forward and each backward allocates its result, as a plain call does.  NumPy's functions
are those that its users write, or the reference's.  NumPy has no erf: both of its forms of gelu have tanh.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.progress import Progress

import fastact as fa
from fastact.activations import TABLE

from . import records
from .accuracy import activations as accuracy
from .threads import pin
from .timing import interleaved

# Every activation of the table except identity, which does nothing, and prelu, whose formula is leaky_relu's.
ACTIVATIONS = {label: row for label, row in accuracy.ACTIVATIONS.items() if label != "identity"}
SIZES = {"64k": 1 << 16, "16M": 1 << 24}
SECONDS = 0.5  # for the contenders of one figure together

Array = np.ndarray[Any, Any]


def _sigmoid(z: Array) -> Any:
    return 1 / (1 + np.exp(-z))


def _tanh_softplus(z: Array) -> Any:
    return np.tanh(np.log1p(np.exp(z)))


_GELU = np.float32(np.sqrt(2 / np.pi))


def _gelu(z: Array) -> Any:
    return 0.5 * z * (1 + np.tanh(_GELU * (z + np.float32(0.044715) * z * z * z)))


NAIVE: dict[str, Callable[[Array], Any]] = {
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, np.float32(0.25) * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "selu": lambda z: np.float32(1.0507) * np.where(z > 0, z, np.float32(1.67326) * np.expm1(z)),
    "gelu": _gelu,
    "gelu_tanh": _gelu,
    "silu": lambda z: z * _sigmoid(z),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "mish": lambda z: z * _tanh_softplus(z),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
}


def torch_calls(z: Array, grad: Array, y: Array) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Forward and backward of each activation, both without autograd; {} without PyTorch."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    f, aten = torch.nn.functional, torch.ops.aten
    t, g, out = (torch.from_numpy(array) for array in (z, grad, y))
    _, buffer = aten.log_sigmoid_forward(t)
    elu = (1.0, 1.0, 1.0)
    selu = (1.6732632423543772, 1.0507009873554805, 1.0)
    return {
        "relu": (lambda: f.relu(t), lambda: aten.threshold_backward(g, out, 0)),
        "leaky_relu": (lambda: f.leaky_relu(t, 0.25), lambda: aten.leaky_relu_backward(g, t, 0.25, False)),
        "elu": (lambda: f.elu(t), lambda: aten.elu_backward(g, *elu, False, t)),
        "selu": (lambda: f.selu(t), lambda: aten.elu_backward(g, *selu, False, t)),
        "gelu": (lambda: f.gelu(t), lambda: aten.gelu_backward(g, t)),
        "gelu_tanh": (
            lambda: f.gelu(t, approximate="tanh"),
            lambda: aten.gelu_backward(g, t, approximate="tanh"),
        ),
        "silu": (lambda: f.silu(t), lambda: aten.silu_backward(g, t)),
        "softplus": (lambda: f.softplus(t), lambda: aten.softplus_backward(g, t, 1, 20)),
        "mish": (lambda: f.mish(t), lambda: aten.mish_backward(g, t)),
        "sigmoid": (lambda: torch.sigmoid(t), lambda: aten.sigmoid_backward(g, out)),
        "tanh": (lambda: torch.tanh(t), lambda: aten.tanh_backward(g, out)),
        "hardswish": (lambda: f.hardswish(t), lambda: aten.hardswish_backward(g, t)),
        "hardsigmoid": (lambda: f.hardsigmoid(t), lambda: aten.hardsigmoid_backward(g, t)),
        "hardtanh": (lambda: f.hardtanh(t), lambda: aten.hardtanh_backward(g, t, -1, 1)),
        "relu6": (lambda: f.relu6(t), lambda: aten.hardtanh_backward(g, t, 0, 6)),
        "logsigmoid": (lambda: f.logsigmoid(t), lambda: aten.log_sigmoid_backward(g, t, buffer)),
    }


def measure(labels: list[str], size: int) -> list[dict[str, Any]]:
    """A record for the forward and one for the backward of each activation, on `size` float32 numbers."""
    rng = np.random.default_rng(0)
    z, grad = (rng.standard_normal(size, np.float32) for _ in range(2))
    y = fa.sigmoid(z)
    peers = torch_calls(z, grad, y)
    rows = []
    for label in labels:
        name, keywords = ACTIVATIONS[label]
        forward: dict[str, Callable[[], Any]] = {
            "fastact": lambda name=name, keywords=keywords: fa.activation(z, name, **keywords),
            "numpy": lambda label=label: NAIVE[label](z) if label in NAIVE else TABLE[label].forward(z, None),
        }
        backward: dict[str, Callable[[], Any]] = {
            "fastact": lambda name=name, keywords=keywords: fa.activation_backward(grad, y, name, **keywords)
        }
        if label in peers:
            forward["torch"], backward["torch"] = peers[label]
        for direction, calls in (("forward", forward), ("backward", backward)):
            samples = interleaved(calls, SECONDS)
            row: dict[str, Any] = {"activation": label, "size": size, "direction": direction}
            rows.append(row | {who: sample._asdict() for who, sample in samples.items()})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The records as text, at most 80 columns wide."""
    lines = [f"{'activation':12}{'size':>10} {'':9}{'fastact us':>12}{'x PyTorch':>11}{'x NumPy':>9}"]
    for row in rows:
        ours = row["fastact"]["p50"]
        ratios = [f"{row[who]['p50'] / ours:.2f}" if who in row else "" for who in ("torch", "numpy")]
        lines.append(
            f"{row['activation']:12}{row['size']:10} {row['direction']:9}{ours:12.1f}"
            f"{ratios[0]:>11}{ratios[1]:>9}".rstrip()
        )
    return "\n".join(lines)


def _activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise argparse.ArgumentTypeError(f"got {name!r}, wanted one of {', '.join(ACTIVATIONS)}")
    return name


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.activations", description=__doc__.splitlines()[0])
    parser.add_argument(
        "activations",
        nargs="*",
        type=_activation,
        default=list(ACTIVATIONS),
        metavar="ACTIVATION",
        help=f"one of {', '.join(ACTIVATIONS)} (default: all)",
    )
    parser.add_argument("--size", choices=SIZES, help="one size only")
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("threads", "rows"))
    pin(1)
    fa.set_num_threads(1)
    sizes = [options.size] if options.size else list(SIZES)
    rows = []
    with Progress() as progress:
        for size in progress.track(sizes):
            rows += measure(options.activations, SIZES[size])
    print(table(rows))
    records.save(options.out, {"threads": 1, "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
