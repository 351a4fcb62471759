"""The accuracy of the C kernels' activations, counted in units in the last place (ULP) of the exact result.

float64 is held against mpmath, or against the table's formula in extended precision where it has no erfc;
float32 is held against float64.  The bounds:

float64 forward.  No result goes through more than DOUBLE_ULPS roundings whose errors add up; gelu has the
most: they are half an ULP each, up to twice that where the result is just below a power of two.

float32 forward.  Held to FLOAT_ULPS; gelu on a CPU without FMA is held to WITHOUT_FMA_ULPS (over all floats
its worst is 2.13 at -0.14057003).  With FMA the worst are mish on AVX-512, 1.87 at -5.1978, gelu, 1.86 at
-1.851284, and then selu (1.90 without FMA, 1.81 with it) and silu, 1.81.  Those of ROUNDED_ONCE have one
rounding, of 0.5 ULP.  gelu_tanh, and mish on ISAs other than AVX-512, are computed in doubles, so they have
one rounding and the error of the tables in csrc/kernels/coefficients.h, of at most TABLES: another 0.016 ULP.

Backward.  A derivative is a sum of terms of the size of 1, and its error is relative to those.  A float32 one
has FLOAT_ROUNDINGS roundings: of its exponential, of what that is multiplied by, and of the product with
grad_y.  They are relative to the result where no terms cancel.

Below the normal numbers a factor may be rounded to their spacing before the rest multiplies it.
"""

import mpmath
import numpy as np
import pytest
from support.variants import COMPILED, needs_c

import fastact as fa
from fastact import activations

C_VARIANTS = [variant for variant in COMPILED if variant.startswith("c-")]
pytestmark = [
    needs_c,
    pytest.mark.parametrize("compiled", C_VARIANTS, indirect=True),
]

DOUBLE_ULPS = 10
FLOAT_ULPS = 2
WITHOUT_FMA_ULPS = 2.2
ROUNDED_ULPS = 0.52  # of what is computed in doubles
FLOAT_ROUNDINGS = 3
TABLES = 2.0**-30
STEP = 4099  # from one float32 to the next that is looked at

mp = mpmath.mp.clone() if hasattr(mpmath.mp, "clone") else mpmath.MPContext()
mp.dps = 60
SELU_SCALE = mp.mpf("1.0507009873554804934193349852946")
SELU_ALPHA = mp.mpf("1.6732632423543772848170429916717")


def _phi(z):
    return mp.erfc(-z / mp.sqrt(2)) / 2 if abs(z) < 1000 else mp.mpf(z > 0)  # mpmath overflows there


def _gelu_exponent(z):
    return 2 * mp.sqrt(2 / mp.pi) * (z + mp.mpf("0.044715") * z**3)


def _sigmoid(z):
    return 1 / (1 + mp.exp(-z))


# name: the activation, its keywords, y of z, dy/dz of z
SMOOTH = {
    "elu": (
        "elu",
        {},
        lambda z: z if z > 0 else mp.expm1(z),
        lambda z: mp.mpf(1) if z > 0 else mp.exp(z),
    ),
    "selu": (
        "selu",
        {},
        lambda z: SELU_SCALE * (z if z > 0 else SELU_ALPHA * mp.expm1(z)),
        lambda z: SELU_SCALE * (1 if z > 0 else SELU_ALPHA * mp.exp(z)),
    ),
    "gelu": (
        "gelu",
        {},
        lambda z: z * _phi(z),
        lambda z: _phi(z) + z * mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi),
    ),
    "gelu_tanh": (
        "gelu",
        {"approximate": "tanh"},
        lambda z: z * _sigmoid(_gelu_exponent(z)),
        lambda z: (
            _sigmoid(_gelu_exponent(z))
            + z
            * _sigmoid(_gelu_exponent(z))
            * _sigmoid(-_gelu_exponent(z))
            * (2 * mp.sqrt(2 / mp.pi) * (1 + 3 * mp.mpf("0.044715") * z**2))
        ),
    ),
    "silu": (
        "silu",
        {},
        lambda z: z * _sigmoid(z),
        lambda z: _sigmoid(z) * (1 + z * _sigmoid(-z)),
    ),
    "softplus": ("softplus", {}, lambda z: mp.log1p(mp.exp(z)), _sigmoid),
    "mish": (
        "mish",
        {},
        lambda z: z * mp.tanh(mp.log1p(mp.exp(z))),
        lambda z: mp.tanh(mp.log1p(mp.exp(z))) + z * _sigmoid(z) / mp.cosh(mp.log1p(mp.exp(z))) ** 2,
    ),
    "sigmoid": ("sigmoid", {}, _sigmoid, None),
    "tanh": ("tanh", {}, mp.tanh, None),
}
ALL = {
    **{name: (name, {}) for name in activations.NAMES if name != "prelu"},
    "leaky_relu": ("leaky_relu", {"negative_slope": 0.25}),
    "gelu_tanh": ("gelu", {"approximate": "tanh"}),
}
EXTENDED = [name for name in ALL if name not in SMOOTH and not activations.TABLE[name].defaults]
extended_precision = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="needs a long double of more than 64 bits"
)

ROUNDED_ONCE = ("identity", "relu", "leaky_relu", "gelu_tanh")


def points(rng):
    """float64 inputs: dense where the activations bend, sparse over all magnitudes."""
    magnitudes = np.concatenate([np.geomspace(1e-300, 1e300, 150), np.geomspace(1e-3, 800, 300)])
    bent = rng.uniform(-45, 45, 300)
    return np.concatenate([magnitudes, -magnitudes, bent, rng.uniform(-3, 3, 300)])


def floats():
    """Every STEP-th float32, each binade's first ones among them, and both infinities."""
    bits = np.arange(0, 1 << 32, STEP, dtype=np.uint64).astype(np.uint32)
    binades = np.arange(512, dtype=np.uint32) << 23
    bits = np.concatenate([bits, *(binades + np.uint32(k) for k in range(3)), binades - np.uint32(1)])
    values = bits.view(np.float32)
    return values[~np.isnan(values)]


def floats_below_powers_of_two(z, exact):
    """Every 16th of the floats beside those of z whose result `exact` is up to a tenth below a power of two.

    There an error relative to the result is the most ULP.  From 2^-10 to 2^7, where activations bend.
    """
    fraction, _ = np.frexp(np.abs(exact))
    near = z[(fraction > 0.9) & (np.abs(z) > 2.0**-10) & (np.abs(z) < 2.0**7)]
    bits = near.view(np.uint32)[:, np.newaxis] + np.arange(0, STEP, 16, dtype=np.uint32)
    return bits.reshape(-1).view(np.float32)


def spacing(exact, dtype):
    """The unit in the last place of `exact`, given in float64, as a number of `dtype`."""
    info = np.finfo(dtype)
    _, exponent = np.frexp(exact)
    return np.ldexp(1.0, np.maximum(exponent, info.minexp + 1) - 1 - info.nmant)


def exactly(f, z):
    """f of each z to 60 digits, as float64 and what that rounding left over."""
    values = [f(mp.mpf(float(at))) for at in z]
    high = np.array([float(value) for value in values])
    low = np.array([float(value - mp.mpf(h)) for value, h in zip(values, high, strict=True)])
    return high, low


def assert_no_more(error, bound, z, y):
    outside = ~(error <= bound)
    assert not outside.any(), f"{outside.sum()} of {z.size}; at {z[outside][0]!r} got {y[outside][0]!r}"


@pytest.mark.parametrize("name", SMOOTH)
def test_float64_activation_is_within_its_ulps(compiled, name, rng):
    activation, keywords, exact, _ = SMOOTH[name]
    z = points(rng)
    y = fa.activation(z, activation, backend=compiled, **keywords)
    high, low = exactly(exact, z)
    ulps = np.full(z.shape, float(DOUBLE_ULPS))
    underflow = 1024 * np.finfo(np.float64).smallest_subnormal
    assert_no_more(np.abs((y - high) - low), ulps * spacing(high, np.float64) + underflow, z, y)


@pytest.mark.parametrize("name", [name for name, row in SMOOTH.items() if row[3]])
def test_float64_derivative_is_within_its_ulps(compiled, name, rng):
    activation, keywords, _, slope = SMOOTH[name]
    z = points(rng)
    grad_y = rng.standard_normal(z.shape)
    grad_z = fa.activation_backward(grad_y, z, activation, backend=compiled, **keywords)
    high, low = exactly(slope, z)
    error = np.abs((grad_z - grad_y * high) - grad_y * low)
    assert_no_more(error, DOUBLE_ULPS * np.finfo(np.float64).eps * np.abs(grad_y), z, grad_z)


def halves(values):
    """Extended-precision numbers as float64 and what that rounding left over."""
    high = values.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinities
        return high, np.where(np.isfinite(high), values - high, 0).astype(np.float64)


@extended_precision
@pytest.mark.parametrize("name", EXTENDED)
def test_float64_activation_is_within_its_ulps_of_extended_precision(compiled, name, rng):
    z = points(rng)
    y = fa.activation(z, name, backend=compiled)
    with np.errstate(all="ignore"):
        high, low = halves(activations.TABLE[name].forward(z.astype(np.longdouble), None))
    underflow = 1024 * np.finfo(np.float64).smallest_subnormal
    assert_no_more(np.abs((y - high) - low), DOUBLE_ULPS * spacing(high, np.float64) + underflow, z, y)


@extended_precision
@pytest.mark.parametrize("name", EXTENDED)
def test_float64_derivative_is_within_its_ulps_of_extended_precision(compiled, name, rng):
    saved = points(rng)
    grad_y = rng.standard_normal(saved.shape)
    grad_z = fa.activation_backward(grad_y, saved, name, backend=compiled)
    with np.errstate(all="ignore"):
        exact = activations.TABLE[name].backward(grad_y, saved.astype(np.longdouble), None)
    high, low = halves(exact)
    bound = DOUBLE_ULPS * np.finfo(np.float64).eps * np.abs(grad_y)
    assert_no_more(np.abs((grad_z - high) - low), bound, saved, grad_z)


@pytest.mark.parametrize("name", ALL)
def test_float32_activation_is_within_its_ulps(compiled, name):
    activation, keywords = ALL[name]
    z = floats()
    exact = fa.activation(z.astype(np.float64), activation, backend=compiled, **keywords)
    z = np.concatenate([z, floats_below_powers_of_two(z, exact)])
    y = fa.activation(z, activation, backend=compiled, **keywords)
    exact = fa.activation(z.astype(np.float64), activation, backend=compiled, **keywords)
    with np.errstate(over="ignore"):
        rounded = exact.astype(np.float32)
    infinite = np.isinf(rounded)
    np.testing.assert_array_equal(y[infinite], rounded[infinite])
    z, y, exact = z[~infinite], y[~infinite], exact[~infinite]
    isa = fa.get_config()["isa"]
    rounded_once = name in ROUNDED_ONCE or (name == "mish" and isa not in ("avx512", "amx"))
    bound = ROUNDED_ULPS if rounded_once else FLOAT_ULPS
    if name == "gelu" and isa == "scalar":
        bound = WITHOUT_FMA_ULPS
    assert_no_more(np.abs(y - exact), bound * spacing(exact, np.float32), z, y)


@pytest.mark.parametrize("name", ALL)
def test_float32_derivative_is_within_its_roundings(compiled, name, rng):
    activation, keywords = ALL[name]
    saved = floats()
    if name in ("sigmoid", "tanh"):  # saved is y
        saved = saved[np.abs(saved) <= 1]
    grad_y = rng.standard_normal(saved.size).astype(np.float32)
    grad_z = fa.activation_backward(grad_y, saved, activation, backend=compiled, **keywords)
    exact = fa.activation_backward(
        grad_y.astype(np.float64), saved.astype(np.float64), activation, backend=compiled, **keywords
    )
    info = np.finfo(np.float32)
    terms = np.abs(exact) + (np.abs(grad_y) if name in ("gelu", "silu") else 0)
    bound = FLOAT_ROUNDINGS * float(info.eps) / 2 * terms + TABLES * np.abs(grad_y)
    assert_no_more(np.abs(grad_z - exact), bound + 2 * float(info.smallest_subnormal), saved, grad_z)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activation_of_nan_is_nan(compiled, name, dtype):
    activation, keywords = ALL[name]
    nans = np.full(67, np.nan, dtype)
    assert np.isnan(fa.activation(nans, activation, backend=compiled, **keywords)).all()
