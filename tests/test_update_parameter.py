"""`update_parameter`, the step of one parameter with its clipping, decay and average, on every backend."""

import math

import numpy as np
import pytest
from support.tolerance import assert_same_bits

from fastact import backends
from fastact.backends import numpy as reference

SHAPES = [
    (1,),
    (3,),
    (15,),
    (16,),
    (17,),
    (31,),
    (33,),
    (97,),
    (5, 3, 40),
    (70000,),
    (3, 30001),
    (0, 3),
    (3, 0),
]
NAMES = ("data", "grad", "mean", "square", "average")


class Step:
    """The arrays of a parameter and the numbers of a step.

    No sum of a step cancels but for data's, as data, grad and mean have the same signs.
    """

    def __init__(self, shape=(97,), dtype=np.float32, rule="adam", averages=True, seed=0, **numbers):
        rng = np.random.default_rng(seed)
        size = math.prod(shape)
        sign = np.sign(rng.standard_normal(shape))
        self.data = (sign * rng.uniform(0.1, 1, shape)).astype(dtype)
        self.grad = (sign * rng.uniform(0.01, 0.1, shape)).astype(dtype)
        self.mean = self.square = self.average = None
        if rule == "adam":
            self.mean = (sign.reshape(-1) * rng.uniform(0.01, 0.1, size)).astype(dtype)
            self.square = rng.uniform(0.001, 0.01, size).astype(dtype)
        if averages:
            self.average = rng.standard_normal(shape).astype(dtype)
        self.numbers = {
            "max_norm": 0.0,
            "decay": 0.0,
            "rate": 0.01,
            "beta1": float(np.float32(0.9)),
            "beta2": float(np.float32(0.999)),
            "eps": 1e-8,
            "shrink": 0.0,
            "new_share": 0.3,
        } | numbers

    def arrays(self):
        return [getattr(self, name) for name in NAMES]

    def run(self, backend, threads=0, dtype=None):
        """What becomes of copies of the arrays, or of copies in `dtype`."""
        arrays = [array if array is None else np.array(array, dtype) for array in self.arrays()]
        assert backend.update_parameter(*arrays, *self.numbers.values(), threads) is True
        return dict(zip(NAMES, arrays, strict=True))

    def norm(self):
        return float(np.linalg.norm((self.grad + self.numbers["decay"] * self.data).astype(np.float64)))


def assert_within_bound(got, step):
    """`got` against the reference in float64.

    Every gradient is off by at most 8 roundings (decay 2, clip 1, norm and quotient 5), so a mean by 12, a
    root by 12 and the change of data by 30; a sum of n squares in float64 by n / 32 more.  Then data is
    rounded, decays and is averaged, some 6 roundings of the largest term.
    """
    wanted = step.run(reference, dtype=np.float64)
    size = step.data.size
    for name, exact in wanted.items():
        if exact is None:
            assert got[name] is None
            continue
        largest = np.abs(exact)
        if name in ("data", "average"):
            largest = np.maximum(largest, np.abs(step.data) + np.abs(wanted["data"] - step.data))
        if name == "average":
            largest = largest + np.abs(step.average)
        eps = np.finfo(step.data.dtype).eps
        roundings = 20 + (size / 32 if eps < 1e-10 else 0)
        assert (np.abs(got[name] - exact) <= roundings * eps * largest + np.finfo(np.float32).tiny).all(), (
            name
        )


@pytest.mark.parametrize("extras", ["plain", "decay", "shrink", "clip", "all"])
@pytest.mark.parametrize("rule", ["adam", "sgd"])
@pytest.mark.parametrize("shape", SHAPES)
def test_update_equals_the_formula_on_any_threads(backend, dtype, shape, rule, extras):
    step = Step(shape, dtype, rule, averages=extras in ("plain", "all"))
    if extras in ("decay", "all"):
        step.numbers["decay"] = 0.05
    if extras in ("shrink", "all"):
        step.numbers["shrink"] = 0.02
    if extras in ("clip", "all"):
        step.numbers["max_norm"] = step.norm() / 3
    got = step.run(backends.active(), threads=1)
    assert_within_bound(got, step)
    for threads in (2, 3):
        again = step.run(backends.active(), threads)
        for name, array in got.items():
            if array is not None:
                assert_same_bits(again[name], array)


@pytest.mark.parametrize("rule", ["adam", "sgd"])
def test_update_clips_from_the_bound_on(backend, dtype, rule):
    for length, bound in ((1, 0.75), (4, 1.5), (64, 6.0)):  # norms without a rounding
        step = Step((length,), dtype, rule)
        step.grad[...] = 0.75
        unclipped = step.run(backends.active())
        for max_norm in (bound, bound * 1.001, 1e30):
            step.numbers["max_norm"] = max_norm
            for name, array in step.run(backends.active()).items():
                np.testing.assert_array_equal(array, unclipped[name])
        step.numbers["max_norm"] = bound / 2
        clipped = step.run(backends.active())
        step.numbers["max_norm"] = 0.0
        step.grad /= 2
        for name, array in step.run(backends.active()).items():
            np.testing.assert_array_equal(clipped[name], array)


@pytest.mark.parametrize("length", [3, 97, 9000])
def test_update_by_a_nan_gradient_clips_nothing(backend, dtype, length):
    for rule in ("adam", "sgd"):
        step = Step((length,), dtype, rule, max_norm=1e-3)
        step.grad[1] = np.nan
        got = step.run(backends.active())
        step.numbers["max_norm"] = 0.0
        for name, array in step.run(backends.active()).items():
            np.testing.assert_array_equal(got[name], array)
        assert np.flatnonzero(np.isnan(got["data"])).tolist() == [1]
        assert np.flatnonzero(np.isnan(got["average"])).tolist() == [1]
        np.testing.assert_array_equal(np.isnan(got["grad"]), np.isnan(step.grad) & (rule == "sgd"))
        assert not np.nan_to_num(got["grad"]).any()


def test_update_by_an_infinite_norm_scales_finite_numbers_to_0(backend, dtype):
    for value in (np.inf, np.finfo(dtype).max):  # the square of the second is infinite
        step = Step((33,), dtype, "sgd", max_norm=1.0)
        step.grad[2] = value
        got = step.run(backends.active())
        finite = np.isfinite(step.grad)
        np.testing.assert_array_equal(got["data"][finite], step.data[finite])
        assert np.isnan(got["data"][~finite]).all()
        np.testing.assert_array_equal(np.isnan(got["grad"]), ~finite)


def test_update_without_decay_keeps_infinite_data(backend, dtype):
    step = Step((33,), dtype)
    step.data[3] = np.inf
    got = step.run(backends.active())
    assert got["data"][3] == got["average"][3] == np.inf
    assert np.isfinite(np.delete(got["data"], 3)).all()


def test_update_of_denormal_gradients_keeps_their_bits(backend, dtype):
    step = Step((33,), dtype, "sgd", rate=1.0)
    step.data[...] = 0
    step.grad[...] = -np.finfo(dtype).smallest_subnormal * np.arange(33)
    np.testing.assert_array_equal(step.run(backends.active())["data"], -step.grad)


def test_update_rounds_the_betas_first(backend):
    step = Step((33,), beta1=0.9, beta2=0.999)
    step.mean[...] = step.square[...] = 0
    got = step.run(backends.active())
    grad = step.grad.astype(np.float64)
    # 1 - 0.999 in float32 is off by 5e-5 of its value; three roundings follow
    for name, wanted in (
        ("mean", (1 - float(np.float32(0.9))) * grad),
        ("square", (1 - float(np.float32(0.999))) * grad**2),
    ):
        np.testing.assert_allclose(got[name], wanted, rtol=2 * np.finfo(np.float32).eps)


# ---- arguments that are refused


def changes(name, make):
    def change(step):
        setattr(step, name, make(getattr(step, name)))

    return change


def overlapping(step):
    memory = np.zeros(98, np.float32)
    step.data, step.grad = memory[:97], memory[1:]


def number(name, value):
    def change(step):
        step.numbers[name] = value

    return change


class Other(np.ndarray):
    """An array of a type of its own."""


REFUSED = {
    "a list": changes("grad", list),
    "no data": changes("data", lambda array: None),
    "no gradient": changes("grad", lambda array: None),
    "another type": changes("data", lambda array: array.view(Other)),
    "another dtype": changes("grad", lambda array: array.astype(np.float64)),
    "a mean of another dtype": changes("mean", lambda array: array.astype(np.float64)),
    "another order of bytes": changes("data", lambda array: array.astype(">f4")),
    "float16": changes("data", lambda array: array.astype(np.float16)),
    "integers": changes("data", lambda array: array.astype(np.int32)),
    "another shape": changes("grad", lambda array: array[:-1].copy()),
    "another number of axes": changes("grad", lambda array: array[None]),
    "a mean of another size": changes("mean", lambda array: array[:-1].copy()),
    "a square of two axes": changes("square", lambda array: array[None]),
    "an average of another shape": changes("average", lambda array: array[None]),
    "one moment": changes("square", lambda array: None),
    "strided": changes("data", lambda array: np.repeat(array, 2)[::2]),
    "reversed": changes("grad", lambda array: array[::-1]),
    "unaligned": changes(
        "average", lambda array: np.frombuffer(bytearray(b"-" + array.tobytes()), np.float32, offset=1)
    ),
    "overlapping": overlapping,
    "the same array": lambda step: setattr(step, "average", step.data),
    "infinite": number("rate", math.inf),
    "not a number": number("max_norm", math.nan),
    "beyond float32": number("eps", 1e39),
    "beyond float64": number("decay", 10**400),
    "text": number("shrink", "0.1"),
    "complex": number("new_share", 1j),
    "an array": number("rate", np.array([0.1])),
}


@pytest.mark.parametrize("what", REFUSED)
def test_update_refuses_and_changes_nothing(each_backend, what):
    step = Step()
    REFUSED[what](step)
    before = [np.copy(array) for array in step.arrays()]
    assert backends.active().update_parameter(*step.arrays(), *step.numbers.values()) is False
    for array, old in zip(step.arrays(), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("name", NAMES)
def test_update_refuses_a_read_only_array(each_backend, name):
    step = Step()
    getattr(step, name).flags.writeable = False
    assert backends.active().update_parameter(*step.arrays(), *step.numbers.values()) is False


def test_update_refuses_data_without_an_axis(each_backend):
    arrays = [np.ones((), np.float32), np.ones((), np.float32), None, None, None]
    assert backends.active().update_parameter(*arrays, *Step().numbers.values()) is False


def test_update_takes_numbers_of_numpy_and_ints(each_backend):
    step = Step(rate=np.float64(0.01), decay=0, max_norm=True, new_share=1)
    wanted = Step(rate=0.01, decay=0.0, max_norm=1.0, new_share=1.0).run(backends.active())
    for name, array in step.run(backends.active()).items():
        np.testing.assert_array_equal(array, wanted[name])
