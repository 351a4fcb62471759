"""fastact's layers under FSDP: two processes that share the parameters train as one does."""

import warnings

import pytest
import torch
from torch import nn
from two_processes import WORLD, become, run, train

import fastact.torch


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


def worker(rank: int, kind: str) -> list[float]:
    warnings.simplefilter("ignore")
    return train(sharded(kind), rank, WORLD)


@pytest.mark.parametrize("kind", ["fsdp1", "fsdp1-original", "fsdp2"])
def test_fsdp_two_processes_train_as_one(kind, tmp_path):
    results = run(__file__, tmp_path, kind)
    means = [sum(pair) / WORLD for pair in zip(*results, strict=True)]
    # 6 steps of sums of at most 24 terms of numbers around 1: some hundred roundings of 1.1e-16
    torch.testing.assert_close(means, train(network(), 0, 1), rtol=1e-13, atol=0)


if __name__ == "__main__":
    become(worker)
