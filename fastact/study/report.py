"""Writes the findings: pictures as PNG and SVG, tables as CSV, and one page of Markdown."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from .findings import Findings, Table

PAGE = "README.md"


def make_folder(out: Path) -> None:
    """Make the folder `out` if need be, and see whether files can be written to it.

    Raises:
        ValueError: the folder cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise ValueError(
            f"--out: got {str(out)!r}, wanted a folder that can be made and written to ({error.strerror})"
        ) from None


def write(out: Path, parts: Mapping[str, Findings], command: str) -> Path:
    """Write everything into the folder `out`; `command` is what the user ran.  Returns the page's path."""
    for findings in parts.values():
        for name, picture in findings.pictures.items():
            for ending in ("png", "svg"):
                metadata = {"Date": None} if ending == "svg" else None  # the same results make the same file
                picture.figure.savefig(out / f"{name}.{ending}", dpi=150, metadata=metadata)
            plt.close(picture.figure)
        for name, table in findings.tables.items():
            _write_csv(out / f"{name}.csv", table)
    page = out / PAGE
    page.write_text(_page(parts, command), encoding="utf-8")
    return page


def _write_csv(path: Path, table: Table) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.columns)
        writer.writerows([_shown(value) for value in row] for row in table.rows)


def _shown(value: Any) -> Any:
    return f"{float(value):.6g}" if isinstance(value, float) else value


def _page(parts: Mapping[str, Findings], command: str) -> str:
    lines = [
        "# What an activation does to learning",
        "",
        f"Written by `{command}`. Every number is in the CSV files beside this page.",
        "",
        "本页由上面的命令生成。所有数字都在同一文件夹的 CSV 文件里。",
    ]
    for name, findings in parts.items():
        lines += ["", f"## {findings.english} · {findings.chinese}"]
        for file, picture in findings.pictures.items():
            lines += [
                "",
                f"![{findings.english}: {file}]({file}.png)",
                "",
                picture.english,
                "",
                picture.chinese,
            ]
        links = ", ".join(f"[{table}.csv]({table}.csv)" for table in findings.tables)
        lines += ["", f"Numbers of `{name}` · 数据: {links}"]
    return "\n".join(lines) + "\n"
