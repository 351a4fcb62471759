"""The pages: README's length, its commands and its example; every page's Python blocks and links."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("bench", "csrc", "fastact", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))])
README = ROOT / "README.md"

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# A block below such a comment is not run; the comment says why.
NOT_RUN = re.compile(r"<!-- not run: \S.*? -->\n+```python\n.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r'\]\(([^()\s]+)\)|\b(?:src|srcset|href)="([^"\s]+)"')
FRAMEWORK = re.compile(
    r"^(?:import|from) (?:fastact\.)?(?:jax\.)?(equinox|flax|jax|spacy|thinc|torch)\b", re.MULTILINE
)


def relative(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of this language, but for those that a comment marks as not run."""
    text = NOT_RUN.sub("", page.read_text())
    return [body for name, body in FENCED.findall(text) if name == language]


def run(program: str, folder: Path) -> str:
    """What `program` prints in a new interpreter, started in `folder`."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def broken_links(page: Path) -> list[str]:
    """The links of `page` to files that do not exist."""
    targets = ["".join(groups) for groups in LINK.findall(FENCED.sub("", page.read_text()))]
    files = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    return [file for file in files if not (page.parent / file).exists()]


def test_readme_is_at_most_150_lines() -> None:
    assert len(README.read_text().splitlines()) <= 150


def test_readme_has_one_pair_of_markers_for_the_benchmark() -> None:
    text = README.read_text()
    assert text.count("<!-- bench:begin -->") == text.count("<!-- bench:end -->") == 1


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_page_has_no_broken_relative_link(page: Path) -> None:
    assert broken_links(page) == []


def test_broken_links_are_found_in_markdown_and_html(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "[a](page.md) [b](page.md#x) [c](lost.md#x) ![d](lost.svg) [e](https://example.org/lost) [f](#x)\n"
        '<source srcset="lost-dark.svg"> <img src="page.md">\n```\n[g](in-code.md)\n```\n'
    )
    assert broken_links(page) == ["lost.md", "lost.svg", "lost-dark.svg"]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=relative)
def test_python_blocks_of_page_run_in_their_order(page: Path, tmp_path: Path) -> None:
    program = "\n".join(blocks(page, "python"))
    for name in FRAMEWORK.findall(program):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}")
    run(program, tmp_path)


def test_readme_example_reaches_the_accuracy_that_readme_claims(tmp_path: Path) -> None:
    (example,) = blocks(README, "python")
    printed = re.search(r"^accuracy: (\d+)%$", run(example, tmp_path), re.MULTILINE)
    claimed = re.search(r"accuracy of about (\d+)%", README.read_text())
    assert printed is not None
    assert claimed is not None
    # 2,000 test points: rounding moves some of them across, 3 points are more than 4 standard deviations
    assert abs(int(printed[1]) - int(claimed[1])) <= 3


def test_readme_command_for_the_tests_is_what_ci_runs() -> None:
    commands = [line for block in blocks(README, "") for line in block.splitlines()]
    (command,) = [line for line in commands if line.endswith("pytest")]
    assert command in [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]


def test_readme_command_for_the_demo_installs_and_runs_it() -> None:
    commands = [line for block in blocks(README, "") for line in block.splitlines()]
    assert 'pip install -e ".[demo]" && python -m fastact demo' in commands
