"""A bad argument is an error that names it, before anything is written."""

import re

import numpy as np
import pytest
from support.processes import output_of, run_python

import fastact as fa
from fastact import backends, settings

F32 = np.float32


def arguments(operation):
    """A good call's arguments, in order."""
    x, grad_y, argmax = np.ones((4, 3), F32), np.ones((4, 5), F32), np.zeros((4, 5), np.uint8)
    weight, z = np.ones((5, 2, 3), F32), np.ones((4, 5), F32)
    return {
        "linear_maxout": {"x": x, "weight": weight, "bias": np.ones((5, 2), F32)},
        "linear_maxout_backward": {"grad_y": grad_y, "x": x, "weight": weight, "argmax": argmax},
        "maxout": {"z": np.ones((4, 5, 2), F32)},
        "maxout_backward": {"grad_y": grad_y, "argmax": argmax, "pieces": 2},
        "linear_activation": {"x": x, "weight": np.ones((5, 3), F32), "bias": np.ones(5, F32)},
        "linear_activation_backward": {"grad_y": grad_y, "x": x, "weight": np.ones((5, 3), F32), "saved": z},
        "layer_norm": {"x": x, "weight": np.full(3, 2, F32), "bias": np.ones(3, F32)},
        "layer_norm_backward": {
            "grad_y": grad_y[:, :3],
            "x": x,
            "weight": np.ones(3, F32),
            "saved": np.ones((4, 2), F32),
        },
        "activation": {"z": z},
        "activation_backward": {"grad_y": grad_y, "saved": z},
    }[operation] | ({"activation": "silu"} if "activation" in operation else {})


RESULTS = {
    "linear_maxout": {"y": ((4, 5), F32), "argmax": ((4, 5), np.uint8)},
    "linear_maxout_backward": {
        "grad_x": ((4, 3), F32),
        "grad_weight": ((5, 2, 3), F32),
        "grad_bias": ((5, 2), F32),
    },
    "maxout": {"y": ((4, 5), F32), "argmax": ((4, 5), np.uint8)},
    "maxout_backward": {"grad_z": ((4, 5, 2), F32)},
    "linear_activation": {"y": ((4, 5), F32), "saved": ((4, 5), F32)},
    "linear_activation_backward": {
        "grad_x": ((4, 3), F32),
        "grad_weight": ((5, 3), F32),
        "grad_bias": ((5,), F32),
    },
    "layer_norm": {"y": ((4, 3), F32), "saved": ((4, 2), F32)},
    "layer_norm_backward": {"grad_x": ((4, 3), F32), "grad_weight": ((3,), F32), "grad_bias": ((3,), F32)},
    "activation": {"y": ((4, 5), F32)},
    "activation_backward": {"grad_z": ((4, 5), F32)},
}
ARRAYS = [
    (operation, name)
    for operation in RESULTS
    for name, value in arguments(operation).items()
    if isinstance(value, np.ndarray)
]
OUTPUTS = [(operation, i) for operation, results in RESULTS.items() for i in range(len(results))]


def outputs(operation):
    return [np.full(shape, 99, dtype) for shape, dtype in RESULTS[operation].values()]


def refuses(error, words, operation, out=None, **changes):
    """The call with these changes raises `error` with `words` in it, and writes to no array of out."""
    given = tuple(outputs(operation)) if out is None else out
    before = [array.copy() if isinstance(array, np.ndarray) else None for array in given]
    with pytest.raises(error, match=re.escape(words)):
        getattr(fa, operation)(**arguments(operation) | changes, out=given)
    for array, copy in zip(given, before, strict=True):
        if copy is not None:
            np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("operation", RESULTS)
def test_valid_arguments_are_accepted(operation):
    out = tuple(outputs(operation))
    getattr(fa, operation)(**arguments(operation), out=out)
    assert all((array != 99).any() for array in out)


# ---- input arrays


@pytest.mark.parametrize(("operation", "name"), ARRAYS)
def test_rejects_non_array_argument(operation, name):
    good = arguments(operation)[name]
    for bad in (good.tolist(), tuple(good), 1.0, "x", np.ma.masked_array(good), memoryview(good)):
        refuses(TypeError, f"{name}: got {type(bad).__name__}, wanted", operation, **{name: bad})
    if name != "bias" and not (name == "weight" and operation.startswith("layer_norm")):
        refuses(TypeError, f"{name}: got NoneType, wanted", operation, **{name: None})
    if good.ndim == 2:
        with pytest.warns(PendingDeprecationWarning):
            matrix = np.asmatrix(good)
        refuses(TypeError, f"{name}: got matrix, wanted", operation, **{name: matrix})


BAD_DTYPES = ("float16", "longdouble", "complex64", "int32", "int8", "bool", "object", ">f4", ">f8", "S4")


@pytest.mark.parametrize(("operation", "name"), ARRAYS)
def test_rejects_unsupported_dtype(operation, name):
    good = arguments(operation)[name]
    for dtype in BAD_DTYPES:
        refuses(TypeError, f"{name}: got dtype", operation, **{name: good.astype(dtype)})


@pytest.mark.parametrize(("operation", "name"), ARRAYS)
def test_rejects_mixed_dtypes(operation, name):
    refuses(TypeError, "wanted", operation, **{name: arguments(operation)[name].astype(np.float64)})


@pytest.mark.parametrize(("operation", "name"), ARRAYS)
def test_rejects_shapes_that_do_not_agree(operation, name):
    good = arguments(operation)[name]
    if len([other for other, _ in ARRAYS if other == operation]) == 1:
        return  # nothing to agree with but out, of which test_rejects_out_of_wrong_shape sees to
    bad = [good[:-1], good[..., :-1], good[None], good.reshape(-1), good[:1]]
    for array in bad:
        if array.shape != good.shape:
            refuses(ValueError, ": got shape", operation, **{name: array})


@pytest.mark.parametrize(
    ("operation", "words", "changes"),
    [
        ("linear_maxout", "x: got shape (4, 4), wanted (..., 3)", {"x": np.ones((4, 4), F32)}),
        ("linear_maxout", "x: got shape (), wanted (..., 3)", {"x": np.ones((), F32)}),
        (
            "linear_maxout",
            "weight: got shape (5, 3), wanted (out_features,",
            {"weight": np.ones((5, 3), F32)},
        ),
        ("linear_maxout", "bias: got shape (5, 1), wanted (5, 2)", {"bias": np.ones((5, 1), F32)}),
        ("linear_maxout", "bias: got shape (2, 5), wanted (5, 2)", {"bias": np.ones((2, 5), F32)}),
        ("linear_maxout", "pieces: got 0, wanted 1 to 256", {"weight": np.ones((5, 0, 3), F32)}),
        ("linear_maxout", "pieces: got 257, wanted 1 to 256", {"weight": np.ones((5, 257, 3), F32)}),
        ("linear_maxout_backward", "pieces: got 257", {"weight": np.ones((5, 257, 3), F32)}),
        ("maxout", "pieces: got 0", {"z": np.ones((4, 0), F32)}),
        ("maxout", "pieces: got 257", {"z": np.ones((4, 257), F32)}),
        ("maxout", "axis: got an array without axes", {"z": np.ones((), F32)}),
        ("maxout", "axis: got 3, wanted -3 to 2", {"axis": 3}),
        ("maxout", "axis: got -4, wanted -3 to 2", {"axis": -4}),
        ("maxout_backward", "axis: got 3, wanted -3 to 2", {"axis": 3}),
        ("maxout_backward", "pieces: got 0, wanted 1 to 256", {"pieces": 0}),
        ("maxout_backward", "pieces: got -1, wanted 1 to 256", {"pieces": -1}),
        ("maxout_backward", "pieces: got 257, wanted 1 to 256", {"pieces": 257}),
        (
            "linear_activation",
            "weight: got shape (5, 2, 3), wanted (out_fea",
            {"weight": np.ones((5, 2, 3), F32)},
        ),
        ("linear_activation", "bias: got shape (5, 1), wanted (5,)", {"bias": np.ones((5, 1), F32)}),
    ],
)
def test_rejects_invalid_shape_pieces_or_axis(operation, words, changes):
    refuses(ValueError, words, operation, **changes)


@pytest.mark.parametrize("axis", [1.0, "1", None, True, (1,)], ids=repr)
def test_rejects_axis_that_is_not_an_int(axis):
    refuses(TypeError, f"axis: got {axis!r}, wanted an int", "maxout", axis=axis)
    refuses(TypeError, f"axis: got {axis!r}, wanted an int", "maxout_backward", axis=axis)


@pytest.mark.parametrize("pieces", [2.0, "2", None, True], ids=repr)
def test_rejects_pieces_that_are_not_an_int(pieces):
    refuses(TypeError, f"pieces: got {pieces!r}, wanted an int", "maxout_backward", pieces=pieces)


@pytest.mark.parametrize("backend", backends.NAMES)
@pytest.mark.parametrize("value", [2, 3, 128, 255])
@pytest.mark.parametrize("operation", ["linear_maxout_backward", "maxout_backward"])
def test_rejects_argmax_out_of_range(operation, value, backend):
    for place in ((0, 0), (3, 4)):
        argmax = np.zeros((4, 5), np.uint8)
        argmax[place] = value
        words = f"argmax: got the value {value}, wanted 0 to 1"
        refuses(ValueError, words, operation, argmax=argmax, backend=backend)


# ---- out, needs, accumulate


@pytest.mark.parametrize(("operation", "i"), OUTPUTS)
def test_rejects_out_that_is_not_an_array(operation, i):
    for bad in ([1.0], 3, "y", np.ma.masked_array(outputs(operation)[i])):
        out = outputs(operation)
        out[i] = bad
        refuses(TypeError, f"out[{i}] ({list(RESULTS[operation])[i]}): got", operation, tuple(out))


@pytest.mark.parametrize(("operation", "i"), OUTPUTS)
def test_rejects_out_of_wrong_dtype(operation, i):
    for dtype in (np.float64, np.int64, np.int8, np.float16, bool):
        out = outputs(operation)
        out[i] = out[i].astype(dtype)
        refuses(TypeError, f"out[{i}] ({list(RESULTS[operation])[i]}): got dtype", operation, tuple(out))


@pytest.mark.parametrize(("operation", "i"), OUTPUTS)
def test_rejects_out_of_wrong_shape(operation, i):
    good = outputs(operation)[i]
    for bad in (good[:-1], good[None], good.reshape(-1, 1), np.concatenate([good, good])):
        out = outputs(operation)
        out[i] = bad
        refuses(ValueError, f"out[{i}] ({list(RESULTS[operation])[i]}): got shape", operation, tuple(out))


@pytest.mark.parametrize(("operation", "i"), OUTPUTS)
def test_rejects_read_only_out(operation, i):
    out = outputs(operation)
    out[i].flags.writeable = False
    refuses(ValueError, f"out[{i}] ({list(RESULTS[operation])[i]}): got a read-only", operation, tuple(out))


@pytest.mark.parametrize(("operation", "i"), OUTPUTS)
def test_rejects_out_that_overlaps_an_input(operation, i):
    shape, dtype = list(RESULTS[operation].values())[i]
    for name, array in arguments(operation).items():
        if not isinstance(array, np.ndarray):
            continue
        buffer = np.zeros(array.nbytes + 8 * int(np.prod(shape)), np.uint8)
        values = buffer[: array.nbytes].view(array.dtype).reshape(array.shape)
        values[...] = array
        out = outputs(operation)
        out[i] = buffer[8:][: out[i].nbytes].view(dtype).reshape(shape)
        words = f"out[{i}] ({list(RESULTS[operation])[i]}): got an array that overlaps an input"
        refuses(ValueError, words, operation, tuple(out), **{name: values})


@pytest.mark.parametrize("operation", [o for o, results in RESULTS.items() if len(results) > 1])
def test_rejects_out_arrays_that_overlap(operation):
    out = outputs(operation)
    buffer = np.full(1000, 99, np.uint8)
    out[0], out[1] = (
        buffer[8 * i :][: a.nbytes].view(a.dtype).reshape(a.shape) for i, a in enumerate(out[:2])
    )
    refuses(ValueError, "overlaps another of out", operation, tuple(out))


@pytest.mark.parametrize("operation", RESULTS)
def test_rejects_out_of_wrong_length(operation):
    out = outputs(operation)
    refuses(ValueError, f"out: got {len(out) + 1} arrays, wanted {len(out)}", operation, (*out, out[0]))
    refuses(ValueError, f"out: got 0 arrays, wanted {len(out)}", operation, ())


@pytest.mark.parametrize("operation", [o for o, results in RESULTS.items() if len(results) > 1])
def test_rejects_out_that_is_not_a_tuple(operation):
    out = outputs(operation)
    refuses(TypeError, "out: got list, wanted a tuple", operation, out)
    with pytest.raises(TypeError, match="out: got ndarray, wanted a tuple"):
        getattr(fa, operation)(**arguments(operation), out=out[0])


def test_out_in_memory_of_another_owner_is_checked_for_overlap():
    memory = bytearray(1000)
    z, y = (np.frombuffer(memory, F32, 20, 80 * i).reshape(4, 5) for i in range(2))
    assert fa.relu(z, out=y) is y
    shifted = np.frombuffer(memory, F32, 20, 4).reshape(4, 5)
    refuses(ValueError, "out[0] (y): got an array that overlaps an input", "activation", (shifted,), z=z)


def test_out_interleaved_with_an_input_is_accepted():
    both = np.ones((4, 10), F32)
    y, _ = fa.maxout(both[:, :5].reshape(4, 5, 1), out=(both[:, 5:], None))
    assert y.base is both


BACKWARDS = ["linear_maxout_backward", "linear_activation_backward", "layer_norm_backward"]


@pytest.mark.parametrize("operation", BACKWARDS)
@pytest.mark.parametrize("needs", [True, None, (True, True), (True,) * 4, "yes", {0, 1, 2}], ids=repr)
def test_rejects_needs_of_wrong_length(operation, needs):
    if needs is None and operation == "linear_activation_backward":
        return  # there None stands for all
    refuses(ValueError, "needs: got", operation, needs=needs)


@pytest.mark.parametrize("operation", BACKWARDS)
def test_rejects_needs_that_are_not_booleans(operation):
    refuses(TypeError, "needs: got 1, wanted booleans", operation, needs=(1, 0, 1))
    refuses(TypeError, "needs: got None, wanted booleans", operation, needs=(True, None, True))


@pytest.mark.parametrize("operation", BACKWARDS)
def test_rejects_accumulate_without_out(operation):
    with pytest.raises(ValueError, match=re.escape("accumulate: got True and no out[1] (grad_weight)")):
        getattr(fa, operation)(**arguments(operation), accumulate=True)
    out = outputs(operation)
    refuses(ValueError, "accumulate: got True and no out[2]", operation, (*out[:2], None), accumulate=True)


def test_rejects_accumulate_without_grad_slope():
    ones = np.ones(5, F32)
    with pytest.raises(ValueError, match=re.escape("accumulate: got True and no out[1] (grad_slope)")):
        fa.activation_backward(ones, ones, "prelu", slope=ones, accumulate=True)


# ---- activations and their parameters

EVERY = ["linear_activation", "linear_activation_backward", "activation", "activation_backward"]


@pytest.mark.parametrize("operation", EVERY)
def test_rejects_unknown_activation(operation):
    for name in ("swish", "", "ReLU", None, 3, ["relu"]):
        refuses(
            ValueError, f"activation: got {name!r}, wanted one of identity, relu", operation, activation=name
        )


@pytest.mark.parametrize("operation", EVERY)
@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (TypeError, "alpha: relu takes no parameter", {"activation": "relu", "alpha": 1.0}),
        (TypeError, "alpha: leaky_relu takes negative_slope", {"activation": "leaky_relu", "alpha": 1.0}),
        (TypeError, "negative_slope: got '0.1'", {"activation": "leaky_relu", "negative_slope": "0.1"}),
        (TypeError, "negative_slope: got None", {"activation": "leaky_relu", "negative_slope": None}),
        (TypeError, "alpha: got 1j", {"activation": "elu", "alpha": 1j}),
        (ValueError, "alpha: got nan, wanted a finite", {"activation": "elu", "alpha": float("nan")}),
        (ValueError, "alpha: got inf, wanted a finite", {"activation": "elu", "alpha": float("inf")}),
        (ValueError, "alpha: got 1e+39, wanted a finite", {"activation": "elu", "alpha": 1e39}),
        (ValueError, "approximate: got 'erf', wanted", {"activation": "gelu", "approximate": "erf"}),
        (ValueError, "approximate: got None, wanted", {"activation": "gelu", "approximate": None}),
        (TypeError, "slope: got NoneType, wanted", {"activation": "prelu"}),
        (TypeError, "slope: got float, wanted", {"activation": "prelu", "slope": 0.25}),
        (TypeError, "slope: got dtype float64", {"activation": "prelu", "slope": np.ones(5)}),
        (ValueError, "slope: got shape (4,)", {"activation": "prelu", "slope": np.ones(4, F32)}),
        (ValueError, "slope: got shape (1, 5)", {"activation": "prelu", "slope": np.ones((1, 5), F32)}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rejects_invalid_activation_parameters(operation, error, words, changes):
    refuses(error, words, operation, **changes)


def test_rejects_out_that_is_the_slope():
    # Each is read after the other would have been written.
    z, slope = np.ones(5, F32), np.full(5, 0.5, F32)
    with pytest.raises(ValueError, match="overlaps an input"):
        fa.activation(z, "prelu", slope=slope, out=slope)
    for overwritten in (z, slope):
        with pytest.raises(ValueError, match=re.escape("out[1] (grad_slope): got an array that overlaps")):
            fa.activation_backward(np.ones(5, F32), z, "prelu", slope=slope, out=(None, overwritten))
    assert (z == 1).all()
    assert (slope == 0.5).all()


def test_rejects_out_for_saved_where_saved_is_y():
    out = tuple(outputs("linear_activation"))
    refuses(ValueError, "out[1] (saved): relu saves y", "linear_activation", out, activation="relu")


# ---- backend, precision, threads

FUSED = [operation for operation in RESULTS if operation.startswith("linear")]


@pytest.mark.parametrize("operation", RESULTS)
def test_rejects_unknown_backend(operation):
    for name in ("fortran", ["c"]):
        refuses(ValueError, f"backend: got {name!r}, wanted one of c, numba, numpy", operation, backend=name)


@pytest.mark.parametrize("operation", FUSED)
def test_rejects_unknown_precision(operation):
    for word in ("fast", "", "HIGHEST", 1, np.ones(2)):
        refuses(ValueError, f"precision: got {word!r}, wanted one of highest", operation, precision=word)


def test_unknown_precision_leaves_the_one_in_force():
    for choose in (
        fa.set_float32_matmul_precision,
        lambda word: fa.float32_matmul_precision(word).__enter__(),
    ):
        with pytest.raises(ValueError, match="precision: got 'low', wanted one of highest, high, medium"):
            choose("low")
    assert fa.get_float32_matmul_precision() == "highest"


def test_unknown_backend_leaves_the_one_in_force():
    before = fa.get_backend()
    with pytest.raises(ValueError, match="backend: got 'fortran', wanted one of c, numba, numpy"):
        fa.set_backend("fortran")
    assert fa.get_backend() == before


@pytest.mark.parametrize("choose", [fa.set_num_threads, lambda n: fa.num_threads(n).__enter__()])
def test_rejects_invalid_thread_count(choose):
    before = settings.requested_threads()
    for threads in (0, -1, 1025):
        with pytest.raises(ValueError, match=f"threads: got {threads}, wanted 1 to 1024"):
            choose(threads)
    for threads in (True, 2.0, "2", None):
        with pytest.raises(TypeError, match=f"threads: got {threads!r}, wanted an int"):
            choose(threads)
    assert settings.requested_threads() == before


def test_numpy_integer_is_accepted_as_thread_count():
    with fa.num_threads(np.int64(2)):
        assert fa.get_num_threads() == 2


# ---- environment variables

USE = "import numpy, fastact; fastact.maxout(numpy.ones(2)); print(fastact.get_backend())"


def test_unknown_backend_in_the_environment_raises():
    for name in ("fortran", "", "C"):
        done = run_python(USE, FASTACT_BACKEND=name)
        assert done.returncode
        words = f"ValueError: FASTACT_BACKEND: got {name!r}, wanted one of c, numba, numpy"
        assert words in done.stderr


@pytest.mark.parametrize("name", ["numba", "numpy"])
def test_backend_in_the_environment_is_used(name):
    assert output_of(USE, FASTACT_BACKEND=name).split() == [name]


@pytest.fixture
def c():
    if reason := backends.why_c_is_missing():
        pytest.skip(f"needs the C extension: {reason}")

    from fastact.backends import c

    return c


def test_isa_that_cannot_run_raises_instead_of_another_backend(c):
    lacking = {*c.isas(), "avx2", "neon"} - {*c.supported_isas()}  # also of another architecture
    for name in ("mmx", "", "AVX2", *lacking):
        done = run_python(USE, FASTACT_ISA=name)
        assert done.returncode, name
        assert re.search(f"ValueError: FASTACT_ISA: .*got {name!r}.* wanted one of .*scalar", done.stderr)


def test_isa_in_the_environment_is_used(c):
    for name in c.supported_isas():
        code = "from fastact.backends import c; print(c.isa())"
        assert output_of(code, FASTACT_ISA=name).split() == [name]


def test_unknown_isa_leaves_the_one_in_force(c):
    before = c.isa()
    with pytest.raises(ValueError, match=r"mmx.*scalar"):
        c.set_isa("mmx")
    assert c.isa() == before
