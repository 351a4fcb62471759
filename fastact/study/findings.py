"""What a part of the study hands over, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Advance = Callable[[str], None]  # told what comes next, as often as the part's `steps` says


class Options(NamedTuple):
    """What the command line asks for; the last four concern Goodfellow et al.'s recipe alone."""

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
    """A figure, and what it shows, in English and in Chinese."""

    figure: Figure
    english: str
    chinese: str


class Findings(NamedTuple):
    """Pictures and tables by file name, without an ending; the titles are of the page's section.

    `summary` has the few sentences that the command prints, each with numbers of the tables.
    """

    english: str
    chinese: str
    pictures: dict[str, Picture]
    tables: dict[str, Table]
    summary: list[str]
