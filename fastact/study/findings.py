"""The input and the output of a part of the study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Advance = Callable[[str], None]  # called with what comes next, as often as the part's `steps` says


class Options(NamedTuple):
    """The command line's options; the last four are for Goodfellow et al.'s recipe."""

    out: Path
    seed: int = 0
    mnist: Path | None = None
    epochs: int = 60
    seeds: int = 5
    resume: bool = False


class Table(NamedTuple):
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Picture(NamedTuple):
    """A figure and its caption in English and in Chinese."""

    figure: Figure
    english: str
    chinese: str


class Findings(NamedTuple):
    """The section's title in English and in Chinese; pictures and tables by file name without its ending.

    `summary` has the sentences that the command prints, with numbers from the tables.
    """

    english: str
    chinese: str
    pictures: dict[str, Picture]
    tables: dict[str, Table]
    summary: list[str]
