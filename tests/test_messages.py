"""The last clause of a message: what a user most likely wanted to write."""

from __future__ import annotations

import re

import numpy as np
import pytest

import fastact as fa
from fastact import checks, convert

F32, F64 = np.float32, np.float64
X, WEIGHT, BIAS = np.ones((4, 3), F32), np.ones((5, 3), F32), np.ones(5, F32)
MAXOUT, GRAD = np.ones((5, 2, 3), F32), np.ones((4, 5), F32)


def message_of(kind, call):
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def foreign(module, name, **members):
    """An object of a class of this name in a package that is not imported."""

    def array(self, dtype=None, copy=None):
        raise AssertionError("a check converts nothing")

    return type(name, (), {"__module__": module, "__array__": array, **members})()


FOREIGN = {
    "torch tensor": (foreign("torch", "Tensor"), "got Tensor", "fastact.torch or .numpy()"),
    "torch parameter": (
        foreign("torch.nn.parameter", "Parameter"),
        "got Parameter",
        "fastact.torch or .numpy()",
    ),
    "frame": (foreign("pandas.core.frame", "DataFrame"), "got DataFrame", ".to_numpy()"),
    "series": (foreign("pandas", "Series"), "got Series", ".to_numpy()"),
    "polars": (foreign("polars.dataframe.frame", "DataFrame"), "got DataFrame", ".to_numpy()"),
    "jax": (foreign("jaxlib._jax", "ArrayImpl"), "got ArrayImpl", "fastact.jax or np.asarray(...)"),
    "cupy": (foreign("cupy", "ndarray"), "got ndarray", ".get()"),
    "tensorflow": (foreign("tensorflow.python.framework.ops", "EagerTensor"), "got EagerTensor", ".numpy()"),
    "list": ([[1.0, 2.0, 3.0]], "got list", "np.asarray(..., np.float32)"),
    "tuple": ((1.0, 2.0, 3.0), "got tuple", "np.asarray(..., np.float32)"),
    "parameter": (fa.Parameter(WEIGHT, "weight"), "got Parameter", ".data"),
}

# every way in for an array, by the name of its argument
TAKES = {
    "linear_maxout x": ("x", lambda a: fa.linear_maxout(a, MAXOUT)),
    "linear_maxout weight": ("weight", lambda a: fa.linear_maxout(X, a)),
    "linear_maxout bias": ("bias", lambda a: fa.linear_maxout(X, MAXOUT, a)),
    "linear_activation x": ("x", lambda a: fa.linear_activation(a, WEIGHT)),
    "linear_activation weight": ("weight", lambda a: fa.linear_activation(X, a)),
    "linear_activation bias": ("bias", lambda a: fa.linear_activation(X, WEIGHT, a)),
    "backward grad_y": ("grad_y", lambda a: fa.linear_activation_backward(a, X, WEIGHT, GRAD)),
    "backward x": ("x", lambda a: fa.linear_activation_backward(GRAD, a, WEIGHT, GRAD)),
    "backward weight": ("weight", lambda a: fa.linear_activation_backward(GRAD, X, a, GRAD)),
    "backward saved": ("saved", lambda a: fa.linear_activation_backward(GRAD, X, WEIGHT, a)),
    "relu": ("z", lambda a: fa.relu(a)),
    "relu_backward": ("saved", lambda a: fa.relu_backward(GRAD, a)),
    "maxout": ("z", lambda a: fa.maxout(a)),
    "slope": ("slope", lambda a: fa.prelu(X, a)),
    "layer": ("x", lambda a: fa.Linear(3, 2)(a)),
    "activation layer": ("x", lambda a: fa.Activation("tanh")(a)),
    "prelu layer": ("x", lambda a: fa.PReLU()(a)),
    "dropout layer": ("x", lambda a: fa.Dropout()(a)),
    "frozen": ("x", lambda a: fa.freeze(fa.Linear(3, 2))(a)),
    "piece_usage": ("x", lambda a: fa.piece_usage(fa.Maxout(3, 2), a)),
    "logits": ("logits", lambda a: fa.softmax_cross_entropy(a, np.zeros(4, int))),
    "mse y": ("y", lambda a: fa.mse(a, X)),
    "mse target": ("target", lambda a: fa.mse(X, a)),
    "huber y": ("y", lambda a: fa.huber(a, X)),
    "huber target": ("target", lambda a: fa.huber(X, a)),
    "binary logits": ("logits", lambda a: fa.binary_cross_entropy_with_logits(a, X)),
    "binary target": ("target", lambda a: fa.binary_cross_entropy_with_logits(X, a)),
    "max_norm_": ("weight", lambda a: fa.max_norm_(a, 1.0)),
    "Parameter": ("data", lambda a: fa.Parameter(a, "weight")),
    "to_fastact": ("weight", lambda a: convert.to_fastact("keras", a)),
    "state": ("weight", lambda a: fa.Linear(3, 5, bias=False).load_state_dict({"weight": a})),
}
ONLY_ARRAYS = {"max_norm_": {"parameter"}}  # it takes a Parameter


@pytest.mark.parametrize("take", TAKES)
def test_value_that_is_not_an_array_gets_the_conversion_of_its_library(take):
    name, call = TAKES[take]
    for kind, (value, got, cure) in FOREIGN.items():
        if kind not in ONLY_ARRAYS.get(take, ()):
            message = message_of(TypeError, lambda: call(value))  # noqa: B023
            assert message == f"{name}: {got}, wanted a numpy.ndarray: try {cure}"


def test_conversion_of_what_is_not_numbers_is_not_suggested():
    class Layerlike:
        pass

    module = type("Module", (), {"__module__": "torch.nn.modules.module"})()
    for value in (None, "x", True, Layerlike(), module, np.ma.ones(3), {}, fa.Linear(3, 2), np.ndarray):
        message = message_of(TypeError, lambda: fa.relu(value))  # noqa: B023
        assert message == f"z: got {type(value).__name__}, wanted a numpy.ndarray"


def test_real_arrays_of_other_libraries():
    for module, make, cure in (
        ("torch", lambda torch: torch.ones(3), "fastact.torch or .numpy()"),
        ("torch", lambda torch: torch.nn.Parameter(torch.ones(3)), "fastact.torch or .numpy()"),
        ("pandas", lambda pandas: pandas.DataFrame({"a": [1.0]}), ".to_numpy()"),
        ("pandas", lambda pandas: pandas.Series([1.0]), ".to_numpy()"),
        ("jax.numpy", lambda jnp: jnp.ones(3), "fastact.jax or np.asarray(...)"),
    ):
        try:
            library = __import__(module, fromlist=["*"])
        except ImportError:
            continue
        assert checks.hint(make(library)) == f": try {cure}"


@pytest.mark.parametrize("take", [take for take in TAKES if not take.startswith(("state", "to_fastact"))])
def test_numbers_of_another_dtype_get_an_astype(take):
    name, call = TAKES[take]
    shape = {"weight": (5, 3), "bias": (5,), "grad_y": (4, 5), "saved": (4, 5)}.get(name, (4, 3))
    for dtype in ("int64", "int8", "uint8", "bool", "float16", ">f4", "object"):
        message = message_of(TypeError, lambda: call(np.ones(shape, dtype)))  # noqa: B023
        assert re.fullmatch(
            rf"{name}: got dtype {dtype}, wanted float32( or float64)?: try \.astype\(np\.float32\)", message
        )


def test_float64_where_float32_is_wanted_and_the_other_way_round():
    message = message_of(TypeError, lambda: fa.Linear(3, 2)(X.astype(F64)))
    assert message == "x: got dtype float64, wanted float32: try .astype(np.float32)"
    message = message_of(TypeError, lambda: fa.Linear(3, 2, dtype=F64)(X))
    assert message == "x: got dtype float32, wanted float64: try .astype(np.float64)"
    message = message_of(TypeError, lambda: fa.linear_maxout(X.astype(F64), MAXOUT.tolist()))
    assert message == "weight: got list, wanted a numpy.ndarray: try np.asarray(..., np.float64)"


def test_numbers_that_a_cast_would_change_get_no_astype():
    for dtype in ("complex64", "S4", "datetime64[s]"):
        message = message_of(TypeError, lambda: fa.relu(np.zeros(3, dtype)))  # noqa: B023
        assert message == f"z: got dtype {np.dtype(dtype)}, wanted float32 or float64"


def test_argmax_gets_the_dtype_of_an_argmax():
    def backward(argmax):
        return fa.linear_maxout_backward(GRAD, X, MAXOUT, argmax)

    zeros = np.zeros((4, 5), np.int64)
    assert message_of(TypeError, lambda: backward(zeros)).endswith("wanted uint8: try .astype(np.uint8)")
    assert message_of(TypeError, lambda: backward(zeros.tolist())).endswith("try np.asarray(..., np.uint8)")


def test_out_gets_no_conversion_since_a_copy_would_lose_the_result():
    for out in ([1.0], foreign("torch", "Tensor"), np.ones((4, 3)), np.ones((4, 3), int)):
        assert "try" not in message_of(TypeError, lambda: fa.relu(X, out=out))  # noqa: B023


def test_gradient_of_another_dtype_gets_an_astype():
    layer = fa.Linear(3, 2, bias=False)
    layer.weight.grad = np.ones((2, 3))
    message = message_of(ValueError, fa.SGD(layer.parameters(), 0.1).step)
    assert message.endswith("wanted float32 (2, 3): try .astype(np.float32)")


def test_layers_in_place_of_parameters_get_the_method():
    layer = fa.Linear(3, 2)
    for given in (layer, fa.Sequential(layer), [layer]):
        for optimizer in (fa.SGD, fa.Adam):
            message = message_of(TypeError, lambda: optimizer(given, 0.1))  # noqa: B023
            assert re.match(
                r"parameters(\[0\])?: got (Linear|Sequential), wanted .*: try model\.parameters\(\)$", message
            )


def test_activation_in_the_place_of_bias_gets_its_keyword():
    message = message_of(TypeError, lambda: fa.Linear(784, 10, "relu"))
    assert message == "bias: got 'relu', wanted True or False: try activation='relu'"


# ---- labels

LOGITS = np.zeros((4, 10), F32)


@pytest.mark.parametrize("dtype", [np.int64, F32, F64, bool])
def test_one_hot_labels_get_an_argmax(dtype):
    labels = np.eye(10, dtype=dtype)[[1, 2, 3, 9]]
    message = message_of((TypeError, ValueError), lambda: fa.softmax_cross_entropy(LOGITS, labels))
    assert message.startswith("labels: got ")
    assert message.endswith(": try np.argmax(labels, 1)")
    batch = message_of((TypeError, ValueError), lambda: fa.softmax_cross_entropy(LOGITS[None], labels[None]))
    assert batch.endswith(": try np.argmax(labels, 2)")
    assert fa.softmax_cross_entropy(LOGITS, np.argmax(labels, 1))[0] == pytest.approx(np.log(10))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(4), "labels: got dtype float64, wanted a numpy.ndarray of integers: try .astype(np.int64)"),
        (
            np.zeros(4, bool),
            "labels: got dtype bool, wanted a numpy.ndarray of integers: try .astype(np.int64)",
        ),
        ([1, 2, 3, 4], "labels: got list, wanted a numpy.ndarray of integers: try np.asarray(..., np.int64)"),
        (FOREIGN["series"][0], "labels: got Series, wanted a numpy.ndarray of integers: try .to_numpy()"),
        (np.zeros((4, 1), int), "labels: got shape (4, 1), wanted (4,): try labels[..., 0]"),
        (np.zeros(3, int), "labels: got shape (3,), wanted (4,)"),
        (np.zeros((4, 3), int), "labels: got shape (4, 3), wanted (4,)"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_labels_get_the_likely_cure(labels, message):
    assert message_of((TypeError, ValueError), lambda: fa.softmax_cross_entropy(LOGITS, labels)) == message


# ---- weights


def test_transposed_weight_of_a_function_is_blamed_on_the_weight():
    x, weight = np.ones((4, 784), F32), np.ones((784, 10), F32)
    for bias in (None, np.ones(10, F32)):
        message = message_of(ValueError, lambda: fa.linear_activation(x, weight, bias))  # noqa: B023
        assert message == (
            "weight: got shape (784, 10), wanted (out_features, in_features) with in_features = 784 "
            "to match x: transpose it, weight.T"
        )
    assert fa.linear_activation(x, weight.T)[0].shape == (4, 10)
    grad = np.ones((4, 10), F32)
    backward = message_of(ValueError, lambda: fa.linear_activation_backward(grad, x, weight, grad))
    assert backward.startswith("weight: got shape (784, 10)")
    for shape in ((784, 5, 10), (5, 784, 10)):
        message = message_of(ValueError, lambda: fa.linear_maxout(x, np.ones(shape, F32)))  # noqa: B023
        assert message.startswith(
            f"weight: got shape {shape}, wanted (out_features, pieces, in_features) with"
        )
        assert "transpose" in message


def test_wrong_x_is_not_blamed_on_the_weight():
    for call in (
        lambda: fa.linear_activation(np.ones((4, 7), F32), WEIGHT),
        lambda: fa.linear_activation(
            np.ones((4, 5), F32), WEIGHT, BIAS
        ),  # the bias says that 5 is out_features
        lambda: fa.linear_maxout(np.ones((4, 5), F32), MAXOUT, np.ones((5, 2), F32)),
        lambda: fa.linear_activation(np.ones((), F32), WEIGHT),
        lambda: fa.linear_activation_backward(GRAD, np.ones((4, 5), F32), WEIGHT, GRAD),  # grad_y says so
        lambda: fa.Linear(3, 5)(np.ones((4, 5), F32)),
        lambda: fa.Linear(3, 5, bias=False)(np.ones((4, 5), F32)),
        lambda: fa.Maxout(3, 5, bias=False)(np.ones((4, 2), F32)),
    ):
        assert re.match(
            r"x: got shape \(.*\), wanted \(\.\.\., 3\) to match weight$", message_of(ValueError, call)
        )


@pytest.mark.parametrize("bias", [True, False])
def test_transposed_data_of_a_layer_is_blamed_on_the_weight(bias):
    layer = fa.Linear(784, 10, bias=bias)
    layer.weight.data = np.ones((784, 10), F32)
    message = message_of(ValueError, lambda: fa.Sequential(layer)(np.ones((4, 784), F32)))
    assert message.startswith(f"layers[0], {layer!r}: weight: got shape (784, 10)")
    assert message.endswith("transpose it, weight.T")


def test_transposed_weight_of_a_state_says_transpose():
    state = {"weight": np.ones((3, 5), F32), "bias": np.ones(4, F32)}
    message = message_of(ValueError, lambda: fa.Linear(3, 5).load_state_dict(state))
    assert message == (
        "weight: got shape (3, 5), wanted (5, 3): transpose it; bias: got shape (4,), wanted (5,)"
    )


def test_state_of_another_dtype_gets_an_astype():
    state = {"weight": np.ones((5, 3)), "bias": foreign("torch", "Tensor")}
    message = message_of(TypeError, lambda: fa.Linear(3, 5).load_state_dict(state))
    assert message == "bias: got Tensor, wanted a numpy.ndarray: try fastact.torch or .numpy()"
    state["bias"] = BIAS
    message = message_of(ValueError, lambda: fa.Linear(3, 5).load_state_dict(state))
    assert message == "weight: got dtype float64, wanted float32: try .astype(np.float32)"


def test_saving_tensors_gets_a_conversion(tmp_path):
    message = message_of(TypeError, lambda: fa.save(tmp_path / "x.npz", model={"weight": FOREIGN["jax"][0]}))
    assert (
        message == "model.weight: got ArrayImpl, wanted a numpy.ndarray: try fastact.jax or np.asarray(...)"
    )


@pytest.mark.parametrize("path", ["missing/run.npz", "file/run.npz", "folder"])
def test_saving_to_a_bad_path_names_the_path_given(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=re.escape(repr(path))) as caught:
        fa.save(path, model=fa.Linear(3, 2))
    assert caught.value.filename == path
    assert ".fastact-" not in str(caught.value)


# ---- np.asarray of a Parameter


def test_parameter_as_an_array_is_its_data():
    parameter = fa.Parameter(np.arange(6, dtype=F32).reshape(2, 3), "weight")
    assert np.asarray(parameter) is parameter.data
    assert np.asarray(parameter, F32) is parameter.data
    doubled = np.asarray(parameter, F64)
    assert doubled.dtype == F64
    np.testing.assert_array_equal(doubled, parameter.data)
    copy = np.array(parameter)
    assert copy.dtype == F32
    copy += 1
    np.testing.assert_array_equal(parameter.data, np.arange(6).reshape(2, 3))
    assert np.linalg.norm(parameter) == np.linalg.norm(parameter.data)
    np.testing.assert_array_equal(np.ones((4, 2), F32) @ parameter, np.ones((4, 2), F32) @ parameter.data)


def test_parameter_follows_the_copy_argument_of_numpy():
    parameter = fa.Parameter(np.ones(3, F32), "weight")
    assert parameter.__array__() is parameter.data  # as NumPy 1 calls it
    assert parameter.__array__(F64).dtype == F64
    assert parameter.__array__(None, copy=False) is parameter.data
    assert not np.shares_memory(parameter.__array__(copy=True), parameter.data)
    assert not np.shares_memory(parameter.__array__(F64, copy=True), parameter.data)
    with pytest.raises(ValueError, match="got float64 for data of float32, which needs a copy"):
        parameter.__array__(F64, copy=False)
    if int(np.__version__.split(".")[0]) >= 2:
        assert np.array(parameter, copy=False) is parameter.data
        with pytest.raises(ValueError, match="needs a copy"):
            np.array(parameter, F64, copy=False)


def test_parameter_whose_data_is_not_an_array_refuses_to_be_one():
    parameter = fa.Parameter(np.ones(3, F32), "weight")
    parameter.data = [1.0, 2.0]
    with pytest.raises(TypeError, match=r"data: got list, wanted a numpy\.ndarray"):
        np.asarray(parameter)


# ---- names


@pytest.mark.parametrize(
    ("call", "cure"),
    [
        (lambda: fa.Linear(3, 4, activation="Relu"), "'relu'"),
        (lambda: fa.set_float32_matmul_precision("hgih"), "'high'"),
        (lambda: fa.set_float32_matmul_precision("MEDIUM"), "'medium'"),
        (lambda: fa.set_backend("Numpy"), "'numpy'"),
    ],
)
def test_misspelt_name_gets_the_closest_one(call, cure):
    with pytest.raises(ValueError, match=rf": got '\w+', wanted one of .*: try {cure}$"):
        call()


@pytest.mark.parametrize("name", ["", "swish", 3, None, np.array(["relu"])])
def test_name_like_no_other_gets_no_suggestion(name):
    with pytest.raises(ValueError, match=r"^activation: got .*, wanted one of [a-z0-9_, ]*$"):
        fa.activation(np.ones(3), name)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("ReLU", r"try Activation\('relu'\), or activation='relu' of Linear"),
        ("absent", None),
    ],
)
def test_attribute_of_pytorchs_name_says_what_fastact_calls_it(name, cure):
    with pytest.raises(AttributeError, match=f"no attribute '{name}'{': ' + cure if cure else '$'}"):
        getattr(fa, name)


@pytest.mark.parametrize("function", [fa.save, fa.load])
def test_object_without_a_name_is_refused_with_the_cure(function, tmp_path):
    with pytest.raises(TypeError, match=r"got a Linear without a name, wanted names, as in model=model$"):
        function(tmp_path / "run.npz", fa.Linear(3, 4))


def test_float64_x_for_float32_weights_is_the_one_to_convert():
    x, weight = np.ones((2, 3)), np.ones((4, 3), np.float32)
    with pytest.raises(
        TypeError, match=r"^x: got dtype float64, wanted float32: try \.astype\(np\.float32\)$"
    ):
        fa.linear_activation(x, weight)
    with pytest.raises(TypeError, match=r"^weight: got dtype float64, wanted float32"):
        fa.linear_activation(x.astype(np.float32), weight.astype(np.float64))


def test_number_for_an_array_gets_the_cure():
    with pytest.raises(TypeError, match=r"^z: got float, wanted a numpy\.ndarray: try np\.asarray"):
        fa.relu(3.0)
