"""Types of command-line arguments: functions from a text to a number, for argparse."""

from __future__ import annotations

import argparse


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    return _whole(text, 1, None)


def seed(text: str) -> int:
    """A seed that every generator takes, scikit-learn's of 32 bits as well."""
    return _whole(text, 0, 2**32 - 1)


def _whole(text: str, smallest: int, largest: int | None) -> int:
    wanted = f"{smallest} or more" if largest is None else f"{smallest} to {largest}"
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, wanted a whole number, {wanted}") from None
    if value < smallest or (largest is not None and value > largest):
        raise argparse.ArgumentTypeError(f"got {value}, wanted {wanted}")
    return value
