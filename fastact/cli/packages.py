"""What a command says where a package that it needs is missing."""

from __future__ import annotations

from pathlib import Path


def missing_package(command: str, error: ModuleNotFoundError, extra: str) -> str:
    """What `command` lacks, and how to install `extra`, which brings it: in a checkout, or from a wheel."""
    in_checkout = Path(__file__).resolve().parents[2].joinpath("pyproject.toml").is_file()
    install = f'-e ".[{extra}]"' if in_checkout else f'"fastact[{extra}]"'
    return f"{command} needs {error.name}: pip install {install}"
