"""What PyTorch's own machinery does with fastact's operators: storages, tracers, exporters, counters."""

import shutil

import pytest
import torch
from support.variants import in_force, needs_c
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import fastact
import fastact.torch as ft

fastact_ops = torch.ops.fastact
inductor = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")
script = pytest.mark.filterwarnings("ignore:.torch.jit.(script|trace|save|load).*is deprecated")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Bare(nn.Module):
    """The function `maxout` as a module."""

    def forward(self, x):
        return ft.maxout(x.unflatten(-1, (3, 2)), -2)


# Every module, for 6 features.
MAKERS = {
    "maxout": lambda: ft.Maxout(6, 4, 3),
    "maxout without bias": lambda: ft.Maxout(6, 4, 3, bias=False),
    "relu": lambda: ft.LinearActivation(6, 4),
    "gelu": lambda: ft.LinearActivation(6, 4, activation="gelu", approximate="tanh"),
    "prelu": lambda: ft.LinearActivation(6, 4, activation="prelu", slope=[0.1, 0.2, 0.3, 0.4]),
    "bare maxout": Bare,
}
every_module = pytest.mark.parametrize("name", MAKERS)
every_layer = pytest.mark.parametrize("name", [name for name in MAKERS if name != "bare maxout"])


# ---- storages


def assert_resizable(tensors):
    for tensor in tensors:
        assert tensor.untyped_storage().resizable()
        tensor.detach().resize_(tensor.numel() + 100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_module
def test_module_leaves_storages_resizable(backend, name, dtype):
    layer = MAKERS[name]().to(dtype)
    x = torch.randn(5, 6, dtype=dtype, requires_grad=True)
    with torch.no_grad():
        layer(x)
    y = layer(x)
    grad_y = torch.randn(y.shape, dtype=dtype)
    y.backward(grad_y)
    assert_resizable([x, grad_y, *layer.parameters()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operators_leave_storages_resizable(backend, dtype):
    def randn(*shape):
        return torch.randn(shape, dtype=dtype)

    x, w, b, slope, z = randn(5, 6), randn(4, 6), randn(4), randn(4), randn(5, 4)
    grad_y, weight, bias, argmax = (
        randn(5, 4),
        randn(4, 3, 6),
        randn(4, 3),
        torch.ones(5, 4, dtype=torch.uint8),
    )
    prelu = ("prelu", slope, None, None, None)
    fastact_ops.linear_maxout(x, weight, bias, None)
    fastact_ops.linear_maxout_argmax(x, weight, bias, None)
    fastact_ops.linear_maxout_backward(grad_y, x, weight, argmax, [True] * 3, None)
    fastact_ops.maxout(weight, 1)
    fastact_ops.maxout_argmax(weight, 1)
    fastact_ops.maxout_backward(grad_y, argmax, 3, 1)
    fastact_ops.linear_activation(x, w, b, *prelu, None)
    fastact_ops.linear_activation_z(x, w, b, *prelu, None)
    fastact_ops.linear_activation_backward(grad_y, x, w, z, *prelu, [True] * 4, None)
    strided = randn(6, 5)
    ft.linear_maxout(strided.T, weight, bias)
    ft.maxout(strided.T)
    assert_resizable([x, w, b, slope, z, grad_y, weight, bias, argmax, strided])


@every_module
def test_module_takes_a_buffer_that_grows(name):
    layer = MAKERS[name]()
    buffer = torch.empty(0, 6)
    for rows in (2, 300):
        part = torch.randn(rows, 6)
        torch.cat([part, part], out=buffer)
        torch.testing.assert_close(layer(buffer), layer(part).repeat(2, 1))
        buffer.resize_(0)


@every_layer
def test_freed_storage_is_refused(backend, name):
    layer, x = MAKERS[name](), torch.randn(5, 6)
    layer.weight.untyped_storage().resize_(0)
    with torch.no_grad(), pytest.raises(ValueError, match="weight: got a tensor whose storage was freed"):
        layer(x)
    with pytest.raises(ValueError, match="weight: got a tensor whose storage was freed"):
        layer(x)


# ---- schemas


def test_schemas_say_what_is_returned():
    x, weight, argmax = torch.randn(5, 6), torch.randn(4, 3, 6), torch.ones(5, 4, dtype=torch.uint8)
    grads = fastact_ops.linear_maxout_backward(
        torch.ones(5, 4), x, weight, argmax, [False, True, False], None
    )
    assert [tuple(grad.shape) for grad in grads] == [(0,), (4, 3, 6), (0,)]
    with pytest.raises(ValueError, match="activation: got 'relu', wanted one whose backward needs z"):
        fastact_ops.linear_activation_z(x, weight[:, 0], None, "relu", *[None] * 5)
    y, z = fastact_ops.linear_activation_z(x, weight[:, 0], None, "elu", *[None] * 5)
    torch.testing.assert_close(z, x @ weight[:, 0].T)
    torch.testing.assert_close(y, nn.functional.elu(z))


class Every(nn.Module):
    """The results of every operator."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({name: make() for name, make in MAKERS.items() if "bias" not in name})

    def forward(self, x):
        y, argmax = ft.linear_maxout(x, self.layers["maxout"].weight, return_argmax=True)
        best, best_argmax = ft.maxout(x.unflatten(-1, (2, 3)), 1, return_argmax=True)
        prelu, relu = self.layers["prelu"], self.layers["relu"]
        act, z = fastact_ops.linear_activation_z(x, prelu.weight, None, "prelu", prelu.slope, *[None] * 4)
        return (
            *[layer(x) for layer in self.layers.values()],
            *(y, argmax, best, best_argmax, act, z),
            *fastact_ops.linear_maxout_backward(
                y, x, self.layers["maxout"].weight, argmax, [True, False, True], None
            ),
            fastact_ops.maxout_backward(best, best_argmax, 2, 1),
            *fastact_ops.linear_activation_backward(
                act, x, prelu.weight, z, "prelu", prelu.slope, *[None] * 3, [True, True, False, True], None
            ),
            *fastact_ops.linear_activation_backward(
                y, x, relu.weight, relu(x), "relu", *[None] * 4, [False, True, True, False], None
            ),
        )


@inductor
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which AOTInductor calls")
def test_aot_inductor_compiles_every_operator(tmp_path):
    net, x = Every().eval(), torch.randn(5, 6)
    program = torch.export.export(net, (x,))
    exported = {
        str(node.target).split(".")[1] for node in program.graph.nodes if "fastact" in str(node.target)
    }
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "net.pt2"))
    results = torch._inductor.aoti_load_package(package)(x)
    wanted = net(x)
    assert exported == {
        name
        for name in dir(fastact_ops)
        if isinstance(getattr(fastact_ops, name), torch._ops.OpOverloadPacket)
    }
    torch.testing.assert_close(results, [tensor.detach() for tensor in wanted])


# ---- tracers


@script
@pytest.mark.parametrize("grad", [False, True])
@every_module
def test_jit_trace_passes_its_check_and_learns(name, grad, tmp_path):
    layer, x = MAKERS[name]().eval(), torch.randn(5, 6)
    with torch.set_grad_enabled(grad):
        traced = torch.jit.trace(layer, x, check_trace=True)  # traces again without gradients, and compares
    traced.save(tmp_path / "traced.pt")
    twin = torch.jit.load(tmp_path / "traced.pt")
    other = torch.randn(7, 6, requires_grad=True)
    for call in (traced, twin):
        assert torch.equal(call(other), layer(other))
        (actual,), (wanted,) = (torch.autograd.grad(f(other).square().sum(), other) for f in (call, layer))
        assert torch.equal(actual, wanted)


@script
def test_jit_trace_passes_its_check_with_return_argmax():
    x, weight = torch.randn(5, 6, requires_grad=True), torch.randn(4, 3, 6)
    for call in (
        lambda x: ft.linear_maxout(x, weight, return_argmax=True),
        lambda x: ft.maxout(x, return_argmax=True),
    ):
        for got, wanted in zip(torch.jit.trace(call, x)(x), call(x), strict=True):
            assert torch.equal(got, wanted)


class Leaves(torch.fx.Tracer):
    def is_leaf_module(self, module, name):
        return module is not self.root


@pytest.mark.parametrize("tracer", [torch.fx.Tracer, Leaves])
@every_module
def test_fx_traces_modules_as_leaves_and_through(name, tracer):
    net, x = nn.Sequential(MAKERS[name]()), torch.randn(5, 6)
    graph = tracer().trace(net)
    kinds = {node.op for node in graph.nodes}
    assert ("call_module" in kinds) == (tracer is Leaves)
    traced = torch.fx.GraphModule(net, graph)
    for rows in (5, 2):
        x = torch.randn(rows, 6)
        assert torch.equal(traced(x), net(x))


def test_fx_traces_functions_of_proxies():
    def call(x, weight, bias, slope):
        y, argmax = ft.linear_maxout(x, weight, bias, return_argmax=True)
        z = ft.linear_activation(x, weight[:, 0], bias[:, 0], "prelu", slope=slope)
        return y, argmax, z, ft.maxout(weight, 1)

    tensors = torch.randn(5, 6), torch.randn(4, 3, 6), torch.randn(4, 3), torch.rand(4)
    for got, wanted in zip(torch.fx.symbolic_trace(call)(*tensors), call(*tensors), strict=True):
        assert torch.equal(got, wanted)


# ---- parameters anew


@every_layer
def test_reset_parameters_after_to_empty_gives_a_fresh_module(name):
    layer = MAKERS[name]().to("meta").to_empty(device="cpu")
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(torch.nan)
    torch.manual_seed(3)
    layer.reset_parameters()
    torch.manual_seed(3)
    fresh = MAKERS[name]()
    assert layer.state_dict().keys() == fresh.state_dict().keys()
    for key, value in fresh.state_dict().items():
        assert torch.equal(layer.state_dict()[key], value), key


def test_prelu_made_on_meta_starts_at_a_quarter():
    layer = ft.LinearActivation(6, 4, activation="prelu", device="meta", dtype=torch.float64)
    layer.to_empty(device="cpu").reset_parameters()
    assert layer.slope.tolist() == [0.25]
    assert layer.slope.dtype == torch.float64


def test_prelu_in_a_pickle_of_0_1_0_starts_at_a_quarter_again():
    layer = ft.LinearActivation(6, 4, activation="prelu", slope=[0.1, 0.2, 0.3, 0.4])
    del layer._initial_slope  # which 0.1.0 did not keep
    layer.reset_parameters()
    assert layer.slope.tolist() == [0.25] * 4


def test_slope_given_as_a_tensor_keeps_its_storage_resizable():
    slope = torch.tensor([0.1, 0.2, 0.3, 0.4], requires_grad=True)
    layer = ft.LinearActivation(6, 4, activation="prelu", slope=slope)
    assert torch.equal(layer.slope, slope)
    assert_resizable([slope])


# ---- flops


def flops(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (6,), (0, 6)], ids=str)
@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True), (False, False)], ids=str)
def test_flops_are_those_of_the_composition(shape, needs):
    x = torch.randn(shape, requires_grad=needs[0])
    linear = nn.Linear(6, 12)

    def counted(call):
        def step():
            y = call(x)
            if any(needs):
                y.sum().backward()

        return flops(step)

    linear.weight.requires_grad_(needs[1])
    linear.bias.requires_grad_(any(needs))
    composition = counted(linear)
    assert composition == 2 * (x.numel() // 6) * 6 * 12 * (1 + sum(needs))
    for layer in (
        ft.Maxout(6, 4, 3),
        ft.LinearActivation(6, 12),
        ft.LinearActivation(6, 12, activation="prelu"),
    ):
        layer.weight.requires_grad_(needs[1])
        assert counted(layer) == composition


def test_every_operator_has_a_flop_formula():
    packets = [
        value for value in vars(fastact_ops).values() if isinstance(value, torch._ops.OpOverloadPacket)
    ]
    assert len(packets) == 9
    assert set(packets) <= set(flop_registry)
    assert flops(lambda: ft.maxout(torch.randn(5, 6, requires_grad=True)).sum().backward()) == 0


# ---- what is refused, and how


def refused_inputs():
    ragged = [torch.randn(2, 6), torch.randn(3, 6)]
    x = torch.randn(5, 6)
    return {
        "sparse": (x.to_sparse(), "got a torch.sparse_coo tensor on cpu, wanted a torch.strided one"),
        "csr": (x.to_sparse_csr(), "got a torch.sparse_csr tensor on cpu, wanted a torch.strided one"),
        "mkldnn": (x.to_mkldnn(), "got a torch._mkldnn tensor on cpu, wanted a torch.strided one"),
        "jagged": (
            torch.nested.nested_tensor(ragged, layout=torch.jagged),
            "got a nested tensor, wanted a torch.strided one",
        ),
        "nested": (torch.nested.nested_tensor(ragged), "got a nested tensor, wanted a torch.strided one"),
        "quantized": (
            torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
            "got dtype torch.qint8, wanted torch.float32 or torch.float64",
        ),
    }


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.filterwarnings("ignore:.*quantize.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*quantize.*:UserWarning")
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("kind", ["sparse", "csr", "mkldnn", "jagged", "nested", "quantized"])
def test_input_of_another_layout_is_refused_by_name(kind, grad):
    x, message = refused_inputs()[kind]
    layers = [make() for name, make in MAKERS.items() if name != "bare maxout"]
    with torch.set_grad_enabled(grad):
        for layer in layers:
            with pytest.raises(TypeError, match=f"x: {message}"):
                layer(x)
        with pytest.raises(TypeError, match=f"z: {message}"):
            ft.maxout(x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_layer
def test_module_of_another_dtype_is_refused_by_name(name, dtype):
    layer, x = MAKERS[name]().to(dtype), torch.randn(5, 6)
    with pytest.raises(TypeError, match=f"weight: got dtype {dtype}, wanted torch.float32"):
        layer(x)
    with pytest.raises(TypeError, match=f"x: got dtype {dtype}, wanted torch.float32 or torch.float64"):
        layer(x.to(dtype))


@script
@every_layer
def test_jit_script_of_a_module_is_refused_by_name(name):
    layer = MAKERS[name]()
    kind = type(layer).__name__
    for module in (layer, nn.Sequential(nn.Sequential(layer))):
        with pytest.raises(
            TypeError, match=f"got a fastact.torch.{kind}, which torch.jit.script can't compile"
        ):
            torch.jit.script(module)


@script
def test_jit_script_takes_the_operators():
    @torch.jit.script
    def call(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.ops.fastact.linear_maxout(x, weight, None, None)

    x, weight = torch.randn(5, 6), torch.randn(4, 3, 6)
    assert torch.equal(call(x, weight), ft.linear_maxout(x, weight))


@needs_c
def test_operators_follow_the_reproducible_mode():
    x, weight = torch.randn(3, 300), torch.randn(7, 2, 300)
    with in_force("c-scalar"):  # whose sums have another order otherwise
        ordinary = ft.linear_maxout(x, weight)
        with fastact.reproducible():
            y = ft.linear_maxout(x, weight)
            assert y.numpy().tobytes() == fastact.linear_maxout(x.numpy(), weight.numpy())[0].tobytes()
    assert not torch.equal(y, ordinary)
