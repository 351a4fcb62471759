"""The shapes and networks on which another library comes close to fastact, or is ahead of it."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from . import tables
from .peers import DOES
from .records import Medians, Results, network_medians

NEAR = 1.15  # a peer is close where its time is at most this multiple of fastact's


class Close(NamedTuple):
    """The fastest peer on a shape or a network, and the times of both in microseconds."""

    ratio: float
    where: str  # the shape or network
    what: str  # what is measured
    peer: str
    peers: float
    ours: float


def closest(results: Results) -> list[Close]:
    """Where the fastest peer's float32 or float64 time is at most NEAR times fastact's, the closest first."""
    medians, found = Medians(results["results"]), []
    for threads in medians.threads():
        for mode in (*tables.FLOAT32_MODES, "frozen"):
            for shape in medians.shapes(threads, mode):
                times = medians.at(threads, mode, shape)
                what = f"{tables.TITLES[mode].lower()}, {tables.threads_text(threads)}"
                peer = tables.best_rival(times)
                if peer is not None and tables.OURS in times:
                    ours = times[tables.OURS]
                    found.append(Close(times[peer] / ours, str(shape), what, peer, times[peer], ours))
    for (threads, dtype, mode), networks in network_medians(results).items():
        for network, times in networks.items():
            what = f"{tables.NETWORK_TITLES[mode].lower()}, {dtype}, {tables.threads_text(threads)}"
            peer = tables.best_network_rival(times)
            if peer is not None:
                ours = times[tables.ours_beside(peer)]
                found.append(Close(times[peer] / ours, str(network), what, peer, times[peer], ours))
    return sorted(each for each in found if each.ratio <= NEAR)


def text(found: list[Close]) -> str:
    """Two or more lines of at most 80 columns for each of `found`."""
    lines = [f"Closest peers: the fastest of the others takes at most {NEAR:g} times fastact's time"]
    for each in found:
        line = (
            f"{each.ratio:.2f}x {each.where}, {each.what}: {each.peer} {tables.microseconds(each.peers)} µs, "
            f"fastact {tables.microseconds(each.ours)} µs; {DOES[each.peer]}"
        )
        lines.append(textwrap.fill(line, tables.WIDTH, subsequent_indent=" " * 6, break_on_hyphens=False))
    return "\n".join(lines)


def markdown(found: list[Close]) -> str:
    """A table with a line for each of `found`."""
    header = [
        "shape or network",
        "C vs peer",
        "measured",
        "fastact C, µs",
        "peer, µs",
        "peer",
        "what the peer does",
    ]
    lines = [
        [
            *(each.where, f"{each.ratio:.2f}x", each.what),
            *(tables.microseconds(each.ours), tables.microseconds(each.peers)),
            *(each.peer, DOES[each.peer]),
        ]
        for each in found
    ]
    return tables.markdown_of(header, lines)
