"""Weight orders: what each means, there and back, and what is refused."""

import numpy as np
import pytest

from fastact import convert
from fastact.backends import numpy as reference

OUT, PIECES, IN = 4, 3, 5
WEIGHT_SHAPES = {
    "thinc": (OUT, PIECES, IN),
    "torch": (OUT * PIECES, IN),
    "piece_major": (PIECES * OUT, IN),
    "keras": (PIECES, IN, OUT),
}
BIAS_SHAPES = {
    "thinc": (OUT, PIECES),
    "torch": (OUT * PIECES,),
    "piece_major": (PIECES * OUT,),
    "keras": (PIECES, OUT),
}


def their_maxout(order, x, weight, bias):
    """What the library that uses the order computes, written as it writes it."""
    if order == "thinc":
        return (np.einsum("ni,opi->nop", x, weight) + bias).max(axis=-1)
    if order == "torch":
        return (x @ weight.T + bias).reshape(-1, OUT, PIECES).max(axis=-1)
    if order == "piece_major":
        return (x @ weight.T + bias).reshape(-1, PIECES, OUT).max(axis=-2)
    return (np.einsum("ni,pio->npo", x, weight) + bias).max(axis=1)


@pytest.fixture(params=convert.ORDERS)
def order(request):
    return request.param


def whole_numbers(rng, shape, dtype=np.float64):
    return rng.integers(-9, 10, shape).astype(dtype)


def test_to_fastact_gives_the_same_layer(order, rng):
    x = whole_numbers(rng, (7, IN))
    theirs = whole_numbers(rng, WEIGHT_SHAPES[order]), whole_numbers(rng, BIAS_SHAPES[order])
    weight, bias = convert.to_fastact(order, *theirs, pieces=PIECES)
    assert weight.shape == (OUT, PIECES, IN)
    assert bias.shape == (OUT, PIECES)
    y = np.empty((7, OUT))
    reference.linear_maxout(x, weight, bias, y, None)
    np.testing.assert_array_equal(y, their_maxout(order, x, *theirs))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_from_fastact_undoes_to_fastact(order, rng, dtype):
    weight, bias = (
        whole_numbers(rng, WEIGHT_SHAPES[order], dtype),
        whole_numbers(rng, BIAS_SHAPES[order], dtype),
    )
    ours = convert.to_fastact(order, weight, bias, pieces=PIECES)
    theirs = convert.from_fastact(order, *ours)
    for array, original in zip(theirs, (weight, bias), strict=True):
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert not np.shares_memory(array, original)
        np.testing.assert_array_equal(array, original)
    for array in ours:
        assert array.flags.c_contiguous
        assert not any(np.shares_memory(array, original) for original in (weight, bias))


def test_to_fastact_takes_strided_and_empty_weights_without_bias(order, rng):
    weight = whole_numbers(rng, WEIGHT_SHAPES[order])
    strided = weight.repeat(2, axis=-1)[..., ::2]
    converted, bias = convert.to_fastact(order, strided, pieces=PIECES)
    assert bias is None
    np.testing.assert_array_equal(converted, convert.to_fastact(order, weight, pieces=PIECES)[0])
    assert convert.from_fastact(order, converted)[1] is None
    empty, _ = convert.from_fastact(order, np.empty((0, PIECES, IN)))
    assert convert.to_fastact(order, empty, pieces=PIECES)[0].shape == (0, PIECES, IN)


def test_to_fastact_takes_pieces_from_the_weight(rng):
    for order in ("thinc", "keras"):
        weight = whole_numbers(rng, WEIGHT_SHAPES[order])
        np.testing.assert_array_equal(
            convert.to_fastact(order, weight)[0], convert.to_fastact(order, weight, pieces=PIECES)[0]
        )


W, B = np.zeros((12, 5)), np.zeros(12)


@pytest.mark.parametrize(
    ("error", "names", "arguments"),
    [
        (ValueError, "order", ("chainer", W, B, 3)),
        (TypeError, "weight", ("torch", W.tolist(), B, 3)),
        (TypeError, "bias", ("torch", W, B.tolist(), 3)),
        (ValueError, "weight", ("torch", W[0], None, 3)),
        (ValueError, "weight", ("keras", W, None, 3)),
        (ValueError, "bias", ("torch", W, B[:-1], 3)),
        (ValueError, "bias", ("keras", np.zeros((3, 5, 4)), np.zeros((4, 3)))),
        (ValueError, "pieces", ("torch", W, B)),
        (ValueError, "pieces", ("torch", W, B, 5)),
        (ValueError, "pieces", ("torch", W, B, 0)),
        (TypeError, "pieces", ("torch", W, B, 3.0)),
        (ValueError, "pieces", ("keras", np.zeros((3, 5, 4)), None, 5)),
    ],
)
def test_to_fastact_rejects_invalid_arguments(error, names, arguments):
    with pytest.raises(error, match=f"^{names}: got .*, wanted"):
        convert.to_fastact(*arguments)


@pytest.mark.parametrize(
    ("error", "names", "arguments"),
    [
        (ValueError, "order", ("Thinc", np.zeros((4, 3, 5)))),
        (TypeError, "weight", ("keras", None)),
        (ValueError, "weight", ("keras", W)),
        (ValueError, "bias", ("torch", np.zeros((4, 3, 5)), B)),
        (ValueError, "bias", ("torch", np.zeros((4, 3, 5)), np.zeros((3, 4)))),
    ],
)
def test_from_fastact_rejects_invalid_arguments(error, names, arguments):
    with pytest.raises(error, match=f"^{names}: got .*, wanted"):
        convert.from_fastact(*arguments)
