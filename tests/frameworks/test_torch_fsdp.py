"""fastact's layers under FSDP: two processes that share the parameters train as one does."""

import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

import fastact.torch

WORLD, STEPS, ROWS = 2, 6, 24

if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("this build of PyTorch has no gloo", allow_module_level=True)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        fastact.torch.Maxout(20, 16, pieces=3, bias=False),  # one parameter: its gradient is FSDP1's as it is
        fastact.torch.Maxout(16, 12),
        fastact.torch.LinearActivation(12, 8, activation="prelu"),
        fastact.torch.LinearActivation(8, 8, activation="gelu"),
        nn.Linear(8, 4),
    )
    return model.double()


def train(model: nn.Module, rank: int, world: int) -> list[float]:
    """The loss of each step on this process's share of the rows."""
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


def sharded(kind: str) -> nn.Module:
    model = network()
    if kind == "fsdp2":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (WORLD,))
        for layer in model:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
        return model
    from torch.distributed.fsdp import FullyShardedDataParallel

    device = torch.device("cpu")
    original = kind == "fsdp1-original"
    for i, layer in enumerate(model):
        model[i] = FullyShardedDataParallel(layer, device_id=device, use_orig_params=original)
    return FullyShardedDataParallel(model, device_id=device, use_orig_params=original)


def worker(kind: str, rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD)
    try:
        losses = train(sharded(kind), rank, WORLD)
        torch.save(losses, folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["fsdp1", "fsdp1-original", "fsdp2"])
def test_fsdp_two_processes_train_as_one(kind, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, __file__, kind]
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
    means = [sum(pair) / WORLD for pair in zip(*results, strict=True)]
    # 6 steps of sums of at most 24 terms of numbers around 1: some hundred roundings of 1.1e-16
    torch.testing.assert_close(means, train(network(), 0, 1), rtol=1e-13, atol=0)


if __name__ == "__main__":
    worker(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    os._exit(0)  # not by the interpreter's exit, where PyTorch 2.13 aborts now and then after a process group
