"""The PyTorch adapter: against fastact's own operations, PyTorch's composition, and PyTorch's own checks."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from support.tolerance import assert_within, sum_bound
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad, gradcheck
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset

import fastact
import fastact.torch as ft
from fastact import activations, backends, init, ops
from fastact.torch.operators import is_plain

TORCH_DTYPES = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}
LEADING = [(6,), (), (0,), (2, 3), (1, 0, 2)]
KEYWORDS = {"leaky_relu": {"negative_slope": 0.3}, "elu": {"alpha": 0.7}, "gelu": {"approximate": "tanh"}}
ACTIVATIONS = [(name, {}) for name in activations.NAMES if name != "prelu"] + list(KEYWORDS.items())
PLAIN = (None, None, None, None)  # slope, negative_slope, alpha, approximate


# Raised inside PyTorch, where its compiler is first imported.
inductor = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randn(*shape, dtype=torch.float32, grad=False):
    return torch.randn(shape, dtype=dtype, requires_grad=grad)


def maxout_tensors(leading=(6,), dtype=torch.float32, grad=True):
    """x (..., 7), weight (5, 3, 7) and bias (5, 3)."""
    return [randn(*shape, dtype=dtype, grad=grad) for shape in ((*leading, 7), (5, 3, 7), (5, 3))]


def linear_tensors(leading=(6,), dtype=torch.float32, grad=True):
    return [randn(*shape, dtype=dtype, grad=grad) for shape in ((*leading, 7), (5, 7), (5,))]


def arrays(tensors):
    return [tensor.detach().numpy() for tensor in tensors]


def assert_same(tensors, expected):
    for tensor, array in zip(tensors, expected, strict=True):
        if array is None:
            assert tensor is None
        else:
            np.testing.assert_array_equal(tensor.detach().numpy(), array, strict=True)


class Spy:
    """The backend in force, which notes the arguments of each call and takes arrays only."""

    def __init__(self):
        self.backend = backends.active()
        self.calls = []

    def __getattr__(self, name):
        if name.endswith("_at"):
            raise AttributeError(name)

        def call(*args):
            self.calls.append((name, args))
            getattr(self.backend, name)(*args)

        return call


@pytest.fixture
def spy(monkeypatch):
    spy = Spy()
    monkeypatch.setattr(backends, "active", lambda: spy)
    return spy


# ---- values and gradients


@pytest.mark.parametrize("leading", LEADING, ids=str)
def test_linear_maxout_has_the_bits_of_ops(backend, dtype, leading):
    x, weight, bias = tensors = maxout_tensors(leading, TORCH_DTYPES[dtype])
    y, argmax = ft.linear_maxout(x, weight, bias, return_argmax=True)
    expected = ops.linear_maxout(*arrays(tensors))
    assert_same((y, argmax), expected)
    grad_y = torch.randn_like(y)
    assert_same(
        torch.autograd.grad(y, tensors, grad_y),
        ops.linear_maxout_backward(*arrays((grad_y, x, weight)), expected[1]),
    )
    with torch.no_grad():
        assert torch.equal(ft.linear_maxout(x, weight, bias), y)


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize("dim", [0, -1, -2])
def test_maxout_has_the_bits_of_ops(backend, dtype, leading, dim):
    z = randn(*leading, 3, 4, dtype=TORCH_DTYPES[dtype], grad=True)
    if 0 in leading[:1] and dim == 0:
        with pytest.raises(ValueError, match="pieces: got 0"):
            ft.maxout(z, dim)
        return
    y, argmax = ft.maxout(z, dim, return_argmax=True)
    expected = ops.maxout(z.detach().numpy(), dim)
    assert_same((y, argmax), expected)
    grad_y = torch.randn_like(y)
    (grad_z,) = torch.autograd.grad(y, z, grad_y)
    assert_same([grad_z], [ops.maxout_backward(grad_y.numpy(), expected[1], z.shape[dim], dim)])
    with torch.no_grad():
        assert torch.equal(ft.maxout(z, dim), y)


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize(("name", "keywords"), ACTIVATIONS, ids=str)
def test_linear_activation_has_the_bits_of_ops(dtype, leading, name, keywords):
    x, weight, bias = tensors = linear_tensors(leading, TORCH_DTYPES[dtype])
    y = ft.linear_activation(x, weight, bias, name, **keywords)
    expected, saved = ops.linear_activation(*arrays(tensors), name, **keywords)
    assert_same([y], [expected])
    grad_y = torch.randn_like(y)
    assert_same(
        torch.autograd.grad(y, tensors, grad_y),
        ops.linear_activation_backward(*arrays((grad_y, x, weight)), saved, name, **keywords),
    )
    with torch.no_grad():
        assert torch.equal(ft.linear_activation(x, weight, bias, name, **keywords), y)


@pytest.mark.parametrize("slopes", [(), (1,), (5,)], ids=str)
def test_prelu_has_the_bits_of_ops(backend, dtype, slopes):
    x, weight, bias = tensors = linear_tensors((6,), TORCH_DTYPES[dtype])
    slope = torch.rand(slopes, dtype=x.dtype, requires_grad=True)
    y = ft.linear_activation(x, weight, bias, "prelu", slope=slope)
    keywords = {"slope": slope.detach().numpy()}
    expected, saved = ops.linear_activation(*arrays(tensors), "prelu", **keywords)
    assert_same([y], [expected])
    grad_y = torch.randn_like(y)
    assert_same(
        torch.autograd.grad(y, [*tensors, slope], grad_y),
        ops.linear_activation_backward(*arrays((grad_y, x, weight)), saved, "prelu", **keywords),
    )


def test_functions_equal_the_composition_in_float64():
    x, weight, bias = maxout_tensors((40,))
    y, argmax = ft.linear_maxout(x, weight, bias, return_argmax=True)
    grad_y = torch.randn_like(y)
    actual = torch.autograd.grad(y, (x, weight, bias), grad_y)
    doubles = [t.detach().double().requires_grad_() for t in (x, weight, bias)]
    z = torch.einsum("ni,jki->njk", doubles[0], doubles[1]) + doubles[2]
    winners = z.gather(-1, argmax.long()[..., None])[..., 0]
    expected = torch.autograd.grad(winners, doubles, grad_y.double())
    magnitude = (torch.einsum("ni,jki->njk", x.abs(), weight.abs()) + bias.abs()).amax(-1)
    backend = backends.get_backend()
    assert_within(
        y.detach().numpy(),
        z.amax(-1).detach().numpy(),
        sum_bound(magnitude.detach().numpy(), 8, np.float32, backend),
    )
    mask = torch.zeros_like(z).scatter(-1, argmax.long()[..., None], 1) * grad_y[..., None].abs()
    magnitudes = (
        (torch.einsum("njk,jki->ni", mask, doubles[1].abs()), 5),
        (torch.einsum("njk,ni->jki", mask, doubles[0].abs()), 40),
        (mask.sum(0), 40),
    )
    for got, wanted, (size, terms) in zip(actual, expected, magnitudes, strict=True):
        assert_within(
            got.numpy(), wanted.numpy(), sum_bound(size.detach().numpy(), terms, np.float32, backend)
        )


def test_maxout_passes_gradcheck():
    assert gradcheck(ft.linear_maxout, maxout_tensors(dtype=torch.float64))
    x, weight, _ = maxout_tensors((2, 3), torch.float64)
    assert gradcheck(ft.linear_maxout, (x, weight))
    assert gradcheck(lambda z: ft.maxout(z, 1), randn(3, 4, 5, dtype=torch.float64, grad=True))


@pytest.mark.parametrize(("name", "keywords"), ACTIVATIONS, ids=str)
def test_linear_activation_passes_gradcheck(name, keywords):
    tensors = linear_tensors(dtype=torch.float64)
    assert gradcheck(lambda *args: ft.linear_activation(*args, name, **keywords), tensors)


def test_prelu_passes_gradcheck():
    slope = torch.rand(5, dtype=torch.float64, requires_grad=True)
    tensors = [*linear_tensors(dtype=torch.float64), slope]
    assert gradcheck(lambda x, w, b, slope: ft.linear_activation(x, w, b, "prelu", slope=slope), tensors)


def test_functions_take_strided_tensors():
    x, weight, bias = maxout_tensors()
    wanted = ft.linear_maxout(x, weight, bias)
    strided = [t.detach().repeat_interleave(2, -1)[..., ::2].requires_grad_() for t in (x, weight, bias)]
    y = ft.linear_maxout(*strided)
    assert torch.equal(y, wanted)
    grad_y = randn(5, 6).T  # neither is the gradient contiguous, nor one that is expanded
    for grad in (grad_y, torch.ones(()).expand(6, 5)):
        grads = torch.autograd.grad(y, strided, grad, retain_graph=True)
        expected = torch.autograd.grad(wanted, (x, weight, bias), grad.contiguous(), retain_graph=True)
        assert all(map(torch.equal, grads, expected))


def test_second_derivative_raises():
    x, weight, bias = maxout_tensors()
    z = randn(4, 3, grad=True)
    for y, tensor in (
        (ft.linear_maxout(x, weight, bias), x),
        (ft.maxout(z), z),
        (ft.linear_activation(x, weight[:, 0], bias[:, 0], "tanh"), x),
    ):
        with pytest.raises(RuntimeError, match="has no second derivative"):
            torch.autograd.grad(y.sum(), tensor, create_graph=True)


# ---- what is computed, on how many threads, and where


def test_backward_computes_only_what_is_needed(spy):
    for needs in ((True, False, False), (False, True, False), (False, True, True)):
        for tensors, call, first in (
            (maxout_tensors(grad=False), ft.linear_maxout, 4),
            (linear_tensors(grad=False), ft.linear_activation, 5),
        ):
            for tensor, need in zip(tensors, needs, strict=True):
                tensor.requires_grad_(need)
            call(*tensors).sum().backward()
            _, args = spy.calls[-1]
            assert tuple(array is not None for array in args[first : first + 3]) == needs


def test_forward_without_gradient_stores_no_argmax(spy):
    x, weight, bias = maxout_tensors()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            ft.linear_maxout(x, weight, bias)
            assert spy.calls[-1][1][4] is None
    ft.linear_maxout(x, weight, bias)
    assert spy.calls[-1][1][4] is not None


def test_tensors_share_memory_with_arrays(spy):
    x, weight, bias = maxout_tensors()
    y, argmax = ft.linear_maxout(x, weight, bias, return_argmax=True)
    for tensor, array in zip((x, weight, bias, y, argmax), spy.calls[-1][1], strict=False):
        assert array.__array_interface__["data"][0] == tensor.data_ptr()
    grads = torch.autograd.grad(y, (x, weight, bias), torch.ones_like(y))
    for tensor, array in zip((None, x, weight, argmax, *grads), spy.calls[-1][1], strict=False):
        assert tensor is None or array.__array_interface__["data"][0] == tensor.data_ptr()


def test_parameter_changed_in_place_is_seen():
    layer = ft.Maxout(7, 5)
    x = randn(6, 7)
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2)
        layer.bias.add_(1)
    torch.testing.assert_close(layer(x), 2 * before + 1)


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield 2
    torch.set_num_threads(before)


def test_thread_count_is_torchs_unless_set(spy, torch_threads):
    def used():
        ft.linear_maxout(*maxout_tensors()).sum().backward()
        ft.linear_activation(*linear_tensors()).sum().backward()
        ft.maxout(randn(4, 3, grad=True)).sum().backward()
        threads = {arg for _, args in spy.calls for arg in args if type(arg) is int}
        spy.calls.clear()
        return threads

    assert used() == {torch_threads}
    torch.set_num_threads(1)
    assert used() == {1}
    with fastact.num_threads(3):
        assert used() == {3}


def test_calls_start_a_team_of_torch_threads_once():
    code = (
        "import os, torch, fastact.torch as ft\n"
        "torch.set_num_threads(2)\n"
        "layer, linear = ft.Maxout(512, 512), torch.nn.Linear(512, 512)\n"
        "x = torch.randn(512, 512)\n"
        "linear(x).sum().backward()\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "for _ in range(10):\n"
        "    with torch.no_grad():\n"
        "        layer(x)\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("needs Linux's /proc")
    if backends.get_backend() != "c":
        pytest.skip("needs the C backend")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "1"


def test_backward_uses_the_tier_of_its_forward(spy):
    def tiers():
        return [args[-1] for _, args in spy.calls[-2:]]

    with fastact.float32_matmul_precision("medium"):
        y = ft.linear_maxout(*maxout_tensors())
    y.sum().backward()
    assert tiers() == ["medium"] * 2
    ft.linear_activation(*linear_tensors(), precision="high").sum().backward()
    assert tiers() == ["high"] * 2
    ft.Maxout(7, 5, precision="high")(randn(6, 7)).sum().backward()
    assert tiers() == ["high"] * 2


# ---- with the dispatcher and without


CALLS = {
    "linear_maxout": lambda x, w, b: ft.linear_maxout(x, w, b),
    "linear_activation": lambda x, w, b: ft.linear_activation(x, w[:, 0], b[:, 0], "prelu", slope=b[:, 1]),
    "maxout": lambda x, w, b: ft.maxout(x),
}


class Names(TorchDispatchMode):
    """The names of fastact's operators that the dispatcher sees."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "fastact":
            self.seen.add(function._opname)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", CALLS)
def test_dispatch_mode_sees_the_operators_and_changes_nothing(backend, name):
    tensors = maxout_tensors()
    used = tensors if name != "maxout" else tensors[:1]
    expected = CALLS[name](*tensors)
    gradients = torch.autograd.grad(expected.sum(), used)
    with Names() as mode:
        y = CALLS[name](*tensors)
        seen = torch.autograd.grad(y.sum(), used)
    saving = {"maxout": "maxout_argmax", "linear_maxout": "linear_maxout_argmax"}
    assert mode.seen == {saving.get(name, "linear_activation_z"), f"{name}_backward"}
    assert torch.equal(y, expected)
    assert all(map(torch.equal, seen, gradients))
    with Names() as mode, torch.no_grad():
        assert torch.equal(CALLS[name](*tensors), expected)
    assert mode.seen == {name}


def test_is_plain_detects_every_dispatcher_mode():
    x, weight, bias = maxout_tensors()
    assert is_plain((x, nn.Parameter(weight), bias, None))
    with torch.inference_mode():
        assert is_plain((x.clone(), weight))
    imaginary = torch.randn(6, 7, dtype=torch.complex64).conj().imag  # its negation is pending
    for other in (
        imaginary,
        x.to("meta"),
        x.to_sparse(),
        x.detach().to_mkldnn(),
        torch._efficientzerotensor((6, 7)),
        x.detach().as_subclass(type("Subclass", (torch.Tensor,), {})),
        torch.fx.Graph().placeholder("x"),
    ):
        assert not is_plain((other, weight))
    assert torch.equal(ft.linear_maxout(imaginary, weight), ft.linear_maxout(imaginary.clone(), weight))
    assert torch.equal(
        ft.linear_maxout(torch._efficientzerotensor((6, 7)), weight, bias),
        ft.linear_maxout(torch.zeros(6, 7), weight, bias),
    )


def test_plain_tensors_pass_addresses_to_the_c_backend(monkeypatch):
    if backends.get_backend() != "c":
        pytest.skip("needs the C backend, which alone takes addresses")
    x, weight, bias = maxout_tensors((2, 3))
    weight.requires_grad_(False)
    calls = []
    for name in ("linear_maxout_at", "linear_maxout_backward_at"):
        real = getattr(backends.active(), name)
        monkeypatch.setattr(
            backends.active(), name, lambda *args, real=real: (calls.append(args), real(*args))
        )
    y, argmax = ft.linear_maxout(x, weight, bias, return_argmax=True)
    assert calls.pop()[1:10] == (6, 7, 5, 3, *(t.data_ptr() for t in (x, weight, bias, y, argmax)))
    grad_y = torch.randn_like(y)
    grads = torch.autograd.grad(y, (x, bias), grad_y, retain_graph=True)
    pointers = [t.data_ptr() for t in (grad_y, x, weight, argmax)]
    assert calls.pop()[1:12] == (6, 7, 5, 3, *pointers, grads[0].data_ptr(), 0, grads[1].data_ptr())
    with torch.no_grad():
        ft.linear_maxout(x, weight, None)
    assert [calls[-1][7], calls.pop()[9]] == [0, 0]
    unaligned = torch.frombuffer(bytearray(4 * 42 + 1), dtype=torch.float32, offset=1).view(6, 7)
    with torch.no_grad():
        for strided in (x.transpose(0, 1), unaligned):
            ft.linear_maxout(strided, weight, bias)
    assert not calls


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("name", CALLS)
def test_derivatives_by_transforms_and_forward_mode_raise(name):
    x, weight, bias = maxout_tensors(grad=False)

    def call(x):
        return CALLS[name](x, weight, bias)

    with pytest.raises(NotImplementedError, match=f"{name} has no derivative under a torch.func transform"):
        torch.func.jvp(call, (x,), (x,))
    with pytest.raises(NotImplementedError, match=f"{name} has no derivative under a torch.func transform"):
        torch.func.grad(lambda x: call(x).sum())(x)
    with forward_ad.dual_level():
        for primal in (x, x.clone().requires_grad_()):
            dual = forward_ad.make_dual(primal, x)
            with pytest.raises(NotImplementedError, match="no derivatives in forward mode"):
                call(dual)
        assert torch.equal(call(x), call(x.clone()))  # without a tangent


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
@pytest.mark.parametrize("name", CALLS)
def test_functions_under_vmap_equal_the_batched_call(name):
    x, weight, bias = maxout_tensors((4, 6))
    expected = CALLS[name](x, weight, bias)
    assert torch.equal(torch.vmap(lambda x: CALLS[name](x, weight, bias))(x), expected)
    grad_y = randn(3, *expected.shape)
    batched = torch.autograd.grad(expected, x, grad_y, is_grads_batched=True, retain_graph=True)[0]
    one_by_one = [torch.autograd.grad(expected, x, grad, retain_graph=True)[0] for grad in grad_y]
    assert torch.equal(batched, torch.stack(one_by_one))


def test_symbolically_traced_module_learns():
    net = Net()
    traced = torch.fx.symbolic_trace(net)
    x = randn(6, 7)
    for got, wanted in zip(
        outputs_and_gradients(traced, net, x), outputs_and_gradients(net, net, x), strict=True
    ):
        assert torch.equal(got, wanted)


# ---- PyTorch's own checks of operators


def operator_inputs(grad=True):
    x, weight, bias = maxout_tensors(grad=grad)
    _, w, b = linear_tensors(grad=grad)
    slope = torch.rand(5, requires_grad=grad)
    plain = [t.detach() for t in (x, weight, w)]
    y, argmax = randn(6, 5), torch.randint(0, 3, (6, 5), dtype=torch.uint8)
    z = randn(4, 3, 2, grad=grad)
    keywords = (None, None, None)
    return {
        "linear_maxout": [
            (x, weight, bias, None),
            (x, weight, None, "high"),
            (plain[0], plain[1], None, None),
        ],
        "linear_maxout_argmax": [(x, weight, bias, None), (plain[0], plain[1], None, "high")],
        "linear_maxout_backward": [
            (y, plain[0], plain[1], argmax, [True, True, True], None),
            (y, plain[0], plain[1], argmax, [False, True, False], "high"),
        ],
        "maxout": [(z, 1), (z.detach(), -1)],
        "maxout_argmax": [(z, 1), (z.detach(), -1)],
        "maxout_backward": [(y, argmax, 3, 1)],
        "linear_activation": [
            (x, w, b, "relu", *PLAIN, None),
            (x, w, None, "elu", None, None, 0.5, None, "high"),
            (x, w, b, "gelu", None, None, None, "tanh", None),
            (x, w, b, "prelu", slope, *keywords, None),
            (plain[0], plain[2], None, "mish", *PLAIN, None),
        ],
        "linear_activation_z": [
            (x, w, b, "prelu", slope, *keywords, None),
            (plain[0], plain[2], None, "mish", *PLAIN, None),
        ],
        "linear_activation_backward": [
            (y, plain[0], plain[2], y, "relu", *PLAIN, [True, True, False, False], None),
            (y, plain[0], plain[2], y, "prelu", slope.detach(), *keywords, [True] * 4, None),
        ],
    }


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # opcheck's
@pytest.mark.parametrize("name", operator_inputs())
def test_operators_pass_opcheck(name):
    operator = getattr(torch.ops.fastact, name).default
    for inputs in operator_inputs()[name]:
        opcheck(operator, inputs)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = ft.Maxout(7, 6, 3)
        self.middle = ft.LinearActivation(6, 6, activation="gelu")
        self.learned = ft.LinearActivation(6, 8, activation="prelu")

    def forward(self, x):
        return ft.maxout(self.learned(self.middle(self.hidden(x) + 1)).unflatten(-1, (4, 2)))


def outputs_and_gradients(call, net, x):
    x = x.clone().requires_grad_()
    y = call(x)
    return y, *torch.autograd.grad(y.square().sum(), [x, *net.parameters()])


@inductor
@pytest.mark.parametrize("dynamic", [False, True])
def test_module_compiles_as_one_graph(dynamic):
    net = Net()
    compiled = torch.compile(net, fullgraph=True, dynamic=dynamic)
    for rows in (6, 9, 2):
        x = randn(rows, 7)
        actual = outputs_and_gradients(compiled, net, x)
        for got, wanted in zip(actual, outputs_and_gradients(net, net, x), strict=True):
            torch.testing.assert_close(got, wanted)
        with torch.inference_mode():
            torch.testing.assert_close(compiled(x), net(x))


def test_compiled_code_obeys_the_tier_in_force(spy):
    compiled = torch.compile(ft.Maxout(7, 5), fullgraph=True, backend="aot_eager")
    for tier in ("highest", "medium", "highest"):
        with fastact.float32_matmul_precision(tier):
            compiled(randn(6, 7)).sum().backward()
        assert {args[-1] for _, args in spy.calls[-2:]} == {tier}


def test_module_exports():
    net = Net().eval()
    batch = torch.export.Dim("batch")
    program = torch.export.export(net, (randn(6, 7),), dynamic_shapes=({0: batch},))
    targets = {str(node.target) for node in program.graph.nodes}
    assert {"fastact.linear_maxout.default", "fastact.linear_activation.default"} <= targets
    x = randn(11, 7)
    assert torch.equal(program.module()(x), net(x))


# ---- autocast


def test_autocast_runs_in_float32_at_medium_and_returns_bfloat16(spy):
    x, weight, bias = maxout_tensors()
    low = x.detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, argmax = ft.linear_maxout(low, weight, bias, return_argmax=True)
        name, args = spy.calls[-1]
        with torch.no_grad():
            assert torch.equal(ft.linear_maxout(low, weight, bias), y)
    assert (name, args[0].dtype, args[-1]) == ("linear_maxout", np.float32, "medium")
    assert (y.dtype, argmax.dtype) == (torch.bfloat16, torch.uint8)
    assert torch.equal(y, ft.linear_maxout(low.float(), weight, bias, precision="medium").bfloat16())
    grads = torch.autograd.grad(y.float().sum(), (low, weight, bias))
    assert [grad.dtype for grad in grads] == [torch.bfloat16, torch.float32, torch.float32]
    assert spy.calls[-1][1][-1] == "medium"


def test_autocast_obeys_a_tier_that_is_asked_for(spy):
    net = ft.Maxout(7, 5, precision="highest")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = net(randn(6, 7))
    assert (spy.calls[-1][1][-1], y.dtype) == ("highest", torch.bfloat16)
    y.float().sum().backward()
    assert spy.calls[-1][1][-1] == "highest"


def test_profiler_sees_the_operators():
    net = ft.Maxout(7, 5)
    with torch.no_grad(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        net(randn(6, 7))
    assert "fastact::linear_maxout" in {event.key for event in profile.key_averages()}


def test_autocast_of_the_other_functions_has_their_dtypes():
    x, weight, bias = linear_tensors()
    z = randn(4, 3)
    slope = torch.rand(1, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ft.linear_activation(x, weight, bias, "prelu", slope=slope)
        m = ft.maxout(z.bfloat16())
        double = ft.linear_maxout(*maxout_tensors(dtype=torch.float64))
    expected = ft.linear_activation(x, weight, bias, "prelu", slope=slope, precision="medium")
    assert torch.equal(y, expected.bfloat16())
    y.sum().backward()
    assert slope.grad.dtype == torch.float32
    assert torch.equal(m, z.bfloat16().amax(-1))
    assert double.dtype == torch.float64


@inductor
def test_autocast_module_compiles():
    net = ft.Maxout(7, 5)
    compiled = torch.compile(net, fullgraph=True)
    x = randn(6, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, wanted = compiled(x), net(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, wanted)
    y.sum().backward()
    assert net.weight.grad.dtype == torch.float32


# ---- refusals


X, W, B = maxout_tensors(grad=False)
GRAD_Y, ARGMAX = torch.ones(6, 5), torch.zeros(6, 5, dtype=torch.uint8)
ALL = [True, True, True]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "fake"])
@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "x: got dtype torch.bfloat16, wanted", lambda: ft.linear_maxout(X.bfloat16(), W, B)),
        (TypeError, "x: got dtype torch.int64, wanted", lambda: ft.linear_maxout(X.long(), W, B)),
        (TypeError, "weight: got dtype torch.float64, wanted", lambda: ft.linear_maxout(X, W.double(), B)),
        (TypeError, "bias: got dtype torch.float64, wanted", lambda: ft.linear_maxout(X, W, B.double())),
        (ValueError, r"x: got shape \(6, 6\), wanted", lambda: ft.linear_maxout(X[:, 1:], W, B)),
        (ValueError, r"x: got shape \(\), wanted", lambda: ft.linear_maxout(X[0, 0], W, B)),
        (ValueError, r"weight: got shape \(5, 7\), wanted", lambda: ft.linear_maxout(X, W[:, 0], B)),
        (ValueError, r"bias: got shape \(5, 2\), wanted", lambda: ft.linear_maxout(X, W, B[:, 1:])),
        (ValueError, "pieces: got 0, wanted", lambda: ft.linear_maxout(X, W[:, :0], B[:, :0])),
        (TypeError, "z: got dtype torch.float16, wanted", lambda: ft.maxout(X.half())),
        (ValueError, "axis: got 2, wanted", lambda: ft.maxout(X, 2)),
        (ValueError, r"weight: got shape \(5, 3, 7\), wanted", lambda: ft.linear_activation(X, W)),
        (
            ValueError,
            "activation: got 'swish', wanted",
            lambda: ft.linear_activation(X, W[:, 0], None, "swish"),
        ),
        (TypeError, "alpha: relu takes", lambda: ft.linear_activation(X, W[:, 0], None, "relu", alpha=1.0)),
        (TypeError, "slope: got None, wanted", lambda: ft.linear_activation(X, W[:, 0], None, "prelu")),
        (
            ValueError,
            r"slope: got shape \(3,\), wanted",
            lambda: ft.linear_activation(X, W[:, 0], None, "prelu", slope=torch.ones(3)),
        ),
        (
            TypeError,
            "slope: got dtype torch.float64, wanted",
            lambda: ft.linear_activation(X, W[:, 0], None, "prelu", slope=torch.ones(1).double()),
        ),
        (
            ValueError,
            r"grad_y: got shape \(5, 5\), wanted",
            lambda: torch.ops.fastact.linear_maxout_backward(GRAD_Y[1:], X, W, ARGMAX, ALL, None),
        ),
        (
            TypeError,
            "argmax: got dtype torch.int64, wanted torch.uint8",
            lambda: torch.ops.fastact.linear_maxout_backward(GRAD_Y, X, W, ARGMAX.long(), ALL, None),
        ),
        (
            TypeError,
            "argmax: got dtype torch.int64, wanted torch.uint8",
            lambda: torch.ops.fastact.maxout_backward(GRAD_Y, ARGMAX.long(), 3, -1),
        ),
        (TypeError, "x: got a torch.sparse_coo tensor", lambda: ft.linear_maxout(X.to_sparse(), W, B)),
        (TypeError, "weight: got a tensor on meta, wanted", lambda: ft.linear_maxout(X, W.to("meta"), B)),
    ],
)
def test_functions_reject_invalid_arguments(error, match, call, compiled):
    if not compiled:
        with pytest.raises(error, match=match):
            call()
    elif "sparse" not in match and "meta" not in match:
        with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(error, match=match):
            call()


@pytest.mark.parametrize("given", [X.numpy(), X.tolist(), 3.0])
def test_function_of_what_is_not_a_tensor_names_the_argument(given):
    wanted = rf"^x: got {type(given).__name__}, wanted a torch\.Tensor: try torch\.as_tensor\(\.\.\.\)$"
    with pytest.raises(TypeError, match=wanted):
        ft.linear_maxout(given, W, None)
    with pytest.raises(TypeError, match=wanted.replace("x:", "weight:")):
        ft.linear_activation(X, given, None, "relu")
    with pytest.raises(TypeError, match=wanted.replace("x:", "z:")):
        ft.maxout(given)


SHAPES = {  # of x, weight, bias; where the ranks are right, one size is not
    "x too narrow": ((6, 6), (5, 3, 7), (5, 3)),
    "x without a dimension": ((), (5, 3, 7), (5, 3)),
    "bias too short": ((6, 7), (5, 3, 7), (4, 3)),
    "bias of other pieces": ((6, 7), (5, 3, 7), (5, 2)),
    "bias of another rank": ((6, 7), (5, 3, 7), (15,)),
    "weight of another rank": ((6, 7), (5, 7), (5,)),
    "weight without a dimension": ((6, 7), (), ()),
    "no pieces": ((6, 7), (5, 0, 7), (5, 0)),
    "too many pieces": ((6, 7), (2, 257, 7), (2, 257)),
}


@pytest.mark.parametrize("fake", [False, True])
@pytest.mark.parametrize("case", SHAPES)
def test_shape_errors_are_those_of_ops(case, fake):
    tensors = [torch.zeros(shape) for shape in SHAPES[case]]
    with pytest.raises(ValueError, match=": got ") as wanted:
        ops.linear_maxout(*arrays(tensors))
    if fake:
        tensors = [tensor.to("meta") for tensor in tensors]
    with pytest.raises(ValueError, match=": got ") as got:
        ft.linear_maxout(*tensors)
    assert str(got.value) == str(wanted.value)


@pytest.mark.parametrize("value", [3, 255])
def test_argmax_out_of_range_writes_nothing(value):
    bad = torch.full((6, 5), value, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"argmax: got the value {value}, wanted 0 to 2"):
        torch.ops.fastact.linear_maxout_backward(GRAD_Y, X, W, bad, ALL, None)
    with pytest.raises(ValueError, match=f"argmax: got the value {value}, wanted 0 to 2"):
        torch.ops.fastact.maxout_backward(GRAD_Y, bad, 3, -1)


def test_functions_reject_other_devices():
    with FakeTensorMode(), pytest.raises(TypeError, match=r"x: got a torch.strided tensor on cuda:0, wanted"):
        ft.linear_maxout(torch.empty(6, 7, device="cuda"), torch.empty(5, 3, 7, device="cuda"))
    with pytest.raises(ValueError, match="precision: got 'low', wanted"):
        ft.linear_maxout(X, W, B, precision="low")


def test_modules_on_meta_give_meta_results():
    layer = ft.Maxout(7, 5, 3, device="meta")
    x = torch.empty(2, 6, 7, device="meta", requires_grad=True)
    y = layer(x)
    assert (y.shape, y.device.type) == ((2, 6, 5), "meta")
    y.sum().backward()
    assert layer.weight.grad.shape == layer.weight.shape
    activation = ft.LinearActivation(7, 5, activation="prelu", device="meta")
    assert activation(x).shape == (2, 6, 5)


@pytest.mark.parametrize(("features", "units"), [(0, 5), (7, 0), (0, 0)])
def test_modules_take_empty_shapes(features, units):
    layer = ft.Maxout(features, units, 2)
    y = layer(torch.ones(3, features))
    assert y.shape == (3, units)
    y.sum().backward()
    assert layer.weight.grad.shape == layer.weight.shape


# ---- modules


def test_maxout_module_starts_with_maxout_normal():
    layer = ft.Maxout(400, 300, pieces=4)
    weight = layer.weight.detach()
    wanted = init.maxout_std(400, 4)
    # 480,000 numbers: five standard errors of the mean and of the standard deviation
    assert abs(weight.mean()) < 5 * wanted / 480_000**0.5
    assert abs(weight.std() / wanted - 1) < 5 / (2 * 480_000) ** 0.5
    assert not layer.bias.any()


def test_maxout_module_takes_and_rejects_arguments():
    layer = ft.Maxout(7, 5, 3, bias=False, dtype=torch.float64, precision="high")
    assert layer.bias is None
    assert layer.weight.shape == (5, 3, 7)
    assert layer(randn(2, 7, dtype=torch.float64)).dtype == torch.float64
    assert repr(layer) == "Maxout(in_features=7, out_features=5, pieces=3, bias=False, precision='high')"
    for arguments, match in (
        ({"pieces": 0}, "pieces: got 0"),
        ({"precision": "low"}, "precision: got 'low'"),
    ):
        with pytest.raises(ValueError, match=match):
            ft.Maxout(7, 5, **arguments)


@pytest.mark.parametrize("bias", [True, False])
def test_from_linear_equals_the_composition(bias):
    linear = nn.Linear(7, 15, bias=bias, dtype=torch.float64)
    layer = ft.Maxout.from_linear(linear, 3)
    x = randn(6, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), linear(x).view(6, 5, 3).amax(-1))
    assert layer.weight.data_ptr() != linear.weight.data_ptr()
    assert [p.requires_grad for p in layer.parameters()] == [True] * (1 + bias)
    with pytest.raises(ValueError, match="pieces: got 4, which does not divide 15 units"):
        ft.Maxout.from_linear(linear, 4)


@pytest.mark.parametrize(("name", "keywords"), ACTIVATIONS, ids=str)
def test_linear_activation_module_has_the_bits_of_the_function(name, keywords):
    layer = ft.LinearActivation(7, 5, activation=name, **keywords)
    x = randn(6, 7)
    assert torch.equal(layer(x), ft.linear_activation(x, layer.weight, layer.bias, name, **keywords))


def test_prelu_layer_learns_its_slope():
    for slope, wanted in ((None, [0.25]), (0.1, [0.1]), ([0.1] * 5, [0.1] * 5)):
        keywords = {} if slope is None else {"slope": slope}
        layer = ft.LinearActivation(7, 5, activation="prelu", **keywords)
        torch.testing.assert_close(layer.slope.detach(), torch.tensor(wanted))
        layer(randn(6, 7)).sum().backward()
        assert layer.slope.grad.abs().sum() > 0
        assert list(layer.state_dict()) == ["weight", "bias", "slope"]
    with pytest.raises(ValueError, match=r"slope: got shape \(2,\)"):
        ft.LinearActivation(7, 5, activation="prelu", slope=[0.1, 0.2])


def test_linear_activation_module_rejects_invalid_arguments():
    with pytest.raises(ValueError, match="activation: got 'swish'"):
        ft.LinearActivation(7, 5, activation="swish")
    for module in (ft.Maxout, ft.LinearActivation):
        with pytest.raises(TypeError, match="bias: got 'gelu', wanted True or False"):
            module(7, 5, bias="gelu")
    with pytest.raises(TypeError, match="alpha: relu takes"):
        ft.LinearActivation(7, 5, alpha=0.5)
    assert "activation='elu', alpha=0.5" in repr(ft.LinearActivation(7, 5, activation="elu", alpha=0.5))


def test_modules_survive_state_dict_copy_and_pickle():
    net, x = Net(), randn(6, 7)
    y = net(x)
    other = Net()
    other.load_state_dict(net.state_dict())
    for twin in (other, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(x), y)
        assert not {p.data_ptr() for p in twin.parameters()} & {p.data_ptr() for p in net.parameters()}
    assert net.double()(x.double()).dtype == torch.float64


class Rows(Dataset):
    """Rows that the layer has transformed, in a DataLoader's worker."""

    def __init__(self, layer):
        self.layer = layer

    def __len__(self):
        return 8

    def __getitem__(self, index):
        with torch.no_grad():
            return self.layer(torch.full((64, 256), float(index)))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # on one core
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # from JAX, where its tests ran in this process
def test_modules_work_in_forked_workers(torch_threads):
    layer = ft.Maxout(256, 256)
    layer(randn(512, 256)).sum().backward()  # the parent has started its threads
    rows = Rows(layer)
    loader = DataLoader(rows, batch_size=2, num_workers=2, multiprocessing_context="fork", timeout=60)
    for i, batch in enumerate(loader):
        assert torch.equal(batch, torch.stack([rows[2 * i], rows[2 * i + 1]]))


# ---- the formulas of the activations


@pytest.mark.parametrize(
    "name", [name for name in activations.NAMES if name != "prelu" and hasattr(nn.functional, name)]
)
def test_activation_equals_pytorchs_function_of_that_name(backend, dtype, name):
    """Values and derivatives on both sides of every kink, at it, and at finite limits."""
    kinks = np.array([-3.0, -1, 0, 1, 3, 6], dtype)
    away = np.concatenate([np.linspace(-7, 7, 99, dtype=dtype), np.array([-60, 60], dtype)])
    z = np.concatenate([kinks, np.nextafter(kinks, dtype.type(-9)), np.nextafter(kinks, dtype.type(9)), away])
    tensor = torch.from_numpy(z.astype(np.float64)).requires_grad_()
    expected = getattr(nn.functional, name)(tensor)
    (slope,) = torch.autograd.grad(expected.sum(), tensor)
    y = fastact.activation(z, name)
    bound = 8 * np.finfo(dtype).eps
    # PyTorch's constants have the precision of a float in places, such as the 1/6 of hardsigmoid
    theirs = 2.0**-24
    assert_within(y, expected.detach().numpy(), bound * (1 + np.abs(z)) + theirs)
    saved = y if activations.TABLE[name].saves == "y" else z
    grad_z = fastact.activation_backward(np.ones_like(z), saved, name)
    assert_within(grad_z, slope.numpy(), bound + theirs)
