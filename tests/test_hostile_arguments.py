"""Every public callable, each argument replaced by each hostile value: refused by name, or valid."""

from __future__ import annotations

import inspect
import itertools
import math
import re

import numpy as np
import pytest
from support import custom

import fastact as fa
from fastact import convert, init

F32 = np.float32


class Raises:
    """An object whose conversions raise what no library expects."""

    def fail(self, *args, **keywords):
        raise RuntimeError("hostile")

    __array__ = __index__ = __bool__ = __float__ = __int__ = __len__ = __iter__ = __repr__ = fail
    __eq__ = __getitem__ = __call__ = fail
    __hash__ = None


def hostile():
    with pytest.warns(PendingDeprecationWarning):
        matrix = np.asmatrix(np.ones((2, 3), F32))
    return {
        "None": None,
        "str": "x",
        "complex": 1j,
        "complex64": np.complex64(1j),
        "nan": math.nan,
        "inf": math.inf,
        "-1": -1,
        "10**400": 10**400,
        "-10**400": -(10**400),
        "10**5000": 10**5000,
        "1e39": 1e39,
        "True": True,
        "np.True_": np.True_,
        "0.5": 0.5,
        "float64": np.float64(0.5),
        "int64": np.int64(-7),
        "list": [1.0, 2.0],
        "ragged": [[1.0], [2.0, 3.0]],
        "dict": {},
        "object array": np.array([object()]),
        "ambiguous": np.ones(2, F32),
        "strings": np.array(["c", "c"]),
        "masked": np.ma.masked_array(np.ones((2, 3), F32), mask=True),
        "masked of no axis": np.ma.masked_array(F32(1), mask=True),
        "matrix": matrix,
        "0-d": np.array(0.5, F32),
        "raises": Raises(),
        "a class": Raises,
    }


def ones(*shape, dtype=F32):
    return np.ones(shape, dtype)


def parameter():
    made = fa.Parameter(ones(2, 3), "weight")
    made.grad = ones(2, 3)
    return made


def twice(z):
    return 2 * z


def times(z, p):
    return z * p


def custom_of(second, **keywords):
    function = twice if second is None else times
    return fa.custom_activation("custom", function, function, **keywords)


def trained(layer):
    layer(ones(4, 3), training=True)
    return layer


X, WEIGHT, MAXOUT = ones(4, 3), ones(5, 3), ones(5, 2, 3)
GRAD, ARGMAX = ones(4, 5), np.zeros((4, 5), np.uint8)
FUSED = {"backend": None, "precision": None}
KEYWORDS = {
    "leaky_relu": {"negative_slope": 0.1},
    "elu": {"alpha": 1.0},
    "gelu": {"approximate": "none"},
    "prelu": {"slope": np.full(5, 0.25, F32)},
}
LAYER = {"rng": 0, "dtype": F32, "precision": None, "bias": True}

# name: (callable, a good call's arguments)
CALLS = {
    "linear_maxout": (
        fa.linear_maxout,
        {"x": X, "weight": MAXOUT, "bias": ones(5, 2), "out": None, "return_argmax": True} | FUSED,
    ),
    "linear_maxout_backward": (
        fa.linear_maxout_backward,
        {"grad_y": GRAD, "x": X, "weight": MAXOUT, "argmax": ARGMAX, "needs": (True, True, True)}
        | {"out": None, "accumulate": False}
        | FUSED,
    ),
    "maxout": (
        fa.maxout,
        {"z": ones(4, 5, 2), "axis": -1, "out": None, "return_argmax": True, "backend": None},
    ),
    "maxout_backward": (
        fa.maxout_backward,
        {"grad_y": GRAD, "argmax": ARGMAX, "pieces": 2, "axis": -1, "out": None, "backend": None},
    ),
    "layer_norm": (
        fa.layer_norm,
        {"x": X, "weight": ones(3), "bias": ones(3), "eps": 0.1, "out": None, "return_saved": True}
        | {"backend": None},
    ),
    "layer_norm_backward": (
        fa.layer_norm_backward,
        {"grad_y": X, "x": X, "weight": ones(3), "saved": ones(4, 2), "needs": (True, True, True)}
        | {"out": None, "accumulate": False, "backend": None},
    ),
    "softmax_cross_entropy": (
        fa.softmax_cross_entropy,
        {"logits": X, "labels": np.zeros(4, np.int64), "label_smoothing": 0.1, "ignore_index": -1},
    ),
    "mse": (fa.mse, {"y": X, "target": X}),
    "huber": (fa.huber, {"y": X, "target": X, "delta": 1.0}),
    "binary_cross_entropy_with_logits": (
        fa.binary_cross_entropy_with_logits,
        {"logits": X, "target": X},
    ),
    "SGD": (
        lambda **k: fa.SGD(**k),
        {"parameters": [parameter()], "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "Adam": (
        lambda **k: fa.Adam(**k),
        {"parameters": [parameter()], "lr": 0.1, "beta1": 0.9, "beta2": 0.9, "eps": 0.1, "weight_decay": 0.1},
    ),
    "AdamW": (
        lambda **k: fa.AdamW(**k),
        {"parameters": [parameter()], "lr": 0.1, "beta1": 0.9, "beta2": 0.9, "eps": 0.1, "weight_decay": 0.1},
    ),
    "clip_grad_norm_": (fa.clip_grad_norm_, {"parameters": [parameter()], "max_norm": 1.0}),
    "max_norm_": (fa.max_norm_, {"weight": ones(2, 3), "max_norm": 1.0}),
    "Parameter": (
        lambda **k: fa.Parameter(**k),
        {"data": ones(3), "name": "w", "decay": True, "max_norm": None},
    ),
    "Linear": (
        lambda **k: fa.Linear(**k),
        {"in_features": 3, "out_features": 2, "activation": "linear", "init": None} | LAYER,
    ),
    "Linear prelu": (
        lambda **k: fa.Linear(3, 2, activation="prelu", **k),
        {"slope": 0.25},
    ),
    "Linear custom": (
        lambda **k: fa.Linear(3, 2, activation=custom.swish, **k),
        {"parameter": 1.0},
    ),
    "Linear custom slope": (
        lambda **k: fa.Linear(3, 2, activation=custom.learned_swish, **k),
        {"slope": 1.0},
    ),
    "activation custom": (
        lambda **k: fa.activation(activation=custom.swish, **k),
        {"z": GRAD, "parameter": 1.0, "out": None, "backend": None},
    ),
    "custom_activation": (
        lambda **k: fa.custom_activation(**k),
        {"name": "twice", "forward": twice, "derivative": twice, "saves": "z", "slope_derivative": None},
    ),
    "custom_activation parameter": (
        lambda parameter: custom_of(parameter, parameter=parameter),
        {"parameter": 1.0},
    ),
    "custom_activation slope": (
        lambda slope: custom_of(slope, slope=slope, slope_derivative=None if slope is None else times),
        {"slope": 1.0},
    ),
    "check_gradient": (
        fa.check_gradient,
        {"function": fa.PReLU(dtype=np.float64), "x": ones(4, 3, dtype=np.float64), "backward": None}
        | {"points": 3, "rng": 0},
    ),
    "Maxout": (
        lambda **k: fa.Maxout(**k),
        {"in_features": 3, "out_features": 2, "pieces": 2, "init": init.maxout_normal} | LAYER,
    ),
    "PReLU": (lambda **k: fa.PReLU(**k), {"features": 3, "slope": 0.25, "dtype": F32}),
    "LayerNorm": (lambda **k: fa.LayerNorm(**k), {"features": 3, "eps": 0.1, "bias": True, "dtype": F32}),
    "Residual": (lambda layer: fa.Residual(layer), {"layer": fa.Linear(3, 3)}),
    "Dropout": (lambda **k: fa.Dropout(**k), {"p": 0.5, "rescale": True, "rng": 0}),
    "Activation": (lambda activation: fa.Activation(activation), {"activation": "relu"}),
    "Sequential": (lambda layers: fa.Sequential(layers), {"layers": fa.Linear(3, 2)}),
    "forward": (lambda **k: fa.Linear(3, 2)(**k), {"x": X, "training": False}),
    "dropout forward": (lambda **k: fa.Dropout()(**k), {"x": X, "training": False}),
    "backward": (
        lambda **k: trained(fa.Sequential(fa.Maxout(3, 5), fa.PReLU())).backward(**k),
        {"grad_y": GRAD, "accumulate": False, "needs_input_grad": True},
    ),
    "dropout backward": (
        lambda **k: trained(fa.Dropout()).backward(**k),
        {"grad_y": X, "accumulate": False, "needs_input_grad": True},
    ),
    "freeze": (
        lambda **k: fa.freeze(**k),
        {"model": fa.Linear(3, 2), "precision": None, "backend": None},
    ),
    "frozen": (lambda **k: fa.freeze(fa.Linear(3, 2))(**k), {"x": X, "out": None}),
    "piece_usage": (fa.piece_usage, {"model": fa.Maxout(3, 2), "x": X}),
    "linear_region": (fa.linear_region, {"model": fa.Maxout(3, 2), "x": ones(3)}),
    "region_boundaries": (
        fa.region_boundaries,
        {"model": fa.Maxout(3, 2), "start": np.zeros(3, F32), "end": ones(3)},
    ),
    "layer norm forward": (lambda **k: fa.LayerNorm(3)(**k), {"x": X, "training": False}),
    "residual forward": (lambda **k: fa.Residual(fa.Dropout())(**k), {"x": X, "training": False}),
    "residual backward": (
        lambda **k: trained(fa.Residual(fa.Dropout())).backward(**k),
        {"grad_y": X, "accumulate": False, "needs_input_grad": True},
    ),
    "activation forward": (lambda **k: fa.Activation("relu")(**k), {"x": X, "training": False}),
    "summary": (fa.summary, {"model": fa.Linear(3, 2), "input_shape": (4, 3)}),
    "cosine": (fa.schedules.cosine, {"step": 1, "total_steps": 4, "lr": 1.0, "min_lr": 0.1}),
    "schedules.step": (fa.schedules.step, {"step": 1, "step_size": 2, "lr": 1.0, "gamma": 0.1}),
    "linear_warmup": (fa.schedules.linear_warmup, {"step": 1, "warmup_steps": 4, "lr": 1.0}),
    "set_backend": (lambda backend: fa.set_backend(backend), {"backend": "numpy"}),
    "set_num_threads": (lambda threads: fa.set_num_threads(threads), {"threads": 1}),
    "num_threads": (lambda threads: fa.num_threads(threads).__enter__(), {"threads": 1}),
    "set_float32_matmul_precision": (
        lambda precision: fa.set_float32_matmul_precision(precision),
        {"precision": "highest"},
    ),
    "float32_matmul_precision": (
        lambda precision: fa.float32_matmul_precision(precision).__enter__(),
        {"precision": "highest"},
    ),
    "he_normal": (init.he_normal, {"shape": (2, 3), "rng": 0, "dtype": F32, "negative_slope": 0.0}),
    "lecun_normal": (init.lecun_normal, {"shape": (2, 3), "rng": 0, "dtype": F32}),
    "glorot_uniform": (init.glorot_uniform, {"shape": (2, 3), "rng": 0, "dtype": F32}),
    "maxout_normal": (init.maxout_normal, {"shape": (2, 2, 3), "rng": 0, "dtype": F32}),
    "maxout_std": (init.maxout_std, {"fan_in": 3, "pieces": 2}),
    "to_fastact": (
        convert.to_fastact,
        {"order": "torch", "weight": ones(6, 3), "bias": ones(6), "pieces": 2},
    ),
    "from_fastact": (convert.from_fastact, {"order": "keras", "weight": MAXOUT, "bias": ones(5, 2)}),
}
for name in ("identity", "relu", "leaky_relu", "prelu", "elu", "gelu", "tanh"):
    keywords = KEYWORDS.get(name, {})
    forward, backward = getattr(fa, name), getattr(fa, f"{name}_backward")
    saved = next(key for key in inspect.signature(backward).parameters if key in ("y", "z"))
    CALLS[name] = (forward, {"z": GRAD, "out": None, "backend": None} | keywords)
    CALLS[f"{name}_backward"] = (backward, {"grad_y": GRAD, saved: GRAD, "out": None} | keywords)
    CALLS[f"linear + {name}"] = (
        fa.linear_activation,
        {"x": X, "weight": WEIGHT, "bias": ones(5), "activation": name, "out": None, "return_saved": True}
        | FUSED
        | keywords,
    )
    CALLS[f"linear + {name} backward"] = (
        fa.linear_activation_backward,
        {"grad_y": GRAD, "x": X, "weight": WEIGHT, "saved": GRAD, "activation": name, "out": None}
        | {"needs": None, "accumulate": False}
        | FUSED
        | keywords,
    )
CALLS["prelu_backward"][1]["accumulate"] = False

NUMBERS = {"0.5", "float64"}
SCALARS = NUMBERS | {"-1", "int64"}
FLAGS = ("return_argmax", "return_saved", "accumulate", "training", "needs_input_grad")
# The values that an argument may have; every other has to be refused.
VALID = {
    "bias": {"None", "True", "np.True_"},
    "out": {"None"},
    "backend": {"None"},
    "precision": {"None"},
    "max_norm": {"None", *NUMBERS},
    "needs": {"None"},
    "rng": {"None", "True", "10**400", "10**5000", "np.True_"},
    "init": {"None"},
    "slope": {*SCALARS, "list", "0-d", "ambiguous"},
    "negative_slope": SCALARS,
    "alpha": SCALARS,
    "parameter": SCALARS,
    "axis": {"-1"},
    "lr": NUMBERS,
    "momentum": NUMBERS,
    "weight_decay": NUMBERS,
    "eps": NUMBERS,
    "beta1": NUMBERS,
    "beta2": NUMBERS,
    "p": NUMBERS,
    "min_lr": NUMBERS,
    "gamma": NUMBERS,
    "label_smoothing": NUMBERS,
    "ignore_index": {"-1", "int64"},
    "delta": {*NUMBERS, "1e39"},
    "input_shape": {"None"},
    "name": {"str"},
    "z": {"ambiguous", "0-d"},
    "data": {"ambiguous", "0-d"},
    "weight": {"ambiguous"},
    "x": {"ambiguous", "0-d"},
    "dtype": {"float64"},  # np.dtype takes its type
    **{flag: {"True", "np.True_"} for flag in (*FLAGS, "nesterov", "decay", "rescale")},
}
FLOAT64 = {*NUMBERS, "1e39"}  # a schedule computes in float64, like he_normal
VALID_FOR_ONE = {
    ("he_normal", "negative_slope"): {*SCALARS, "1e39"},
    ("custom_activation parameter", "parameter"): {"None", *SCALARS, "1e39"},
    ("custom_activation slope", "slope"): {"None", *SCALARS, "1e39"},
    ("custom_activation", "slope_derivative"): {"None"},
    ("check_gradient", "backward"): {"None"},
    **{(call, "weight"): {"None"} for call in ("layer_norm", "layer_norm_backward")},
    ("clip_grad_norm_", "max_norm"): {*FLOAT64, "inf", "10**400", "10**5000"},
    **{(schedule, "lr"): FLOAT64 for schedule in ("cosine", "schedules.step", "linear_warmup")},
}
OWN_ERRORS = {  # of the caller's own code
    ("init", "raises"),
    ("init", "a class"),
    ("parameters", "raises"),
    ("function", "raises"),
    ("function", "a class"),
}
ANY_SHAPE = {"ambiguous", "0-d"}  # an array that may fit by itself, so that the message names another


@pytest.fixture(autouse=True)
def settings_as_they_were():
    before = fa.get_backend(), fa.settings._default_threads
    yield
    fa.set_backend(before[0])
    fa.settings._default_threads = before[1]
    fa.settings._threads.set(None)
    fa.settings._precision.set(None)


@pytest.mark.parametrize("call", CALLS)
def test_hostile_argument_is_refused_by_name(call):
    function, good = CALLS[call]
    for argument, (label, value) in itertools.product(good, hostile().items()):
        if (argument, label) in OWN_ERRORS:
            continue
        names = {argument, "saved"} if argument in ("y", "z") else {argument}
        names |= {"axis", "saved", *good} if label in ANY_SHAPE else set()
        try:
            with np.errstate(all="raise"):
                function(**good | {argument: value})
        except (TypeError, ValueError) as error:
            message = str(error)
            place = r"(layers\[\d+\], \w+\([^)]*\): )?"  # of a layer in a Sequential
            fits = any(re.match(rf"{place}\W*{name}\b", message) for name in names)
            assert fits, (argument, label, message)
            assert re.search("wanted|takes|returned", message), (argument, label, message)
            assert len(message) < 400, (argument, label, message)
        else:
            valid = VALID_FOR_ONE.get((call, argument), VALID.get(argument, ()))
            assert label in valid, f"{argument}: {label} is taken"
