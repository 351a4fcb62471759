# mypy: disable-error-code="no-any-return"
"""The same recipe in PyTorch, for its time per epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from . import recipe

Array = np.ndarray[Any, Any]


class Maxout(nn.Module):
    def __init__(self, in_features: int, out_features: int, pieces: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features * pieces)
        self.shape = (-1, out_features, pieces)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).view(self.shape).max(dim=-1).values


class TorchTrainer:
    """`recipe.Trainer` in PyTorch."""

    def __init__(self, kind: str, seed: int, threads: int) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        units = recipe.UNITS if kind == "maxout" else recipe.RELU_UNITS
        self.model = nn.Sequential(
            *self._hidden(kind, 784, units), nn.Dropout(recipe.DROP_HIDDEN),
            *self._hidden(kind, units, units), nn.Dropout(recipe.DROP_HIDDEN),
            nn.Linear(units, 10),
        )  # fmt: skip
        for parameter in self.model.parameters():
            nn.init.uniform_(parameter, -recipe.WEIGHT_RANGE, recipe.WEIGHT_RANGE)
        self.weights = [p for p in self.model.parameters() if p.ndim == 2]
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=recipe.LEARNING_RATE, momentum=recipe.MOMENTUM
        )
        self.loss = nn.CrossEntropyLoss()

    @staticmethod
    def _hidden(kind: str, in_features: int, units: int) -> list[nn.Module]:
        if kind == "maxout":
            return [Maxout(in_features, units, recipe.PIECES)]
        return [nn.Linear(in_features, units), nn.ReLU()]

    def train_epoch(self, x: Array, labels: Array, momentum: float) -> None:
        (group,) = self.optimizer.param_groups
        group["momentum"] = momentum
        order = self.rng.permutation(len(x))
        for first in range(0, len(order), recipe.BATCH):
            batch = order[first : first + recipe.BATCH]
            inputs = torch.from_numpy(x[batch])
            inputs = inputs * (torch.rand(inputs.shape) >= recipe.DROP_INPUT)  # not rescaled
            loss = self.loss(self.model(inputs), torch.from_numpy(labels[batch]).long())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            group["lr"] /= recipe.LEARNING_RATE_DECAY
            with torch.no_grad():
                for weight in self.weights:
                    weight.copy_(torch.renorm(weight, 2, 0, recipe.MAX_NORM))
