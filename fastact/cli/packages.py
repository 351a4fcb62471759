"""The message of a command that lacks a package."""

from __future__ import annotations

from pathlib import Path


def missing_package(command: str, error: ModuleNotFoundError, extra: str) -> str:
    """What `command` needs, and how to install the extra that brings it, in a checkout or elsewhere."""
    in_checkout = Path(__file__).resolve().parents[2].joinpath("pyproject.toml").is_file()
    install = f'-e ".[{extra}]"' if in_checkout else f'"fastact[{extra}]"'
    return f"{command} needs {error.name}: pip install {install}"
