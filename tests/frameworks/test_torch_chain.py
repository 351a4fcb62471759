"""Chains of an accelerated Sequential: the values, gradients, masks and errors of PyTorch's own modules."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fastact.torch as ft
from fastact import backends
from fastact.torch import chain
from fastact.torch.chain import Chain

pytestmark = pytest.mark.skipif(backends.why_c_is_missing() is not None, reason="needs the C extension")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(chain, "RECORDED_COST", 0.0)  # the models here are small
    torch._dynamo.reset()
    torch.set_default_dtype(torch.float64)  # whose roundings are far below the tolerances of assert_close
    backends.set_backend("c")
    yield
    backends.set_backend(None)
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def ran(monkeypatch):
    """How many steps each chain that ran had, in order."""
    calls = []
    run = Chain.run

    def spy(self, x):
        y = run(self, x)
        if y is not None:
            calls.append(len(self.links))
        return y

    monkeypatch.setattr(Chain, "run", spy)
    return calls


def network(dropout=0.25):
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.Tanh(),
        nn.Dropout(dropout),
        nn.Sequential(nn.Linear(8, 12), nn.MaxPool1d(3)),
        nn.Linear(4, 5),
        nn.GELU(),
        nn.Linear(5, 3),
    )


STEPS = 5


def twins(make=network, **options):
    plain = make(**options)
    model = copy.deepcopy(plain)
    ft.accelerate(model)
    return plain, model


def results(model, x, seed=3):
    """Output, gradients of x and of the parameters, and the generator's state afterwards."""
    x = x.detach().clone().requires_grad_(x.requires_grad) if x.is_contiguous() else x
    torch.manual_seed(seed)
    y = model(x)
    inputs = [each for each in (x, *model.parameters()) if each.requires_grad]
    gradients = torch.autograd.grad(y.square().sum(), inputs, allow_unused=True) if inputs else ()
    return y.detach(), torch.get_rng_state(), *gradients


def assert_same(model, plain, x, **tolerance):
    for actual, expected in zip(results(model, x), results(plain, x), strict=True):
        torch.testing.assert_close(actual, expected, **tolerance)


# ---- values and gradients


INPUTS = {
    "matrix": lambda: torch.randn(7, 6),
    "one row": lambda: torch.randn(1, 6),
    "wants a gradient": lambda: torch.randn(7, 6).requires_grad_(),
    "three dimensions": lambda: torch.randn(2, 7, 6),
    "transposed": lambda: torch.randn(6, 7).t(),
    "strided": lambda: torch.randn(7, 12)[:, ::2],
    "rows apart": lambda: torch.randn(14, 6)[::2],
    "expanded": lambda: torch.randn(6).expand(7, 6),
}


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", INPUTS)
def test_chain_any_input_gives_the_results_of_eager(ran, name, train):
    plain, model = twins()
    x = INPUTS[name]()
    assert_same(model.train(train), plain.train(train), x)
    # PyTorch draws a dropout's mask in the order of the memory; then only the inner Sequential is a chain
    assert ran == ([1] if train and not x.is_contiguous() else [STEPS])


def test_chain_empty_batch_and_one_dimension_run_as_pytorchs_own():
    plain, model = twins()
    for shape in ((0, 6), (0, 3, 6), (6,), (2, 2, 5, 6), (5, 7), ()):
        x = torch.randn(shape)
        outcomes = []
        for each in (plain, model):
            torch.manual_seed(1)
            try:
                outcomes.append(each(x))
            except RuntimeError as error:
                outcomes.append(str(error))
        if isinstance(outcomes[0], str):
            assert outcomes[0] == outcomes[1]
        else:
            torch.testing.assert_close(*outcomes)


def random_network(generator):
    """A Sequential, perhaps with others in it, of layers that fit together."""

    def number(low, high):
        return int(torch.randint(low, high, (), generator=generator))

    def layers(width, depth):
        found = []
        for _ in range(number(1, 5)):
            kind = number(0, 7)
            if kind == 0 and depth:
                inner, width = layers(width, depth - 1)
                found.append(nn.Sequential(*inner))
            elif kind == 1:
                found.append(nn.Dropout(number(0, 4) / 4))
            elif kind == 6:  # eps bounds what it makes of roundings
                found.append(nn.LayerNorm(width, eps=0.1, bias=bool(number(0, 2))))
            elif kind == 2:
                units, pieces = number(1, 20), number(1, 5)
                found += [nn.Linear(width, units * pieces, bias=bool(number(0, 2))), nn.MaxPool1d(pieces)]
                width = units
            else:
                units = number(1, 40)
                found.append(nn.Linear(width, units, bias=bool(number(0, 2))))
                width = units
                kinds = [
                    nn.ReLU(inplace=bool(number(0, 2))),
                    nn.Tanh(),
                    nn.GELU("tanh"),
                    nn.ELU(0.7),
                    nn.Mish(),
                ]
                found += kinds[number(0, 5) :][: number(0, 3)]
        return found, width

    width = number(1, 40)
    found, _ = layers(width, 2)
    return width, nn.Sequential(*found)


@pytest.mark.parametrize("seed", range(30))
def test_chain_random_networks_give_the_results_of_eager(seed):
    generator = torch.Generator().manual_seed(seed)
    width, plain = random_network(generator)
    plain.double()
    model = copy.deepcopy(plain)
    ft.accelerate(model)
    for rows in (1, 3, 33):
        x = torch.randn(rows, width, dtype=torch.float64, generator=generator).requires_grad_()
        # at most five layers of sums of at most 41 numbers around 1: some thousand roundings of 1.1e-16
        assert_same(model, plain, x, rtol=1e-11, atol=1e-11)


def test_layer_norm_in_a_chain_gives_the_results_of_eager(ran):
    plain, model = twins(
        lambda: nn.Sequential(
            nn.LayerNorm(6),
            nn.Linear(6, 7),
            nn.LayerNorm(7, bias=False),
            nn.GELU(),
            nn.Linear(7, 6),
            nn.LayerNorm(6),
        )
    )
    for layer in (plain[0], model[0]):
        layer.weight.data.copy_(torch.linspace(0.5, 2, 6))
        layer.bias.data.copy_(torch.linspace(-1, 1, 6))
    assert_same(model, plain, torch.randn(5, 6, requires_grad=True))
    assert_same(model, plain, torch.randn(2, 3, 6))
    assert ran == [6, 6]
    for layer in (plain[2], model[2]):
        layer.eps = 0.5
    assert_same(model, plain, torch.randn(5, 6, requires_grad=True))
    assert ran == [6, 6, 6]


@pytest.mark.parametrize("keywords", [{"elementwise_affine": False}, {"axes": 2}])
def test_layer_norm_that_no_chain_takes_runs_as_pytorchs(keywords):
    shape = (1, 7) if keywords.pop("axes", 1) == 2 else 7
    plain, model = twins(
        lambda: nn.Sequential(
            nn.Linear(6, 7), nn.Tanh(), nn.LayerNorm(shape, **keywords), nn.Linear(7, 6), nn.Tanh()
        )
    )
    assert_same(model, plain, torch.randn(5, 1, 6, requires_grad=True))
    assert [change.name for change in ft.accelerate(copy.deepcopy(plain)).replaced] == ["0", "3"]


def test_chain_gradients_are_those_of_finite_differences(ran):
    model = network(0.0).double()
    ft.accelerate(model)
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: model(x), (x, *model.parameters()))
    assert set(ran) == {STEPS}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("p", [0.0, 0.1, 1 / 3, 0.5, 0.9])
def test_dropout_in_a_chain_has_the_masks_of_eager(ran, p, dtype):
    plain = nn.Sequential(nn.Dropout(p), nn.Linear(33, 33, bias=False), nn.ReLU(), nn.Dropout(p)).to(dtype)
    with torch.no_grad():
        plain[1].weight.copy_(torch.eye(33))  # products without rounding
    model = copy.deepcopy(plain)
    ft.accelerate(model)
    x = torch.randn(97, 33, dtype=dtype)
    for actual, expected in zip(results(model, x)[:2], results(plain, x)[:2], strict=True):
        assert torch.equal(actual, expected)
    with torch.no_grad():  # as Monte Carlo dropout runs
        torch.manual_seed(5)
        expected = plain(x)
        torch.manual_seed(5)
        assert torch.equal(model(x), expected)
    assert ran == [3, 3]


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint_of_a_chain_draws_the_same_masks_again(reentrant):
    plain, model = twins()
    x = torch.randn(7, 6, requires_grad=True)
    wrapped = [lambda x, each=each: checkpoint(each, x, use_reentrant=reentrant) for each in (plain, model)]
    gradients = []
    for each, call in zip((plain, model), wrapped, strict=True):
        each.zero_grad()
        torch.manual_seed(4)
        y = call(x)
        y.square().sum().backward()
        gradients.append([y.detach(), *[parameter.grad for parameter in each.parameters()]])
    torch.testing.assert_close(*gradients)


# ---- autograd


def test_chain_second_backward_with_retain_graph_gives_the_same(ran):
    _, model = twins()
    y = model(torch.randn(7, 6)).square().sum()
    parameters = list(model.parameters())
    first = torch.autograd.grad(y, parameters, retain_graph=True)
    model(torch.randn(7, 6)).sum().backward()  # another graph of the same chain in between
    second = torch.autograd.grad(y, parameters)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(y, parameters)
    assert ran == [STEPS, STEPS]


def test_chain_second_derivative_is_an_error():
    _, model = twins()
    y = model(torch.randn(7, 6)).square().sum()
    with pytest.raises(
        RuntimeError, match=r"chain of an accelerated nn\.Sequential has no second derivative"
    ):
        torch.autograd.grad(y, list(model.parameters()), create_graph=True)


@pytest.mark.parametrize("changed", ["x", "weight", "y"])
def test_chain_tensor_changed_in_place_before_backward_is_an_error(changed):
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh())
    ft.accelerate(model)
    x = torch.randn(7, 6)
    y = model(x)
    with torch.no_grad():
        {"x": x, "weight": model[2].weight, "y": y}[changed].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_chain_output_that_no_backward_reads_may_be_changed_in_place(ran):
    plain, model = twins()
    x = torch.randn(7, 6)
    for each in (plain, model):
        torch.manual_seed(1)
        each(x).mul_(2).sum().backward()
    for actual, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad)
    assert ran == [STEPS]


@pytest.mark.parametrize("frozen", [("0.weight",), ("0.weight", "0.bias"), ("4.bias", "6.weight"), "all"])
@pytest.mark.parametrize("wants", [False, True])
def test_chain_frozen_parameters_get_no_gradient(ran, frozen, wants):
    plain, model = twins()
    for each in (plain, model):
        for name, parameter in each.named_parameters():
            parameter.requires_grad_(frozen != "all" and name not in frozen)
    assert_same(model, plain, torch.randn(7, 6, requires_grad=wants))
    assert ran == [STEPS]
    if frozen == "all" and not wants:
        assert not model(torch.randn(7, 6)).requires_grad


def test_chain_with_one_linear_twice_adds_its_gradients(ran):
    linear = nn.Linear(6, 6)
    plain, model = twins(lambda: nn.Sequential(linear, nn.Tanh(), linear, nn.ReLU(), linear))
    assert model[0] is model[2] is model[4]
    assert_same(model, plain, torch.randn(7, 6, requires_grad=True))
    tied = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    tied[2].weight = tied[0].weight
    plain, model = twins(lambda: tied)
    assert_same(model, plain, torch.randn(7, 6))
    assert ran == [3, 2]


def test_chain_backward_adds_to_the_gradients_that_are_there():
    plain, model = twins(dropout=0.0)
    for _ in range(3):
        x = torch.randn(7, 6)
        for each in (plain, model):
            each(x).square().sum().backward()
    for actual, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad)
        assert actual.grad.is_contiguous()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_chain_without_gradients_records_nothing(ran, context):
    plain, model = (each.eval() for each in twins())
    with context():
        y = model(torch.ones(7, 6))
        torch.testing.assert_close(y, plain(torch.ones(7, 6)))
        assert y.is_inference() == (context is torch.inference_mode)
    assert not y.requires_grad
    assert y.grad_fn is None
    assert ran == [STEPS]


def test_chain_gradients_in_a_batch_are_those_of_eager():
    plain, model = (each.eval() for each in twins())
    x = torch.randn(3, 6)
    jacobians = [torch.autograd.functional.jacobian(each, x, vectorize=True) for each in (plain, model)]
    torch.testing.assert_close(*jacobians)
    plain, model = twins()  # the masks of the forward
    found = []
    for each in (plain, model):
        torch.manual_seed(1)
        y = each(x)
        grad_y = torch.eye(y.numel()).view(-1, *y.shape)
        found.append(torch.autograd.grad(y, list(each.parameters()), grad_y, is_grads_batched=True))
    torch.testing.assert_close(*found)


def test_chain_with_saved_tensor_hooks_runs_as_pytorchs_own(ran):
    plain, model = twins()
    with torch.autograd.graph.save_on_cpu():
        assert_same(model, plain, torch.randn(7, 6))
    assert ran == []


# ---- changes after accelerate


def hooked(model):
    model[4].register_forward_hook(lambda module, args, y: 2 * y)


def replaced(model):
    torch.manual_seed(2)
    model[5] = nn.ReLU()
    model[4] = nn.Linear(4, 5, bias=False)


def appended(model):
    model.append(nn.Softplus())


def replaced_inside(model):
    torch.manual_seed(2)
    model[3][0] = nn.Linear(8, 12)
    model[3].append(nn.BatchNorm1d(4))


def slope(model):
    model[5] = nn.LeakyReLU(0.1)
    model(torch.randn(2, 6))
    model[5].negative_slope = 0.3


def p_changed(model):
    model[2].p = 0.5


def own_parameter(model):
    torch.manual_seed(2)
    model[0].weight = nn.Parameter(torch.randn(8, 6))


def new_memory(model):
    model[0].weight.data = model[0].weight.data.flip(0).clone()
    model[4].bias.data = 3 * model[4].bias.data


def transposed_memory(model):
    model[6].weight.data = torch.arange(15.0).view(5, 3).t()


def same_memory_transposed(model):
    model[3] = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    model(torch.randn(2, 6))
    model[3][0].weight.data = model[3][0].weight.data.t()


def loaded(model):
    model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()})


def assigned(model):
    state = {name: 2 * value for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)


def in_place(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)


def class_changed(model):
    model[5].__class__ = nn.Sigmoid


def some_in_eval(model):
    model[2].eval()


CHANGES = {
    hooked: [1],
    replaced: [STEPS],
    appended: [STEPS],
    replaced_inside: [2, 1, 2],
    slope: [STEPS],
    p_changed: [STEPS],
    own_parameter: [STEPS],
    new_memory: [STEPS],
    transposed_memory: [1],
    same_memory_transposed: [],
    loaded: [STEPS],
    assigned: [STEPS],
    in_place: [STEPS],
    class_changed: [STEPS],
    some_in_eval: [STEPS],
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_change_after_accelerate_is_seen_at_the_next_call(ran, change):
    plain, model = twins()
    model(torch.randn(7, 6))
    for each in (plain, model):
        torch.manual_seed(5)
        change(each)
    ran.clear()
    x = torch.randn(7, 6)
    assert_same(model, plain, x)
    if change is not hooked and change is not replaced_inside:
        assert ran == CHANGES[change]
    ran.clear()
    assert_same(model.eval(), plain.eval(), x)
    assert_same(model.train(), plain.train(), x)


def test_chain_runs_again_once_a_hook_is_gone(ran):
    plain, model = twins()
    x = torch.randn(7, 6)
    model(x)
    handle = model[4].register_forward_hook(lambda module, args, y: None)
    assert_same(model, plain, x)
    assert STEPS not in ran[1:]
    handle.remove()
    ran.clear()
    assert_same(model, plain, x)
    assert ran == [STEPS]


def test_chain_takes_another_dtype_and_back(ran):
    plain, model = twins()
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float32):
        plain.to(dtype)
        model.to(dtype)
        # float32: five layers of sums of at most 9 numbers around 1, some hundred roundings of 6e-8
        assert_same(model, plain, torch.randn(7, 6).to(dtype), rtol=1e-4, atol=1e-4)
    assert ran == [STEPS] * 3
    model[0].double()
    with pytest.raises(RuntimeError, match="dtype"):
        model(torch.randn(7, 6))


def test_restored_copied_and_pickled_models_run_on_their_own(ran):
    plain, model = twins()
    x = torch.randn(7, 6)
    model(x)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        model[0].weight.zero_()
    ran.clear()
    assert_same(twin, plain, x)
    assert ran == [STEPS]
    loaded = pickle.loads(pickle.dumps(twin))
    assert b"fastact" not in pickle.dumps(twin)
    assert_same(loaded, plain, x, rtol=0, atol=0)
    ft.restore(twin)
    assert "_fastact_plan" not in vars(twin)
    assert_same(twin, plain, x, rtol=0, atol=0)
    assert ran == [STEPS]


def test_chain_on_another_backend_runs_one_by_one(ran):
    plain, model = twins()
    backends.set_backend("numpy")
    assert_same(model, plain, torch.randn(7, 6))
    assert ran == []


def test_one_model_in_several_threads_gives_each_its_own_results():
    plain, model = twins(dropout=0.0)
    xs = [torch.randn(rows, 6) for rows in (3, 17, 33, 97)]
    expected = [results(plain, x)[2:] for x in xs]
    found = [[] for _ in xs]

    def work(index):
        for _ in range(30):
            y = model(xs[index]).square().sum()
            found[index].append(torch.autograd.grad(y, list(model.parameters())))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for of_thread, wanted in zip(found, expected, strict=True):
        assert len(of_thread) == 30
        for gradients in of_thread:
            torch.testing.assert_close(gradients, wanted)


def test_compiled_and_exported_models_hold_no_chain(ran):
    plain, model = (each.eval() for each in twins())
    x = torch.randn(7, 6)
    expected = plain(x)
    torch.testing.assert_close(model(x), expected)
    ran.clear()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected)
    exported = torch.export.export(model, (x,))
    torch.testing.assert_close(exported.module()(x), expected)
    assert "fastact" not in str(exported.graph)
    assert ran == []


# ---- reports


def test_report_names_the_steps_of_each_chain():
    model = nn.Sequential(network(), nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 2)), nn.Linear(2, 2))
    report = ft.accelerate(nn.ModuleDict({"body": model}))
    assert report.chains == [
        ("body.2.0", "body.3"),
        ("body.0.0", "body.0.2", "body.0.3.0", "body.0.4", "body.0.6"),
    ]
    assert repr(report).endswith(
        "2 chains, in one call each\n  body.2.0 to body.3: 2 steps\n  body.0.0 to body.0.6: 5 steps"
    )
    assert {change.name for change in report.replaced} == {name for names in report.chains for name in names}


def test_module_that_writes_into_its_input_begins_no_chain(ran):
    plain, model = twins(lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 4), nn.Tanh()))
    x = torch.randn(7, 6)
    other = x.clone()
    torch.testing.assert_close(model(x), plain(other))
    assert torch.equal(x, other)
    assert x.min() == 0
    assert ran == [1]


# ---- never slower


def test_small_chain_runs_as_pytorchs_own_where_gradients_are_recorded(ran, monkeypatch):
    monkeypatch.undo()
    calls = []
    run = Chain.run
    monkeypatch.setattr(Chain, "run", lambda self, x: calls.append(len(x)) or run(self, x))
    model = nn.Sequential(nn.Linear(24, 8), nn.Tanh())
    report = ft.accelerate(model)
    assert report.chains == []
    [(name, rows)] = report.small
    assert name == "0"
    assert rows > 100
    assert repr(report).endswith(
        f"too small for calls that record gradients, which run them unfused\n  0: below {rows} rows"
    )
    assert "Tanh" in str(model(torch.ones(rows - 1, 24)).grad_fn)
    assert not calls
    assert "Tanh" not in str(model(torch.ones(rows, 24)).grad_fn)
    with torch.no_grad():
        model(torch.ones(1, 24))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model(torch.ones(1, 24))
    assert calls == [rows, 1, 1]
    deep = nn.Sequential(*[layer for _ in range(5) for layer in (nn.Linear(8, 8), nn.ReLU())])
    assert ft.accelerate(deep).small == []
