"""Optimisers: against their formulas written plainly in float64, and to the bit when resumed."""

from __future__ import annotations

import copy
import functools
import math
import pickle
import sys

import numpy as np
import pytest
from support.layouts import misaligned
from support.variants import in_force, needs_c

import fastact as fa
from fastact import backends
from fastact.backends import numpy as reference
from fastact.backends.interface import Update
from fastact.checks import shown


def parameters(rng, dtype=np.float64):
    """A weight that decays and a bias that does not, with gradients; the weight spans many kernel calls."""
    pair = [
        fa.Parameter(rng.standard_normal((2, 65539)).astype(dtype), "weight"),
        fa.Parameter(rng.standard_normal(5).astype(dtype), "bias", decay=False),
    ]
    for parameter in pair:
        parameter.grad = np.empty_like(parameter.data)
    return pair


def new_gradients(pair, rng):
    for parameter in pair:
        parameter.grad[...] = rng.standard_normal(parameter.grad.shape)


def sgd(data, grads, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
    """torch.optim.SGD's documentation, line by line (dampening 0)."""
    buffer = None
    for grad in grads:
        g = grad + weight_decay * data
        if momentum:
            buffer = g if buffer is None else momentum * buffer + g
            g = g + momentum * buffer if nesterov else buffer
        data = data - lr * g
    return data


def adam(data, grads, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, decoupled=False):
    """torch.optim.Adam's documentation, line by line; AdamW's if decoupled."""
    m = v = 0.0
    for t, grad in enumerate(grads, start=1):
        if decoupled:
            data = data - lr * weight_decay * data
        g = grad if decoupled else grad + weight_decay * data
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        data = data - lr * m_hat / (np.sqrt(v_hat) + eps)
    return data


adamw = functools.partial(adam, decoupled=True)


@pytest.mark.parametrize(
    ("make", "formula", "keywords"),
    [
        (fa.SGD, sgd, {"lr": 0.1}),
        (fa.SGD, sgd, {"lr": 0.1, "weight_decay": 0.01}),
        (fa.SGD, sgd, {"lr": 0.1, "momentum": 0.9}),
        (fa.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
        (fa.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (fa.Adam, adam, {}),
        (fa.Adam, adam, {"lr": 0.01, "beta1": 0.8, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.01}),
        (fa.AdamW, adamw, {"weight_decay": 0.0}),
        (fa.AdamW, adamw, {"lr": 0.01, "beta1": 0.8, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.5}),
    ],
)
def test_updates_follow_the_formula(rng, make, formula, keywords):
    pair = parameters(rng)
    start = [parameter.data.copy() for parameter in pair]
    arrays = [parameter.data for parameter in pair]
    optimizer = make(pair, **keywords)
    grads = []
    for _ in range(4):
        new_gradients(pair, rng)
        grads.append([parameter.grad.copy() for parameter in pair])
        optimizer.step()
        for parameter, grad in zip(pair, grads[-1], strict=True):
            np.testing.assert_array_equal(parameter.grad, grad)  # gradients are only read
    for i, parameter in enumerate(pair):
        assert parameter.data is arrays[i]
        decay = keywords.get("weight_decay", 0.0) if parameter.decay else 0.0
        expected = formula(start[i], [step[i] for step in grads], **{**keywords, "weight_decay": decay})
        # four steps of a dozen float64 operations each on numbers below about 5
        np.testing.assert_allclose(parameter.data, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("make", [lambda p: fa.SGD(p, 0.1, 0.9, weight_decay=0.1), lambda p: fa.Adam(p)])
def test_step_keeps_float32(rng, make):
    pair = parameters(rng, np.float32)
    optimizer = make(pair)
    optimizer.lr = np.float64(0.1)  # as a schedule in NumPy makes it
    new_gradients(pair, rng)
    optimizer.step()
    states = optimizer.state_dict().items()
    assert {array.dtype for name, array in states if "." in name} == {np.dtype(np.float32)}
    assert all(parameter.data.dtype == np.float32 for parameter in pair)


def test_step_uses_the_lr_and_momentum_in_force(rng):
    pair = parameters(rng)
    start = pair[0].data.copy()
    optimizer = fa.SGD(pair, lr=0.1)
    velocity = 0.0
    expected = start
    for lr, momentum in ((0.1, 0.0), (0.05, 0.5), (0.01, 0.7)):
        optimizer.lr, optimizer.momentum = lr, momentum
        new_gradients(pair, rng)
        optimizer.step()
        velocity = momentum * velocity + pair[0].grad if momentum else velocity
        expected = expected - lr * (velocity if momentum else pair[0].grad)
    np.testing.assert_allclose(pair[0].data, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("make", [lambda p: fa.SGD(p, 0.1, 0.9), lambda p: fa.Adam(p)])
def test_step_rejects_non_array_gradient(each_backend, make):
    parameter = fa.Parameter(np.array(1.0, np.float32), "scale")
    optimizer = make([parameter])
    parameter.grad = np.ones(3, np.float32).sum()  # a NumPy number
    with pytest.raises(
        TypeError, match=r"parameters\[0\] \(scale\).grad: got float32, wanted a numpy.ndarray"
    ):
        optimizer.step()
    assert parameter.data == 1
    parameter.grad, parameter.data = np.array(1.0, np.float32), np.float32(1)
    with pytest.raises(TypeError, match=r"parameters\[0\] \(scale\): got float32, wanted a numpy.ndarray"):
        optimizer.step()


def test_rejected_step_leaves_adam_unchanged(rng):
    pair = parameters(rng)
    optimizer = fa.Adam(pair)
    new_gradients(pair, rng)
    optimizer.lr = "0.1 or so"
    with pytest.raises(TypeError, match=r"lr: got '0\.1 or so', wanted a number"):
        optimizer.step()
    assert optimizer.steps == 0


def test_adam_with_a_constant_gradient_moves_by_lr():
    # algorithm 1 of the paper: with a constant gradient both averages are exact at every step
    parameter = fa.Parameter(np.zeros(3), "weight")
    parameter.grad = np.array([1e-3, 1.0, -1e3])
    optimizer = fa.Adam([parameter], lr=0.1, eps=0.0)
    for steps in range(1, 6):
        optimizer.step()
        np.testing.assert_allclose(parameter.data, [-0.1 * steps, -0.1 * steps, 0.1 * steps], rtol=1e-12)


MAKERS = [
    lambda p: fa.SGD(p, 0.05),
    lambda p: fa.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    lambda p: fa.Adam(p, 0.01, weight_decay=1e-3),
    lambda p: fa.AdamW(p, 0.01),
]


def network(seed):
    rng = np.random.default_rng(seed)
    return rng, fa.Sequential(
        fa.Maxout(6, 8, 3, rng=rng), fa.Dropout(0.3, rng=rng), fa.Linear(8, 4, activation="prelu", rng=rng)
    )


def train(model, optimizer, rng, steps):
    losses = []
    for _ in range(steps):
        x = rng.standard_normal((16, 6)).astype(np.float32)
        loss, grad = fa.softmax_cross_entropy(model(x, training=True), rng.integers(0, 4, 16))
        model.backward(grad)
        optimizer.step()
        optimizer.lr *= 0.99
        losses.append(loss)
    return losses


@pytest.mark.parametrize("make", MAKERS)
def test_resumed_run_has_the_same_bits(each_backend, tmp_path, make):
    path = tmp_path / "run.npz"
    rng, model = network(1)
    optimizer = make(model.parameters())
    train(model, optimizer, rng, 5)
    fa.save(path, model=model, optimizer=optimizer, rng=rng)
    losses = train(model, optimizer, rng, 5)

    other_rng, other = network(2)
    other_optimizer = make(other.parameters())
    other_optimizer.lr = 1.0
    train(other, other_optimizer, other_rng, 1)
    fa.load(path, model=other, optimizer=other_optimizer, rng=other_rng)
    assert train(other, other_optimizer, other_rng, 5) == losses
    for name, array in model.state_dict().items():
        assert array.tobytes() == other.state_dict()[name].tobytes()
    assert repr(other_optimizer) == repr(optimizer)


def test_training_reaches_high_accuracy(backend):
    rng, model = network(0)
    optimizer = fa.Adam(model.parameters(), lr=0.02)
    x = rng.standard_normal((64, 6)).astype(np.float32)
    labels = np.argmax(x[:, :4], axis=1)
    for _ in range(150):
        loss, grad = fa.softmax_cross_entropy(model(x, training=True), labels)
        model.backward(grad, needs_input_grad=False)
        optimizer.step()
    assert np.mean(model(x).argmax(axis=1) == labels) > 0.95
    assert loss < math.log(4)


def test_load_state_dict_of_a_wrong_state_raises_and_changes_nothing(rng):
    pair = parameters(rng)
    new_gradients(pair, rng)
    optimizer = fa.SGD(pair, 0.1, momentum=0.9)
    optimizer.step()
    before = optimizer.state_dict()
    wrong = optimizer.state_dict()
    wrong["lr"] = np.array(0.5)
    wrong["velocity.1"] = np.zeros(4)
    wrong["mean.0"] = wrong.pop("velocity.0")
    with pytest.raises(ValueError, match=r"velocity\.0: missing") as error:
        optimizer.load_state_dict(wrong)
    assert "velocity.1: got shape (4,), wanted (5,)" in str(error.value)
    assert "mean.0: unexpected" in str(error.value)
    for name, array in optimizer.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_step_without_a_gradient_raises_and_changes_nothing(rng):
    for make in MAKERS:
        pair = parameters(rng)
        new_gradients(pair, rng)
        pair[1].grad = None
        before = pair[0].data.copy()
        optimizer = make(pair)
        state = optimizer.state_dict()
        with pytest.raises(RuntimeError, match=r"parameters\[1\] \(bias\) has no gradient"):
            optimizer.step()
        np.testing.assert_array_equal(pair[0].data, before)
        for name, array in optimizer.state_dict().items():
            np.testing.assert_array_equal(array, state[name])


def test_step_rejects_gradient_or_data_that_does_not_fit(rng):
    pair = parameters(rng)
    new_gradients(pair, rng)
    optimizer = fa.SGD(pair, 0.1)
    pair[1].grad = np.zeros(5, np.float32)
    with pytest.raises(ValueError, match=r"parameters\[1\] \(bias\): got a gradient of float32 \(5,\)"):
        optimizer.step()
    pair[1].grad = np.zeros(5)
    pair[1].data = np.zeros(10)[::2]
    with pytest.raises(ValueError, match=r"parameters\[1\] \(bias\): data is not C-contiguous"):
        optimizer.step()


ONE = fa.Parameter(np.zeros(3), "weight")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fa.SGD([], 0.1), ValueError, "parameters: got an empty list"),
        (lambda: fa.SGD([ONE.data], 0.1), TypeError, r"parameters\[0\]: got ndarray, wanted a Parameter"),
        (lambda: fa.SGD(fa.Linear(2, 2), 0.1), TypeError, r"parameters: got Linear, wanted .*parameters\(\)"),
        (lambda: fa.SGD([ONE, ONE], 0.1), ValueError, "parameters: got one of them twice"),
        (lambda: fa.SGD([ONE], -0.1), ValueError, "lr: got -0.1"),
        (lambda: fa.SGD([ONE], math.nan), ValueError, "lr: got nan"),
        (lambda: fa.SGD([ONE], "0.1"), TypeError, "lr: got '0.1', wanted a number"),
        (lambda: fa.Adam([ONE], beta1=None), TypeError, "beta1: got None, wanted a number"),
        (lambda: fa.max_norm_(ONE, "1"), TypeError, "max_norm: got '1', wanted a number"),
        (lambda: fa.SGD([ONE], 0.1, momentum=-1), ValueError, "momentum: got -1"),
        (lambda: fa.SGD([ONE], 0.1, weight_decay=math.inf), ValueError, "weight_decay: got inf"),
        (lambda: fa.Adam([ONE], beta1=1.0), ValueError, "beta1: got 1.0, wanted 0 <= beta1 < 1"),
        (lambda: fa.Adam([ONE], beta2=-0.1), ValueError, "beta2: got -0.1"),
        (lambda: fa.Adam([ONE], eps=-1), ValueError, "eps: got -1"),
        (lambda: fa.max_norm_(ONE, 0.0), ValueError, "max_norm: got 0.0"),
        (lambda: fa.max_norm_([[1.0]], 1.0), TypeError, "weight: got list"),
        (lambda: fa.max_norm_(np.array(1.0), 1.0), ValueError, r"weight: got shape \(\), wanted"),
        (lambda: fa.max_norm_(np.broadcast_to(1.0, 3), 1.0), ValueError, "weight: got a read-only array"),
        (lambda: fa.SGD([ONE], 0.1, nesterov=True), ValueError, "nesterov: got True without momentum"),
        (lambda: fa.SGD(ONE, 0.1), TypeError, "parameters: got Parameter, wanted Parameters"),
    ],
)
def test_optimizer_rejects_invalid_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


# Values that a hyperparameter rejects: in the constructor, from a checkpoint and at a step.
NO_NUMBERS = ["0.1", None, 1j, True, np.True_, [0.1], np.array(0.1), np.ma.masked_array(0.1), {}]
NEGATIVE = [math.nan, math.inf, -math.inf, -1e-9, 10**400, -(10**400), 10**5000, np.float64("nan"), 1e39]
NO_BETAS = [math.nan, math.inf, -0.1, 1.0, 1.5, 2, 10**400]
REFUSED = {
    **{("SGD", name): NO_NUMBERS + NEGATIVE for name in ("lr", "momentum", "weight_decay")},
    ("SGD", "nesterov"): [1, 0, None, "yes", 1j, math.nan, np.ones(2), []],
}
for kind in ("Adam", "AdamW"):
    REFUSED |= {(kind, name): NO_NUMBERS + NEGATIVE for name in ("lr", "eps", "weight_decay")}
    REFUSED |= {(kind, name): NO_NUMBERS + NO_BETAS for name in ("beta1", "beta2")}
    REFUSED[kind, "steps"] = [-3, -1, 2**63, 10**400, 1.0, math.nan, "1", None, True, 1j]
REFUSED["SGD", "momentum"] = [*REFUSED["SGD", "momentum"], 0.0]  # with nesterov, which is on
REFUSED["Adam", "lr"] = [*REFUSED["Adam", "lr"], 3e38]  # 3e38 / (1 - beta1) is not a float32
GOOD = {
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "Adam": {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1},
    "AdamW": {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1},
}


def trained_once(kind, rng, dtype=np.float32):
    pair = parameters(rng, dtype)
    new_gradients(pair, rng)
    optimizer = getattr(fa, kind)(pair, **GOOD[kind])
    optimizer.step()
    return pair, optimizer


def everything(pair, optimizer):
    """A copy of each array and each hyperparameter, whatever it is."""
    arrays = [parameter.data for parameter in pair] + list(optimizer._buffers().values())
    values = [getattr(optimizer, name) for name in optimizer.hyperparameters]
    return [array.tobytes() for array in arrays], values


def error_of(value, kind):
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (
        ValueError
        if number and (kind is not int or isinstance(value, int)) and kind is not bool
        else TypeError
    )


@pytest.mark.parametrize(("kind", "name"), REFUSED)
def test_constructor_and_step_reject_invalid_hyperparameter(rng, kind, name):
    message = rf"(?s)\A({name}|nesterov): got .*, wanted"
    for value in REFUSED[kind, name]:
        print(shown(value))  # for the report of a failure
        pair, optimizer = trained_once(kind, rng)
        error = error_of(value, optimizer.hyperparameters[name])
        if name in GOOD[kind]:
            with pytest.raises(error, match=message):
                getattr(fa, kind)(pair, **GOOD[kind] | {name: value})
        setattr(optimizer, name, value)
        arrays, values = everything(pair, optimizer)
        with np.errstate(all="raise"), pytest.raises(error, match=message):
            optimizer.step()
        after = everything(pair, optimizer)
        assert after[0] == arrays
        assert all(a is b for a, b in zip(after[1], values, strict=True))


@pytest.mark.parametrize(("kind", "name"), REFUSED)
def test_load_state_dict_rejects_invalid_hyperparameter(rng, kind, name):
    for value in REFUSED[kind, name]:
        if isinstance(value, np.ndarray) and value.ndim == 0:
            continue  # what a state holds
        print(shown(value))  # for the report of a failure
        pair, optimizer = trained_once(kind, rng)
        state = optimizer.state_dict()
        state[name] = np.array(value)
        for key in state.keys() - optimizer.hyperparameters.keys():
            state[key] += 1
        before = everything(pair, optimizer)
        with pytest.raises(ValueError, match=rf"\A({name}|nesterov): got .*, wanted"):
            optimizer.load_state_dict(state)
        assert everything(pair, optimizer) == before


def test_load_state_dict_replaces_invalid_hyperparameters(rng):
    for kind in GOOD:
        _, optimizer = trained_once(kind, rng)
        state = optimizer.state_dict()
        optimizer.lr, optimizer.weight_decay = "x", math.nan
        optimizer.load_state_dict(state)
        assert (optimizer.lr, optimizer.weight_decay) == (0.1, 0.1)


def test_optimizer_takes_numpy_numbers_and_ints(rng):
    pair, optimizer = trained_once("Adam", rng)
    optimizer.lr, optimizer.eps, optimizer.steps = np.float32(0.5), 1, np.int64(3)
    optimizer.beta1 = 0
    optimizer.step()
    assert optimizer.steps == 4
    state = optimizer.state_dict()
    assert [state[name].dtype for name in ("lr", "eps", "beta1", "steps")] == [float] * 3 + [np.int64]
    optimizer.load_state_dict(state)
    assert fa.SGD(pair, 0.1, 0.9, np.True_).nesterov is True


def test_hyperparameters_beyond_the_dtype_are_rejected(rng):
    wide = parameters(rng, np.float64)
    fa.SGD(wide, lr=1e300, momentum=1e300, weight_decay=1e300)
    mixed = [wide[0], parameters(rng, np.float32)[1]]
    with pytest.raises(ValueError, match=r"lr: got 1e\+300, wanted a number from 0 to 3\.4e\+38"):
        fa.SGD(mixed, lr=1e300)


def test_nesterov_assigned_without_momentum_is_rejected(rng):
    pair = parameters(rng)
    new_gradients(pair, rng)
    before = pair[0].data.copy()
    optimizer = fa.SGD(pair, 0.1)
    optimizer.nesterov = True
    for call in (optimizer.step, optimizer.state_dict):
        with pytest.raises(
            ValueError, match="nesterov: got True without momentum, wanted a momentum above 0"
        ):
            call()
    np.testing.assert_array_equal(pair[0].data, before)
    optimizer.momentum = 0.5
    optimizer.step()
    np.testing.assert_allclose(pair[0].data, before - 0.1 * 1.5 * pair[0].grad, rtol=1e-14, atol=1e-14)


def test_step_rejects_invalid_decay_and_max_norm_of_a_parameter(rng):
    for name, values in (("max_norm", [*NO_NUMBERS, *NEGATIVE, 0.0]), ("decay", [1, None, "no", math.nan])):
        for value in values:
            if name == "max_norm" and value is None:
                continue  # no bound
            pair, optimizer = trained_once("Adam", rng)
            before = everything(pair, optimizer)
            setattr(pair[1], name, value)
            for call in (optimizer.step, lambda pair=pair: fa.SGD(pair, 0.1)):
                with pytest.raises((TypeError, ValueError), match=rf"\] \(bias\): {name}: got .*, wanted"):
                    call()
            assert everything(pair, optimizer) == before


# ---- one call for all parameters


# Changes of a parameter that keep its values, to a form that a kernel may not take as it is.
UNUSUAL = {
    "strided gradient": lambda p: setattr(p, "grad", np.repeat(p.grad, 2, axis=-1)[..., ::2]),
    "misaligned gradient": lambda p: setattr(p, "grad", misaligned(p.grad)),
    "read-only gradient": lambda p: p.grad.setflags(write=False),
    "memory-mapped": lambda p: vars(p).update(data=p.data.view(np.memmap), grad=p.grad.view(np.memmap)),
    "NumPy's number": lambda p: setattr(p, "max_norm", np.float64(0.5)),
    "whole number": lambda p: setattr(p, "max_norm", 1),
    "NumPy's flag": lambda p: setattr(p, "decay", np.bool_(p.decay)),
}


def small_network(rng, dtype):
    """Parameters of several shapes, with gradients."""
    made = []
    for i, shape in enumerate([(8, 64), (64,), (0, 3), (3, 5, 17), (97,), (4, 33)]):
        parameter = fa.Parameter(rng.standard_normal(shape).astype(dtype), f"p{i}", decay=i % 2 == 0)
        parameter.grad = rng.standard_normal(shape).astype(dtype)
        parameter.max_norm = 1.0 if i in (0, 3) else None
        made.append(parameter)
    return made


def results(optimizer):
    arrays = [parameter.data for parameter in optimizer.parameters] + list(optimizer._buffers().values())
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("place", [0, 3, 5])
@pytest.mark.parametrize("form", UNUSUAL)
def test_step_of_a_parameter_in_an_unusual_form_has_the_same_bits(each_backend, dtype, form, place):
    for make in MAKERS:
        unusual, usual = (make(small_network(np.random.default_rng(1), dtype)) for _ in range(2))
        changed, kept = unusual.parameters[place], usual.parameters[place]
        UNUSUAL[form](changed)
        kept.max_norm = None if changed.max_norm is None else float(changed.max_norm)
        for _ in range(2):
            unusual.step()
            usual.step()
        assert results(unusual) == results(usual)


@pytest.mark.parametrize("make", MAKERS)
def test_step_of_several_parameters_is_a_step_of_each(backend, dtype, make):
    together = make(small_network(np.random.default_rng(2), dtype))
    apart = [make([parameter]) for parameter in small_network(np.random.default_rng(2), dtype)]
    for _ in range(3):
        for optimizer in (together, *apart):
            optimizer.step()
    for i, optimizer in enumerate(apart):
        np.testing.assert_array_equal(together.parameters[i].data, optimizer.parameters[0].data)


def test_step_of_parameters_of_both_dtypes_has_the_bits_of_each(each_backend):
    for make in MAKERS:
        networks = [small_network(np.random.default_rng(3), dtype) for dtype in (np.float32, np.float64)]
        again = [small_network(np.random.default_rng(3), dtype) for dtype in (np.float32, np.float64)]
        make(networks[0] + networks[1]).step()
        for network, other in zip(networks, again, strict=True):
            make(other).step()
            for a, b in zip(network, other, strict=True):
                np.testing.assert_array_equal(a.data, b.data)


def test_step_of_large_parameters_has_the_same_bits_for_any_number_of_threads(compiled, dtype):
    def trained(threads):
        rng = np.random.default_rng(4)
        parameters = [fa.Parameter(rng.standard_normal((300, 701)).astype(dtype), str(i)) for i in range(3)]
        parameters[1].max_norm = 1.0
        for parameter in parameters:
            parameter.grad = np.cos(parameter.data)
        optimizer = fa.AdamW(parameters)
        with fa.num_threads(threads):
            optimizer.step()
        return results(optimizer)

    expected = trained(1)
    for threads in (2, 3):
        assert trained(threads) == expected


@needs_c
def test_step_on_c_checks_usual_parameters_in_its_one_call(monkeypatch, dtype):
    for make in MAKERS:
        optimizer = make(small_network(np.random.default_rng(5), dtype))
        monkeypatch.setattr(optimizer, "_updates", None)  # not callable
        with in_force("c"):
            optimizer.step()


@needs_c
def test_step_on_c_keeps_no_reference():
    for make in MAKERS:
        optimizer = make(small_network(np.random.default_rng(5), np.float32))
        last = optimizer.parameters[-1]
        held = [last, last.data, last.grad, 0.25, *(array for array in optimizer._buffers().values())]
        for bound in (held[3], np.float64(2)):  # as the kernels take it, and not
            last.max_norm = bound
            before = [sys.getrefcount(value) for value in held]
            with in_force("c"):
                for _ in range(10):
                    optimizer.step()
            assert [sys.getrefcount(value) for value in held] == before


FAULTS = {
    "no gradient": (RuntimeError, "has no gradient", lambda p: setattr(p, "grad", None)),
    "no gradient at all": (AttributeError, "grad", lambda p: delattr(p, "grad")),
    "list": (TypeError, "got list", lambda p: setattr(p, "grad", p.grad.tolist())),
    "masked": (TypeError, "got MaskedArray", lambda p: setattr(p, "grad", np.ma.masked_array(p.grad))),
    "masked data": (TypeError, "got MaskedArray", lambda p: setattr(p, "data", np.ma.masked_array(p.data))),
    "dtype": (ValueError, "got a gradient of float16", lambda p: setattr(p, "grad", p.grad.astype("f2"))),
    "swapped": (ValueError, "got a gradient of >f4", lambda p: setattr(p, "grad", p.grad.astype(">f4"))),
    "shape": (ValueError, "got a gradient of", lambda p: setattr(p, "grad", p.grad[:-1])),
    "one more axis": (ValueError, "got a gradient of", lambda p: setattr(p, "grad", p.grad[None])),
    "both": (
        ValueError,
        "as when the optimiser was made",
        lambda p: vars(p).update(data=np.ones((7, 2), np.float32), grad=np.ones((7, 2), np.float32)),
    ),
    "strided": (
        ValueError,
        "data is not C-contiguous",
        lambda p: setattr(p, "data", np.repeat(p.data, 2, -1)[..., ::2]),
    ),
    "read-only": (
        ValueError,
        "data is not C-contiguous and writeable",
        lambda p: p.data.setflags(write=False),
    ),
    "misaligned": (
        ValueError,
        "data is not C-contiguous",
        lambda p: setattr(p, "data", misaligned(p.data)),
    ),
    "decay": (TypeError, "decay: got 1, wanted True or False", lambda p: setattr(p, "decay", 1)),
    "nan bound": (ValueError, "max_norm: got nan", lambda p: setattr(p, "max_norm", math.nan)),
    "infinite bound": (ValueError, "max_norm: got inf", lambda p: setattr(p, "max_norm", math.inf)),
    "negative bound": (ValueError, "max_norm: got -1.0", lambda p: setattr(p, "max_norm", -1.0)),
    "large bound": (ValueError, "max_norm: got 1e[+]39", lambda p: setattr(p, "max_norm", 1e39)),
    "bool bound": (TypeError, "max_norm: got True", lambda p: setattr(p, "max_norm", True)),
}


@pytest.mark.parametrize("place", [0, 3, 5])
@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_parameter_is_refused_before_anything_is_written(each_backend, fault, place):
    error, message, spoil = FAULTS[fault]
    for make in MAKERS:
        optimizer = make(small_network(np.random.default_rng(6), np.float32))
        optimizer.step()
        spoil(optimizer.parameters[place])
        before, values = results(optimizer), repr(optimizer)
        with pytest.raises(error, match=message) as caught:
            optimizer.step()
        assert fault == "no gradient at all" or f"parameters[{place}] (p{place})" in str(caught.value)
        assert (results(optimizer), repr(optimizer)) == (before, values)


def test_parameters_that_were_added_or_removed_after_the_optimizer_was_made(each_backend):
    for make in MAKERS:
        optimizer = make(small_network(np.random.default_rng(7), np.float32))
        before = results(optimizer)
        optimizer.parameters.append(small_network(np.random.default_rng(8), np.float32)[0])
        with pytest.raises(IndexError):
            optimizer.step()
        del optimizer.parameters[-1]
        assert results(optimizer) == before
        last = optimizer.parameters.pop()
        optimizer.parameters = tuple(optimizer.parameters)
        kept = last.data.copy()
        optimizer.step()
        np.testing.assert_array_equal(last.data, kept)
        assert results(optimizer)[0] != before[0]


@pytest.mark.filterwarnings("ignore:Setting the shape:DeprecationWarning")  # of NumPy 2.5
@needs_c
def test_step_on_c_of_a_parameter_whose_attributes_change_others_reads_what_is_there():
    class Sly(fa.Parameter):
        @property
        def max_norm(self):
            if self.name == "ready":
                optimizer.parameters.clear()
                first.data.shape = (6,)
                first.grad = None
            return None

        @max_norm.setter
        def max_norm(self, value):
            pass

    first, sly = fa.Parameter(np.ones((2, 3)), "first"), Sly(np.ones(3), "sly")
    first.grad, sly.grad = np.ones((2, 3)), np.ones(3)
    optimizer = fa.SGD([first, sly], 0.1)
    sly.name = "ready"
    with in_force("c"):
        optimizer.step()  # no parameter is left
    assert first.data.shape == (6,)
    assert (first.data == 1).all()


@pytest.mark.parametrize(
    ("kind", "name", "good", "bad"),
    [
        ("SGD", "momentum", 1.0, True),
        ("SGD", "lr", 0.0, False),
        ("SGD", "nesterov", True, 1),
        ("SGD", "weight_decay", 1.0, np.array([1.0])),
        ("Adam", "eps", 1.0, True),
        ("Adam", "beta1", 0.0, False),
        ("Adam", "steps", 1, True),
        ("Adam", "steps", 1, 1.0),
        ("AdamW", "weight_decay", 1.0, True),
    ],
)
def test_hyperparameter_that_only_equals_the_one_of_the_last_step_is_refused(rng, kind, name, good, bad):
    _, optimizer = trained_once(kind, rng)
    setattr(optimizer, name, good)
    optimizer.step()
    optimizer.steps = 1
    setattr(optimizer, name, bad)
    with pytest.raises(TypeError, match=rf"\A{name}: got "):
        optimizer.step()


def test_steps_beyond_an_int64_are_refused(rng):
    _, optimizer = trained_once("Adam", rng)
    optimizer.steps = 2**63 - 1
    optimizer.step()
    with pytest.raises(ValueError, match="steps: got"):
        optimizer.step()


def test_copied_and_pickled_optimizer_goes_on_to_the_same_bits(each_backend):
    for make in MAKERS:
        optimizer = make(small_network(np.random.default_rng(9), np.float32))
        optimizer.step()
        others = [copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
        for other in (optimizer, *others):
            other.step()
        assert results(others[0]) == results(others[1]) == results(optimizer)
        assert repr(others[0]) == repr(others[1]) == repr(optimizer)


# ---- AdamW


def test_adamw_is_an_adam_whose_decay_is_not_in_the_averages(each_backend, rng):
    pair = parameters(rng)
    new_gradients(pair, rng)
    before = [parameter.data.copy() for parameter in pair]
    optimizer = fa.AdamW(pair, lr=0.1, weight_decay=0.5)
    optimizer.step()
    other = [fa.Parameter(data, p.name) for data, p in zip(before, pair, strict=True)]
    for parameter, given in zip(other, pair, strict=True):
        parameter.grad = given.grad
    other[0].data *= 0.95  # the bias does not decay
    adam = fa.Adam(other, lr=0.1)
    adam.step()
    for a, b in zip(pair, other, strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-14, atol=1e-15)
    assert optimizer.state_dict().keys() == adam.state_dict().keys()
    for name in ("mean.0", "square.0"):
        np.testing.assert_array_equal(optimizer.state_dict()[name], adam.state_dict()[name])


def test_adamw_shows_its_name_and_its_decay(rng):
    optimizer = fa.AdamW(parameters(rng))
    assert repr(optimizer) == (
        "AdamW(2 parameters, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08, weight_decay=0.01, steps=0)"
    )


def test_adamw_without_decay_has_the_bits_of_adam(backend, dtype):
    networks = [small_network(np.random.default_rng(10), dtype) for _ in range(2)]
    optimizers = [fa.AdamW(networks[0], weight_decay=0.0), fa.Adam(networks[1])]
    for _ in range(3):
        for optimizer in optimizers:
            optimizer.step()
    assert results(optimizers[0]) == results(optimizers[1])


def test_adamw_refuses_a_decay_whose_product_with_lr_is_beyond_the_dtype(rng):
    pair = parameters(rng, np.float32)
    with pytest.raises(ValueError, match=r"weight_decay: got 1e\+38, wanted a number from 0 to 3\.4e\+37"):
        fa.AdamW(pair, lr=10.0, weight_decay=1e38)
    fa.AdamW(pair, lr=0.1, weight_decay=3e38)


# ---- the averages of Adam


def moment(beta, old, new):
    return beta * np.longdouble(old) + (1 - np.longdouble(beta)) * np.longdouble(new)


def adam_moments(dtype, beta1, beta2, mean, square, grad):
    """The averages after one step of the backend in force, from those given."""
    arrays = [np.array([value] * 37, dtype) for value in (0.0, grad, mean, square)]  # lanes and a tail
    updates, state = [Update(*arrays[:2], True, None)], ([array] for array in arrays[2:])
    backends.active().adam(updates, lambda: updates, *state, 0.0, beta1, beta2, 1.0, 1e-8, 0.0, 1.0)
    for array in arrays[2:]:
        np.testing.assert_array_equal(array, array[0])
    return float(arrays[2][0]), float(arrays[3][0])


def test_adam_without_beta1_keeps_the_last_gradient(backend, dtype):
    parameter = fa.Parameter(np.zeros(37, dtype), "weight")
    optimizer = fa.Adam([parameter], beta1=0.0)
    for value in (100.0, 1e-6):
        parameter.grad = np.full(37, value, dtype)
        optimizer.step()
    np.testing.assert_array_equal(optimizer.state_dict()["mean.0"], parameter.grad)


@pytest.mark.parametrize("beta1", [0.0, 1e-12, 1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999, 1 - 1e-7])
def test_adam_averages_are_within_their_error_bound(backend, dtype, beta1):
    # Each term has a rounded coefficient and product, and then their sum is rounded: u = eps / 2 each.
    eps, tiny = float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
    for beta2 in (0.0, 1e-6, 0.999):
        for mean in (0.0, 1.0, -1e15, 1e18, -1e-30):
            for square in (0.0, 1e-12, 1e30):
                for grad in (1e-6, -1.0, 1e12, 1e-18):
                    mean, square, grad = (float(dtype.type(value)) for value in (mean, square, grad))
                    got = adam_moments(dtype, beta1, beta2, mean, square, grad)
                    bound = 3.01 * eps / 2 * (beta1 * abs(mean) + (1 - beta1) * abs(grad)) + 2 * tiny
                    assert abs(got[0] - moment(beta1, mean, grad)) <= bound
                    bound = 4.01 * eps / 2 * (beta2 * square + (1 - beta2) * grad * grad) + 2 * tiny
                    assert abs(got[1] - moment(beta2, square, grad * grad)) <= bound


def test_adam_averages_of_opposite_limits_do_not_overflow(backend, dtype):
    largest = float(np.finfo(dtype).max)
    mean, _ = adam_moments(dtype, 0.5, 0.5, largest, 0.0, -largest)
    assert mean == 0
    mean, _ = adam_moments(dtype, 0.75, 0.5, -largest, 0.0, largest)
    assert math.isclose(mean, -largest / 2, rel_tol=1e-6)


def test_adam_with_betas_of_0_forgets_infinite_averages(backend, dtype):
    parameter = fa.Parameter(np.zeros(37, dtype), "weight")
    optimizer = fa.Adam([parameter], lr=0.1, beta1=0.0, beta2=0.0)
    for value in (float(np.finfo(dtype).max), 2.0):  # the first one's square is infinite
        parameter.grad = np.full(37, value, dtype)
        with np.errstate(all="raise"):
            optimizer.step()
    state = optimizer.state_dict()
    assert (state["mean.0"] == 2).all()
    assert (state["square.0"] == 4).all()
    np.testing.assert_allclose(parameter.data, -0.1, rtol=1e-6)


SHAPES = [(5, 3, 40), (7, 131), (70000,), (3, 30001), (0, 3), (3, 0), ()]


def steps(run, step, arrays, hyperparameters, max_norm, threads):
    """Three steps with other gradients each: what becomes of copies of `arrays`."""
    arrays = [array.copy() for array in arrays]
    data, *state = arrays
    for i in range(3):
        grad = np.cos(np.arange(data.size) + i).reshape(data.shape).astype(data.dtype)
        updates = [Update(data, grad, True, max_norm)]
        lists = ([array] for array in state)
        getattr(run, step)(updates, lambda updates=updates: updates, *lists, *hyperparameters, threads)
    return arrays


@pytest.mark.parametrize("max_norm", [None, 2.0])
@pytest.mark.parametrize(
    ("step", "state", "hyperparameters"),
    [
        ("sgd", 1, (0.1, 0.0, False, 0.0)),
        ("sgd", 1, (0.1, 0.0, False, 0.01)),
        ("sgd", 1, (0.1, 0.9, False, 0.01)),
        ("sgd", 1, (0.1, 0.9, True, 0.0)),
        ("adam", 2, (0.01, 0.9, 0.999, 1.5, 1e-8, 0.0, 1.0)),
        ("adam", 2, (0.01, 0.9, 0.999, 1.5, 1e-8, 0.01, 1.0)),
        ("adam", 2, (0.01, 0.9, 0.999, 1.5, 1e-8, 0.0, 0.9)),
    ],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_steps_equal_the_reference(rng, compiled, dtype, shape, step, state, hyperparameters, max_norm):
    if max_norm is not None and shape == ():
        return  # no axis
    arrays = [rng.standard_normal(shape).astype(dtype)]
    arrays += [np.zeros(shape, dtype) for _ in range(state)]
    run = backends.get(compiled)
    got = steps(run, step, arrays, hyperparameters, max_norm, 1)
    wanted = steps(reference, step, arrays, hyperparameters, max_norm, 1)
    # Each of three steps rounds every term some ten times; a sum of n squares that is cut in 16 parts or more
    # rounds each part n / 16 times, which its root halves.
    length = shape[-1] if shape and max_norm is not None else 0
    eps = np.finfo(dtype).eps * (30 + 3 * length / 32)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=eps, atol=eps)
    for threads in (2, 3):
        for a, b in zip(got, steps(run, step, arrays, hyperparameters, max_norm, threads), strict=True):
            np.testing.assert_array_equal(a, b)


def test_step_of_a_bounded_parameter_is_a_step_and_a_projection(rng, dtype, backend):
    for make in (fa.SGD, fa.Adam):
        bounded, free = (fa.Parameter(np.full((6, 2, 50), 0.5, dtype), "weight") for _ in range(2))
        bounded.grad = free.grad = rng.standard_normal(free.data.shape).astype(dtype)
        bounded.max_norm = 3.0
        make([bounded], lr=0.1).step()
        make([free], lr=0.1).step()
        assert (np.linalg.norm(free.data, axis=-1) > 3).any()
        fa.max_norm_(free, 3.0)
        np.testing.assert_array_equal(bounded.data, free.data)


def test_step_rejects_invalid_max_norm(rng):
    (weight, bias) = parameters(rng)
    weight.grad[...] = bias.grad[...] = 1
    before = weight.data.copy()
    for bound in (0.0, -1.0, math.inf, math.nan):
        bias.max_norm = bound
        with pytest.raises(ValueError, match=r"parameters\[1\] \(bias\): max_norm: got"):
            fa.SGD([weight, bias], lr=0.1).step()
        np.testing.assert_array_equal(weight.data, before)


def test_max_norm_of_strided_weights_has_the_same_values(rng, backend):
    weight = rng.standard_normal((10, 40)).astype(np.float32)[::2, ::-1]
    wanted = weight.copy()
    fa.max_norm_(wanted, 1.0)
    fa.max_norm_(weight, 1.0)
    np.testing.assert_array_equal(weight, wanted)


@pytest.mark.parametrize("shape", [(5, 3, 40), (5, 40), (40,), (0, 3), (3, 0)])
def test_max_norm_bounds_each_incoming_vector(rng, dtype, shape):
    weight = (rng.standard_normal(shape) * rng.uniform(0.1, 1, (*shape[:-1], 1))).astype(dtype)
    before = weight.copy()
    fa.max_norm_(weight, 3.0)
    norms = np.linalg.norm(before.astype(np.float64), axis=-1, keepdims=True)
    expected = before * np.minimum(1, 3.0 / np.maximum(norms, 1e-300))
    # the norm is a sum of up to 40 squares; its root, a quotient and a product follow
    np.testing.assert_allclose(weight, expected, rtol=44 * np.finfo(dtype).eps)
    short = norms[..., 0] < 3.0 - 1e-4
    np.testing.assert_array_equal(weight[short], before[short])  # not a bit of them changes
    assert weight.dtype == dtype


def test_max_norm_takes_a_parameter_and_keeps_zeros():
    layer = fa.Maxout(30, 4, pieces=3, rng=0)
    layer.weight.data *= 100
    fa.max_norm_(layer.weight, 1.9365)
    np.testing.assert_allclose(np.linalg.norm(layer.weight.data, axis=-1), 1.9365, rtol=1e-6)
    zeros = np.zeros((2, 3), np.float32)
    fa.max_norm_(zeros, 1.0)
    assert not zeros.any()


def test_step_rejects_max_norm_of_data_without_an_axis(each_backend):
    weight, scale = fa.Parameter(np.ones(3), "weight"), fa.Parameter(np.array(1.0), "scale", max_norm=1.0)
    weight.grad, scale.grad = np.ones(3), np.array(1.0)
    with pytest.raises(ValueError, match=r"parameters\[1\] \(scale\): got max_norm for data of shape \(\)"):
        fa.SGD([weight, scale], 0.1).step()
    assert (weight.data == 1).all()
