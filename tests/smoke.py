"""A test of an installed wheel that needs no more than the wheel's own dependencies: python tests/smoke.py.

Numba is not needed.  It prints the configuration, and fails where the C backend does not run.
"""

from __future__ import annotations

import pickle
import sys
import sysconfig
import time

import numpy as np

import fastact as fa
from fastact import backends

SHAPES = ((0, 3, 5, 2), (1, 17, 33, 3), (97, 64, 31, 2), (300, 200, 64, 4))  # rows, in, out, pieces


def check_kernels(rng: np.random.Generator) -> None:
    """Each instruction set of this CPU computes what the NumPy reference does."""
    from fastact.backends import c

    fastest = c.isa()
    for isa in c.supported_isas():
        c.set_isa(isa)
        for dtype, tolerance in ((np.float32, 1e-4), (np.float64, 1e-12)):
            for rows, features, out, pieces in SHAPES:
                x = rng.standard_normal((rows, features)).astype(dtype)
                weight = rng.standard_normal((out, pieces, features)).astype(dtype)
                bias = rng.standard_normal((out, pieces)).astype(dtype)
                _, argmax = fa.linear_maxout(x, weight, bias, backend="numpy")
                results = []
                for backend in ("c", "numpy"):
                    y, _ = fa.linear_maxout(x, weight, bias, backend=backend)
                    grads = fa.linear_maxout_backward(y, x, weight, argmax, backend=backend)
                    linear, _ = fa.linear_activation(x, weight[:, 0], bias[:, 0], "gelu", backend=backend)
                    results.append((y, *grads, linear))
                for ours, reference in zip(*results, strict=True):
                    scale = max(1.0, float(np.abs(reference).max(initial=0)))
                    np.testing.assert_allclose(ours, reference, rtol=0, atol=tolerance * scale)
    c.set_isa(fastest)


def check_training(rng: np.random.Generator) -> None:
    """A small network learns README's chessboard on two threads; a pickled frozen copy computes the same."""
    x = rng.uniform(-1, 1, (4000, 2)).astype(np.float32)
    labels = np.floor(2 * x).astype(int).sum(axis=1) % 2
    model = fa.Sequential(fa.Maxout(2, 64, pieces=4, rng=rng), fa.Linear(64, 2, rng=rng))
    optimizer = fa.Adam(model.parameters(), lr=0.01)
    with fa.num_threads(2):
        for _ in range(600):
            batch = rng.integers(3000, size=128)
            _, grad = fa.softmax_cross_entropy(model(x[batch], training=True), labels[batch])
            model.backward(grad, needs_input_grad=False)
            optimizer.step()
    accuracy = np.mean(model(x[3000:]).argmax(axis=1) == labels[3000:])
    assert accuracy > 0.85, f"the network learned nothing: accuracy {accuracy:.0%}"
    frozen = pickle.loads(pickle.dumps(fa.freeze(model)))
    np.testing.assert_allclose(frozen(x), model(x), rtol=1e-4, atol=1e-4)


def main() -> None:
    started = time.perf_counter()
    fa.show_config()
    missing = backends.why_c_is_missing()
    assert missing is None, f"the C backend does not run here: {missing}"
    assert fa.get_backend() == "c"
    rng = np.random.default_rng(0)
    check_kernels(rng)
    check_training(rng)
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        assert not sys._is_gil_enabled(), "the extension has turned the GIL on"
    seconds = time.perf_counter() - started
    print(f"smoke test of {fa.__path__[0]} passed in {seconds:.1f} s")


if __name__ == "__main__":
    main()
