"""Goals for the speed and accuracy of fastact, and whether a file of results meets them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from .records import Medians, Results
from .shapes import LINEAR, MAIN, ODD, Shape
from .tables import LOWER_PRECISION

FRAMEWORKS = ("PyTorch", "torch.compile", "Thinc", "JAX")
ENGINES = ("ONNX Runtime", "OpenVINO", "oneDNN", "torch.compile frozen", "zentorch", "ExecuTorch", "tract")

_SPACY, _SPACY_SMALL, _FIRST, _SECOND, _SQUARE, _WIDE, _LARGE, _ROW, _TINY = MAIN
_BATCHES = tuple(shape for shape in MAIN if shape.rows >= 64)


class Goal(NamedTuple):
    """`contender` takes at most 1 / ratio of the time of the fastest of `rivals`, on one thread."""

    mode: str
    shape: Shape
    contender: str
    rivals: tuple[str, ...]
    ratio: float
    amx: bool = False  # whether the goal is for CPUs with AMX alone


class Outcome(NamedTuple):
    mode: str
    shape: Shape
    contender: str
    against: str
    wanted: float
    got: float | None  # None: not measured
    possible: float | None = None  # `got` at the measured FMA peak
    is_limit: bool = False  # `wanted` is the most, not the least
    lacking: str | None = None  # why it cannot be measured

    @property
    def passed(self) -> bool | None:
        if self.got is None or self.lacking is not None:
            return None
        return self.got <= self.wanted if self.is_limit else self.got >= self.wanted


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


def _tiers() -> list[Goal]:
    high, medium = "fastact C high", "fastact C medium"
    goals = []
    for shape in (_SQUARE, _SPACY):
        goals += [
            Goal("forward", shape, "fastact C", FRAMEWORKS, 1.4, amx=True),
            Goal("forward", shape, high, FRAMEWORKS, 3.0, amx=True),
            Goal("forward", shape, medium, FRAMEWORKS, 5.0, amx=True),
            Goal("tiers", shape, medium, ("PyTorch medium", "torch.compile medium"), 1.0),
            Goal("forward_backward", shape, high, FRAMEWORKS, 3.0, amx=True),
            Goal("frozen", shape, "fastact C", ENGINES, 1.5, amx=True),
            Goal("frozen", shape, "fastact C bf16", ("OpenVINO bf16",), 1.2),
        ]
    for shape in _BATCHES:
        ratio = 1.5 if shape.pieces == 2 else 2.2
        goals.append(Goal("forward_backward", shape, "fastact C", FRAMEWORKS, ratio, amx=True))
    return goals


def _linear() -> list[Goal]:
    goals = []
    for shape in LINEAR:
        goals += [
            Goal(mode, shape, "fastact C", ("NumPy", *FRAMEWORKS), 1.0)
            for mode in ("forward", "forward_backward", "step")
        ]
        goals.append(Goal("frozen", shape, "fastact C", ENGINES, 1.0))
    return goals


GOALS = (*_naive_numpy(), *_frameworks(), *_frozen(), *_tiers(), *_linear())
LARGEST_ERRORS = {"fastact C high": 1e-5, "fastact C medium": 4e-3}  # relative norms of the error of y
SHARE_OF_PEAK = 0.85  # share of the FMA rate in registers, for the forward on the largest shape
SCALING = 1.8  # speed-up of two threads over one, on shapes of 1,024 rows


def useful_flop(mode: str, shape: Shape) -> float:
    """Operations that the results need: a backward has two products of the winners alone."""
    return shape.dense_flop * (1 + 2 / shape.pieces if mode in ("forward_backward", "step") else 1)


def outcomes(results: Results) -> list[Outcome]:
    """Every goal and its outcome in `results`."""
    medians = Medians(results["results"])
    peak = results["limits"].get("1", {}).get("register_fma_gflops")
    no_amx = None if "amx_bf16" in results["environment"]["instructions"] else "this CPU has no AMX"
    found = [_compare(medians, goal, peak, no_amx) for goal in GOALS]
    found.append(_share_of_peak(medians, peak, _LARGE, SHARE_OF_PEAK)._replace(possible=1.0))
    found.append(_share_of_peak(medians, peak, _SQUARE, 1.0)._replace(lacking=no_amx))
    found.append(_error_beside_numpy(medians))
    for tier, limit in LARGEST_ERRORS.items():
        found.append(_largest_error(medians, tier, limit))
    for shape in _BATCHES:
        if shape.rows == 1024:
            found += [_scaling(medians, mode, shape) for mode in ("forward", "forward_backward", "step")]
    return found


def _compare(medians: Medians, goal: Goal, peak: float | None, no_amx: str | None) -> Outcome:
    lacking = no_amx if goal.amx else None
    times = medians.at(1, goal.mode, goal.shape)
    rivals = {name: times[name] for name in goal.rivals if name in times}
    names = " / ".join(goal.rivals)
    if not rivals:
        return Outcome(*goal[:3], names, goal.ratio, None, lacking=lacking)
    best = min(rivals, key=lambda name: rivals[name])
    against = best if len(goal.rivals) == 1 else f"{best}, best of {len(rivals)}"
    ours = times.get(goal.contender)
    got = None if ours is None else rivals[best] / ours
    possible = None
    if peak and not goal.amx and not goal.contender.endswith(LOWER_PRECISION):
        possible = rivals[best] * peak * 1e3 / useful_flop(goal.mode, goal.shape)
    return Outcome(*goal[:3], against, goal.ratio, got, possible, lacking=lacking)


def _share_of_peak(medians: Medians, peak: float | None, shape: Shape, wanted: float) -> Outcome:
    time = medians.at(1, "forward", shape).get("fastact C")
    share = shape.dense_flop / time / 1e3 / peak if time and peak else None
    return Outcome("forward", shape, "fastact C", "FMA peak", wanted, share)


def _error_beside_numpy(medians: Medians) -> Outcome:
    """NumPy's error divided by ours, on the shape where that ratio is the smallest part of the one wanted.

    The norm of n independent errors varies by 1 / sqrt(2 n) of itself, so that the ratio of two equally good
    norms is above 1 - 2 / sqrt(n) in 49 of 50 cases.
    """
    found = []
    for shape in (*MAIN, *ODD):
        if {"fastact C", "NumPy"} <= medians.at(1, "forward", shape).keys():
            ours, numpys = (medians.norm_error("forward", shape, name) for name in ("fastact C", "NumPy"))
            wanted = 1 - 2 / (shape.rows * shape.out_features) ** 0.5
            found.append(Outcome("error", shape, "fastact C", "NumPy", wanted, numpys / max(ours, 1e-30)))
    if not found:
        return Outcome("error", _SPACY, "fastact C", "NumPy", 1.0, None)
    worst = min(found, key=lambda outcome: (outcome.got or 0) / outcome.wanted)
    return worst._replace(against=f"NumPy, worst of {len(found)} shapes")


def _largest_error(medians: Medians, contender: str, limit: float) -> Outcome:
    errors = {
        shape: medians.norm_error("forward", shape, contender)
        for shape in (*MAIN, *ODD)
        if contender in medians.at(1, "forward", shape)
    }
    if not errors:
        return Outcome("error", _SPACY, contender, "float64", limit, None, is_limit=True)
    worst = max(errors, key=lambda shape: errors[shape])
    against = f"float64, worst of {len(errors)} shapes"
    return Outcome("error", worst, contender, against, limit, errors[worst], is_limit=True)


def _scaling(medians: Medians, mode: str, shape: Shape) -> Outcome:
    one, two = (medians.at(threads, mode, shape).get("fastact C") for threads in (1, 2))
    got = one / two if one and two else None
    return Outcome(mode, shape, "fastact C, 2 threads", "fastact C, 1 thread", SCALING, got, possible=2.0)


def text(found: Sequence[Outcome]) -> str:
    """The measured goals under a heading for each mode, at most 80 columns wide, and how many are met."""
    measured = [outcome for outcome in found if outcome.passed is not None]
    lines = ["Goals: how many times as fast, or which part of an error"]
    for mode in dict.fromkeys(outcome.mode for outcome in measured):
        lines += ["", f"{mode.replace('_', ' + '):49}{'wanted':>9}{'got':>8}{'possible':>9}"]
        for outcome in measured:
            if outcome.mode == mode:
                form = ".0e" if outcome.is_limit else ".2f"
                possible = "" if outcome.possible is None else f"{outcome.possible:.2f}"
                rivalry = f"{outcome.contender} to {outcome.against}".replace("fastact ", "")
                lines.append(
                    f"{outcome.shape!s:20}{textwrap.shorten(rivalry, 28, placeholder='...'):29}"
                    f"{outcome.wanted:9{form}}{outcome.got:8{form}}{possible:>9}"
                    f"{'' if outcome.passed else ' FAIL'}"
                )
    passed = sum(outcome.passed is True for outcome in measured)
    failed = len(measured) - passed
    lacking = dict.fromkeys(outcome.lacking for outcome in found if outcome.lacking)
    reasons = f" (for some: {'; '.join(lacking)})" if lacking else ""
    return "\n".join(
        [
            *lines,
            "",
            f"{passed} pass, {failed} fail, {len(found) - len(measured)} not measured{reasons}.",
            "Possible: the useful arithmetic at the FMA rate measured in registers.",
        ]
    )
