"""Custom activations in PyTorch: gradients, compiled and copied modules, and what has no form outside."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
import torch
from support import custom
from support.custom import CASES
from torch.autograd import gradcheck

import fastact as fa
import fastact.torch as ft

TORCH_DTYPES = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def module_of(case, dtype=torch.float64):
    keywords = {"slope": [0.5, 1.0, 2.0]} if case.learned else case.keywords(3, None)
    return ft.LinearActivation(5, 3, activation=case.activation, dtype=dtype, **keywords)


@every_case
def test_module_has_the_results_of_the_numpy_layer(each_backend, dtype, case):
    module = module_of(case, TORCH_DTYPES[dtype])
    x = torch.randn(7, 5, dtype=TORCH_DTYPES[dtype], requires_grad=True)
    y = module(x)
    y.backward(y.detach())
    weight, bias = (p.detach().numpy() for p in (module.weight, module.bias))
    keywords = {"slope": module.slope.detach().numpy()} if case.learned else case.keywords(3, dtype)
    wanted, saved = fa.linear_activation(x.detach().numpy(), weight, bias, case.activation, **keywords)
    grads = fa.linear_activation_backward(
        wanted, x.detach().numpy(), weight, saved, case.activation, **keywords
    )
    np.testing.assert_array_equal(y.detach().numpy(), wanted)
    got = [x.grad, module.weight.grad, module.bias.grad, *([module.slope.grad] if case.learned else [])]
    for grad, expected in zip(got, grads, strict=True):
        np.testing.assert_array_equal(grad.numpy(), expected)


@every_case
def test_gradients_pass_gradcheck(case):
    module = module_of(case)
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, *parameters: module(x), (x, *module.parameters()))


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[3]], ids=str)
def test_compiled_module_has_the_bits_of_the_module(case):
    module = module_of(case)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    x = torch.randn(7, 5, dtype=torch.float64)
    for run in (compiled, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(run(x), module(x))
    exported = torch.export.export(module, (x,))
    assert torch.equal(exported.module()(x), module(x))


def test_state_dict_holds_the_slope_and_the_text_the_name():
    module = module_of(CASES[3])
    assert set(module.state_dict()) == {"weight", "bias", "slope"}
    assert "activation=<custom activation learned_swish>" in repr(module)
    assert "activation=<custom activation swish>, parameter=0.75" in repr(module_of(CASES[2]))


def test_decomposition_names_the_activation():
    from fastact.torch import decompositions

    x = torch.zeros(2, 3)
    with pytest.raises(
        TypeError, match=r"^activation: got the custom 'swish2#\d+', which has no form in PyTorch"
    ):
        decompositions.linear_activation(x, x, None, custom.swish2.key, None, None, None, None, None, False)


def test_invalid_arguments_are_refused_by_name():
    x = torch.zeros(2, 3)
    with pytest.raises(TypeError, match=r"^parameter: relu is not a custom activation$"):
        ft.linear_activation(x, x, None, "relu", parameter=1.0)
    with pytest.raises(ValueError, match=r"^parameter: got nan, wanted a finite number"):
        ft.linear_activation(x, x, None, custom.swish, parameter=float("nan"))
    with pytest.raises(TypeError, match=r"^parameter: swish2 takes no parameter$"):
        ft.linear_activation(x, x, None, custom.swish2, parameter=1.0)
    with pytest.raises(TypeError, match=r"^slope: got None, wanted a tensor of torch\.float32$"):
        ft.linear_activation(x, x, None, custom.learned_swish)
    message = r"^activation: got the custom swish2, which is one of another process, or no longer exists$"
    with pytest.raises(ValueError, match=message):
        ft.linear_activation(x, x, None, "swish2#0")
    with pytest.raises(TypeError, match=r"^parameter: swish2 takes no parameter$"):
        ft.LinearActivation(3, 2, activation=custom.swish2, parameter=1.0)


def test_activation_that_no_longer_exists_is_named():
    key = fa.custom_activation("gone", lambda z: z, lambda z: 1.0).key
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"^activation: got the custom gone, which is one of another"):
        torch.ops.fastact.linear_activation(x, x, None, key, None, None, None, None, None)


def test_graph_keeps_the_activation_that_it_was_made_with():
    made = fa.custom_activation("made", lambda z: 2 * z, lambda z: 2.0)
    alive = weakref.ref(made)
    layer = ft.LinearActivation(5, 3, activation=made)
    y = layer(torch.randn(4, 5))
    del made, layer
    gc.collect()
    y.sum().backward()
    assert alive() is not None
    del y
    gc.collect()
    assert alive() is None
