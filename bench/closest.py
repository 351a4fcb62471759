"""The shapes and networks on which another library comes close to fastact, or is ahead of it."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from . import tables
from .goals import useful_flop
from .peers import DOES
from .records import Medians, Results, network_medians

NEAR = 1.15  # a peer is close where its time is at most this multiple of fastact's
SHARE = "In percent: which part of the FMA rate measured in registers fastact's useful arithmetic reaches."


class Close(NamedTuple):
    """The fastest peer on a shape or a network, and the times of both in microseconds."""

    ratio: float
    where: str  # the shape or network
    what: str  # what is measured
    peer: str
    peers: float
    ours: float
    share: float | None  # of the FMA peak, which fastact's useful arithmetic reaches; None for networks


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
                    ours, limits = times[tables.OURS], results["limits"].get(str(threads))
                    share = (
                        useful_flop(mode, shape) / ours / 1e3 / limits["register_fma_gflops"]
                        if limits
                        else None
                    )
                    found.append(Close(times[peer] / ours, str(shape), what, peer, times[peer], ours, share))
    for (threads, dtype, mode), networks in network_medians(results).items():
        for network, times in networks.items():
            what = f"{tables.NETWORK_TITLES[mode].lower()}, {dtype}, {tables.threads_text(threads)}"
            peer = tables.best_network_rival(times)
            if peer is not None:
                ours = times[tables.ours_beside(peer)]
                found.append(Close(times[peer] / ours, str(network), what, peer, times[peer], ours, None))
    return sorted((each for each in found if each.ratio <= NEAR), key=lambda each: each.ratio)


def _peers(found: list[Close]) -> list[str]:
    """What each peer of `found` does."""
    return [f"{peer}: {DOES[peer]}" for peer in dict.fromkeys(each.peer for each in found)]


def text(found: list[Close]) -> str:
    """A line for each of `found`, and what the peers do, at most 80 columns wide."""
    lines = [f"Closest peers: the fastest of the others takes at most {NEAR:g} times fastact's time"]
    lines += [
        f"{each.ratio:.2f}x {each.where}, {each.what}: {each.peer} {tables.microseconds(each.peers)} µs, "
        f"fastact {tables.microseconds(each.ours)} µs{'' if each.share is None else f', {each.share:.0%}'}"
        for each in found
    ]
    lines += [SHARE, *_peers(found)]
    return "\n".join(
        textwrap.fill(line, tables.WIDTH, subsequent_indent=" " * 6, break_on_hyphens=False) for line in lines
    )


def markdown(found: list[Close]) -> str:
    """A table with a line for each of `found`, and a list of what the peers do."""
    header = ["shape or network", "C vs peer", "measured", "fastact C, µs", "FMA peak", "peer, µs", "peer"]
    lines = [
        [
            *(each.where, f"{each.ratio:.2f}x", each.what, tables.microseconds(each.ours)),
            "" if each.share is None else f"{each.share:.0%}",
            *(tables.microseconds(each.peers), each.peer),
        ]
        for each in found
    ]
    peers = "\n".join(f"- {line}" for line in _peers(found))
    return f"{tables.markdown_of(header, lines)}\n\n{SHARE}\n\n{peers}"
