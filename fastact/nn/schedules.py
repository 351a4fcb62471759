"""Learning-rate schedules: functions of the number of the step that return its learning rate.

    for i in range(total_steps):
        ...
        optimizer.lr = fastact.schedules.cosine(i, total_steps, lr=0.1)
        optimizer.step()

A schedule has no state, so a resumed run needs only the number of its step.  Steps are counted from 0; a step
is an update or an epoch, as the caller counts.  Schedules compose, since each takes a learning rate:

    lr = fastact.schedules.cosine(i, total_steps, lr=0.1)
    optimizer.lr = fastact.schedules.linear_warmup(i, 500, lr)

Each raises TypeError where a step or a count is not an int, or a rate or factor is not a number; ValueError
where one is out of range.
"""

from __future__ import annotations

from ..checks import check_not_negative, check_size
from . import portable

__all__ = ["cosine", "linear_warmup", "step"]


def cosine(step: int, total_steps: int, lr: float, min_lr: float = 0.0) -> float:
    """A decay from lr to min_lr along half a cosine (Loshchilov & Hutter 2017, "SGDR", equation 5).

        min_lr + (lr - min_lr) * (1 + cos(pi * step / total_steps)) / 2

    The learning rate is that of PyTorch's `CosineAnnealingLR(optimizer, total_steps, min_lr)` until step
    `total_steps`, and min_lr after it.

    Args:
        step: the number of the step, from 0.
        total_steps: the step that reaches min_lr, 1 or more.
        lr: the learning rate of step 0, 0 or more.
        min_lr: the last learning rate, 0 to lr.

    Returns:
        The learning rate of the step.
    """
    step, total_steps = check_size("step", step), check_size("total_steps", total_steps, 1)
    lr = check_not_negative("lr", lr)
    min_lr = check_not_negative("min_lr", min_lr, lr)
    share = (1 + portable.cos_pi(min(step, total_steps) / total_steps)) / 2
    return share * lr + (1 - share) * min_lr


def step(step: int, step_size: int, lr: float, gamma: float = 0.1) -> float:
    """A decay by the factor gamma after every `step_size` steps, as PyTorch's `StepLR`.

        lr * gamma ** (step // step_size)

    Args:
        step: the number of the step, from 0.
        step_size: how many steps have the same learning rate, 1 or more.
        lr: the learning rate of step 0, 0 or more.
        gamma: the factor, 0 to 1.

    Returns:
        The learning rate of the step.
    """
    step, step_size = check_size("step", step), check_size("step_size", step_size, 1)
    lr, gamma = check_not_negative("lr", lr), check_not_negative("gamma", gamma, 1.0)
    return lr * portable.power(gamma, step // step_size)


def linear_warmup(step: int, warmup_steps: int, lr: float) -> float:
    """A rise to lr in equal increments (Goyal et al. 2017, "Accurate, Large Minibatch SGD", section 2.2).

        lr * min((step + 1) / warmup_steps, 1)

    Step 0 has lr / warmup_steps, since an update with a rate of 0 would be wasted.  Step `warmup_steps - 1`
    and all later steps have lr.

    Args:
        step: the number of the step, from 0.
        warmup_steps: how many steps the rise takes; 0 for no warm-up.
        lr: the learning rate after the warm-up, 0 or more.  It may come from another schedule.

    Returns:
        The learning rate of the step.
    """
    step, warmup_steps = check_size("step", step), check_size("warmup_steps", warmup_steps)
    lr = check_not_negative("lr", lr)
    return lr if step + 1 >= warmup_steps else lr * ((step + 1) / warmup_steps)
