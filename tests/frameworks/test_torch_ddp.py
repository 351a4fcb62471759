"""Maxout under DistributedDataParallel: two processes train as one does on the joined batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import fastact.torch

WORLD, STEPS, ROWS = 2, 6, 24

if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("this build of PyTorch has no gloo", allow_module_level=True)


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        fastact.torch.Maxout(20, 16, pieces=3),
        fastact.torch.LinearActivation(16, 8, activation="prelu"),
        nn.Linear(8, 4),
    )
    return model.double()


def train(model: nn.Module, rank: int, world: int) -> list[float]:
    """The losses of each step on this process's share of the rows, and the parameters in `model`."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((STEPS, ROWS, 20), generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (STEPS, ROWS), generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for batch, wanted in zip(x[:, rank::world], labels[:, rank::world], strict=True):
        loss = nn.functional.cross_entropy(model(batch), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def worker(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    try:
        model = DistributedDataParallel(network())
        losses = train(model, rank, WORLD)
        torch.save({"losses": losses, "state": model.module.state_dict()}, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


def test_two_processes_equal_one_with_the_joined_batch(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__]
    processes = [
        subprocess.Popen([*command, str(rank), str(port), str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for rank in range(WORLD)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
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
    worker(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    # Not by the interpreter's exit, where PyTorch 2.13 aborts now and then after a process group: 3 of 60
    # times with its own modules alone.
    os._exit(0)
