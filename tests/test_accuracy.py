"""The norm of a float32 error is no worse than that of NumPy's float32 product, at any depth."""

import numpy as np
import pytest
from support.inputs import normal
from support.variants import isa_in_force
from threadpoolctl import threadpool_limits

import fastact as fa

DEPTHS = (16, 64, 128, 256, 512, 784, 1024, 2048, 4096)
# Whole register tiles of the BLAS libraries: in the tiles at an edge they split a sum as it happens to fit.
ROWS, COLUMNS = 96, 144


def positive(rng, shape, dtype):
    return rng.random(shape).astype(dtype)


def roundings_per_step(backend):
    """One where a product is added by a fused multiply-add, as NumPy does it; two without."""
    return 2 if isa_in_force(backend) == "scalar" else 1


def assert_no_worse(compute, exact, backend, roundings=1):
    """The error of compute(backend=...) against `exact` is no larger than the reference's.

    Two equally good orders of n sums differ by chance by about 1 / sqrt(n) of the norm; five times
    that are allowed.  Twice the roundings make a norm larger by sqrt(2) at most; `roundings` is how
    many a step has where each product is a fused one.
    """
    roundings = max(roundings, roundings_per_step(backend))
    with threadpool_limits(1, user_api="blas"):  # so that it does not cut its tiles to share them out
        ours, numpys = (np.linalg.norm(compute(backend=name) - exact) for name in (backend, "numpy"))
    assert ours <= numpys * np.sqrt(roundings) * (1 + 5 / np.sqrt(exact.size))


@pytest.fixture(params=(normal, positive), ids=("normal", "positive"))
def values(request, rng):
    """A function of a shape that makes a float32 array."""
    return lambda *shape: request.param(rng, shape, np.float32)


@pytest.fixture(params=DEPTHS, ids=lambda depth: f"depth{depth}")
def depth(request):
    return request.param


def product(subscripts, a, b):
    """The float64 sum of products that subscripts name."""
    return np.einsum(subscripts, a.astype(np.float64), b.astype(np.float64), optimize=True)


def winners(argmax, grad_y, pieces):
    """grad_z (rows, out_features, pieces): grad_y at the winners, 0 elsewhere."""
    return grad_y[..., None] * (argmax[..., None] == np.arange(pieces))


@pytest.mark.parametrize("pieces", [1, 3])
def test_linear_maxout_error_is_no_worse_than_numpys(compiled, values, depth, pieces):
    x, weight = values(ROWS, depth), values(COLUMNS, pieces, depth)
    exact = product("ni,jki->njk", x, weight)

    def preactivations(backend):
        """The pre-activations, computed piece by piece, so that each sum is seen and no maximum hides one."""
        z = [fa.linear_maxout(x, weight[:, k : k + 1], backend=backend)[0] for k in range(pieces)]
        return np.stack(z, axis=-1)

    assert_no_worse(preactivations, exact, compiled)


@pytest.mark.parametrize("depth", [512, 784, 1024, 4096])
def test_linear_maxout_of_few_rows_error_is_no_worse_than_numpys(compiled, values, depth):
    # NumPy's product of so few rows spreads a sum over the lanes of several vectors, so its error is smaller.
    x, weight = values(4, depth), values(8 * COLUMNS, 1, depth)
    exact = product("ni,jki->nj", x, weight)
    assert_no_worse(lambda backend: fa.linear_maxout(x, weight, backend=backend)[0], exact, compiled)


@pytest.mark.parametrize(("rows", "depth"), [(8, 32), (4, 64), (5, 48)])
def test_linear_maxout_of_tiny_batch_error_is_no_worse_than_numpys(compiled, values, rows, depth):
    if compiled != "c" or roundings_per_step(compiled) == 2:
        pytest.skip("needs several accumulators a sum, which the SIMD kernels of C have")
    # NumPy's product of so few numbers may spread a sum over the lanes of a vector; 16 of them show a norm.
    batches = [(values(rows, depth), values(32, 2, depth)) for _ in range(16)]
    exact = np.stack([product("ni,jki->njk", x, weight).max(-1) for x, weight in batches])
    assert_no_worse(
        lambda backend: np.stack([fa.linear_maxout(x, w, backend=backend)[0] for x, w in batches]),
        exact,
        compiled,
    )


@pytest.mark.parametrize("pieces", [1, 3])
def test_grad_x_error_is_no_worse_than_numpys(compiled, values, depth, pieces, rng):
    grad_y, weight = values(ROWS, depth), values(depth, pieces, COLUMNS)
    argmax = rng.integers(0, pieces, grad_y.shape, dtype=np.uint8)
    exact = product("njk,jki->ni", winners(argmax, grad_y, pieces), weight)
    x = np.zeros((ROWS, COLUMNS), np.float32)
    assert_no_worse(
        lambda backend: fa.linear_maxout_backward(grad_y, x, weight, argmax, backend=backend)[0],
        exact,
        compiled,
    )


@pytest.mark.parametrize(
    ("rows", "columns", "outputs", "pieces"),
    [(400, 16, 640, 1), (400, 16, 256, 2), (300, 40, 500, 1), (8, 204, 450, 8)],
)
def test_grad_x_of_few_columns_or_rows_error_is_no_worse_than_numpys(
    compiled, values, rows, columns, outputs, pieces, rng
):
    grad_y, weight = values(rows, outputs), values(outputs, pieces, columns)
    argmax = rng.integers(0, pieces, grad_y.shape, dtype=np.uint8)
    exact = product("njk,jki->ni", winners(argmax, grad_y, pieces), weight)
    x = np.zeros((rows, columns), np.float32)
    assert_no_worse(
        lambda backend: fa.linear_maxout_backward(grad_y, x, weight, argmax, backend=backend)[0],
        exact,
        compiled,
    )


@pytest.mark.parametrize("pieces", [1, 3])
def test_grad_weight_error_is_no_worse_than_numpys(compiled, values, depth, pieces, rng):
    grad_y, x = values(depth, ROWS), values(depth, COLUMNS)
    argmax = rng.integers(0, pieces, grad_y.shape, dtype=np.uint8)
    exact = product("njk,ni->jki", winners(argmax, grad_y, pieces), x)
    weight = np.zeros((ROWS, pieces, COLUMNS), np.float32)
    assert_no_worse(
        lambda backend: fa.linear_maxout_backward(grad_y, x, weight, argmax, backend=backend)[1],
        exact,
        compiled,
    )


# A sum over winners is made of those over tables of 64 rows or units, and each of these adds one rounding to
# its 64 / pieces terms.
TABLE_ROWS = 64


@pytest.mark.parametrize(("terms", "pieces"), [(256, 16), (1024, 16), (256, 64)])
def test_gradients_of_many_pieces_error_is_no_worse_than_numpys(compiled, values, terms, pieces, rng):
    outputs, columns = 24, 48
    roundings = 1 + pieces / TABLE_ROWS

    grad_y, weight = values(ROWS, terms), values(terms, pieces, columns)
    x, argmax = values(ROWS, columns), rng.integers(0, pieces, grad_y.shape, dtype=np.uint8)
    exact = product("njk,jki->ni", winners(argmax, grad_y, pieces), weight)
    assert_no_worse(
        lambda backend: fa.linear_maxout_backward(grad_y, x, weight, argmax, backend=backend)[0],
        exact,
        compiled,
        roundings,
    )

    grad_y, weight = values(terms, outputs), values(outputs, pieces, columns)
    x, argmax = values(terms, columns), rng.integers(0, pieces, grad_y.shape, dtype=np.uint8)
    exact = product("njk,ni->jki", winners(argmax, grad_y, pieces), x)
    assert_no_worse(
        lambda backend: fa.linear_maxout_backward(grad_y, x, weight, argmax, backend=backend)[1],
        exact,
        compiled,
        roundings,
    )


def test_linear_activation_error_is_no_worse_than_numpys(compiled, values, depth):
    x, weight = values(ROWS, depth), values(COLUMNS, depth)
    exact = product("ni,ji->nj", x, weight)
    assert_no_worse(
        lambda backend: fa.linear_activation(x, weight, None, "linear", backend=backend)[0], exact, compiled
    )


def test_linear_activation_grad_x_error_is_no_worse_than_numpys(compiled, values, depth):
    grad_y, weight = values(ROWS, depth), values(depth, COLUMNS)
    exact = product("nj,ji->ni", grad_y, weight)
    x = np.zeros((ROWS, COLUMNS), np.float32)
    assert_no_worse(
        lambda backend: fa.linear_activation_backward(grad_y, x, weight, grad_y, "linear", backend=backend)[
            0
        ],
        exact,
        compiled,
    )


def test_linear_activation_grad_weight_error_is_no_worse_than_numpys(compiled, values, depth):
    grad_y, x = values(depth, ROWS), values(depth, COLUMNS)
    exact = product("nj,ni->ji", grad_y, x)
    weight = np.zeros((ROWS, COLUMNS), np.float32)
    assert_no_worse(
        lambda backend: fa.linear_activation_backward(grad_y, x, weight, grad_y, "linear", backend=backend)[
            1
        ],
        exact,
        compiled,
    )
