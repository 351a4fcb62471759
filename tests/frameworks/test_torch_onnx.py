"""ONNX: models of fastact's layers and functions, written by both of PyTorch's exporters, in ONNX Runtime.

The bounds.  A pre-activation z of either library is off by at most `sum_bound` for sums in any order.  The
slope of an activation here is at most 2, so y is off by at most twice that, and by its own rounding.  y is z,
or at most z times a function of the size of 1: a few operations, each within a few eps, for which MAX_EPS eps
of 1 + |z| is allowed.  Two results may differ by twice the error of one.
"""

import io

import numpy as np
import pytest
import torch
from support.tolerance import assert_within, sum_bound
from torch import nn

import fastact.torch as ft
from fastact import activations
from fastact.torch import decompositions
from fastact.torch.modules import PooledLinear

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

MAX_EPS = 16
MAX_SLOPE = 2
ROWS = torch.export.Dim.DYNAMIC
# ONNX Runtime has float64 kernels for these.
FLOAT64 = (
    "identity",
    "relu",
    "prelu",
    "gelu_tanh",
    "silu",
    "sigmoid",
    "tanh",
    "softsign",
    "hardtanh",
    "relu6",
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # of the exporters
    pytest.mark.filterwarnings("ignore:.*legacy TorchScript-based ONNX export:UserWarning"),
]
every_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
every_exporter = pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
every_leading = pytest.mark.parametrize("leading", [(5,), (2, 3), ()], ids=str)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def exported(model, x, dynamo, outputs=1, opset=None):
    """A model as ONNX, whose x has any number of rows."""
    if dynamo:
        pytest.importorskip("onnxscript")
    file, model = io.BytesIO(), model.eval()
    if dynamo:
        shapes = ({0: ROWS} if x.dim() > 1 else None,)
        torch.onnx.export(
            model, (x,), file, dynamo=True, verbose=False, dynamic_shapes=shapes, opset_version=opset
        )
    else:
        names = [f"y{number}" for number in range(outputs)]
        axes = {name: {0: "rows"} for name in ["x", *names]} if x.dim() > 1 else None
        torch.onnx.export(
            model,
            (x,),
            file,
            dynamo=False,
            input_names=["x"],
            output_names=names,
            dynamic_axes=axes,
            opset_version=opset,
        )
    return file.getvalue()


def domains(file):
    return {each.domain for each in onnx.load_from_string(file).opset_import}


def run(file, x):
    """The results in ONNX Runtime of a model that holds no operator but ONNX's own."""
    assert domains(file) == {""}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # more would wait in a busy loop
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (argument,) = session.get_inputs()
    return session.run(None, {argument.name: x.numpy()})


def inputs(leading, dtype, features=7):
    """The x to export with, and others with other numbers of rows."""
    x = torch.randn(*leading, features, dtype=dtype)
    if not leading:
        return x, [x]
    return x, [torch.randn(rows, *leading[1:], features, dtype=dtype) for rows in (11, 1, 0)]


def product_bound(x, weight, bias):
    """The bound of each x @ weight.T + bias."""
    magnitude = x.double().abs() @ weight.double().abs().T
    if bias is not None:
        magnitude = magnitude + bias.double().abs()
    return sum_bound(magnitude.numpy(), x.shape[-1], x.numpy().dtype, "numpy")


class Each(nn.Module):
    """Several layers of the same x."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        return tuple([layer(x) for layer in self.layers])


# ---- decompositions


def test_decompositions_are_of_every_activation():
    assert decompositions._ACTIVATIONS.keys() == activations.TABLE.keys()


# ---- layers

KEYWORDS = [
    {"activation": "leaky_relu", "negative_slope": 0.3},
    {"activation": "elu", "alpha": 0.7},
    {"activation": "gelu", "approximate": "tanh"},
    {"activation": "prelu", "slope": 0.2},
    {"activation": "prelu", "slope": [0.1, -0.2, 0.3, 0.4, 0.5]},
    {"activation": "linear"},
    {"activation": "gelu", "bias": False},
    {"activation": "prelu", "bias": False},
]
ACTIVATIONS = [{"activation": name} for name in activations.NAMES] + KEYWORDS


def activation_layers(dtype):
    layers = []
    for keywords in ACTIVATIONS:
        name = activations.canonical(keywords["activation"])
        if "approximate" in keywords:
            name = "gelu_tanh"
        if dtype is torch.float32 or name in FLOAT64:
            layers.append(ft.LinearActivation(7, 5, dtype=dtype, **keywords))
    return layers


def activation_bound(layer, x):
    """How far apart two results of a LinearActivation may be."""
    weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
    z = nn.functional.linear(x, weight, bias).numpy()
    # ONNX Runtime's Gelu has its constants in float32
    eps = float(np.finfo(np.float32 if "approximate" in layer.keywords else z.dtype).eps)
    return 2 * (MAX_SLOPE * product_bound(x, weight, bias) + MAX_EPS * eps * (1 + np.abs(z)))


def assert_activations_within(file, model, x):
    for each in (x, 100 * x):  # 100: an exponential underflows, and log(sigmoid z) would be -inf
        for y, layer in zip(run(file, each), model.layers, strict=True):
            assert y.dtype == each.numpy().dtype
            assert_within(y, layer(each).detach().double().numpy(), activation_bound(layer, each))


@every_exporter
@every_dtype
@every_leading
def test_linear_activation_exports_with_every_activation(leading, dtype, dynamo):
    model = Each(activation_layers(dtype))
    x, others = inputs(leading, dtype)
    file = exported(model, x, dynamo, len(model.layers))
    for each in others:
        assert_activations_within(file, model, each)


@pytest.mark.parametrize(("dynamo", "opset"), [(False, 9), (False, 17), (True, 18), (True, 22)])
def test_linear_activation_exports_to_other_opsets(dynamo, opset):
    model = Each(activation_layers(torch.float32))
    x = torch.randn(5, 7)
    file = exported(model, x, dynamo, len(model.layers), opset)
    assert onnx.load_from_string(file).opset_import[0].version == opset
    assert_activations_within(file, model, x)


def pooled(piece_major):
    layer = PooledLinear(7, 15)
    layer.pieces, layer.piece_major = 3, piece_major
    return layer


def maxout_layers(dtype):
    layers = [ft.Maxout(7, 5, pieces, bias) for pieces in (1, 2, 3, 256) for bias in (False, True)]
    layers += [ft.Maxout(7, 1, 2), ft.Maxout(7, 5, 2, precision="highest")]
    layers += [ft.Maxout.from_linear(nn.Linear(7, 15), 5), pooled(False), pooled(True)]
    for layer in layers:
        if isinstance(layer, ft.Maxout) and layer.bias is not None:
            nn.init.normal_(layer.bias)
    return [layer.to(dtype) for layer in layers]


@every_exporter
@every_dtype
@every_leading
def test_maxout_exports_with_any_pieces_and_without_bias(leading, dtype, dynamo):
    model = Each(maxout_layers(dtype))
    x, others = inputs(leading, dtype)
    file = exported(model, x, dynamo, len(model.layers))
    for each in others:
        for y, layer in zip(run(file, each), model.layers, strict=True):
            weight, bias = layer.weight.detach(), None if layer.bias is None else layer.bias.detach()
            units = product_bound(each, weight.reshape(-1, 7), None if bias is None else bias.reshape(-1))
            wanted = layer(each).detach().double().numpy()
            assert y.dtype == each.numpy().dtype
            assert_within(y, wanted, 2 * units.max(axis=-1, keepdims=True))


@every_exporter
def test_exported_layer_computes_in_float32_whatever_its_tier(dynamo):
    layer = ft.Maxout(7, 5, 3, precision="medium")
    x = torch.randn(5, 7)
    (y,) = run(exported(layer, x, dynamo), x)
    layer.precision = "highest"
    units = product_bound(x, layer.weight.detach().flatten(0, 1), layer.bias.detach().flatten())
    assert_within(y, layer(x).detach().double().numpy(), 2 * units.max(axis=-1, keepdims=True))


# ---- models


def mixed(dtype):
    """fastact's layers between PyTorch's, for 7 features."""
    model = nn.Sequential(
        nn.Linear(7, 12),
        nn.ReLU(),
        ft.Maxout(12, 9, pieces=3),
        nn.Sequential(nn.BatchNorm1d(9), nn.Dropout(0.5)),
        ft.LinearActivation(9, 8, activation="prelu", slope=[0.1 * number for number in range(8)]),
        nn.Linear(8, 6),
        nn.Tanh(),
        ft.Maxout(6, 3, bias=False),
    )
    return model.to(dtype).eval()


def assert_close(got, wanted):
    """Results of a model of a few layers, each of which rounds, are equal within some hundred eps."""
    eps = float(np.finfo(got.dtype).eps)
    np.testing.assert_allclose(got, wanted.detach().numpy(), rtol=200 * eps, atol=200 * eps)


@every_exporter
@every_dtype
@pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
def test_sequential_of_both_libraries_exports(accelerated, dtype, dynamo):
    model = mixed(dtype)
    if accelerated:
        ft.accelerate(model)
    x, others = inputs((5,), dtype)
    file = exported(model, x, dynamo)
    for each in others:
        assert_close(run(file, each)[0], model(each))


@every_exporter
def test_model_exports_in_inference_mode(dynamo):
    model, (x, others) = mixed(torch.float32), inputs((5,), torch.float32)
    with torch.inference_mode():
        file = exported(model, x, dynamo)
    for each in others:
        assert_close(run(file, each)[0], model(each))


@every_exporter
def test_model_exports_under_autocast(dynamo):  # in bfloat16, for which ONNX Runtime has no Gemm
    with torch.no_grad(), torch.autocast("cpu"):
        file = exported(mixed(torch.float32), torch.randn(5, 7), dynamo)
    assert domains(file) == {""}


class Functions(nn.Module):
    """A module that calls the functions; its numbers are whole, so that products are exact and pieces tie."""

    def __init__(self, dtype):
        super().__init__()
        self.weight = nn.Parameter(torch.randint(-2, 3, (5, 4, 7)).to(dtype))
        self.bias = nn.Parameter(torch.randint(-2, 3, (5, 4)).to(dtype))

    def forward(self, x):
        y, argmax = ft.linear_maxout(x, self.weight, self.bias, return_argmax=True)
        first, winner = ft.maxout(y.unflatten(-1, (5, 1)), -2, return_argmax=True)
        rows = ft.maxout(x.unsqueeze(-1).expand(*x.shape, 3), -1)
        z = ft.linear_activation(x, self.weight[:, 0], self.bias[:, 0], "relu")
        return y, argmax, first, winner, rows, z, ft.maxout(torch.stack([y, z]), 0)


@every_exporter
@every_dtype
@every_leading
def test_functions_in_a_module_export(leading, dtype, dynamo):
    model = Functions(dtype)
    x, others = inputs(leading, dtype)
    file = exported(model, x.round(), dynamo, 7)
    for each in others:
        for got, wanted in zip(run(file, each.round()), model(each.round()), strict=True):
            np.testing.assert_array_equal(got, wanted.detach().numpy(), strict=True)


@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
def test_exported_program_keeps_the_operators_and_becomes_onnx(strict):
    pytest.importorskip("onnxscript")
    model, (x, others) = mixed(torch.float32), inputs((5,), torch.float32)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: ROWS},), strict=strict)
    operators = {"fastact.linear_maxout.default", "fastact.linear_activation.default"}
    for each in (program, program.run_decompositions()):
        assert operators <= {str(node.target) for node in each.graph.nodes}
    file = io.BytesIO()
    torch.onnx.export(program, (x,), file, dynamo=True, verbose=False)
    for each in others:
        assert_close(run(file.getvalue(), each)[0], model(each))
    assert operators <= {str(node.target) for node in torch.export.export(model, (x,)).graph.nodes}


@every_exporter
def test_operators_called_by_name_export_with_dynamo_alone(dynamo):
    class Named(nn.Module):
        def forward(self, x):
            return torch.ops.fastact.maxout_argmax(x.unflatten(-1, (3, 2)), -1)

    x = torch.randn(4, 6)
    if dynamo:
        for got, wanted in zip(run(exported(Named(), x, True, 2), x), Named()(x), strict=True):
            np.testing.assert_array_equal(got, wanted.numpy(), strict=True)
    else:
        with pytest.raises(torch.onnx.errors.OnnxExporterError, match="fastact::maxout_argmax"):
            exported(Named(), x, False, 2)


@pytest.mark.filterwarnings("ignore:no signature found:UserWarning")
def test_traced_module_is_refused_by_the_operators_name():
    traced = torch.jit.trace(ft.Maxout(7, 5), torch.randn(4, 7))
    with pytest.raises(torch.onnx.errors.OnnxExporterError, match="fastact::linear_maxout"):
        exported(traced, torch.randn(4, 7), False)


def test_shapes_that_disagree_are_refused_by_name():
    pytest.importorskip("onnxscript")
    with pytest.raises(
        torch.onnx.errors.OnnxExporterError, match=r"x: got shape \(.*, 6\), wanted \(\.\.\., 7\)"
    ):
        exported(ft.Maxout(7, 5), torch.randn(4, 6), True)
    assert ft.Maxout(7, 5)(torch.randn(4, 7)).shape == (4, 5)
