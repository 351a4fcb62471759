"""`fastact.torch.accelerate`: values, what is fused and when, and that all else is PyTorch's own."""

import copy
import io
import pickle
import re
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, prune
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

import fastact.torch as ft
from fastact.torch import chain, fused_activation, fused_maxout
from fastact.torch.chain import Chain

ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.LeakyReLU(0.2),
    nn.LeakyReLU(1),
    nn.ELU(0.5),
    nn.SELU(),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Softplus(),
    nn.Mish(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Softsign(),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Hardtanh(),
    nn.ReLU6(),
    nn.LogSigmoid(),
]

deprecated = pytest.mark.filterwarnings(
    "ignore:.torch.jit.* is deprecated",
    "ignore:torch.ao.quantization is deprecated:DeprecationWarning",
    "ignore:.torch.nn.utils.weight_norm. is deprecated:FutureWarning",
)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(chain, "RECORDED_COST", 0.0)  # the models here are small
    torch._dynamo.reset()  # it compiles one function for 8 different models at the most


def randn(*shape, **options):
    return torch.randn(shape, **options)


@pytest.fixture
def fused(monkeypatch):
    """The names of the operators that run, in order."""
    calls = []

    def spy(module, name):
        real = getattr(module, name)

        def call(*args, **kwargs):
            calls.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    spy(fused_activation, "linear_activation")
    spy(fused_maxout, "linear_maxout")
    run = Chain.run

    def run_chain(self, x):
        y = run(self, x)
        if y is not None:  # what runs as one operator besides: not a Linear alone
            calls.extend(
                "linear_maxout" if link.pieces else "linear_activation"
                for link in self.links
                if len(link.modules) > 1
            )
        return y

    monkeypatch.setattr(Chain, "run", run_chain)
    return calls


def network():
    """Two pairs that one operator each runs, and a Linear that stays."""
    return nn.Sequential(
        nn.Linear(6, 8), nn.LeakyReLU(0.1), nn.Linear(8, 12), nn.MaxPool1d(3), nn.Linear(4, 3)
    )


BOTH = ["linear_activation", "linear_maxout"]


def twins():
    """A model, and a copy of it that is accelerated."""
    plain = network()
    model = copy.deepcopy(plain)
    assert len(ft.accelerate(model).replaced) == 3
    return plain, model


METHODS = {"forward", "__getstate__", "__deepcopy__", "_replicate_for_data_parallel"}


def forwards(model):
    """The containers that have a forward, or another method, beside their class's."""
    return [name for name, module in model.named_modules() if METHODS & vars(module).keys()]


# ---- values and gradients


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_linear_and_activation_give_the_same_values_and_gradients(fused, activation):
    model = nn.Sequential(nn.Linear(30, 20), activation, nn.Linear(20, 4)).double()
    x = randn(6, 30, dtype=torch.float64)
    expected = model(x)
    gradients = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    report = ft.accelerate(model)
    assert [change.name for change in report.replaced] == ["0", "2"]
    # sums of at most 31 numbers around 1, and their products: some hundred roundings of 1.1e-16; but
    # PyTorch's Softplus is z above 20, and off by up to exp(-20) there, where these numbers do not come
    torch.testing.assert_close(model(x), expected, rtol=1e-13, atol=1e-13)
    actual = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    # PyTorch's derivative of Hardsigmoid has a float32 for 1/6
    rtol = 2.0**-24 if isinstance(activation, nn.Hardsigmoid) else 1e-12
    torch.testing.assert_close(actual, gradients, rtol=rtol, atol=1e-12)
    assert fused == ["linear_activation"] * 2


@pytest.mark.parametrize("leading", [(6,), (2, 6)], ids=str)
def test_linear_and_pool_give_the_same_values_and_gradients(fused, leading):
    model = nn.Sequential(nn.Linear(30, 20), nn.MaxPool1d(4), nn.Dropout(0.5), nn.Linear(5, 3)).eval()
    outer = nn.ModuleDict({"deep": nn.Sequential(model)})
    x = randn(*leading, 30)
    expected = model(x)
    gradients = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    report = ft.accelerate(outer)
    assert [str(change) for change in report.replaced] == [
        "deep.0.0: Linear + MaxPool1d -> linear_maxout(pieces=4)",
        "deep.0.2: Dropout -> dropout(p=0.5)",
        "deep.0.3: Linear -> linear_activation(activation='identity')",
    ]
    y = outer["deep"](x)
    torch.testing.assert_close(y, expected)
    actual = torch.autograd.grad(y.square().sum(), list(model.parameters()))
    torch.testing.assert_close(actual, gradients)
    assert fused == ["linear_maxout"]


class MaxoutLinear(nn.Module):
    """What stanza's layer of that name computes: pieces before outputs."""

    def __init__(self, in_channels, out_channels, maxout_k):
        super().__init__()
        self.maxout_k = maxout_k
        self.linear = nn.Linear(in_channels, out_channels * maxout_k)

    def forward(self, x):
        return self.linear(x).unflatten(-1, (self.maxout_k, -1)).amax(-2)


@pytest.fixture
def stanza(monkeypatch):
    monkeypatch.setattr(MaxoutLinear, "__module__", "stanza.models.common.maxout_linear")
    return nn.ModuleDict({"output": MaxoutLinear(7, 5, 3)})


@deprecated
def test_stanzas_maxout_is_fused_in_place(stanza, fused):
    layer, x = stanza["output"], randn(2, 6, 7)
    expected = layer(x)
    gradients = torch.autograd.grad(expected.square().sum(), list(stanza.parameters()))
    before = list(stanza.modules())
    report = ft.accelerate(stanza)
    assert [change.name for change in report.replaced] == ["output"]
    assert list(stanza.modules()) == before
    torch.testing.assert_close(layer(x), expected)
    assert fused == ["linear_maxout"]
    assert torch.equal(torch.jit.script(layer)(x), expected)
    actual = torch.autograd.grad(layer(x).square().sum(), list(stanza.parameters()))
    torch.testing.assert_close(actual, gradients)
    fused.clear()
    hook = layer.linear.register_forward_hook(lambda *_: None)
    assert torch.equal(layer(x), expected)
    hook.remove()
    with pytest.raises(TypeError, match=r"MaxoutLinear.forward\(\) missing 1 required positional argument"):
        layer()
    assert torch.equal(layer(x=x), expected)  # by the name that the class gives its argument
    assert torch.equal(layer.bfloat16()(x.bfloat16()), MaxoutLinear.forward(layer, x.bfloat16()))
    assert not fused
    ft.restore(stanza)
    assert not forwards(stanza)


def test_stanzas_maxout_with_another_forward_runs_it(stanza, fused, monkeypatch):
    layer, x = stanza["output"], randn(6, 7)
    ft.accelerate(stanza)
    monkeypatch.setattr(MaxoutLinear, "forward", lambda self, x: self.linear(x))
    assert torch.equal(layer(x), layer.linear(x))
    assert not fused


def test_training_in_float64_follows_the_composition():
    x, labels = randn(5, 20, 30, dtype=torch.float64), torch.randint(0, 4, (5, 20))

    def losses(accelerated):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(30, 48), nn.MaxPool1d(3), nn.Linear(16, 8), nn.ELU(), nn.Linear(8, 4))
        model.double()
        if accelerated:
            ft.accelerate(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for batch, wanted in zip(x, labels, strict=True):
            loss = nn.functional.cross_entropy(model(batch), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            yield loss.item()

    # 5 steps of sums of at most 48 terms, of numbers around 1: some thousand roundings of 1.1e-16
    np.testing.assert_allclose(list(losses(True)), list(losses(False)), rtol=1e-12)


# ---- every module stays


def test_modules_parameters_and_text_stay_the_same():
    model = nn.Sequential(OrderedDict(body=network(), head=nn.Softmax(-1)))
    before, text, keys = list(model.named_modules()), repr(model), list(model.state_dict())
    kinds, parameters = [type(module) for _, module in before], list(model.parameters())
    ft.accelerate(model)
    assert list(model.named_modules()) == before
    assert [type(module) for module in model.modules()] == kinds
    assert repr(model) == text
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert forwards(model) == ["body"]  # nothing in the outer Sequential is fused


def test_linear_used_twice_stays_tied(fused):
    linear = nn.Linear(6, 6)
    model = nn.Sequential(linear, nn.Tanh(), linear, nn.Tanh())
    x, expected = randn(4, 6), None
    expected = model(x)
    assert [change.name for change in ft.accelerate(model).replaced] == ["0", "2"]
    torch.testing.assert_close(model(x), expected)
    state = {name: 2 * value for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    assert model[0].weight is model[2].weight
    torch.testing.assert_close(model(x), torch.tanh(linear(torch.tanh(linear(x)))))
    assert fused == ["linear_activation"] * 4


def test_buffers_submodules_attributes_and_state_hooks_of_a_linear_stay():
    plain = network()
    plain[0].register_buffer("mask", torch.ones(8, 6))
    plain[0].extra = nn.Linear(2, 2)
    plain[0].note = "kept"
    plain[0].register_state_dict_post_hook(lambda module, state, prefix, _: state.update(hooked=True))
    model = copy.deepcopy(plain)
    ft.accelerate(model)
    state = model.state_dict()
    assert list(state) == list(plain.state_dict())
    assert state.pop("hooked")
    plain.load_state_dict(state)
    assert model[0].note == "kept"


class LoRA(nn.Module):
    """A Linear whose weight is frozen, and a product of two narrow ones beside it."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = nn.Linear(base.in_features, base.out_features)
        self.base.weight, self.base.bias = base.weight, base.bias
        self.down, self.up = nn.Linear(base.in_features, rank), nn.Linear(rank, base.out_features)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def add_lora(model):
    torch.manual_seed(2)
    for name, child in list(model.named_children()):
        if isinstance(child, nn.Linear):
            setattr(model, name, LoRA(child))


def test_restore_after_a_parametrization_keeps_it():
    plain, model = twins()
    for each in (plain, model):
        parametrizations.weight_norm(each[0])
    ft.restore(model)
    assert not forwards(model)
    x = randn(5, 6)
    assert torch.equal(model(x), plain(x))


# ---- what does not fit at a call runs as PyTorch's own


def hook(kind, function):
    """Registers a hook on one module of each pair."""

    def register(model):
        for index in (0, 3):
            getattr(model[index], f"register_{kind}")(function)

    return register


def each_linear(function):
    def change(model):
        torch.manual_seed(2)
        for index in (0, 2):
            function(model[index])

    return change


def own_forward(model):
    for index in (0, 3):
        child = model[index]
        child.forward = lambda x, child=child: 2 * type(child).forward(child, x)


def own_weight(model):
    for index in (0, 2):
        weight = model[index].weight.detach()
        del model[index].weight
        model[index].weight = 2 * weight


def shadowed_weight(model):
    for index in (0, 2):
        vars(model[index])["weight"] = nn.Parameter(2 * model[index].weight.detach())


class OwnLinear(nn.Linear):
    def forward(self, x):
        return -super().forward(x)


class OwnTensor(torch.Tensor):
    pass


def subclasses(model):
    model[0].__class__ = OwnLinear
    model[3].__class__ = type("OwnPool", (nn.MaxPool1d,), {"forward": lambda self, x: x[..., :4]})


def tensor_subclass(model):
    for index in (0, 2):
        model[index].weight = nn.Parameter(model[index].weight.detach().as_subclass(OwnTensor))
        assert type(model[index].weight) is OwnTensor


def slope(value):
    """The activation's slope, and a pool that overlaps."""

    def change(model):
        torch.manual_seed(2)
        model[1].negative_slope = value
        model[3].stride = 2
        model[4] = nn.Linear(5, 3)

    return change


def wider_bias(model):
    for index in (0, 2):
        model[index].bias = nn.Parameter(torch.ones(1))


def without_bias(model):
    for index in (0, 2):
        model[index].register_parameter("bias", None)


CHANGES = {
    "forward hook": hook("forward_hook", lambda module, args, y: 2 * y),
    "forward pre-hook": hook("forward_pre_hook", lambda module, args: (2 * args[0],)),
    "backward hook": hook("full_backward_hook", lambda module, grads, _: tuple(2 * g for g in grads)),
    "backward pre-hook": hook("full_backward_pre_hook", lambda module, grads: (2 * grads[0],)),
    "weight_norm": each_linear(parametrizations.weight_norm),
    "old weight_norm": each_linear(lambda linear: torch.nn.utils.weight_norm(linear)),
    "spectral_norm": each_linear(parametrizations.spectral_norm),
    "old spectral_norm": each_linear(lambda linear: torch.nn.utils.spectral_norm(linear)),
    "orthogonal": each_linear(parametrizations.orthogonal),
    "prune": each_linear(lambda linear: prune.l1_unstructured(linear, "weight", 0.5)),
    "prune bias": each_linear(lambda linear: prune.l1_unstructured(linear, "bias", 0.5)),
    "instance forward": own_forward,
    "plain weight": own_weight,
    "shadowed weight": shadowed_weight,
    "subclasses": subclasses,
    "tensor subclass": tensor_subclass,
    "LoRA": add_lora,
    "tensor slope": slope(torch.tensor(0.3)),
    "infinite slope": slope(float("inf")),
    "bias that is broadcast": wider_bias,
    "compiled children": lambda model: [model[i].compile(backend="eager") for i in (0, 3)],
}


def outputs_and_gradients(model, x):
    x = x.clone().requires_grad_()
    y = model(x)
    return y, *torch.autograd.grad(y.square().sum(), [x, *model.parameters()], materialize_grads=True)


@deprecated
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # dynamo's
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_after_accelerate_runs_as_pytorchs_own(fused, change):
    plain, model = twins()
    for each in (plain, model):
        CHANGES[change](each)
    x = randn(5, 6)
    for actual, expected in zip(
        outputs_and_gradients(model, x), outputs_and_gradients(plain, x), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)
    assert not fused


def pruned(model):
    prune.remove(prune.l1_unstructured(model[0], "weight", 0.5), "weight")


@pytest.mark.parametrize("change", [without_bias, pruned])
def test_what_changes_and_still_fits_is_fused(fused, change):
    plain, model = twins()
    for each in (plain, model):
        change(each)
    x = randn(5, 6)
    torch.testing.assert_close(outputs_and_gradients(model, x), outputs_and_gradients(plain, x))
    assert fused == BOTH


@pytest.mark.parametrize(
    "kind", ["forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"]
)
def test_global_hooks_see_every_module(fused, kind):
    plain, model = twins()
    seen = []
    register = getattr(torch_module, f"register_module_{kind}")
    handle = register(lambda module, *_: seen.append(type(module)))
    try:
        for each in (plain, model):
            each(randn(5, 6).requires_grad_()).sum().backward()
    finally:
        handle.remove()
    assert len(seen) == 12
    assert seen[:6] == seen[6:]
    assert not fused


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (nn.Linear, "forward"),
        (nn.Linear, "__call__"),
        (nn.LeakyReLU, "forward"),
        (nn.LeakyReLU, "__call__"),
        (nn.MaxPool1d, "forward"),
        (nn.MaxPool1d, "__call__"),
        (nn.Sequential, "forward"),
        (nn.Sequential, "__call__"),
        (nn.Sequential, "__iter__"),
        (nn.Module, "__call__"),
        (nn.Module, "_call_impl"),
    ],
)
def test_changed_class_is_obeyed(monkeypatch, kind, name):
    plain, model = twins()
    real, calls = getattr(kind, name), []

    def changed(self, *args):
        calls.append(type(self))
        return real(self, *args)

    monkeypatch.setattr(kind, name, changed)
    x = randn(5, 6)
    expected = plain(x)
    count = len(calls)
    assert count
    torch.testing.assert_close(model(x), expected)
    assert calls[:count] == calls[count:]


def test_wrong_arguments_have_the_error_of_sequential():
    plain, model = twins()
    x = randn(5, 6)
    torch.testing.assert_close(model(input=x), plain(x))
    for args, kwargs in (((), {}), ((x, x), {}), ((), {"x": x})):
        assert outcome(lambda args=args, kwargs=kwargs: model(*args, **kwargs)) == outcome(
            lambda args=args, kwargs=kwargs: plain(*args, **kwargs)
        )


def test_children_are_read_at_each_call(fused):
    plain, model = twins()
    for each in (plain, model):
        torch.manual_seed(2)
        each[1] = nn.Tanh()
        each.append(nn.SiLU())
        each[2] = nn.Linear(8, 9)
        each[4] = nn.Linear(3, 2)
    x = randn(5, 6)
    torch.testing.assert_close(outputs_and_gradients(model, x), outputs_and_gradients(plain, x))
    assert fused == ["linear_activation", "linear_maxout", "linear_activation"]


def jagged():
    parts = [torch.ones(2, 6), torch.ones(3, 6)]
    return torch.nested.nested_tensor(parts, layout=torch.jagged)


INPUTS = {
    "sparse": lambda: randn(5, 6).to_sparse(),
    "sparse CSR": lambda: randn(5, 6).to_sparse_csr(),
    "jagged": jagged,
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2, 6), torch.ones(3, 6)]),
    "subclass": lambda: randn(5, 6).as_subclass(OwnTensor),
    "meta": lambda: torch.empty(5, 6, device="meta"),
    "float64": lambda: randn(5, 6).double(),
    "bfloat16": lambda: randn(5, 6).bfloat16(),
    "int": lambda: torch.ones(5, 6, dtype=torch.int64),
    "complex": lambda: randn(5, 6, dtype=torch.complex64),
    "too wide": lambda: randn(5, 7),
    "no dimension": lambda: torch.tensor(1.0),
    "one row": lambda: randn(6),
    "four dimensions": lambda: randn(2, 2, 5, 6),
    "no rows": lambda: randn(0, 6),
    "no batch": lambda: randn(0, 5, 6),
    "tuple": lambda: (randn(5, 6),),
    "none": lambda: None,
}


def outcome(call):
    """What a call returns, or the error that it raises."""
    try:
        return call()
    except Exception as error:
        return type(error), str(error)


def assert_same_outcome(actual, expected):
    assert type(actual) is type(expected), (actual, expected)
    if isinstance(expected, tuple):
        assert actual == expected
        return
    assert (actual.dtype, actual.layout, actual.device) == (expected.dtype, expected.layout, expected.device)
    if expected.is_nested:
        for one, other in zip(actual.unbind(), expected.unbind(), strict=True):
            torch.testing.assert_close(one, other)
    elif expected.is_meta:
        assert actual.shape == expected.shape
    else:
        torch.testing.assert_close(actual, expected)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize(
    "layers", [slice(0, 2), slice(2, 4), slice(0, 5)], ids=["activation", "pool", "both"]
)
@pytest.mark.parametrize("name", INPUTS)
def test_any_input_has_the_outcome_of_pytorch(name, layers):
    plain = network()[layers]
    if layers.start:
        plain[0] = nn.Linear(6, 12)
    model = copy.deepcopy(plain)
    assert ft.accelerate(model).replaced
    x = INPUTS[name]()
    assert_same_outcome(outcome(lambda: model(x)), outcome(lambda: plain(x)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_another_dtype_after_accelerate(fused, dtype):
    plain, model = twins()
    x = randn(5, 6).to(dtype)
    torch.testing.assert_close(model.to(dtype)(x), plain.to(dtype)(x))
    assert fused == (BOTH if dtype is torch.float64 else [])
    model.float()(x.float())
    assert fused[-2:] == BOTH


def test_another_device_after_accelerate(fused):
    _, model = twins()
    assert model.to("meta")(torch.empty(5, 6, device="meta")).shape == (5, 3)
    model.to_empty(device="cpu")
    assert model(torch.zeros(5, 6)).shape == (5, 3)
    assert fused == BOTH


def test_parameters_of_a_functional_call_are_used(fused):
    plain, model = twins()
    other = {name: 2 * value.detach() for name, value in plain.named_parameters()}
    x = randn(5, 6)
    expected = torch.func.functional_call(plain, other, (x,))
    torch.testing.assert_close(torch.func.functional_call(model, other, (x,)), expected)
    assert fused == BOTH


@deprecated
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantize_dynamic_finds_the_linears():
    plain, model = twins()
    x = randn(5, 6)
    expected = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear})
    actual = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    assert torch.equal(actual(x), expected(x))


def test_attribution_rules_by_module_type_are_the_same():
    """As guided backpropagation and captum's rules do: hooks on each module of a type."""
    plain, model = twins()
    for each in (plain, model):
        for module in each.modules():
            if isinstance(module, nn.LeakyReLU):
                module.register_full_backward_hook(lambda module, grads, _: (grads[0].clamp(min=0),))
    x = randn(5, 6)
    for actual, expected in zip(
        outputs_and_gradients(model, x), outputs_and_gradients(plain, x), strict=True
    ):
        torch.testing.assert_close(actual, expected)


# ---- tracers, exporters, modes and transforms


def script(model, x):
    return torch.jit.script(model)


def trace(model, x):
    return torch.jit.trace(model, x)


def symbolic_trace(model, x):
    return torch.fx.symbolic_trace(model)


def dispatch_trace(model, x):
    return make_fx(model)(x)


def export(model, x):
    return torch.export.export(model, (x,)).module()


def export_strict(model, x):
    return torch.export.export(model, (x,), strict=True).module()


@deprecated
@pytest.mark.parametrize("nested", [False, True], ids=["root", "nested"])
@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("record", [script, trace, symbolic_trace, dispatch_trace, export, export_strict])
def test_recorded_graphs_are_pytorchs_own(record, nested, train):
    plain, model = twins()
    if nested:
        plain, model = nn.Sequential(plain, nn.Tanh()), nn.Sequential(model, nn.Tanh())
    x = randn(5, 6)
    recorded = record(model.train(train), x)
    assert torch.equal(recorded(x), plain(x))
    assert "fastact::" not in (graph := str(recorded.graph))
    assert "fastact." not in graph


@deprecated
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of its own
@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_exporters_write_pytorchs_own_operators(dynamo):
    pytest.importorskip("onnx")
    if dynamo:
        pytest.importorskip("onnxscript")
    plain, model = (each.eval() for each in twins())
    x = randn(5, 6)
    files = [io.BytesIO(), io.BytesIO()]
    for each, file in zip((plain, model), files, strict=True):
        torch.onnx.export(each, (x,), file, dynamo=dynamo, verbose=False)
    assert b"Gemm" in files[0].getvalue()
    if dynamo:  # it writes down where each operator was called
        import onnx

        assert [
            [node.op_type for node in onnx.load_from_string(file.getvalue()).graph.node] for file in files
        ] == [["Gemm", "LeakyRelu", "Gemm", "Unsqueeze", "MaxPool", "Squeeze", "Gemm"]] * 2
    else:
        assert files[0].getvalue() == files[1].getvalue()


def flops(model, x):
    with FlopCounterMode(display=False) as counter:
        model(x).sum().backward()
    return counter.get_total_flops()


def test_flop_counter_counts_as_before():
    plain, model = twins()
    x = randn(5, 6)
    assert flops(model, x) == flops(plain, x) > 0


class Operators(TorchDispatchMode):
    """The operators that the dispatcher sees."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(function)
        return function(*args, **(kwargs or {}))


def test_dispatch_mode_sees_pytorchs_operators():
    seen = []
    for each in twins():
        with Operators() as mode:
            each(randn(5, 6))
        seen.append(mode.seen)
    assert seen[0] == seen[1]
    assert torch.ops.aten.leaky_relu.default in seen[0]


def test_fake_tensors_run():
    _, model = twins()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert model(mode.from_tensor(randn(5, 6))).shape == (5, 3)


@deprecated
def test_transforms_and_forward_mode_have_derivatives():
    plain, model = twins()
    x = randn(5, 6)
    for transform in (
        lambda f: torch.vmap(f)(x),
        lambda f: torch.func.grad(lambda x: f(x).sum())(x),
        lambda f: torch.func.jvp(f, (x,), (x,))[1],
        lambda f: torch.func.hessian(lambda x: f(x).square().sum())(x[:2]),
    ):
        torch.testing.assert_close(
            transform(lambda x: model(x[None])[0]), transform(lambda x: plain(x[None])[0])
        )
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x)
        tangents = [forward_ad.unpack_dual(each(dual)).tangent for each in (plain, model)]
    torch.testing.assert_close(*tangents)


def test_default_device_and_profiler_do_not_change_what_runs(fused):
    _, model = twins()
    x = randn(5, 6)
    with torch.device("cpu"):
        model(x)
    assert fused == BOTH
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        model(x)
    assert {f"fastact::{name}" for name in BOTH} <= {event.key for event in profile.key_averages()}


class Names(torch.overrides.TorchFunctionMode):
    """The names of PyTorch's functions that a model calls."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen.append(getattr(function, "__name__", str(function)))
        return function(*args, **(kwargs or {}))


def test_function_mode_sees_pytorchs_functions():
    plain, model = twins()
    seen = []
    for each in (plain, model):
        with Names() as mode:
            each(randn(5, 6))
        seen.append([name for name in mode.seen if name in ("linear", "leaky_relu", "max_pool1d")])
    assert seen[0] == seen[1] != []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_fused_and_returns_its_dtype(fused, dtype):
    plain, model = twins()
    x = randn(5, 6)
    with torch.autocast("cpu", dtype=dtype):
        for given in (x, x.to(dtype)):
            y, expected = model(given), plain(given)
            assert y.dtype == expected.dtype == dtype
            # three layers of sums of at most 13 numbers around 1, rounded to 8 bits at each layer
            torch.testing.assert_close(y, expected, rtol=0.05, atol=0.05)
        assert fused == BOTH * 2
        low = copy.deepcopy(model).to(dtype)
        assert torch.equal(low(x.to(dtype)), copy.deepcopy(plain).to(dtype)(x.to(dtype)))
    y.float().sum().backward()
    assert model[0].weight.grad.dtype == torch.float32
    assert fused == BOTH * 2


def test_checkpointing_gives_the_same_gradients(fused):
    plain, model = twins()
    x = randn(5, 6, requires_grad=True)
    gradients = []
    for each in (plain, model):
        y = checkpoint(each, x, use_reentrant=False)
        gradients.append(torch.autograd.grad(y.square().sum(), [x, *each.parameters()]))
    torch.testing.assert_close(*gradients)
    assert fused == BOTH * 2


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_as_one_graph_with_the_fused_operators(dynamic):
    plain, model = twins()
    targets = []

    def backend(graph, inputs):
        targets.append({str(node.target) for node in graph.graph.nodes})
        return graph

    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend=backend)
    for rows in (5, 9, 2):
        x = randn(rows, 6)
        torch.testing.assert_close(outputs_and_gradients(compiled, x), outputs_and_gradients(plain, x))
    assert all({f"fastact.{name}.default" for name in BOTH} <= names for names in targets)
    inductor = torch.compile(model, fullgraph=True, dynamic=dynamic)
    torch.testing.assert_close(outputs_and_gradients(inductor, x), outputs_and_gradients(plain, x))


@pytest.mark.parametrize("change", ["forward hook", "weight_norm", "LoRA", "bias that is broadcast"])
def test_compiles_what_does_not_fit_as_pytorchs_own(change):
    plain, model = twins()
    for each in (plain, model):
        CHANGES[change](each)
    x = randn(5, 6)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(outputs_and_gradients(compiled, x), outputs_and_gradients(plain, x))


def doubles_activations(module, args, y):
    return 2 * y if isinstance(module, nn.LeakyReLU) else None


def with_global_hook(model, x):
    with torch_module.register_module_forward_hook(doubles_activations):
        return model(x)


def with_dual_numbers(model, x):
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(model(forward_ad.make_dual(x, x))).tangent


@deprecated
@pytest.mark.parametrize(
    "call",
    [
        with_dual_numbers,
        lambda model, x: torch.vmap(model)(x[:, None]),
        lambda model, x: torch.func.grad(lambda x: model(x).sum())(x),
        lambda model, x: torch.func.jvp(model, (x,), (x,))[1],
    ],
    ids=["dual", "vmap", "grad", "jvp"],
)
def test_compiles_derivatives_of_pytorchs_own(call):
    plain, model = twins()
    x = randn(5, 6)
    compiled = torch.compile(lambda x: call(model, x), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), call(plain, x))


def test_compiled_code_runs_global_hooks():
    plain, model = twins()
    x = randn(5, 6)
    compiled = torch.compile(lambda x: model(x), fullgraph=True, backend="eager")
    torch.testing.assert_close(with_global_hook(lambda x: compiled(x), x), with_global_hook(plain, x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_compiles_with_the_fused_operators(dtype):
    _, model = twins()
    graphs = []

    def backend(graph, inputs):
        graphs.append(str(graph.graph))
        return graph

    compiled = torch.compile(model, fullgraph=True, backend=backend)
    x = randn(5, 6)
    with torch.autocast("cpu", dtype=dtype):
        for given in (x, x.to(dtype)):
            assert torch.equal(compiled(given), model(given))
    assert all("fastact.linear_activation" in graph for graph in graphs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_compiles_in_another_dtype(dtype):
    plain, model = twins()
    x = randn(5, 6).to(dtype)
    compiled = torch.compile(model.to(dtype), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), plain.to(dtype)(x))


class Rows(Dataset):
    """Rows that a model has transformed, in a DataLoader's worker."""

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 4

    def __getitem__(self, index):
        with torch.no_grad():
            return self.model(torch.full((5, 6), float(index)))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on one core
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # from JAX, where its tests ran in this process
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_runs_in_workers(method):
    _, model = twins()
    rows = Rows(model)
    loader = DataLoader(rows, batch_size=2, num_workers=1, multiprocessing_context=method, timeout=120)
    for index, batch in enumerate(loader):
        torch.testing.assert_close(batch, torch.stack([rows[2 * index], rows[2 * index + 1]]))


# ---- copies, pickles and restore


def test_deep_copy_runs_on_its_own_parameters(fused):
    _, model = twins()
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x = randn(5, 6)
    assert not model(x).any()
    assert twin(x).any()
    assert fused == BOTH * 2
    assert not ft.accelerate(twin).replaced
    ft.restore(twin)
    assert not forwards(twin)
    assert forwards(model) == [""]


def replica(model):
    """What nn.DataParallel makes of a model for each device."""
    return model._replicate_for_data_parallel()


def from_attributes(model):
    twin = nn.Sequential()
    vars(twin).update(vars(model))
    return twin


@pytest.mark.parametrize("make", [copy.copy, replica, from_attributes])
def test_shallow_copy_runs_its_own_children(fused, make):
    plain, model = twins()
    twin = make(model)
    twin._modules = dict(plain._modules)
    with torch.no_grad():
        model[4].weight.zero_()
    x = randn(5, 6)
    if make is not from_attributes:  # which runs the methods that it has copied
        assert torch.equal(twin(x), plain(x))
    assert not fused
    assert len(ft.accelerate(twin).replaced) == 3
    torch.testing.assert_close(twin(x), plain(x))
    assert fused == BOTH
    ft.restore(twin)
    assert not forwards(twin)
    assert forwards(model) == [""]


def test_deep_copy_keeps_cycles_and_a_classs_own_copies():
    class Copied(nn.Sequential):
        def __deepcopy__(self, memo):
            twin = type(self)(*(copy.deepcopy(child, memo) for child in self))
            twin.copied = True
            return twin

    model = nn.ModuleDict({"inner": Copied(*network()), "other": network()})
    vars(model["other"])["parent"] = model
    ft.accelerate(model)
    twin = copy.deepcopy(model)
    assert twin["inner"].copied
    assert twin["other"].parent is twin
    assert forwards(twin) == ["inner", "other"]
    assert twin["other"].forward.__self__ is twin["other"]


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_of_every_protocol_is_the_model_before(fused, protocol):
    plain, model = twins()
    twin = pickle.loads(pickle.dumps(model, protocol))
    x = randn(5, 6)
    assert torch.equal(twin(x), plain(x))
    assert not fused


def saved_safely(model):
    """Loaded with the classes of the model as the only ones that may be made."""
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    kinds = [nn.ModuleList, nn.Sequential, nn.Linear, nn.LeakyReLU, nn.MaxPool1d, set]
    with torch.serialization.safe_globals(kinds):
        return torch.load(file, weights_only=True)


def cloudpickled(model):
    cloudpickle = pytest.importorskip("cloudpickle")
    return pickle.loads(cloudpickle.dumps(model))


@pytest.mark.parametrize("load", [pickled, saved, saved_safely, cloudpickled])
def test_unpickled_model_is_accelerated_and_restored(fused, load):
    plain, model = twins()
    x = randn(5, 6)
    twin = load(nn.ModuleList([model]))
    assert not forwards(twin)
    ft.restore(twin)
    assert not forwards(twin)
    assert len(ft.accelerate(twin).replaced) == 3
    with torch.no_grad():
        model[4].weight.zero_()
    torch.testing.assert_close(copy.deepcopy(twin)[0](x), plain(x))
    assert fused == BOTH
    assert torch.equal(load(twin)[0](x), plain(x))


def test_saved_model_loads_without_fastact(tmp_path):
    plain, model = twins()
    x = randn(5, 6)
    torch.save(nn.ModuleList([model]), tmp_path / "model.pt")
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    torch.save({"x": x, "y": plain(x).detach()}, tmp_path / "expected.pt")
    code = (
        "import pickle, sys\n"
        "sys.modules['fastact'] = None\n"
        "import torch\n"
        "expected = torch.load('expected.pt')\n"
        "models = torch.load('model.pt', weights_only=False), [pickle.load(open('model.pickle', 'rb'))]\n"
        "for (model,) in models:\n"
        "    assert torch.equal(model(expected['x']), expected['y'])\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


@pytest.mark.parametrize(
    "undo", [lambda model, report: report.restore(), lambda model, report: ft.restore(model)]
)
def test_restore_keeps_the_trained_parameters(fused, undo):
    model = nn.ModuleDict({"inner": network()})
    x = randn(5, 6)
    report = ft.accelerate(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model["inner"](x).square().sum().backward()
    optimizer.step()
    expected = model["inner"](x)
    fused.clear()
    undo(model, report)
    assert not forwards(model)
    torch.testing.assert_close(model["inner"](x), expected)
    assert not fused
    undo(model, report)  # once more changes nothing
    assert ft.accelerate(model).replaced == report.replaced


@pytest.mark.parametrize("piece_major", [False, True])
def test_pooled_linear_in_a_pickle_of_0_1_0_loads(fused, piece_major):
    linear = nn.Linear(6, 12)
    x = randn(5, 6)
    units = linear(x)
    groups = units.unflatten(-1, (3, 4)).transpose(-1, -2) if piece_major else units.unflatten(-1, (4, 3))
    linear.__class__ = ft.PooledLinear
    linear.pieces, linear.piece_major = 3, piece_major
    data = pickle.dumps(nn.Sequential(linear), protocol=0)  # which writes module names as lines
    assert data.count(b"cfastact.torch.modules\nPooledLinear\n") == 1
    twin = pickle.loads(data.replace(b"cfastact.torch.modules\n", b"cfastact.torch\n"))
    torch.testing.assert_close(twin(x), groups.amax(-1))
    assert fused == ["linear_maxout"]
    assert ft.accelerate(twin).skipped == [("0", "fastact's own layer, which runs fused")]


def test_restore_leaves_a_forward_that_is_not_fastacts():
    _, model = twins()

    def own(x):
        return x

    model.forward = own
    twin = copy.deepcopy(model)
    for each in (model, twin):
        ft.restore(each)
        assert each.forward is own
    del model.forward
    assert not forwards(model)
    with pytest.raises(TypeError, match=r"module: got int, wanted a torch\.nn\.Module"):
        ft.restore(1)


def test_accelerate_twice_changes_nothing(fused):
    plain, model = twins()
    report = ft.accelerate(model)
    assert not report.replaced
    assert report.skipped == [
        ("0", "it is accelerated already"),
        ("2", "it is accelerated already"),
        ("4", "it is accelerated already"),
    ]
    x = randn(5, 6)
    torch.testing.assert_close(model(x), plain(x))
    assert fused == BOTH
    report.restore()  # of what this report did: nothing
    assert forwards(model) == [""]


# ---- reports


class OwnSequential(nn.Sequential):
    def forward(self, x):
        return -super().forward(x)


class Reversed(nn.Sequential):
    def __iter__(self):
        return reversed(self._modules.values())


class Inheriting(nn.Sequential):
    pass


def test_report_says_why_the_layers_of_a_container_stay():
    own = network()
    own.forward = lambda x: x
    plain = nn.ModuleDict(
        {
            "instance": own,
            "class": OwnSequential(*network()),
            "order": Reversed(*network()),
            "list": nn.ModuleList(network()),
        }
    )
    model = copy.deepcopy(plain)
    before = {name: vars(module).copy() for name, module in model.named_modules()}
    report = ft.accelerate(model)
    assert not report.replaced
    reasons = {
        "instance": "Sequential has a forward of its own",
        "class": "OwnSequential has a forward or an __iter__ of its own",
        "order": "Reversed has a forward or an __iter__ of its own",
        "list": "in a ModuleList, not in an nn.Sequential",
    }
    assert report.skipped == [(f"{name}.{i}", why) for name, why in reasons.items() for i in range(5)]
    assert {name: vars(module) for name, module in model.named_modules()} == before
    x = randn(5, 6)
    assert model["instance"](x) is x
    assert torch.equal(model["class"](x), plain["class"](x))


@pytest.mark.parametrize("name", ["forward", "__iter__"])
def test_report_says_that_sequential_itself_was_changed(monkeypatch, name):
    real = getattr(nn.Sequential, name)
    model = network()
    monkeypatch.setattr(nn.Sequential, name, lambda self, *args: real(self, *args))
    reason = "Sequential has a forward or an __iter__ of its own"
    assert ft.accelerate(model).skipped == [(str(i), reason) for i in range(5)]
    assert not forwards(model)


def test_subclass_that_inherits_the_forward_of_sequential_is_fused(fused):
    model = Inheriting(*network())
    x = randn(5, 6)
    expected = model(x)
    assert len(ft.accelerate(model).replaced) == 3
    torch.testing.assert_close(model(x), expected)
    assert fused == BOTH


def test_report_says_why_layers_stay():
    hooked, own = nn.Linear(4, 4), nn.Linear(4, 4)
    hooked.register_forward_hook(lambda *_: None)
    own.forward = lambda x: x
    cases = {
        "hooked": (hooked, nn.ReLU(), "Linear has hooks"),
        "own": (own, nn.ReLU(), "Linear has a forward of its own"),
        "low": (nn.Linear(4, 4, dtype=torch.bfloat16), nn.ReLU(), "its dtype is torch.bfloat16"),
        "meta": (nn.Linear(4, 4, device="meta"), nn.ReLU(), "it is on meta"),
        "subclass": (OwnLinear(4, 4), nn.ReLU(), "OwnLinear is a subclass of Linear"),
        "norm": (parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU(), "is a subclass of Linear"),
        "prelu": (nn.Linear(4, 4), nn.PReLU(), "PReLU follows it"),
        "dropout": (nn.Linear(4, 4), nn.Dropout(), "Dropout follows it"),
        "softplus": (nn.Linear(4, 4), nn.Softplus(beta=2), "is not log"),
        "overlapping": (nn.Linear(4, 4), nn.MaxPool1d(2, stride=1), "whole groups"),
        "ragged": (nn.Linear(4, 4), nn.MaxPool1d(3), "whole groups"),
        "indices": (nn.Linear(4, 4), nn.MaxPool1d(2, return_indices=True), "whole groups"),
        "tensor": (nn.Linear(4, 4), nn.LeakyReLU(torch.tensor(0.2)), "negative_slope of its LeakyReLU"),
        "infinite": (nn.Linear(4, 4), nn.LeakyReLU(float("inf")), "negative_slope of its LeakyReLU"),
        "too large": (nn.Linear(4, 4), nn.ELU(1e39), "alpha of its ELU"),
    }
    model = nn.ModuleDict({name: nn.Sequential(*layers) for name, (*layers, _) in cases.items()})
    report = ft.accelerate(model)
    assert not report.replaced
    reasons = dict(report.skipped)
    for name, (linear, after, wanted) in cases.items():
        reason = reasons.pop(f"{name}.0")
        assert wanted in reason, name
        assert f"{type(linear).__name__}(4, 4): {reason}\n" in repr(report)
        if not isinstance(after, nn.Dropout):
            not_fused = isinstance(after, nn.PReLU)
            assert reasons.pop(f"{name}.1") == (
                "fastact does not fuse it with a Linear"
                if not_fused
                else "the Linear before it is left alone"
            )
    assert not reasons
    assert forwards(model) == ["own.0"]  # its own


HINT = (
    "accelerate fuses an nn.Linear with the activation or maximum after it, in an nn.Sequential "
    "or in a forward that torch.fx traces"
)


class Block(nn.Module):
    """A model that calls an activation as a function."""

    def __init__(self):
        super().__init__()
        self.first, self.more = nn.Linear(8, 8), nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.last = nn.Linear(8, 2)

    def forward(self, x):
        x = nn.functional.relu(self.first(x))
        for layer in self.more:
            x = nn.functional.relu(layer(x))
        return self.last(x)


MODELS = {
    "functional activation": (
        Block,
        "0 replaced\n5 left alone\n"
        "  first, ..., more.2: 4 x Linear(8, 8): one operator is no faster\n"
        f"  last: Linear(8, 2): nothing follows it in Block.forward\n{HINT}",
    ),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, activation=nn.GELU()),
        "0 replaced\n4 left alone\n"
        "  linear1: Linear(8, 16): used by TransformerEncoderLayer.forward, not by an nn.Sequential\n"
        "  linear2: Linear(16, 8): used by TransformerEncoderLayer.forward, not by an nn.Sequential\n"
        "  activation: GELU: used by TransformerEncoderLayer.forward, not by an nn.Sequential\n"
        "  self_attn.out_proj: NonDynamicallyQuantizableLinear(8, 8): used by MultiheadAttention.forward, "
        "not by an nn.Sequential\n" + HINT,
    ),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)),
        "0 replaced\n3 left alone\n"
        "  0: Linear(3, 4): BatchNorm1d follows it, and fastact does not fuse the two\n"
        "  2: ReLU: it follows BatchNorm1d, not a Linear\n"
        f"  3: Linear(4, 2): nothing follows it in its container\n{HINT}",
    ),
    "other activations": (
        lambda: nn.Sequential(
            nn.Tanh(), nn.Linear(3, 4), nn.Hardshrink(), nn.Linear(4, 2), nn.ReLU(), nn.Softmax(-1)
        ),
        "1 replaced\n  3: Linear + ReLU -> linear_activation(activation='relu')\n4 left alone\n"
        "  0: Tanh: no Linear comes before it in its container\n"
        "  1: Linear(3, 4): Hardshrink follows it, and fastact does not fuse the two\n"
        "  2: Hardshrink: fastact does not fuse it with a Linear\n"
        "  5: Softmax: it follows ReLU, not a Linear",
    ),
    "bfloat16": (
        lambda: nn.Sequential(*[nn.Linear(4, 4), nn.ReLU()] * 2).bfloat16(),
        "0 replaced\n4 left alone\n"
        "  0, 2: 2 x Linear(4, 4): its dtype is torch.bfloat16, not float32 or float64\n"
        f"  1, 3: 2 x ReLU: the Linear before it is left alone\n{HINT}",
    ),
    "another device": (
        lambda: nn.Sequential(nn.Linear(4, 4, device="meta"), nn.MaxPool1d(2)),
        "0 replaced\n2 left alone\n"
        "  0: Linear(4, 4): it is on meta, not on the CPU\n"
        f"  1: MaxPool1d: the Linear before it is left alone\n{HINT}",
    ),
    "fastact's own": (
        lambda: nn.Sequential(ft.Maxout(3, 4), ft.LinearActivation(4, 2), nn.Linear(2, 2), nn.ReLU6()),
        "1 replaced\n  2: Linear + ReLU6 -> linear_activation(activation='relu6')\n2 left alone\n"
        "  0: Maxout: fastact's own layer, which runs fused\n"
        "  1: LinearActivation(4, 2): fastact's own layer, which runs fused",
    ),
    "fastact's own alone": (
        lambda: ft.Maxout(3, 4),
        f"0 replaced\n1 left alone\n  the model: Maxout: fastact's own layer, which runs fused\n{HINT}",
    ),
    "an activation after fastact's own": (
        lambda: nn.Sequential(ft.LinearActivation(3, 4), nn.Tanh()),
        "0 replaced\n2 left alone\n"
        "  0: LinearActivation(3, 4): fastact's own layer, which runs fused\n"
        f"  1: Tanh: it follows LinearActivation, not a Linear\n{HINT}",
    ),
    "a Linear alone": (
        lambda: nn.Linear(3, 4),
        f"0 replaced\n1 left alone\n  the model: Linear(3, 4): not in an nn.Sequential\n{HINT}",
    ),
    "no such layer": (
        lambda: nn.Sequential(nn.Conv1d(3, 3, 1), nn.BatchNorm1d(3)),
        "0 replaced\n1 left alone\n"
        f"  the model: no Linear, activation or MaxPool1d in it, but BatchNorm1d, Conv1d, Sequential\n{HINT}",
    ),
    "many alike": (
        lambda: nn.Sequential(*[layer for _ in range(3) for layer in (nn.Linear(4, 4), nn.ReLU())]),
        "3 replaced\n  0, ..., 4: 3 x Linear + ReLU -> linear_activation(activation='relu')\n"
        "1 chain, in one call\n  0 to 4: 3 steps",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_report_prints_what_was_seen_and_why_it_stays(name):
    make, text = MODELS[name]
    assert repr(ft.accelerate(make())) == text


LAYER_KINDS = (
    nn.Linear,
    nn.MaxPool1d,
    *(type(each) for each in ACTIVATIONS),
    nn.PReLU,
    nn.Hardshrink,
    nn.Softmax,
)


@pytest.mark.parametrize("name", MODELS)
def test_report_accounts_for_every_layer_once(name):
    model = nn.ModuleDict({"model": MODELS[name][0](), "network": network()})
    places = [
        ".".join(filter(None, (path, child_name)))
        for path, parent in model.named_modules()
        for child_name, child in parent._modules.items()  # a layer in two places counts twice
        if isinstance(child, LAYER_KINDS)
    ]
    report = ft.accelerate(model)
    accounted = [place for place, _ in report.skipped]
    for change in report.replaced:
        parent, _, first = change.name.rpartition(".")
        accounted += [f"{parent}.{int(first) + i}" for i in range(len(change.before.split(" + ")))]
    extra = {"fastact's own": {"model.0"}, "fastact's own alone": {"model"}}.get(name, set())  # a Maxout
    assert sorted(set(accounted) - extra) == sorted(set(places))
    assert len(accounted) == len(set(accounted))


def test_readme_report_is_what_accelerate_prints(capsys, monkeypatch):
    monkeypatch.undo()
    text = (Path(__file__).parents[2] / "fastact" / "torch" / "README.md").read_text(encoding="utf-8")
    code, report = re.findall(r"^```(?:python)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)[1:3]
    exec(code, {})
    assert capsys.readouterr().out == report


def test_accelerate_refuses_what_is_not_a_module():
    with pytest.raises(TypeError, match=r"module: got function, wanted a torch\.nn\.Module"):
        ft.accelerate(lambda x: x)


def test_report_prints_what_was_replaced():
    assert repr(ft.accelerate(network())) == (
        "3 replaced\n"
        "  0: Linear + LeakyReLU -> linear_activation(activation='leaky_relu', negative_slope=0.1)\n"
        "  2: Linear + MaxPool1d -> linear_maxout(pieces=3)\n"
        "  4: Linear -> linear_activation(activation='identity')\n"
        "1 chain, in one call\n"
        "  0 to 4: 3 steps"
    )


class Broken(nn.ReLU):
    """A module that cannot be walked."""

    def named_modules(self, *args, **kwargs):
        raise RuntimeError("broken")


def test_failure_leaves_the_model_as_it_was():
    inner = network()
    with pytest.raises(RuntimeError, match="broken"):
        ft.accelerate(nn.Sequential(inner, Broken()))
    assert not forwards(inner)
