"""How fast fastact means to be, and whether a file of results shows it."""

from __future__ import annotations

from typing import NamedTuple

from .records import Medians, Results
from .shapes import MAIN, Shape

FRAMEWORKS = ("PyTorch", "torch.compile", "Thinc", "JAX")
ENGINES = ("ONNX Runtime", "OpenVINO")

_SPACY, _SPACY_SMALL, _FIRST, _SECOND, _SQUARE, _WIDE, _LARGE, _ROW, _TINY = MAIN
_BATCHES = tuple(shape for shape in MAIN if shape.rows >= 64)


class Goal(NamedTuple):
    """`contender` takes at most 1 / ratio of the time of the fastest of `rivals`, on one thread."""

    mode: str
    shape: Shape
    contender: str
    rivals: tuple[str, ...]
    ratio: float


class Outcome(NamedTuple):
    mode: str
    shape: Shape
    contender: str
    against: str
    wanted: float
    got: float | None  # None: not measured
    possible: float | None  # at the measured FMA peak

    @property
    def passed(self) -> bool | None:
        return None if self.got is None else self.got >= self.wanted


def _naive_numpy() -> list[Goal]:
    goals = [Goal("forward", _TINY, "fastact C", ("NumPy",), 1.0)]
    for shape in _BATCHES:
        many = shape.pieces >= 3
        goals += [
            Goal("forward", shape, "fastact C", ("naive NumPy",), 2.0),
            Goal("forward_backward", shape, "fastact C", ("naive NumPy",), 2.0 if many else 1.4),
            Goal("forward_backward", shape, "fastact Numba", ("naive NumPy",), 1.5 if many else 1.1),
        ]
    return goals


def _frameworks() -> list[Goal]:
    ratios = {
        _SPACY: (1.4, 2.2),
        _SPACY_SMALL: (1.4, 2.2),
        _SECOND: (1.3, 2.2),
        _FIRST: (1.2, 1.8),
        _SQUARE: (1.1, 1.35),
        _LARGE: (1.1, 1.35),
        _WIDE: (1.3, 1.9),
        _TINY: (2.0, 2.0),
    }
    goals = [
        Goal("forward", _ROW, "fastact C", ("NumPy",), 1.0),
        Goal("forward_backward", _ROW, "fastact C", FRAMEWORKS, 1.2),
    ]
    for shape, (forward, both) in ratios.items():
        goals += [
            Goal("forward", shape, "fastact C", FRAMEWORKS, forward),
            Goal("forward_backward", shape, "fastact C", FRAMEWORKS, both),
        ]
    return goals


def _frozen() -> list[Goal]:
    ratios = dict.fromkeys(_BATCHES, 1.1) | {_ROW: 1.0, _TINY: 1.5}
    return [Goal("frozen", shape, "fastact C", ENGINES, ratio) for shape, ratio in ratios.items()]


GOALS = (*_naive_numpy(), *_frameworks(), *_frozen())
SHARE_OF_PEAK = 0.85  # of the FMA rate measured in registers, forward on the largest shape
SCALING = 1.8  # two threads against one, on shapes of 1,024 rows


def useful_flop(mode: str, shape: Shape) -> float:
    """Operations that the results need: a backward has two products of the winners alone."""
    return shape.dense_flop * (1 + 2 / shape.pieces if mode == "forward_backward" else 1)


def outcomes(results: Results) -> list[Outcome]:
    """Every goal with what `results` say of it."""
    medians = Medians(results["results"])
    peak = results["limits"].get("1", {}).get("register_fma_gflops")
    found = [_compare(medians, goal, peak) for goal in GOALS]
    found.append(_share_of_peak(medians, peak))
    for shape in _BATCHES:
        if shape.rows == 1024:
            found += [_scaling(medians, mode, shape) for mode in ("forward", "forward_backward", "step")]
    return found


def _compare(medians: Medians, goal: Goal, peak: float | None) -> Outcome:
    times = medians.at(1, goal.mode, goal.shape)
    rivals = {name: times[name] for name in goal.rivals if name in times}
    names = " / ".join(goal.rivals)
    if not rivals:
        return Outcome(*goal[:3], names, goal.ratio, None, None)
    best = min(rivals, key=lambda name: rivals[name])
    against = best if len(goal.rivals) == 1 else f"{best}, best of {len(rivals)}"
    ours = times.get(goal.contender)
    got = None if ours is None else rivals[best] / ours
    possible = rivals[best] * peak * 1e3 / useful_flop(goal.mode, goal.shape) if peak else None
    return Outcome(*goal[:3], against, goal.ratio, got, possible)


def _share_of_peak(medians: Medians, peak: float | None) -> Outcome:
    time = medians.at(1, "forward", _LARGE).get("fastact C")
    share = _LARGE.dense_flop / time / 1e3 / peak if time and peak else None
    return Outcome("forward", _LARGE, "fastact C", "FMA peak", SHARE_OF_PEAK, share, 1.0)


def _scaling(medians: Medians, mode: str, shape: Shape) -> Outcome:
    one, two = (medians.at(threads, mode, shape).get("fastact C") for threads in (1, 2))
    got = one / two if one and two else None
    return Outcome(mode, shape, "fastact C, 2 threads", "fastact C, 1 thread", SCALING, got, 2.0)
