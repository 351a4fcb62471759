"""Results as tables: in Markdown a line for each shape, on a terminal blocks of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .networks import DTYPES, Network
from .records import Medians, Results, network_medians
from .shapes import MAXOUT, Shape

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
    "oneDNN",
    "torch.compile frozen",
    "zentorch",
    "ExecuTorch",
    "tract",
    "fastact C bf16",
    "PyTorch medium",
    "torch.compile medium",
)
FLOOR = "floor"
NETWORK_CONTENDERS = (
    "fastact C",
    "fastact C frozen",
    "accelerated",
    "PyTorch",
    "torch.compile",
    "torch.compile frozen",
    "JAX",
    "scikit-learn",
    "naive NumPy",
    FLOOR,
)
NETWORK_OURS = ("fastact C", "fastact C frozen", "accelerated", FLOOR)
NETWORK_TITLES = {"step": "Training step of a network", "forward": "Forward of a network"}
TITLES = {
    "forward": "Forward",
    "forward_backward": "Forward + backward",
    "step": "Training step",
    "frozen": "Inference with frozen weights",
    "tiers": "Forward at each precision tier (in brackets the relative error)",
    "tiers_backward": "Forward + backward at each precision tier (in brackets the relative error of y)",
}
FLOAT32_MODES = ("forward", "forward_backward", "step")  # their lower precision has tables of its own: tiers
OURS = "fastact C"
TIER = "fastact C medium"
LOWER_PRECISION = (" high", " medium", " bf16")  # endings of the names that are no rivals of float32
WIDTH = 80


class Table(NamedTuple):
    """A cell for each shape (or network) and contender, and each shape's ratio to the best rival.

    `fastest` is each line's fastest contender: of float32, unless the table is about tiers.
    """

    contenders: list[str]
    shapes: Sequence[Shape | Network]
    cells: list[list[str]]
    fastest: list[int]
    ratios: list[str]
    rivalry: str  # what the ratios compare


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
    of_tiers = mode.startswith("tiers")
    found, measured = [], []
    for shape in medians.shapes(threads, mode, shapes):
        times = medians.at(threads, mode, shape)
        if mode in FLOAT32_MODES:
            times = float32_of(times)
        if times:
            found.append(shape)
            measured.append(times)
    contenders = [name for name in CONTENDERS if any(name in times for times in measured)]
    cells, fastest, ratios = [], [], []
    for shape, times in zip(found, measured, strict=True):
        line = []
        for name in contenders:
            cell = microseconds(times[name]) if name in times else ""
            if cell and (of_tiers or name.endswith(LOWER_PRECISION)):
                cell += f" ({medians.norm_error(mode, shape, name):.1e})"
            line.append(cell)
        cells.append(line)
        compared = times if of_tiers else float32_of(times) or times
        fastest.append(contenders.index(min(compared, key=lambda name: compared[name])))
        ratio = speedup(times, TIER if of_tiers else OURS)
        ratios.append("" if ratio is None else f"{ratio:.2f}x")
    rivalry = "medium vs PyTorch's" if of_tiers else "C vs best other"
    return Table(contenders, found, cells, fastest, ratios, rivalry)


def markdown(content: Table) -> str:
    """A line for each shape or network and a column for each contender, the fastest in bold."""
    lines = [
        [str(shape), *(f"**{cell}**" if i == fastest else cell for i, cell in enumerate(cells)), ratio]
        for shape, cells, fastest, ratio in zip(
            content.shapes, content.cells, content.fastest, content.ratios, strict=True
        )
    ]
    what = "network" if isinstance(content.shapes[0], Network) else "shape"
    return markdown_of([what, *content.contenders, content.rivalry], lines)


def markdown_of(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left, the others to the right."""
    rules = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rules, *lines))


def blocks(content: Table, width: int = WIDTH) -> str:
    """A line for each contender and a column for each shape, in blocks of at most `width` columns.

    A star stands beside each shape's fastest.
    """
    columns = [
        [str(shape), *(f"{cell}*" if i == fastest else f"{cell} " for i, cell in enumerate(cells)), ratio]
        for shape, cells, fastest, ratio in zip(
            content.shapes, content.cells, content.fastest, content.ratios, strict=True
        )
    ]
    names = ["", *content.contenders, content.rivalry]
    left = max(map(len, names))
    texts: list[str] = []
    while columns:
        taken: list[tuple[int, list[str]]] = []
        room = width - left
        while columns and (not taken or room >= 2 + max(map(len, columns[0]))):
            widest = 2 + max(map(len, columns[0]))
            taken.append((widest, columns.pop(0)))
            room -= widest
        lines = []
        for i, name in enumerate(names):
            cells = [column[i] for _, column in taken]
            if i and not any(cell.strip() for cell in cells):
                continue  # not measured on any of these shapes
            ends = " " if i in (0, len(names) - 1) else ""  # under the digits of the cells, not under a star
            texts_of = [f"{cell + ends:>{widest}}" for cell, (widest, _) in zip(cells, taken, strict=True)]
            lines.append(f"{name:{left}}{''.join(texts_of)}".rstrip())
        texts.append("\n".join(lines))
    return "\n\n".join(texts)


def commits_text(results: Results) -> str:
    """The commits of the measurement as the end of a sentence; empty without git."""
    measured = [*results["results"], *results.get("networks", [])]
    commits = sorted({record["commit"] for record in measured if record.get("commit")})
    return f"; commit {', '.join(commits)}" if commits else ""


def versions_table(results: Results) -> str:
    """Each package's version and date of release, in Markdown; empty where no date is known."""
    dates = results.get("released")
    if not dates:
        return ""
    lines = [
        [name, version, dates.get(name, "")] for name, version in results["environment"]["versions"].items()
    ]
    return markdown_of(["package", "version", "released"], lines)


def machine_line(results: Results) -> str:
    """The machine, the software and the commits of the measurement."""
    about = results["environment"]
    instructions = ", ".join(about["instructions"]) or "none of those looked for"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return (
        f"{about['cpu']} (family/model {about['family_model']}, {about['cores']} cores; {instructions}), "
        f"{about['system']}; {versions}{commits_text(results)}."
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


def by_layer(shapes: Iterable[Shape]) -> dict[str, list[Shape]]:
    """`shapes` by their layer: linear + maxout, and linear + the other activations."""
    found: dict[str, list[Shape]] = {}
    for shape in shapes:
        name = "linear + maxout" if shape.activation == MAXOUT else "linear + ReLU and GELU"
        found.setdefault(name, []).append(shape)
    return found


def titled(
    results: Results, modes: Iterable[str], threads: int, shapes: Iterable[Shape]
) -> Iterable[tuple[str, Table]]:
    """A title and a table for each mode that was measured on any of `shapes`."""
    medians, shapes = Medians(results["results"]), list(shapes)
    for mode in modes:
        content = table(medians, threads, mode, shapes)
        if content.shapes:
            yield f"{TITLES[mode]}, {threads_text(threads)}, median µs", content


def ours_beside(rival: str) -> str:
    """Which of fastact's is compared with a rival on networks: the frozen one with one that is frozen too."""
    return f"{OURS} frozen" if rival.endswith(" frozen") else OURS


def best_network_rival(times: Mapping[str, float]) -> str | None:
    """The rival that comes closest to fastact's on a network; None where there are none to compare."""
    ratios = {
        name: time / times[ours_beside(name)]
        for name, time in times.items()
        if name not in NETWORK_OURS and ours_beside(name) in times
    }
    return min(ratios, key=lambda name: ratios[name], default=None)


def network_table(times: Mapping[Network, Mapping[str, float]]) -> Table:
    """Medians in microseconds, in brackets as a multiple of fastact C's; {network: {contender: median}}."""
    contenders = [name for name in NETWORK_CONTENDERS if any(name in each for each in times.values())]
    cells, fastest, ratios = [], [], []
    for of_network in times.values():
        ours = of_network.get(OURS)
        line = []
        for name in contenders:
            cell = microseconds(of_network[name]) if name in of_network else ""
            if cell and ours is not None and name != OURS:
                cell += f" ({of_network[name] / ours:.2f})"
            line.append(cell)
        cells.append(line)
        timed = {name: time for name, time in of_network.items() if name != FLOOR}
        fastest.append(contenders.index(min(timed, key=lambda name: timed[name])) if timed else -1)
        rival = best_network_rival(of_network)
        ratios.append("" if rival is None else f"{of_network[rival] / of_network[ours_beside(rival)]:.2f}x")
    return Table(contenders, list(times), cells, fastest, ratios, "C vs best other")


def of_networks(results: Results) -> Iterable[tuple[str, Table]]:
    """A title and a table for each number of threads, mode and dtype that was measured."""
    medians = network_medians(results)
    for threads in sorted({key[0] for key in medians}):
        for mode, title in NETWORK_TITLES.items():
            for dtype in DTYPES:
                if (threads, dtype, mode) in medians:
                    yield (
                        f"{title}, {dtype}, {threads_text(threads)}, median µs (in brackets: {OURS} is 1)",
                        network_table(medians[threads, dtype, mode]),
                    )


def replace_between_markers(text: str, name: str, content: str) -> str:
    """`text` with what stands between the two markers `name` replaced.

    Raises ValueError unless each stands there once.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"markers: wanted one {begin} and one {end} after it")
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n{content.strip()}\n{end}{rest.partition(end)[2]}"
