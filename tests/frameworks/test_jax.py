"""The JAX adapter: against fastact's operations, the NumPy reference and finite differences; JAX's rules."""

import inspect
import threading
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from support import linear_activation as of_activation
from support import linear_maxout as of_maxout
from support.cases import CASES
from support.inputs import linear_inputs, maxout_inputs
from support.processes import output_of, run_python
from support.shapes import Shape
from support.variants import COMPILED, in_force, needs_proc

import fastact
import fastact.jax as fj
from fastact import activations, ops

LEADING = [(6,), (), (0,), (2, 3), (1, 0, 2)]
SHAPES = [
    Shape(*sizes)
    for sizes in (
        (0, 3, 2, 2),
        (1, 0, 1, 1),
        (3, 2, 0, 3),
        (15, 16, 17, 2),
        (16, 31, 3, 256),
        (17, 33, 32, 3),
        (97, 32, 31, 5),
        (1, 97, 15, 4),
    )
]
KINDS = [case for case in CASES if case.name != "prelu"]
PRELUS = [case for case in CASES if case.name == "prelu"]
CUSTOM = fastact.custom_activation("twice", lambda z: 2 * z, lambda z: 2.0)


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=[variant for variant in COMPILED if variant.startswith("c")])
def isa(request):
    with in_force(request.param):
        yield


@pytest.fixture
def few(rng):
    """x (6, 7), weight (5, 3, 7) and bias (5, 3) in float64."""
    return [jnp.asarray(rng.standard_normal(shape)) for shape in ((6, 7), (5, 3, 7), (5, 3))]


def assert_same(results, expected):
    for result, array in zip(results, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(result), array, strict=True)


def pull_back(f, operands, grad_y):
    """The gradients of f's operands, for grad_y."""
    return jax.jit(lambda *args: jax.vjp(f, *args)[1](grad_y))(*operands)


def calls(f, *operands):
    """The calls of handlers in a traced function: of each, the shapes of its operands and of its results."""
    found = []

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "ffi_call" or equation.primitive.name.startswith("fastact"):
                found.append([[v.aval.shape for v in each] for each in (equation.invars, equation.outvars)])
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    walk(inner)

    walk(jax.make_jaxpr(f)(*operands).jaxpr)
    return found


# Central differences of this step are off by the step times the jump of a second derivative: softsign's is 4.
check_first = partial(check_grads, order=1, modes=["rev"], eps=2.0**-16, atol=1e-4, rtol=1e-4)


# ---- values and gradients


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_maxout_is_within_the_bounds(isa, dtype, shape, rng):
    x, weight, bias, grad_y = maxout_inputs(rng, shape, dtype)
    y, argmax = jax.jit(partial(fj.linear_maxout, return_argmax=True))(x, weight, bias)
    y, argmax = np.asarray(y), np.asarray(argmax)
    of_maxout.assert_forward(x, weight, bias, y, argmax, "c")
    grads = [np.asarray(grad) for grad in pull_back(fj.linear_maxout, (x, weight, bias), grad_y)]
    of_maxout.assert_backward(grad_y, x, weight, argmax, grads, "c")
    np.testing.assert_array_equal(fj.linear_maxout(x, weight, bias), y)


@pytest.mark.parametrize("leading", LEADING, ids=str)
def test_linear_maxout_has_the_bits_of_ops(dtype, leading, rng):
    x, weight, bias = [
        rng.standard_normal(shape).astype(dtype) for shape in ((*leading, 7), (5, 3, 7), (5, 3))
    ]
    expected = ops.linear_maxout(x, weight, bias, backend="c")
    assert_same(fj.linear_maxout(x, weight, bias, return_argmax=True), expected)
    assert_same([fj.linear_maxout(x, weight)], ops.linear_maxout(x, weight, backend="c")[:1])
    grad_y = rng.standard_normal(expected[0].shape).astype(dtype)
    assert_same(
        pull_back(fj.linear_maxout, (x, weight, bias), grad_y),
        ops.linear_maxout_backward(grad_y, x, weight, expected[1], backend="c"),
    )


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize("axis", [0, -1, -2])
def test_maxout_has_the_bits_of_ops(dtype, leading, axis, rng):
    z = rng.standard_normal((*leading, 3, 4)).astype(dtype)
    if 0 in leading[:1] and axis == 0:
        with pytest.raises(ValueError, match="pieces: got 0"):
            fj.maxout(z, axis)
        return
    expected = ops.maxout(z, axis, backend="c")
    assert_same(fj.maxout(z, axis, return_argmax=True), expected)
    grad_y = rng.standard_normal(expected[0].shape).astype(dtype)
    assert_same(
        pull_back(lambda z: fj.maxout(z, axis), (z,), grad_y),
        [ops.maxout_backward(grad_y, expected[1], z.shape[axis], axis, backend="c")],
    )


@pytest.mark.parametrize("leading", LEADING[::2], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_linear_activation_has_the_bits_of_ops(dtype, leading, case, rng):
    x, weight, bias = [rng.standard_normal(shape).astype(dtype) for shape in ((*leading, 7), (5, 7), (5,))]
    keywords = case.keywords(5, dtype)
    expected, saved = ops.linear_activation(x, weight, bias, case.name, backend="c", **keywords)
    grad_y = rng.standard_normal(expected.shape).astype(dtype)
    operands = (x, weight, bias, *([keywords["slope"]] if case.name == "prelu" else []))

    def f(x, weight, bias, *slope):
        given = {"slope": slope[0]} if slope else keywords
        return fj.linear_activation(x, weight, bias, case.name, **given)

    assert_same([f(*operands)], [expected])
    wanted = ops.linear_activation_backward(grad_y, x, weight, saved, case.name, backend="c", **keywords)
    assert_same(pull_back(f, operands, grad_y), wanted)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_linear_activation_is_within_the_bounds(dtype, shape, name, rng):
    x, weight, bias, grad_y = linear_inputs(rng, shape, dtype)
    (case,) = [case for case in CASES if str(case) in (name, f"{name}-none")][:1]
    y = np.asarray(fj.linear_activation(x, weight, bias, name))
    saved = y if name == "relu" else fastact.linear_activation(x, weight, bias, name, backend="c")[1]
    of_activation.assert_forward(x, weight, bias, y, saved, case, {}, "c")
    f = partial(fj.linear_activation, activation=name)
    grads = [np.asarray(grad) for grad in pull_back(f, (x, weight, bias), grad_y)]
    of_activation.assert_backward(grad_y, x, weight, saved, grads, case, {}, "c")


@pytest.mark.parametrize("shape", [(), (1,), (0,), (33,), (2, 3, 5), (2, 0, 5)], ids=str)
@pytest.mark.parametrize("case", KINDS, ids=str)
def test_activation_has_the_bits_of_ops(dtype, shape, case, rng):
    z = np.asarray(3 * rng.standard_normal(shape), dtype)
    grad_y = np.asarray(rng.standard_normal(shape), dtype)
    f = partial(getattr(fj, case.name), **case.parameters)
    y = ops.activation(z, case.name, backend="c", **case.parameters)
    assert_same([f(z)], [y])
    saved = y if activations.TABLE[case.name].saves == "y" else z
    wanted = ops.activation_backward(grad_y, saved, case.name, backend="c", **case.parameters)
    assert_same(pull_back(f, (z,), grad_y), [wanted])


@pytest.mark.parametrize("shape", [(5,), (33, 5), (2, 3, 5), (2, 0, 5)], ids=str)
@pytest.mark.parametrize("case", PRELUS, ids=str)
def test_prelu_has_the_bits_of_ops(dtype, shape, case, rng):
    z, grad_y = [rng.standard_normal(shape).astype(dtype) for _ in range(2)]
    slope = case.keywords(5, dtype)["slope"]
    assert_same([fj.prelu(z, slope)], [ops.activation(z, "prelu", slope=slope, backend="c")])
    wanted = ops.activation_backward(grad_y, z, "prelu", slope=slope, backend="c")
    assert_same(pull_back(fj.prelu, (z, slope), grad_y), wanted)


def test_functions_pass_check_grads(few):
    x, weight, bias = few
    check_first(fj.linear_maxout, (x, weight, bias))
    check_first(fj.linear_maxout, (x, weight))
    check_first(lambda z: fj.maxout(z, 1), (weight,))
    check_first(lambda *args: fj.linear_maxout(*args, return_argmax=True)[0], (x, weight, bias))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_activations_pass_check_grads(few, case):
    x, weight, bias = few
    keywords = case.keywords(5, np.float64)

    def f(x, weight, bias, *slope):
        given = {"slope": slope[0]} if slope else keywords
        y = fj.linear_activation(x, weight, bias, case.name, **given)
        return y, fj.activation(2 * y, case.name, **given)

    slope = [jnp.asarray(keywords["slope"])] if case.name == "prelu" else []
    check_first(f, (x, weight[:, 0], bias[:, 0], *slope))


def test_functions_equal_the_composition_of_jax(few):
    def composed(x, weight, bias):
        return (jnp.einsum("ni,jki->njk", x, weight) + bias).max(-1)

    def loss(f, *args):
        return jnp.sin(f(*args)).sum()

    ours, theirs = [
        jax.jit(jax.value_and_grad(partial(loss, f), (0, 1, 2)))(*few) for f in (fj.linear_maxout, composed)
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), ours, theirs)


def test_lowest_index_of_a_tie_and_first_nan_win():
    z = np.array([[1, 1, 0], [0, np.nan, np.nan], [2, 3, 3]], np.float32)
    y, argmax = fj.maxout(z, return_argmax=True)
    assert_same([argmax], [np.array([0, 1, 1], np.uint8)])
    assert np.isnan(y[1])
    weight = np.ones((4, 3, 2), np.float32)
    _, argmax = fj.linear_maxout(np.ones((5, 2), np.float32), weight, return_argmax=True)
    assert not argmax.any()
    grad = jax.grad(lambda weight: fj.linear_maxout(np.ones((5, 2), np.float32), weight).sum())(weight)
    assert_same([grad[:, 1:]], [np.zeros((4, 2, 2), np.float32)])


def test_infinite_loser_adds_nothing_to_a_gradient(few):
    x, weight, bias = few
    weight = weight.at[:, 0].set(-jnp.inf)
    grad = jax.grad(lambda x: fj.linear_maxout(x, weight, bias.at[:, 1].set(1e6)).sum())(jnp.abs(x) + 1)
    np.testing.assert_allclose(grad, np.broadcast_to(np.asarray(weight[:, 1].sum(0)), x.shape), rtol=1e-13)


def test_medium_tier_reaches_the_forward_and_the_backward(few):
    x, weight, bias = (value.astype(np.float32) for value in few)

    def tiers(**keywords):
        loss = jax.grad(lambda w: fj.linear_maxout(x, w, bias, **keywords).sum())
        return str(jax.make_jaxpr(loss)(weight)).count("('precision', np.int64(2))")

    assert tiers(precision="medium") == 2
    assert tiers() == 0
    with fastact.float32_matmul_precision("medium"):
        assert tiers() == 2


# ---- transformations


def test_gradient_is_computed_for_the_operands_that_need_one(few):
    x, weight, bias = few

    def results(argnums):
        def loss(*operands):
            return fj.linear_maxout(*operands).sum()

        (_, forward), (_, backward) = calls(jax.grad(loss, argnums), x, weight, bias)
        assert forward == [(6, 5), (6, 5)]
        return backward

    assert results(0) == [(6, 7)]
    assert results((1, 2)) == [(5, 3, 7), (5, 3)]
    assert results(2) == [(5, 3)]


def test_forward_alone_computes_no_argmax(few):
    assert [results for _, results in calls(fj.linear_maxout, *few)] == [[(6, 5)]]
    assert [results for _, results in calls(jax.checkpoint(fj.linear_maxout), *few)] == [[(6, 5)]]


@pytest.mark.parametrize("in_axis", [0, 1, 2])
def test_vmap_of_x_is_one_call_of_more_rows(few, rng, in_axis):
    _, weight, bias = few
    xs = jnp.asarray(rng.standard_normal((4, 6, 7)))
    moved = jnp.moveaxis(xs, 0, in_axis)

    def loss(weight, bias, xs):
        y = jax.vmap(fj.linear_maxout, (in_axis, None, None))(xs, weight, bias)
        return (y**2).sum()

    found = calls(jax.grad(loss, (0, 1, 2)), weight, bias, moved)
    assert [results for _, results in found] == [
        [(24, 5), (24, 5)],
        [(24, 7), (5, 3, 7), (5, 3)],
    ]
    grads = jax.grad(loss, (0, 1, 2))(weight, bias, moved)
    wanted = jax.grad(lambda *args: (fj.linear_maxout(args[2], *args[:2]) ** 2).sum(), (0, 1, 2))(
        weight, bias, xs
    )
    for grad, expected in zip(grads, (*wanted[:2], jnp.moveaxis(wanted[2], 0, in_axis)), strict=True):
        np.testing.assert_allclose(grad, expected, rtol=1e-12, atol=1e-12)


def test_vmap_of_one_row_is_one_product(few):
    x, weight, bias = few
    mapped = jax.vmap(fj.linear_maxout, (0, None, None))
    assert [results for _, results in calls(mapped, x, weight, bias)] == [[(6, 5)]]
    assert_same([mapped(x, weight, bias)], [np.asarray(fj.linear_maxout(x, weight, bias))])


@pytest.mark.parametrize("in_axes", [(None, 0, None), (0, 0, 0), (None, None, 0), (0, None, 0), (1, 2, 1)])
def test_vmap_of_weights_equals_a_loop(few, rng, in_axes):
    stacked = [
        value if axis is None else jnp.stack([value * (i + 1) for i in range(3)], axis)
        for value, axis in zip(few, in_axes, strict=True)
    ]
    grad_y = jnp.asarray(rng.standard_normal((3, 6, 5)))

    def looped(*operands):
        return jnp.stack(
            [
                fj.linear_maxout(
                    *(
                        value if axis is None else jnp.take(value, i, axis)
                        for value, axis in zip(operands, in_axes, strict=True)
                    )
                )
                for i in range(3)
            ]
        )

    mapped = jax.vmap(fj.linear_maxout, in_axes)
    assert_same([mapped(*stacked)], [np.asarray(looped(*stacked))])
    for grad, wanted in zip(
        pull_back(mapped, stacked, grad_y), pull_back(looped, stacked, grad_y), strict=True
    ):
        np.testing.assert_allclose(grad, wanted, rtol=1e-12, atol=1e-12)


def test_nested_vmap_over_weights_and_over_x_equals_loops(few, rng):
    x, weight, bias = few
    weights = jnp.stack([weight, 2 * weight, -weight])
    xs = jnp.stack([x, x - 1])
    f = jax.vmap(jax.vmap(fj.linear_maxout, (None, 0, None)), (0, None, None))
    y = f(xs, weights, bias)
    other = jax.vmap(jax.vmap(fj.linear_maxout, (0, None, None)), (None, 0, None))(xs, weights, bias)
    for i in range(2):
        for k in range(3):
            alone = np.asarray(fj.linear_maxout(xs[i], weights[k], bias))
            assert_same([y[i, k], other[k, i]], [alone, alone])
    inner = jax.vmap(jax.grad(lambda w, x: fj.linear_maxout(x, w, bias).sum()), (0, None))
    per_pair = jax.vmap(inner, (None, 0))(weights, xs)
    alone = jax.grad(lambda w: fj.linear_maxout(xs[1], w, bias).sum())(weights[2])
    assert_same([per_pair[1, 2]], [np.asarray(alone)])


def test_vmap_of_grad_has_a_gradient_for_each_example(few, rng):
    _, weight, bias = few
    xs = jnp.asarray(rng.standard_normal((4, 6, 7)))

    def loss(weight, bias, x):
        return (fj.linear_maxout(x, weight, bias) ** 2).sum()

    mapped = jax.vmap(jax.grad(loss, (0, 1, 2)), (None, None, 0))(weight, bias, xs)
    for i, x in enumerate(xs):
        assert_same([grad[i] for grad in mapped], map(np.asarray, jax.grad(loss, (0, 1, 2))(weight, bias, x)))
    one = jax.vmap(jax.grad(loss, 2), (None, None, 0))(weight, bias, xs)
    np.testing.assert_allclose(one, mapped[2], rtol=1e-13, atol=1e-13)  # one call of more rows


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("in_axis", [0, 1, 2, 3])
def test_vmap_of_maxout_equals_a_loop(rng, axis, in_axis):
    zs = jnp.asarray(rng.standard_normal((4, 2, 3, 5)))
    f = partial(fj.maxout, axis=axis, return_argmax=True)
    mapped = jax.vmap(f, in_axis)(jnp.moveaxis(zs, 0, in_axis))
    for i, z in enumerate(zs):
        assert_same([result[i] for result in mapped], map(np.asarray, f(z)))
    grad = jax.grad(lambda z: (fj.maxout(z, axis) ** 2).sum())
    assert_same([jax.vmap(grad)(zs)[1]], [np.asarray(grad(zs[1]))])


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("in_axis", [0, 1, 2])
def test_vmap_of_activations_equals_a_loop(rng, case, in_axis):
    zs = jnp.asarray(rng.standard_normal((4, 3, 5)))
    keywords = case.keywords(5, np.float64)
    f = partial(fj.activation, activation=case.name, **keywords)
    mapped = jax.vmap(f, in_axis)(jnp.moveaxis(zs, 0, in_axis))
    for i, z in enumerate(zs):
        assert_same([mapped[i]], [np.asarray(f(z))])


@pytest.mark.parametrize("weight_axis", [None, 0])
def test_vmap_of_slopes_equals_a_loop(few, rng, weight_axis):
    x, weight, bias = few[0], few[1][:, 0], few[2][:, 0]
    slopes = jnp.asarray(rng.standard_normal((3, 5)))

    def loss(slope, x, weight, bias):
        y = fj.linear_activation(x, weight, bias, "prelu", slope=slope)
        return (fj.prelu(y - 1, slope) ** 2).sum()

    weights = weight if weight_axis is None else jnp.stack([weight] * 3)
    axes = (0, None, weight_axis, None)
    mapped = jax.vmap(jax.value_and_grad(loss, (0, 1, 2, 3)), axes)(slopes, x, weights, bias)
    alone = jax.value_and_grad(loss, (0, 1, 2, 3))(slopes[1], x, weight, bias)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-12), mapped, alone)
    sums = jax.grad(lambda s: jax.vmap(loss, axes)(s, x, weights, bias).sum())(slopes)
    np.testing.assert_allclose(sums[1], alone[1][0], rtol=1e-12)


def test_scan_and_checkpoint_pass_check_grads(rng):
    x, weight = jnp.asarray(rng.standard_normal((4, 7))), jnp.asarray(0.4 * rng.standard_normal((7, 2, 7)))

    def looped(weight, x):
        return jax.lax.scan(lambda h, _: (fj.linear_maxout(h, weight), h.sum()), x, length=4)

    def twice(weight, x):
        return fj.gelu(fj.linear_maxout(fj.linear_maxout(x, weight), weight))

    check_first(looped, (weight, x))
    check_first(jax.checkpoint(twice), (weight, x))
    plain, remade = [jax.jit(jax.grad(lambda *a, f=f: f(*a).sum())) for f in (twice, jax.checkpoint(twice))]
    assert_same([remade(weight, x)], [np.asarray(plain(weight, x))])


def test_while_cond_and_switch_take_the_functions(few):
    x, weight, bias = few
    y = jax.lax.cond(True, lambda: fj.linear_maxout(x, weight, bias), lambda: jnp.zeros((6, 5)))
    _, z = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, fj.relu(s[1])), (0, y))
    assert_same([z], [np.maximum(np.asarray(y), 0)])


def test_donated_parameters_are_updated(few):
    x, weight, bias = few

    @partial(jax.jit, donate_argnums=0)
    def step(parameters, x):
        loss, grads = jax.value_and_grad(lambda p: (fj.linear_maxout(x, *p) ** 2).mean())(parameters)
        return jax.tree.map(lambda p, g: p - 0.01 * g, parameters, grads), loss

    parameters, losses = (weight.copy(), bias.copy()), []
    for _ in range(20):
        before = parameters
        parameters, loss = step(parameters, x)
        losses.append(float(loss))
        assert before[0].is_deleted()
    assert losses == sorted(losses, reverse=True)
    y, argmax = ops.linear_maxout(*map(np.asarray, few), backend="c")
    grad = ops.linear_maxout_backward(2 * y / y.size, *map(np.asarray, (x, weight)), argmax, backend="c")[1]
    first, _ = step((weight.copy(), bias.copy()), x)
    np.testing.assert_allclose(first[0], weight - 0.01 * grad, rtol=1e-14)


def test_donated_input_of_an_activation_is_not_spoiled(rng):
    z = jnp.asarray(rng.standard_normal((33, 5)))
    wanted = np.maximum(np.asarray(z), 0)
    assert_same([jax.jit(fj.relu, donate_argnums=0)(z)], [wanted])


def test_functions_run_without_jit(few):
    with jax.disable_jit():
        y = fj.linear_maxout(*few)
        grad = jax.grad(lambda w: fj.linear_maxout(few[0], w, few[2]).sum())(few[1])
    assert_same([y], [np.asarray(fj.linear_maxout(*few))])
    assert grad.shape == few[1].shape


def test_exported_function_takes_any_number_of_rows(few):
    x, weight, bias = few
    (rows,) = jax.export.symbolic_shape("n")
    exported = jax.export.export(
        jax.jit(lambda x: fj.linear_maxout(x, weight, bias)),
        disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("fastact_linear_maxout")],
    )(jax.ShapeDtypeStruct((rows, 7), x.dtype))
    for part in (x, x[:1]):
        assert_same([exported.call(part)], [np.asarray(fj.linear_maxout(part, weight, bias))])


TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, fastact, fastact.jax as fj
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
jax.config.update("jax_enable_x64", True)
fastact.set_num_threads(2)
rng = np.random.default_rng(0)
x, weight, bias = [jnp.asarray(rng.standard_normal(s)) for s in ((256, 70), (50, 3, 70), (50, 3))]

def loss(weight, bias, x):
    return (fj.linear_maxout(x, weight, bias) ** 2).sum()

def check(grads):
    for grad, expected in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(grad, expected, rtol=1e-11)

wanted = jax.grad(loss, (0, 1))(weight, bias, x)
"""

SHARD_MAP = """
for kind in (AxisType.Explicit, AxisType.Auto):
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        xs = jax.device_put(x, NamedSharding(mesh, P("rows")))
        parameters = [jax.device_put(value, NamedSharding(mesh, P())) for value in (weight, bias)]
        specs = {"mesh": mesh, "in_specs": (P(), P(), P("rows"))}
        outer = jax.shard_map(lambda *a: jax.lax.psum(loss(*a), "rows"), out_specs=P(), **specs)
        inner = jax.shard_map(lambda *a: jax.grad(loss, (0, 1))(*a), out_specs=(P(), P()), **specs)
        rows = jax.shard_map(lambda w, b, x: fj.linear_maxout(x, w, b), out_specs=P("rows"), **specs)
        for _ in range(20):
            check(jax.jit(jax.grad(outer, (0, 1)))(*parameters, xs))
            check(jax.jit(inner)(*parameters, xs))
        check(jax.grad(outer, (0, 1))(*parameters, xs))
        check(jax.jit(jax.grad(loss, (0, 1)))(*parameters, xs))
        y = jax.jit(rows)(*parameters, xs)
        assert len(y.sharding.device_set) == 2
        np.testing.assert_array_equal(y, fj.linear_maxout(x, weight, bias))
print("fine")
"""

PMAP = """
halves = x.reshape(2, 128, 70)
y = jax.pmap(lambda x: fj.linear_maxout(x, weight, bias))(halves)
np.testing.assert_array_equal(y.reshape(256, 50), fj.linear_maxout(x, weight, bias))
step = jax.pmap(
    lambda w, b, x: jax.lax.psum(jax.grad(loss, (0, 1))(w, b, x), "rows"), "rows", in_axes=(None, None, 0)
)
for _ in range(20):
    check([grad[0] for grad in step(weight, bias, halves)])
print("fine")
"""


@pytest.mark.parametrize("code", [SHARD_MAP, PMAP], ids=["shard_map", "pmap"])
def test_two_devices_share_the_rows(code):
    flags = "--xla_force_host_platform_device_count=2"
    assert output_of(TWO_DEVICES + code, 240, XLA_FLAGS=flags).split() == ["fine"]


# ---- names


def test_names_are_those_of_the_functional_api():
    products = {"activation", "linear_activation", "linear_maxout", "maxout"}
    assert {*fj.__all__} == products | {*activations.NAMES}
    for name in fj.__all__:
        assert inspect.getdoc(getattr(fj, name))


@pytest.mark.parametrize("name", activations.NAMES)
def test_functions_of_an_activation_have_the_arguments_of_its_row(name):
    defaults = activations.TABLE[name].defaults
    found = inspect.signature(getattr(fj, name)).parameters
    assert list(found) == ["z", *defaults]
    for keyword, default in defaults.items():
        assert found[keyword].default == (inspect.Parameter.empty if default is None else default)


# ---- threads


THREADS = """
import os, jax, jax.numpy as jnp, fastact, fastact.jax as fj
x, weight = jnp.ones((512, 300)), jnp.ones((200, 3, 300))
f = jax.jit(lambda x: fj.linear_maxout(x, weight))
count = lambda: len(os.listdir("/proc/self/task"))
fastact.set_num_threads(1)
f(x).block_until_ready()
before = count()
for _ in range(5):
    f(x).block_until_ready()
alone = count() - before
fastact.set_num_threads(4)
f(x).block_until_ready()
print(alone, count() - before)
"""


@needs_proc
def test_compiled_function_takes_the_number_of_threads_in_force():
    assert output_of(THREADS, JAX_PLATFORMS="cpu").split() == ["0", "3"]


def test_threads_of_a_context_hold_for_what_is_traced_in_it(few):
    def threads():
        gradient = jax.grad(lambda *operands: fj.linear_maxout(*operands).sum())
        return str(jax.make_jaxpr(gradient)(*few)).count("('threads', np.int64(2))")

    with fastact.num_threads(2):
        assert threads() == 2
    assert threads() == 0


def test_compiled_function_follows_set_reproducible(rng):
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 300), (7, 2, 300)))
    function = jax.jit(lambda x: fj.linear_maxout(x, weight))

    def same():
        return np.asarray(function(x)).tobytes() == fastact.linear_maxout(x, weight)[0].tobytes()

    with in_force("c-scalar"):  # whose sums have another order otherwise
        assert same()
        ordinary = np.asarray(function(x)).tobytes()
        fastact.set_reproducible(True)
        try:
            assert same()
            assert np.asarray(function(x)).tobytes() != ordinary
        finally:
            fastact.set_reproducible(False)


def test_mode_of_a_context_holds_for_what_is_traced_in_it(rng):
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 300), (7, 2, 300)))
    with fastact.reproducible():
        function = jax.jit(lambda x: fj.linear_maxout(x, weight))
        expected = fastact.linear_maxout(x, weight)[0].tobytes()
        assert np.asarray(function(x)).tobytes() == expected
    assert np.asarray(function(x)).tobytes() == expected


def test_concurrent_callers_get_their_own_results(rng):
    weight = rng.standard_normal((60, 3, 80)).astype(np.float32)
    f = jax.jit(jax.value_and_grad(lambda x, w: (fj.linear_maxout(x, w) ** 2).sum(), (0, 1)))
    xs = [rng.standard_normal((200, 80)).astype(np.float32) for _ in range(4)]
    with jax.enable_x64(False):  # as it is in new threads
        wanted = [jax.block_until_ready(f(x, weight)) for x in xs]
    wrong = []

    def run(i):
        for _ in range(30):
            got = jax.block_until_ready(f(xs[i], weight))
            same = jax.tree.map(lambda a, b: bool((a == b).all()), got, wanted[i])
            if not all(jax.tree.leaves(same)):
                wrong.append(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- errors


@pytest.mark.parametrize(
    ("index", "change", "error", "message"),
    [
        (0, lambda x: x[:, 1:], ValueError, r"x: got shape \(6, 6\), wanted \(..., 7\) to match weight"),
        (0, lambda x: x.astype(jnp.bfloat16), TypeError, "x: got dtype bfloat16, wanted float32 or float64"),
        (0, lambda x: x.astype(jnp.float16), TypeError, "x: got dtype float16, wanted float32 or float64"),
        (0, lambda x: x.astype(int), TypeError, "x: got dtype int64, wanted float32 or float64"),
        (0, lambda x: x > 0, TypeError, "x: got dtype bool, wanted float32 or float64"),
        (0, lambda x: x + 1j, TypeError, "x: got dtype complex128, wanted float32 or float64"),
        (0, lambda x: x.astype(jnp.float32), TypeError, "weight: got dtype float64, wanted float32"),
        (0, lambda x: [[1.0] * 7], TypeError, r"x: got list, wanted a jax.Array: try jnp.asarray\(...\)"),
        (0, lambda x: None, TypeError, "x: got NoneType, wanted a jax.Array"),
        (0, lambda x: np.ones((6, 7), object), TypeError, "x: got dtype object, wanted float32 or float64"),
        (0, lambda x: np.ma.ones((6, 7)), TypeError, "x: got MaskedArray, wanted a jax.Array"),
        (
            1,
            lambda w: np.ones((5, 3, 7), ">f8"),
            TypeError,
            "weight: got dtype >f8, wanted float32 or float64",
        ),
        (1, lambda w: w[:, :0], ValueError, "pieces: got 0, wanted 1 to 256"),
        (1, lambda w: w[:, 0], ValueError, r"weight: got shape \(5, 7\), wanted \(out_features, pieces, in"),
        (2, lambda b: b.T, ValueError, r"bias: got shape \(3, 5\), wanted \(5, 3\)"),
        (2, lambda b: "bias", TypeError, "bias: got str, wanted a jax.Array"),
    ],
)
def test_bad_operand_is_named_before_anything_runs(few, index, change, error, message):
    operands = list(few)
    operands[index] = change(operands[index])
    with pytest.raises(error, match=f"^{message}"):
        fj.linear_maxout(*operands)
    with pytest.raises(error, match=f"^{message}"):  # traced, where `operands` are constants
        jax.jit(lambda: fj.linear_maxout(*operands))()


def test_bad_operand_is_named_while_a_function_is_traced(few):
    x, weight, bias = few
    with pytest.raises(ValueError, match=r"^x: got shape \(6, 5\), wanted \(..., 7\) to match weight"):
        jax.jit(lambda *args: fj.linear_maxout(fj.linear_maxout(*args), *args[1:]))(x, weight, bias)
    with pytest.raises(TypeError, match=r"^bias: got dtype float32, wanted float64"):
        jax.eval_shape(fj.linear_maxout, x, weight, bias.astype(jnp.float32))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z: fj.maxout(z, 2), ValueError, "axis: got 2, wanted -2 to 1"),
        (lambda z: fj.maxout(z.astype(int)), TypeError, "z: got dtype int64"),
        (lambda z: fj.maxout(z, return_argmax=1), TypeError, "return_argmax: got 1"),
        (lambda z: fj.linear_maxout(z, z[None], precision="low"), ValueError, "precision: got 'low'"),
        (lambda z: fj.relu(z.astype(jnp.bfloat16)), TypeError, "z: got dtype bfloat16"),
        (lambda z: fj.activation(z, "reluu"), ValueError, "activation: got 'reluu'.*try 'relu'"),
        (lambda z: fj.activation(z, CUSTOM), TypeError, "activation: got <custom activation twice>"),
        (lambda z: fj.activation(z, "relu", alpha=1.0), TypeError, "alpha: relu takes no parameter"),
        (lambda z: fj.elu(z, jnp.nan), ValueError, "alpha: got nan, wanted a finite number"),
        (lambda z: fj.prelu(z, None), TypeError, "slope: got None, wanted a jax.Array"),
        (lambda z: fj.prelu(z, jnp.ones(2)), ValueError, r"slope: got shape \(2,\), wanted"),
        (lambda z: fj.prelu(z, jnp.ones(3, jnp.float32)), TypeError, "slope: got dtype float32"),
        (lambda z: fj.gelu(z, "erf"), ValueError, "approximate: got 'erf'"),
        (lambda z: fj.linear_activation(z, z, None, "prelu"), TypeError, "slope: got None"),
    ],
)
def test_bad_argument_is_named(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call(jnp.ones((4, 3)))


def test_traced_keyword_is_refused():
    with pytest.raises(TypeError, match=r"^alpha: got .*wanted a number"):
        jax.jit(lambda z, alpha: fj.elu(z, alpha))(jnp.ones(3), 0.5)


@pytest.mark.parametrize(
    ("f", "name"),
    [(lambda z: fj.linear_maxout(z, jnp.ones((2, 2, 3))), "x"), (fj.maxout, "z"), (fj.relu, "z")],
    ids=["linear_maxout", "maxout", "relu"],
)
def test_array_on_a_gpu_is_refused_when_lowered(f, name):
    with pytest.raises(TypeError, match=f"^{name}: got an array on cuda, wanted one on the CPU: try"):
        jax.jit(f).trace(jnp.ones((4, 3))).lower(lowering_platforms=("cuda",))


def test_second_and_forward_mode_derivatives_are_errors(few):
    x, weight, bias = few

    def gradient(weight):
        return jax.grad(lambda weight: (fj.linear_maxout(x, weight, bias) ** 2).sum())(weight).sum()

    with pytest.raises(ValueError, match="cannot be differentiated"):
        jax.grad(gradient)(weight)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda w: fj.linear_maxout(x, w, bias), (weight,), (weight,))


def test_float64_array_of_numpy_becomes_float32_without_x64(rng):
    x, weight, bias, _ = maxout_inputs(rng, Shape(4, 3, 2, 2), np.float64)
    with jax.enable_x64(False):
        y = fj.linear_maxout(x, weight, bias)
    assert y.dtype == np.float32


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("jax", "fastact.jax needs JAX: pip install 'fastact[jax]'"),
        ("fastact._native", "fastact.jax needs the C backend: fastact._native"),
    ],
)
def test_import_without_a_requirement_says_what_is_missing(module, message):
    code = f"import sys; sys.modules[{module!r}] = None; import fastact.jax"
    done = run_python(code)
    assert done.returncode == 1
    assert f"ImportError: {message}" in done.stderr


# ---- the handlers, called with what the functions never give them


def call_handler(name, results, *operands, **attributes):
    wanted = [jax.ShapeDtypeStruct(*result) for result in results]
    return jax.block_until_ready(jax.ffi.ffi_call(f"fastact_{name}", wanted)(*operands, **attributes))


X, W, B = np.ones((4, 3), np.float32), np.ones((5, 2, 3), np.float32), np.ones((5, 2), np.float32)
Y, A = ((4, 5), np.float32), ((4, 5), np.uint8)
PLAIN = {"precision": np.int64(0), "threads": np.int64(0)}
GRAD_Y, ARGMAX = np.ones((4, 5), np.float32), np.zeros((4, 5), np.uint8)
ACT = {"activation": np.int64(1), "parameter": np.float64(0), "threads": np.int64(0)}


def test_handler_takes_what_the_functions_give_it():
    y, argmax = call_handler("linear_maxout", [Y, A], X, W, B, **PLAIN)
    assert_same([y, argmax], ops.linear_maxout(X, W, B))


@pytest.mark.parametrize(
    ("name", "results", "operands", "attributes"),
    [
        ("linear_maxout", [Y], [X], PLAIN),
        ("linear_maxout", [Y, A, A], [X, W, B], PLAIN),
        ("linear_maxout", [Y], [X[0], W, B], PLAIN),
        ("linear_maxout", [Y], [X[:, :2], W, B], PLAIN),
        ("linear_maxout", [Y], [X, W[:, 0], B], PLAIN),
        ("linear_maxout", [Y], [X, W, B.T], PLAIN),
        ("linear_maxout", [Y], [X, W, B.astype(np.float64)], PLAIN),
        ("linear_maxout", [Y], [X.astype(np.int32), W, B], PLAIN),
        ("linear_maxout", [((4, 6), np.float32)], [X, W, B], PLAIN),
        ("linear_maxout", [Y, ((4, 5), np.int32)], [X, W, B], PLAIN),
        ("linear_maxout", [Y], [X, W[:, :0], B[:, :0]], PLAIN),
        ("linear_maxout", [Y], [X, W, B], {"threads": np.int64(0)}),
        ("linear_maxout", [Y], [X, W, B], PLAIN | {"threads": np.int32(3)}),
        ("linear_maxout", [Y], [X, W, B], PLAIN | {"threads": "two"}),
        ("linear_maxout", [((2, 4, 5), np.float32)], [X[None], W[None], B[None].repeat(3, 0)], PLAIN),
        ("linear_maxout_backward", [(X.shape, np.float32)], [GRAD_Y, X, W, ARGMAX], PLAIN),
        (
            "linear_maxout_backward",
            [(W.shape, np.float32)],
            [GRAD_Y, X, W, ARGMAX],
            PLAIN | {"needs": np.int64(1)},
        ),
        (
            "linear_maxout_backward",
            [(X.shape, np.float32)],
            [GRAD_Y, X, W, ARGMAX],
            PLAIN | {"needs": np.int64(3)},
        ),
        ("maxout", [((4, 5), np.float32)], [np.ones((4, 257, 5), np.float32)], {"threads": np.int64(0)}),
        (
            "maxout_backward",
            [((4, 300, 5), np.float32)],
            [GRAD_Y, ARGMAX],
            {"pieces": np.int64(300), "threads": np.int64(0)},
        ),
        ("activation", [(X.shape, np.float32)], [X], ACT | {"activation": np.int64(99)}),
        ("activation", [(X.shape, np.float32)], [X], ACT | {"activation": np.int64(-1)}),
        ("activation", [(X.shape, np.float32)], [X], ACT | {"activation": np.int64(3)}),
        (
            "activation",
            [(X.shape, np.float32)],
            [X, np.ones(2, np.float32)],
            ACT | {"activation": np.int64(3)},
        ),
        (
            "activation_backward",
            [(X.shape, np.float32), ((3,), np.float32)],
            [X, X],
            ACT,
        ),
        ("linear_activation", [Y], [X, W[:, 0]], ACT),
        (
            "linear_activation_backward",
            [((3,), np.float32)],
            [GRAD_Y, X, W[:, 0], GRAD_Y],
            ACT | {"needs": np.int64(8), "precision": np.int64(0)},
        ),
    ],
)
def test_handler_refuses_other_operands_and_attributes(name, results, operands, attributes):
    with pytest.raises(jax.errors.JaxRuntimeError, match="not what the handler takes"):
        call_handler(name, results, *operands, **attributes)


def test_handler_refuses_an_argmax_out_of_range():
    keywords = PLAIN | {"needs": np.int64(1)}
    with pytest.raises(jax.errors.JaxRuntimeError, match="argmax is not below pieces"):
        call_handler("linear_maxout_backward", [(X.shape, np.float32)], GRAD_Y, X, W, ARGMAX + 2, **keywords)
