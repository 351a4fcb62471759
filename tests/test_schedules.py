"""`fa.schedules`: the values of the formulas, what lies beyond the last step, and PyTorch's schedulers."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastact as fa
from fastact.nn.schedules import cosine, linear_warmup, step

CLOSE = 4 * np.finfo(np.float64).eps  # a few roundings of factors of at most 1


def test_cosine_values():
    got = [cosine(i, 4, 0.8) for i in range(5)]
    wanted = [0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5)), 0.0]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=CLOSE)


def test_cosine_ends_are_exact_and_last():
    for lr, least in ((0.1, 0.0), (0.1, 0.03), (3.3, 0.7), (0.1, 0.1), (1e308, 1e307), (0.0, 0.0)):
        for total in (1, 3, 7, 10**6):
            assert cosine(0, total, lr, least) == lr
            for i in (total, total + 1, 10 * total):
                assert cosine(i, total, lr, least) == least
    rates = [cosine(i, 1000, 0.1, 0.03) for i in range(1001)]
    assert rates == sorted(rates, reverse=True)


def test_step_values():
    assert [step(i, 2, 0.8, 0.5) for i in range(7)] == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1]
    assert [step(i, 1, 1.0) for i in range(2)] == [1.0, 0.1]
    assert [step(i, 2, 0.8, 0) for i in range(4)] == [0.8, 0.8, 0.0, 0.0]
    assert step(10**12, 3, 0.3, 1.0) == 0.3
    assert step(10**15, 1, 0.3, 0.1) == 0.0


def test_linear_warmup_values():
    assert [linear_warmup(i, 4, 0.8) for i in range(6)] == [0.2, 0.4, 0.8 * 0.75, 0.8, 0.8, 0.8]
    assert [linear_warmup(i, 0, 0.8) for i in range(2)] == [0.8, 0.8]
    assert linear_warmup(0, 1, 0.8) == 0.8


def test_schedules_compose_and_set_a_learning_rate():
    optimizer = fa.SGD([fa.Parameter(np.ones(2, np.float32), "weight")], lr=0.1)
    optimizer.parameters[0].grad = np.ones(2, np.float32)
    for i in range(5):
        optimizer.lr = linear_warmup(i, 2, cosine(np.int64(i), 4, np.float32(0.5)))
        optimizer.step()
    # 0.5 * (1/2 * 1 + 0.5 * (1 + sqrt(1/2)) + 0.5 + 0.5 * (1 - sqrt(1/2)) + 0)
    np.testing.assert_allclose(optimizer.parameters[0].data, 1 - 0.5 * 2.0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", [cosine, step, linear_warmup])
def test_schedule_returns_a_plain_float(schedule):
    for lr in (1, np.float32(0.5), np.float64(0.5), True + 1):
        assert type(schedule(np.int32(1), np.int16(3), lr)) is float


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cosine(-1, 4, 0.1), ValueError, "step: got -1, wanted 0 or more"),
        (lambda: cosine(1.0, 4, 0.1), TypeError, "step: got 1.0, wanted an int"),
        (lambda: cosine(1, 0, 0.1), ValueError, "total_steps: got 0, wanted 1 or more"),
        (lambda: cosine(1, 4, -0.1), ValueError, "lr: got -0.1, wanted a number from 0"),
        (lambda: cosine(1, 4, math.nan), ValueError, "lr: got nan, wanted a number from 0"),
        (lambda: cosine(1, 4, "0.1"), TypeError, "lr: got '0.1', wanted a number"),
        (lambda: cosine(1, 4, 0.1, 0.2), ValueError, "min_lr: got 0.2, wanted a number from 0 to 0.1"),
        (lambda: step(-1, 4, 0.1), ValueError, "step: got -1, wanted 0 or more"),
        (lambda: step(1, 0, 0.1), ValueError, "step_size: got 0, wanted 1 or more"),
        (lambda: step(1, 4, 0.1, 1.5), ValueError, "gamma: got 1.5, wanted a number from 0 to 1"),
        (lambda: step(1, 4, 0.1, -0.5), ValueError, "gamma: got -0.5, wanted a number from 0 to 1"),
        (lambda: step(1, 4, math.inf), ValueError, "lr: got inf, wanted a number from 0"),
        (lambda: linear_warmup(True, 4, 0.1), TypeError, "step: got True, wanted an int"),
        (lambda: linear_warmup(1, -4, 0.1), ValueError, "warmup_steps: got -4, wanted 0 or more"),
        (lambda: linear_warmup(1, 4, None), TypeError, "lr: got None, wanted a number"),
    ],
)
def test_schedule_refuses_arguments_by_name(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)


def test_schedules_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    rates = torch.optim.lr_scheduler

    def theirs(schedule, count, *arguments):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
        scheduler = schedule(optimizer, *arguments)
        found = []
        for _ in range(count):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    # PyTorch multiplies from step to step: a few roundings each
    own = [cosine(i, 20, 0.3, 0.01) for i in range(21)]
    np.testing.assert_allclose(own, theirs(rates.CosineAnnealingLR, 21, 20, 0.01), rtol=100 * CLOSE)
    own = [step(i, 5, 0.3, 0.2) for i in range(30)]
    np.testing.assert_allclose(own, theirs(rates.StepLR, 30, 5, 0.2), rtol=100 * CLOSE)
    own = [linear_warmup(i, 10, 0.3) for i in range(15)]
    np.testing.assert_allclose(own, theirs(rates.LinearLR, 15, 0.1, 1.0, 9), rtol=100 * CLOSE)
