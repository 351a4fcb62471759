"""The names that fastact shows, written out so that a change is seen, and their signatures."""

from __future__ import annotations

import inspect
import pickle
from typing import get_args

import numpy as np
import pytest
from support.processes import output_of

import fastact as fa
from fastact import activations, backends, settings
from fastact.backends.interface import Backend

FUNCTIONS = """
    activation activation_backward layer_norm layer_norm_backward linear_activation linear_activation_backward
    linear_maxout linear_maxout_backward maxout maxout_backward
    elu gelu hardsigmoid hardswish hardtanh identity leaky_relu logsigmoid mish prelu relu relu6 selu sigmoid
    silu softplus softsign tanh
    elu_backward gelu_backward hardsigmoid_backward hardswish_backward hardtanh_backward identity_backward
    leaky_relu_backward logsigmoid_backward mish_backward prelu_backward relu_backward relu6_backward
    selu_backward sigmoid_backward silu_backward softplus_backward softsign_backward tanh_backward
    CustomActivation custom_activation
"""
TRAINING = """
    Activation Adam AdamW Dropout Frozen GradientCheck Layer LayerNorm Linear Maxout PReLU Parameter
    Residual SGD Sequential Summary
    binary_cross_entropy_with_logits check_gradient clip_grad_norm_ freeze huber linear_region load max_norm_
    mse piece_usage region_boundaries save schedules softmax_cross_entropy summary
"""
SETTINGS = """
    __version__ init float32_matmul_precision get_backend get_config get_float32_matmul_precision
    get_num_threads get_reproducible num_threads reproducible set_backend set_float32_matmul_precision
    set_num_threads set_reproducible show_config
"""
NAMES = sorted(f"{FUNCTIONS} {TRAINING} {SETTINGS}".split())


def test_dir_and_all_are_the_api():
    assert dir(fa) == NAMES
    assert sorted(fa.__all__) == NAMES
    assert dir(fa.nn) == sorted(TRAINING.split()) == sorted(fa.nn.__all__)


def test_star_import_brings_the_api_and_nothing_else():
    code = "from fastact import *; print(*sorted(set(globals()) - set(before)))"
    assert output_of(f"before = None; before = list(globals()); {code}").split() == NAMES


@pytest.mark.parametrize("name", [name for name in NAMES if name != "__version__"])
def test_public_names_have_docstrings(name):
    public = getattr(fa, name)
    assert inspect.getdoc(public)
    if inspect.isclass(public):
        for method, function in inspect.getmembers(public, inspect.isfunction):
            assert method.startswith("_") or inspect.getdoc(function), method


@pytest.mark.parametrize("old", ["linear", "linear_backward"])
def test_old_names_warn_and_are_the_new_ones(old):
    new = old.replace("linear", "identity")
    with pytest.warns(
        DeprecationWarning, match=rf"^fastact\.{old} is now fastact\.{new}, and .* removed$"
    ) as seen:
        assert getattr(fa, old) is getattr(fa, new)
    assert seen[0].filename == __file__


def test_pickle_of_an_old_name_warns_and_is_the_new_function():
    with pytest.warns(DeprecationWarning, match=r"^fastact\.linear is now fastact\.identity"):
        assert pickle.loads(b"cfastact.elementwise\nlinear\n.") is fa.identity


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"^module 'fastact' has no attribute 'reluu'$"):
        _ = fa.reluu


# ---- the names of activations, tiers and backends


def test_types_hold_the_names_of_the_tables():
    assert set(get_args(activations.ActivationName)) == {*activations.NAMES, "linear"}
    assert set(get_args(activations.FixedName)) == {*activations.NAMES, "linear"} - {"prelu"}
    assert get_args(settings.Precision) == settings.PRECISIONS == ("highest", "high", "medium")
    assert get_args(backends.BackendName) == backends.NAMES == ("c", "numba", "numpy")
    keywords = {keyword for row in activations.TABLE.values() for keyword in row.defaults}
    assert set(activations.Parameters.__annotations__) == {*keywords, "parameter"}
    approximations = get_args(activations.Approximate)
    z = np.array([1.0])
    assert len({fa.gelu(z, approximate).item() for approximate in approximations}) == 2 == len(approximations)


def test_linear_is_accepted_as_the_name_of_the_identity(rng):
    x, weight = rng.standard_normal((3, 4)), rng.standard_normal((2, 4))
    y, _ = fa.linear_activation(x, weight, activation="identity")
    np.testing.assert_array_equal(fa.linear_activation(x, weight, activation="linear")[0], y)
    np.testing.assert_array_equal(fa.activation(x, "linear"), x)
    layers = [fa.Linear(4, 2, activation=name, rng=0, dtype=x.dtype) for name in ("linear", "identity")]
    assert repr(layers[0]) == repr(layers[1]) == repr(fa.Linear(4, 2, dtype=x.dtype))
    np.testing.assert_array_equal(layers[0].weight.data, layers[1].weight.data)
    np.testing.assert_array_equal(fa.freeze(layers[0])(x), fa.freeze(layers[1])(x))
    for first, second in zip(*(fa.linear_region(layer, x[0]) for layer in layers), strict=True):
        np.testing.assert_array_equal(first, second)
    assert fa.region_boundaries(layers[0], x[0], x[1]).size == 0


@pytest.mark.parametrize("name", activations.NAMES)
def test_functions_of_an_activation_have_the_arguments_of_its_row(name):
    row = activations.TABLE[name]
    forward = inspect.signature(getattr(fa, name)).parameters
    backward = inspect.signature(getattr(fa, f"{name}_backward")).parameters
    assert list(forward) == ["z", *row.defaults, "out", "backend"]
    accumulate = ["accumulate"] if name == "prelu" else []
    assert list(backward) == ["grad_y", row.saves, *row.defaults, "out", *accumulate, "backend"]
    for keyword, default in row.defaults.items():
        wanted = inspect.Parameter.empty if default is None else default
        assert forward[keyword].default == backward[keyword].default == wanted


# ---- the functions of the backends


LOSSES = ("binary_cross_entropy_with_logits", "huber", "mse", "softmax_cross_entropy")
OPERATIONS = [name for name, value in vars(Backend).items() if inspect.isfunction(value) and name[0] != "_"]


def test_backend_names_the_operations_of_the_api():
    public = {name for name in OPERATIONS if name in NAMES}
    assert public == {*FUNCTIONS.split()[:10], *LOSSES}
    assert set(OPERATIONS) - public == {
        *("dropout_keep", "hash_embed", "hash_embed_backward", "matmul"),
        *("sgd", "adam", "max_norm", "clip_grad_norm", "update_parameter"),
    }


@pytest.mark.parametrize("backend", backends.NAMES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_backends_have_the_signatures_of_the_interface(backend, operation):
    if backend == "c" and (reason := backends.why_c_is_missing()):
        pytest.skip(f"no C extension: {reason}")
    _, *wanted = inspect.signature(getattr(Backend, operation)).parameters.values()  # self first
    theirs = inspect.signature(getattr(backends.get(backend), operation)).parameters.values()
    own = [p for p in theirs if p.kind is p.KEYWORD_ONLY]  # a backend's settings, which nobody has to know
    assert all(p.default is not p.empty for p in own)
    assert [p for p in theirs if p not in own] == wanted
