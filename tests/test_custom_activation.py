"""Custom activations: every backend, instruction set and way to give one, against the formulas in float64."""

from __future__ import annotations

import copy
import math
import pickle
import re
import threading

import numba
import numpy as np
import pytest
from support import custom
from support.custom import CASES
from support.processes import output_of, run_python
from support.tolerance import assert_same_bits, assert_within, sum_bound
from support.variants import needs_c

import fastact as fa
from fastact import backends
from fastact.backends.numba import scalar_math

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def bound(exact, steepness, dtype):
    """One rounding to the dtype of a result that float64 arithmetic has, with up to 40 ULP of its terms."""
    rounding = float(np.finfo(dtype).eps) / 2 * abs(exact) + float(np.finfo(dtype).smallest_subnormal)
    return rounding + 40 * float(np.finfo(np.float64).eps) * (abs(exact) + steepness)


def numbers(rng, shape, dtype):
    return (3 * rng.standard_normal(shape)).astype(dtype)


# ---- element by element


@every_case
@pytest.mark.parametrize(
    ("rows", "features"), [(0, 3), (3, 0), (1, 1), (3, 1), (1, 15), (2, 17), (67, 33), (9, 4097)]
)
def test_activation_of_every_shape_is_the_formula_rounded_once(backend, dtype, case, rows, features, rng):
    z, grad_y = numbers(rng, (rows, features), dtype), numbers(rng, (rows, features), dtype)
    keywords, p = case.keywords(features, dtype), case.number(features, dtype)
    y = fa.activation(z, case.activation, **keywords)
    z64, grad64 = z.astype(F64), grad_y.astype(F64)
    exact = case.forward(z64, p)
    assert y.dtype == dtype
    assert_within(y, exact, bound(exact, abs(z64), dtype))
    saved = z if case.activation.saves == "z" else y
    derivative = case.derivative(z64, y.astype(F64), p)
    grads = fa.activation_backward(grad_y, saved, case.activation, **keywords)
    grad_z, *grad_slope = grads if case.learned else (grads,)
    assert_within(grad_z, grad64 * derivative, bound(grad64 * derivative, 8 * abs(grad64), dtype))
    if case.learned:
        terms = grad64 * case.slope_derivative(z64, y, p)
        allowed = sum_bound(abs(terms).sum(0), rows, dtype, backend) + bound(terms, 8 * z64**2, dtype).sum(0)
        assert_within(grad_slope[0], terms.sum(0), allowed)


@every_case
def test_activation_in_place_has_the_bits_of_a_new_array(backend, dtype, case, rng):
    shape = (37, 129)
    z, grad_y = numbers(rng, shape, dtype), numbers(rng, shape, dtype)
    keywords = case.keywords(129, dtype)
    y = fa.activation(z, case.activation, **keywords)
    in_place = z.copy()
    fa.activation(in_place, case.activation, out=in_place, **keywords)
    assert_same_bits(in_place, y)
    saved = z if case.activation.saves == "z" else y
    grads = fa.activation_backward(grad_y, saved, case.activation, **keywords)
    for which in (0, 1):
        operands = [grad_y.copy(), saved.copy()]
        out = (operands[which], None) if case.learned else operands[which]
        again = fa.activation_backward(*operands, case.activation, out=out, **keywords)
        assert_same_bits(again, grads)


@pytest.mark.parametrize("slopes", [(), (1,)])
def test_shared_slope_has_the_sum_of_all_terms(backend, dtype, slopes, rng):
    case = next(case for case in CASES if case.learned)
    z, grad_y = numbers(rng, (301, 7), dtype), numbers(rng, (301, 7), dtype)
    slope = np.full(slopes, 1.25, dtype)
    _, grad_slope = fa.activation_backward(grad_y, z, case.activation, slope=slope)
    assert grad_slope.shape == slopes
    terms = grad_y.astype(F64) * case.slope_derivative(z.astype(F64), None, 1.25)
    allowed = sum_bound(abs(terms).sum(), terms.size, dtype, backend)
    assert_within(grad_slope, terms.sum(), allowed + bound(terms, 8 * z.astype(F64) ** 2, dtype).sum())
    out = (None, np.ones(slopes, dtype))
    fa.activation_backward(grad_y, z, case.activation, slope=slope, out=out, accumulate=True)
    np.testing.assert_allclose(out[1], grad_slope + 1, rtol=4 * np.finfo(dtype).eps)


def test_nan_infinities_and_denormals_are_those_of_the_formula(backend, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    z = np.array([np.nan, np.inf, -np.inf, tiny, -tiny, 0, 3e4, -3e4], dtype)
    for n in (1, 8):  # a rest, and a vector
        wanted = np.tile(np.array([np.nan, 1, -1, tiny, -tiny, 0, 1, -1], dtype), n)
        np.testing.assert_array_equal(fa.activation(np.tile(z, n), custom.squash), wanted)
        wanted = np.tile(
            np.array([np.nan, np.inf, 0, math.log(2), math.log(2), math.log(2), 3e4, 0], dtype), n
        )
        np.testing.assert_array_equal(fa.activation(np.tile(z, n), custom.softplus), wanted)
        swish = fa.activation(np.tile(z, n), custom.swish2)  # -inf / inf
        np.testing.assert_array_equal(np.isnan(swish), np.tile(np.isin(np.arange(8), (0, 2)), n))
        # 1 / (1 + exp(3e4)) = 0
        grads = fa.activation_backward(np.full(8 * n, np.inf, dtype), np.tile(z, n), custom.softplus)
        np.testing.assert_array_equal(np.isnan(grads), np.tile(np.isin(np.arange(8), (0, 2, 7)), n))


def test_strided_and_read_only_arrays_are_accepted(backend, dtype, rng):
    z = numbers(rng, (8, 6, 5), dtype)
    y = fa.activation(z, custom.swish)
    assert_same_bits(fa.activation(z.transpose(2, 0, 1), custom.swish), y.transpose(2, 0, 1).copy())
    z.flags.writeable = False
    assert_same_bits(fa.activation(z, custom.swish), y)
    assert_same_bits(fa.activation(z[::-1, ::2], custom.swish), y[::-1, ::2].copy())
    assert_same_bits(fa.activation(z[0, 0, 0:1].reshape(()), custom.swish), y[0, 0, 0:1].reshape(()))


def test_threads_do_not_change_a_bit(compiled, dtype, rng):
    z, grad_y = numbers(rng, (1000, 333), dtype), numbers(rng, (1000, 333), dtype)
    weight = numbers(rng, (333, 333), dtype) / 30
    slope = np.linspace(0.5, 2, 333).astype(dtype)
    results = []
    for threads in (1, 2, 3):
        with fa.num_threads(threads):
            y, saved = fa.linear_activation(z, weight, None, custom.learned_swish, slope=slope)
            grads = fa.linear_activation_backward(grad_y, z, weight, saved, custom.learned_swish, slope=slope)
            results.append((fa.activation(z, custom.swish2), y, *grads))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@needs_c
def test_instruction_sets_have_the_same_bits(rng):
    c = backends.get("c")
    z = numbers(rng, (5, 1001), F32)
    wanted = fa.activation(z, custom.swish2, backend="numba")
    before = c.isa()
    try:
        for isa in c.supported_isas():
            c.set_isa(isa)
            assert_same_bits(fa.activation(z, custom.swish2, backend="c"), wanted)
    finally:
        c.set_isa(before)


# ---- the functions that LLVM vectorises


@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "tanh"])
def test_vectorised_function_is_within_3_ulp_and_has_the_limits(name, rng):
    ours, theirs = getattr(scalar_math, f"_{name}"), getattr(np, name)
    x = np.concatenate(
        [4 * rng.standard_normal(20000), rng.uniform(-760, 715, 5000), 10.0 ** rng.uniform(-300, 308, 5000)]
    )
    x = np.concatenate([x, 1e-6 * rng.standard_normal(500), 1 + 1e-6 * rng.standard_normal(500)])
    x = np.concatenate(
        [x, [0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 5e-324, 1e-310, 709.78, 709.79, -745.2, 1e308]]
    )
    with np.errstate(all="ignore"):
        exact = theirs(x.astype(np.longdouble))
        rounded = exact.astype(F64)
        got = np.array([ours(float(value)) for value in x])
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(got[~finite], rounded[~finite])
        error = abs(got[finite] - exact[finite])
        allowed = np.maximum(3 * np.spacing(abs(rounded[finite])), 1e-306)
    assert np.finfo(np.longdouble).eps < 1e-18, "needs a long double of 64 bits"
    assert (error <= allowed).all(), x[finite][np.argmax(error / allowed)]


def test_loop_over_a_custom_activation_is_vectorised():
    kernels = backends.custom.kernels_of(custom.softplus, F64)
    for callback in kernels._callbacks:
        assert re.search(r"<\d+ x double>", callback.inspect_llvm())


# ---- with a product


@every_case
def test_linear_activation_is_the_product_then_the_activation(backend, dtype, threads, case, rng):
    for rows, in_features, out_features in ((0, 3, 2), (1, 8, 300), (67, 31, 97), (5, 17, 16)):
        x, weight = numbers(rng, (rows, in_features), dtype), numbers(rng, (out_features, in_features), dtype)
        bias, grad_y = numbers(rng, out_features, dtype), numbers(rng, (rows, out_features), dtype)
        keywords = case.keywords(out_features, dtype)
        y, saved = fa.linear_activation(x, weight, bias, case.activation, **keywords)
        z, _ = fa.linear_activation(x, weight, bias, "identity")
        assert_same_bits(y, fa.activation(z, case.activation, **keywords))
        assert_same_bits(saved, z if case.activation.saves == "z" else y)
        inference, nothing = fa.linear_activation(
            x, weight, bias, case.activation, return_saved=False, **keywords
        )
        assert nothing is None
        assert_same_bits(inference, y)
        grads = fa.linear_activation_backward(grad_y, x, weight, saved, case.activation, **keywords)
        grad_z = fa.activation_backward(grad_y, saved, case.activation, **keywords)
        grad_z, *grad_slope = grad_z if case.learned else (grad_z,)
        identity = fa.linear_activation_backward(grad_z, x, weight, z, "identity")
        assert_same_bits(grads, (*identity, *grad_slope))


def test_another_activation_compiles_none_of_the_kernels_of_numba_anew(rng):
    from fastact.backends.numba import activations, linear

    x, weight = numbers(rng, (5, 4), F32), numbers(rng, (3, 4), F32)
    kernels = linear._linear_cells, activations._activation_backward_cells
    compiled = []
    for activation in ("silu", custom.swish2, custom.bent, custom.squash):
        _, saved = fa.linear_activation(x, weight, None, activation, backend="numba")
        fa.linear_activation_backward(x[:, :3], x, weight, saved, activation, backend="numba")
        compiled.append([len(kernel.signatures) for kernel in kernels])
    assert compiled == compiled[:1] * len(compiled)


@pytest.fixture
def in_one_call(monkeypatch):
    """A test fails if a network does not run in one call on the C backend."""
    if backends.get_backend() == "c":
        c = backends.get("c")
        for name in ("network_forward", "network_backward"):
            call = getattr(c, name)

            def checked(*arguments, call=call):
                done = call(*arguments)
                assert done is not None
                return done

            monkeypatch.setattr(c, name, checked)


def model_of(dtype):
    return fa.Sequential(
        fa.Linear(6, 9, activation=custom.learned_swish, slope=[0.5] * 9, rng=0, dtype=dtype),
        fa.Activation(custom.swish, parameter=0.75),
        fa.Residual(fa.Linear(9, 9, activation=custom.squash, rng=1, dtype=dtype)),
        fa.Activation(custom.softplus),
        fa.Linear(9, 4, activation=custom.swish, parameter=2, rng=2, dtype=dtype),
        fa.Linear(4, 3, activation=custom.learned_swish, rng=3, dtype=dtype),
    )


def results_of(model, x):
    y = model(x, training=True)
    grad_x = model.backward(y)
    return (model(x), y, grad_x, *(parameter.grad for parameter in model.parameters()))


def test_network_in_one_call_has_the_bits_of_its_layers(backend, dtype, in_one_call, request, rng):
    x = numbers(rng, (33, 6), dtype)
    together = results_of(model_of(dtype), x)
    request.getfixturevalue("one_by_one")
    assert_same_bits(results_of(model_of(dtype), x), together)


def test_frozen_network_has_the_bits_of_the_model(backend, dtype, rng):
    model, x = model_of(dtype), numbers(rng, (33, 6), dtype)
    frozen = fa.freeze(model)
    assert_same_bits(frozen(x), model(x))
    assert_same_bits(pickle.loads(pickle.dumps(frozen))(x), model(x))
    alone = fa.freeze(fa.Activation(custom.swish, parameter=0.5))
    assert_same_bits(alone(x), fa.activation(x, custom.swish, parameter=0.5))


def test_model_with_custom_activations_trains(each_backend, rng):
    x = numbers(rng, (64, 6), F32)
    labels = (x[:, 0] > 0).astype(np.int64)
    model = model_of(F32)
    optimizer = fa.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        loss, grad = fa.softmax_cross_entropy(model(x, training=True), labels)
        model.backward(grad)
        optimizer.step()
        losses.append(loss)
    assert losses[-1] < 0.3 * losses[0]
    assert (model[0].slope.data != 0.5).any()


def test_gradients_of_every_case_are_central_differences(each_backend, rng):
    x = rng.standard_normal((4, 5))
    for case in CASES:
        keywords = {} if case.learned else case.keywords(5, F64)
        assert fa.check_gradient(case.activation, x, **keywords).checked >= 18
        assert fa.check_gradient(fa.Linear(5, 3, activation=case.activation, rng=0, dtype=F64, **keywords), x)


def test_threads_that_compile_at_once_share_one_kernel():
    activation = fa.custom_activation("shared", lambda z: 2 * z, lambda z: 2.0)
    z, results = np.ones(3), []

    def run():
        results.append(fa.activation(z, activation))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    for result in results:
        np.testing.assert_array_equal(result, 2 * z)
    assert len([key for key in activation.compiled if key[1] is True]) == 1


# ---- copies, pickles and texts


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_of_a_module_level_activation_is_the_object(protocol):
    assert pickle.loads(pickle.dumps(custom.swish2, protocol)) is custom.swish2
    assert copy.deepcopy([custom.swish2])[0] is copy.copy(custom.swish2) is custom.swish2


def test_pickle_of_a_local_activation_names_the_cure():
    local = fa.custom_activation("local", lambda z: z, lambda z: 1.0)
    message = r"^<custom activation local> is not a module-level variable of .*test_custom_activation"
    with pytest.raises(pickle.PicklingError, match=message):
        pickle.dumps(local)
    model = fa.Linear(3, 2, activation=local, rng=0)
    assert copy.deepcopy(model).activation is local
    with pytest.raises(pickle.PicklingError, match=message):
        pickle.dumps(fa.freeze(model))


def test_pickle_of_a_model_loads_in_another_process(tmp_path, rng):
    model, x = model_of(F64), numbers(rng, (5, 6), F64)
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps((model, fa.freeze(model), x)))
    code = (
        "import pickle, sys; sys.path.insert(0, 'tests');"
        f"model, frozen, x = pickle.load(open({str(path)!r}, 'rb'));"
        "assert (model(x) == frozen(x)).all(); print(*model(x).ravel().tolist())"
    )
    assert [float(number) for number in output_of(code).split()] == model(x).ravel().tolist()


def test_checkpoint_holds_the_slope_and_not_the_activation(tmp_path, rng):
    model = model_of(F64)
    model[0].slope.data[:] = 3
    fa.save(tmp_path / "model.npz", model=model)
    other = model_of(F64)
    fa.load(tmp_path / "model.npz", model=other)
    assert_same_bits(other[0].slope.data, model[0].slope.data)
    assert "0.slope" in model.state_dict()


def test_texts_show_the_name():
    layer = fa.Linear(3, 2, activation=custom.swish, parameter=0.5, rng=0)
    text = "Linear(3, 2, activation=<custom activation swish>, parameter=0.5)"
    assert repr(layer) == text
    assert repr(fa.freeze(layer)).startswith(f"Frozen({text})")
    assert repr(fa.Activation(custom.swish2)) == "Activation(<custom activation swish2>)"


def test_fastact_makes_an_activation_without_numba():
    code = """if True:
        import sys, fastact as fa
        fa.Linear(3, 2, activation=fa.custom_activation("twice", lambda z: 2 * z, lambda z: 2.0))
        print("numba" in sys.modules)
    """
    assert output_of(code).split() == ["False"]


def test_missing_numba_is_an_import_error_that_says_so():
    code = """if True:
        import sys, numpy, fastact as fa
        sys.modules["numba"] = None
        twice = fa.custom_activation("twice", lambda z: 2 * z, lambda z: 2.0)
        fa.activation(numpy.ones(3), twice)
    """
    done = run_python(code)
    assert "ImportError: <custom activation twice> needs Numba, which cannot be used" in done.stderr


def test_disabled_jit_is_an_import_error_that_says_so():
    code = """if True:
        import numpy, fastact as fa
        fa.activation(numpy.ones(3), fa.custom_activation("twice", lambda z: 2 * z, lambda z: 2.0))
    """
    assert "NUMBA_DISABLE_JIT is set" in run_python(code, NUMBA_DISABLE_JIT="1").stderr


# ---- errors


def of_two(z, p):
    return z * p


GOOD = {"name": "good", "forward": lambda z: z, "derivative": lambda z: 1.0}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": 3}, TypeError, "name: got 3, wanted a str"),
        ({"name": "two words"}, ValueError, "name: got 'two words', wanted an identifier"),
        ({"saves": "x"}, ValueError, 'saves: got \'x\', wanted "z" or "y"'),
        ({"forward": "silu"}, TypeError, "forward: got 'silu', wanted a function of Python or Numba"),
        (
            {"forward": math.exp},
            TypeError,
            "forward: got <built-in function exp>, wanted a function of Python",
        ),
        (
            {"derivative": of_two},
            TypeError,
            "derivative: got a function of 2 arguments, wanted 1: the number",
        ),
        ({"parameter": 1.0}, TypeError, "forward: got a function of 1 arguments, wanted 2: the number, and"),
        ({"forward": lambda *z: z[0]}, TypeError, "forward: got a function of 0 arguments, wanted 1"),
        ({"parameter": math.inf}, ValueError, "parameter: got inf, wanted a finite number"),
        ({"slope": "1"}, TypeError, "slope: got '1', wanted a number"),
        (
            {"slope": 1.0},
            TypeError,
            "slope_derivative: got None for an activation with a slope, wanted a function",
        ),
        (
            {"slope_derivative": of_two},
            TypeError,
            "slope_derivative: got a function for an activation without a",
        ),
        (
            {"slope": 1.0, "parameter": 1.0, "slope_derivative": of_two},
            ValueError,
            "slope: got a slope beside a parameter, wanted one of the two",
        ),
    ],
)
def test_invalid_argument_is_refused_by_name(change, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        fa.custom_activation(**GOOD | change)


@pytest.mark.parametrize(
    ("argument", "function", "message"),
    [
        ("forward", lambda z: z.nothing, "forward: Numba cannot compile it: Unknown attribute 'nothing'"),
        ("derivative", lambda z: undefined(z), "derivative: Numba cannot compile it: "),  # noqa: F821
        ("derivative", lambda z: "1", "derivative: got a result of Numba's type"),
        (
            "forward",
            lambda z: z + 1j,
            "forward: got a result of Numba's type complex128, wanted a real number",
        ),
    ],
)
def test_function_that_numba_cannot_compile_is_a_type_error(each_backend, argument, function, message):
    activation = fa.custom_activation(**GOOD | {argument: function})
    x, weight = np.ones((2, 3)), np.ones((4, 3))
    y = np.full((2, 4), 7.0)
    for run in (
        lambda: fa.linear_activation(x, weight, None, activation, out=(y, None)),
        lambda: fa.activation_backward(x, x, activation),
        lambda: fa.Sequential(fa.Linear(3, 4, activation=activation, rng=0, dtype=F64))(x, training=True),
        lambda: fa.freeze(fa.Linear(3, 4, activation=activation, rng=0, dtype=F64))(x),
    ):
        with pytest.raises(TypeError, match=re.escape(message)) as raised:
            run()
        assert len(str(raised.value)) < 400
    assert (y == 7).all()


@numba.njit
def limited(z):
    if z > 1e30:
        raise ValueError("too large")
    return z


@pytest.mark.parametrize("forward", [limited, lambda z: limited(z), lambda z: math.sqrt(limited(z))])
def test_function_that_raises_is_refused(each_backend, forward):
    activation = fa.custom_activation(**GOOD | {"forward": forward})
    with pytest.raises(TypeError, match=r"^forward: Numba cannot compile it: it raises an exception"):
        fa.activation(np.ones(3), activation)


def test_function_that_numba_lets_raise_is_refused(compiled):
    activation = fa.custom_activation(**GOOD | {"derivative": lambda z: (1j / (z + 1j)).real})
    with pytest.raises(TypeError, match=r"^derivative: it may raise an exception, for which a kernel has"):
        fa.activation(np.ones(3), activation)


@numba.njit
def inner_layer(z):
    try:
        y, _ = fa.linear_maxout(np.full((2, 3), z), np.ones((2, 2, 3)), backend="c")
    except Exception:
        return 0.0
    return y[0, 0]


@needs_c
def test_function_that_calls_a_layer_is_refused():
    """C's layers share a thread's workspace, which the layer around the function is using."""
    activation = fa.custom_activation(**GOOD | {"forward": lambda z: inner_layer(z)})
    with pytest.raises(TypeError, match=r"^forward: "):
        fa.activation(np.ones(3), activation, backend="c")


reciprocal = numba.njit(lambda z: 1 / z)


def test_division_by_zero_is_infinite_in_each_way_to_write_it(each_backend):
    z = np.array([-2.0, 0.0, 0.5])
    for forward in (lambda z: 1 / z, lambda z: reciprocal(z), lambda z: z**-1):
        y = fa.activation(z, fa.custom_activation(**GOOD | {"forward": forward}))
        np.testing.assert_array_equal(y, [-0.5, np.inf, 2])


def test_function_called_by_a_custom_activation_is_vectorised():
    inner = numba.njit(lambda z: math.exp(z))
    activation = fa.custom_activation(**GOOD | {"forward": lambda z: inner(z) ** -3})
    forward, _ = backends.custom.kernels_of(activation, F64)._callbacks
    assert re.search(r"<\d+ x double>", forward.inspect_llvm())
    z = np.linspace(-9, 9, 31)
    np.testing.assert_allclose(fa.activation(z, activation), np.exp(-3 * z), rtol=1e-14)


def test_linear_regions_of_a_custom_activation_are_refused():
    with pytest.raises(ValueError, match=r"^model: got Linear.* wanted layers that are piecewise linear$"):
        fa.linear_region(fa.Linear(3, 2, activation=custom.swish, rng=0), np.ones(3, F32))


def test_keyword_that_the_activation_does_not_take_is_refused():
    z = np.ones((2, 3))
    with pytest.raises(TypeError, match=r"^alpha: swish takes parameter$"):
        fa.activation(z, custom.swish, alpha=1.0)
    with pytest.raises(TypeError, match=r"^parameter: swish2 takes no parameter$"):
        fa.Linear(3, 2, activation=custom.swish2, parameter=1.0)
    with pytest.raises(TypeError, match=r"^parameter: relu takes no parameter$"):
        fa.activation(z, "relu", parameter=1.0)
    with pytest.raises(ValueError, match=r"^parameter: got nan, wanted a finite number"):
        fa.Linear(3, 2, activation=custom.swish, parameter=math.nan)
    with pytest.raises(TypeError, match=r"^slope: got NoneType, wanted a numpy.ndarray"):
        fa.activation(z, custom.learned_swish)
    with pytest.raises(ValueError, match=r"^slope: got shape \(2,\), wanted \(\), \(1,\) or \(3,\)$"):
        fa.activation(z, custom.learned_swish, slope=np.ones(2))


def test_activation_layer_refuses_a_slope():
    message = r"^name: got <custom activation learned_swish>, whose slope is learned: give it to a Linear$"
    with pytest.raises(ValueError, match=message):
        fa.Activation(custom.learned_swish)


def test_damaged_step_of_a_frozen_model_is_refused():
    frozen = fa.freeze(fa.Linear(3, 2, activation=custom.swish, rng=0))
    make, (steps, backend) = frozen.__reduce__()
    damaged = steps[0]._replace(act=steps[0].act._replace(custom="swish"))
    with pytest.raises(TypeError, match="custom: got str, wanted a CustomActivation"):
        make((damaged,), backend)
