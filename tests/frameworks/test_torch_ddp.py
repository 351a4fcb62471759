"""Maxout under DistributedDataParallel: two processes train as one does on the joined batch."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, become, run, train

import fastact.torch


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        fastact.torch.Maxout(20, 16, pieces=3),
        fastact.torch.LinearActivation(16, 8, activation="prelu"),
        nn.Linear(8, 4),
    )
    return model.double()


def worker(rank: int) -> dict:
    model = DistributedDataParallel(network())
    losses = train(model, rank, WORLD)
    return {"losses": losses, "state": model.module.state_dict()}


def test_two_processes_equal_one_with_the_joined_batch(tmp_path):
    results = run(__file__, tmp_path)
    model = network()
    losses = train(model, 0, 1)
    means = [sum(pair) / WORLD for pair in zip(*(result["losses"] for result in results), strict=True)]
    # 6 steps of sums of at most 24 terms of numbers around 1: some hundred roundings of 1.1e-16
    torch.testing.assert_close(means, losses, rtol=1e-13, atol=0)
    for name, parameter in model.state_dict().items():
        first, second = (result["state"][name] for result in results)
        assert torch.equal(first, second)
        torch.testing.assert_close(first, parameter, rtol=1e-12, atol=1e-14)


if __name__ == "__main__":
    become(worker)
