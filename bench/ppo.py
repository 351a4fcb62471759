"""Compares and times updates of stable-baselines3's PPO, plain and accelerated: `python -m bench.ppo`.

One process.  A rollout of CartPole-v1 is recorded once.  Two PPO models with all their defaults start from
its policy, one of them after `fastact.torch.accelerate(model.policy)`.  An update is a pass of `PPO.train`
over the rollout in minibatches of 64 steps, each with forward, losses, backward, clipped gradients and Adam.

- The losses of the first ten updates, on the same minibatches, and how far they are apart.
- The time of later updates, of which each model makes some in every round.
"""

from __future__ import annotations

import argparse
import copy
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed

import fastact.torch
from fastact import backends
from fastact.cli.arguments import positive

from . import records, threads
from .timing import interleaved

UPDATES = 10  # passes over a rollout, PPO's default
LOSSES = {
    "policy": "train/policy_gradient_loss",
    "value": "train/value_loss",
    "entropy": "train/entropy_loss",
}
CONTENDERS = ("plain", "accelerated")


class Recorder(PPO):
    """A PPO that plays and does not learn."""

    def train(self) -> None:
        pass


def record(**settings: Any) -> Recorder:
    """A PPO whose `rollout_buffer` holds a rollout of its untrained policy; `settings` are PPO's own."""
    recorder = Recorder("MlpPolicy", "CartPole-v1", seed=0, device="cpu", **settings)
    recorder.learn(recorder.n_steps)
    return recorder


def learner(recorder: Recorder, contender: str, **settings: Any) -> PPO:
    """A PPO with the rollout and the policy of `recorder`, which was made with the same `settings`."""
    model = PPO("MlpPolicy", "CartPole-v1", seed=0, device="cpu", n_epochs=1, **settings)
    model.policy.load_state_dict(recorder.policy.state_dict())
    model.rollout_buffer = copy.deepcopy(recorder.rollout_buffer)
    model.set_logger(Logger(None, []))
    if contender == "accelerated":
        fastact.torch.accelerate(model.policy)
    return model


def losses(model: PPO) -> dict[str, list[float]]:
    """The mean losses of the minibatches of each update."""
    found: dict[str, list[float]] = {name: [] for name in LOSSES}
    for number in range(UPDATES):
        set_random_seed(number)  # chooses the minibatches
        model.train()
        for name, key in LOSSES.items():
            found[name].append(float(model.logger.name_to_value[key]))
    return found


def differences(found: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """For each loss, the largest difference between the two contenders' in an update."""
    plain, accelerated = (found[name] for name in CONTENDERS)
    return {name: float(np.max(np.abs(np.subtract(plain[name], accelerated[name])))) for name in LOSSES}


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """The losses of every update, as text."""
    lines = ["update" + "".join(f"{name + ', ' + each:>22}" for name in LOSSES for each in CONTENDERS)]
    lines += [
        f"{number + 1:6}"
        + "".join(f"{found[each][name][number]:22.8f}" for name in LOSSES for each in CONTENDERS)
        for number in range(UPDATES)
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.ppo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=positive, default=1, help="of both models (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the timed updates (%(default)s)")
    records.add_out(parser)
    options = parser.parse_args(arguments)
    records.check_option(parser, options.out, ("threads", "losses", "update"))

    threads.pin(options.threads)
    torch.set_num_threads(options.threads)
    recorder = record()
    models = {name: learner(recorder, name) for name in CONTENDERS}
    found = {name: losses(model) for name, model in models.items()}
    apart = differences(found)
    print(table(found))
    print("largest difference: " + ", ".join(f"{name} loss {value:.1e}" for name, value in apart.items()))

    update = interleaved({name: model.train for name, model in models.items()}, options.seconds)
    minibatches = recorder.n_steps // recorder.batch_size
    print(f"\n{'an update':15}{'p20 ms':>10}{'p50 ms':>10}{'p80 ms':>10}{'us a minibatch':>18}")
    for name, sample in update.items():
        milliseconds = "".join(f"{value / 1e3:10.2f}" for value in sample[:3])
        print(f"{name:15}{milliseconds}{sample.p50 / minibatches:18,.0f}")
    speedup = update["plain"].p50 / update["accelerated"].p50
    print(f"\naccelerated, an update is {speedup:.2f} times as fast")
    fields = {
        "stable_baselines3": version("stable-baselines3"),
        "backend": backends.get_backend(),
        "threads": options.threads,
        "losses": found,
        "largest_difference": apart,
        "minibatches": minibatches,
        "update": {name: sample._asdict() for name, sample in update.items()},
        "speedup": round(speedup, 3),
    }
    records.save(options.out, fields)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
