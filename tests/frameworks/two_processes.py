"""Training in two processes over gloo, which the tests of DDP and FSDP share.

A test module is its own script: `run` starts it once a rank, and its last lines hand its worker to `become`.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

WORLD, STEPS, ROWS = 2, 6, 24

if not dist.is_available() or not dist.is_gloo_available():
    pytest.skip("needs a build of PyTorch with gloo", allow_module_level=True)


def train(model: nn.Module, rank: int, world: int) -> list[float]:
    """The loss of each step on this process's share of the rows; the parameters change in `model`."""
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


def run(script: str, folder: Path, *arguments: str) -> list[Any]:
    """What the processes of `script` saved, in the order of their ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(port), str(folder), *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def become(worker: Callable[..., Any]) -> None:
    """Save what worker(rank, *arguments) returns, in a process group, and leave the process."""
    rank, port, folder, *arguments = sys.argv[1:]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=int(rank), world_size=WORLD)
    try:
        torch.save(worker(int(rank), *arguments), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
    # Not by the interpreter's exit, where PyTorch 2.13 aborts now and then after a process group: 3 of 60
    # times with its own modules alone.
    os._exit(0)
