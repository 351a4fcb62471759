"""Results as tables: one line a shape, one column a contender, losses included."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .records import Medians, Results
from .shapes import Shape

CONTENDERS = (
    "fastact C",
    "fastact C high",
    "fastact C medium",
    "fastact Numba",
    "naive NumPy",
    "NumPy",
    "PyTorch",
    "torch.compile",
    "Thinc",
    "JAX",
    "ONNX Runtime",
    "OpenVINO",
    "OpenVINO bf16",
    "fastact C bf16",
    "PyTorch medium",
    "torch.compile medium",
)
TITLES = {
    "forward": "Forward",
    "forward_backward": "Forward + backward",
    "step": "Training step",
    "frozen": "Inference with frozen weights",
    "tiers": "Forward at each precision tier (in brackets the relative error)",
    "tiers_backward": "Forward + backward at each precision tier (in brackets the relative error of y)",
}
SUMMARY_MODES = ("forward", "forward_backward", "frozen")
OURS = "fastact C"
NAIVE = "naive NumPy"
TIER = "fastact C medium"
LOWER_PRECISION = (" high", " medium", " bf16")  # how names end that are no rivals of float32


class Table(NamedTuple):
    header: list[str]
    lines: list[list[str]]
    fastest: list[int]  # each line's column with the smallest time, of float32 unless it is about tiers


def threads_text(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def microseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def best_rival(times: dict[str, float], ours: str = OURS) -> str | None:
    """The fastest of the others, for our float32 among theirs; None where there are none."""
    rivals = {name: time for name, time in times.items() if not name.startswith("fastact")}
    if ours == OURS:
        rivals = float32_of(rivals)
    return min(rivals, key=lambda name: rivals[name], default=None)


def speedup(times: dict[str, float], ours: str = OURS) -> float | None:
    """How many times as fast as the best of the others `ours` is."""
    rival = best_rival(times, ours)
    return None if rival is None or ours not in times else times[rival] / times[ours]


def float32_of(times: dict[str, float]) -> dict[str, float]:
    """Those of `times` whose results are float32's."""
    return {name: time for name, time in times.items() if not name.endswith(LOWER_PRECISION)}


def table(medians: Medians, threads: int, mode: str, shapes: Iterable[Shape] | None = None) -> Table:
    """Medians of one mode in microseconds, of lower precision with the relative error of y."""
    found = medians.shapes(threads, mode, shapes)
    of_tiers = mode.startswith("tiers")
    seen = {name for shape in found for name in medians.at(threads, mode, shape)}
    columns = [name for name in CONTENDERS if name in seen]
    lines, fastest = [], []
    for shape in found:
        times = medians.at(threads, mode, shape)
        cells = []
        for name in columns:
            cell = microseconds(times[name]) if name in times else ""
            if cell and (of_tiers or name.endswith(LOWER_PRECISION)):
                cell += f" ({medians.norm_error(mode, shape, name):.1e})"
            cells.append(cell)
        ratio = speedup(times, TIER if of_tiers else OURS)
        lines.append([str(shape), *cells, "" if ratio is None else f"{ratio:.2f}x"])
        compared = times if of_tiers else float32_of(times) or times
        fastest.append(1 + columns.index(min(compared, key=lambda name: times[name])))
    rivalry = "medium vs PyTorch's" if of_tiers else "C vs best other"
    return Table(["shape", *columns, rivalry], lines, fastest)


def markdown(content: Table) -> str:
    """A table in Markdown, `fastest` of each line in bold."""
    lines = [
        [f"**{cell}**" if i == fastest else cell for i, cell in enumerate(cells)]
        for cells, fastest in zip(content.lines, content.fastest, strict=True)
    ]
    return _markdown(content.header, lines)


def _markdown(header: list[str], lines: list[list[str]]) -> str:
    rules = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rules, *lines))


def summary(results: Results, shapes: Iterable[Shape]) -> str:
    """On one thread, each shape's time and how many times as fast that is as others' in Markdown."""
    medians = Medians(results["results"])
    header, lines = ["shape"], [[str(shape)] for shape in shapes]
    for mode in SUMMARY_MODES:
        naive = mode != "frozen"
        header += [f"{TITLES[mode]}, µs", *(["vs naive NumPy"] if naive else []), "vs the fastest other"]
        for shape, line in zip(shapes, lines, strict=True):
            times = medians.at(1, mode, shape)
            line.append(microseconds(times[OURS]) if OURS in times else "")
            if naive:
                line.append(f"{times[NAIVE] / times[OURS]:.1f}x" if {NAIVE, OURS} <= times.keys() else "")
            ratio = speedup(times)
            line.append("" if ratio is None else f"{ratio:.2f}x {best_rival(times)}")
    return _markdown(header, lines)


def machine_line(results: Results) -> str:
    """What was measured on, with what, at which commits."""
    about = results["environment"]
    commits = sorted({record["commit"] for record in results["results"] if record.get("commit")})
    instructions = ", ".join(about["instructions"]) or "none of those looked for"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['cpu']} (family/model {about['family_model']}, {about['cores']} cores; {instructions}), "
        f"{about['system']}; {versions}{'; commit ' if commits else ''}{', '.join(commits)}."
    )


def limits_lines(results: Results) -> str:
    """The machine's own limits, one line for each number of threads; empty where none were measured."""
    lines = []
    for threads, limits in results["limits"].items():
        registers, l1, memory = (
            limits[name] for name in ("register_fma_gflops", "load_fma_gflops", "read_gbytes")
        )
        lines.append(
            f"- {threads_text(int(threads))}: FMA in registers {registers:.0f} GFLOP/s, from L1 "
            f"{l1:.0f} GFLOP/s, reading memory {memory:.0f} GB/s"
        )
        if "tile_bf16_gflops" in limits:
            lines[-1] += f"; bfloat16 tiles of AMX {limits['tile_bf16_gflops']:,.0f} GFLOP/s"
    return "\n".join(lines)


def neighbours_line(results: Results) -> str:
    """How much others disturbed the measurement; empty where the system did not tell."""
    shares = {threads: share for threads, share in results["neighbours"].items() if share is not None}
    listed = ", ".join(f"{share:.1%} ({threads_text(int(threads))})" for threads, share in shares.items())
    return f"Other processes took this share of the CPU's time meanwhile: {listed}." if listed else ""


def missing_line(results: Results) -> str:
    """Which contenders could not run, and why; empty where all could."""
    return "".join(
        f"Not measured ({part}): {name}: {why}.\n"
        for part, reasons in results["missing"].items()
        for name, why in reasons.items()
    )


def section(
    results: Results, modes: tuple[str, ...], threads: list[int], shapes: Iterable[Shape] | None = None
) -> str:
    """Tables of some modes at some numbers of threads, each under a line that says what it is."""
    medians = Medians(results["results"])
    parts = []
    for count in threads:
        for mode in modes:
            content = table(medians, count, mode, shapes)
            if content.lines:
                title = f"{TITLES[mode]}, {threads_text(count)}, float32, median µs:"
                parts.append(f"{title}\n\n{markdown(content)}")
    return "\n\n".join(parts)


def replace_between_markers(text: str, name: str, content: str) -> str:
    """`text` with what stands between the two markers `name` replaced.

    Raises ValueError unless each stands there once.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"markers: wanted one {begin} and one {end} after it")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{content.strip()}\n{end}{rest.partition(end)[2]}"
