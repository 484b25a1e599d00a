"""Numbers on a command line: what they may be, and what is said of those that they may not."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

TEN_YEARS: Final = 87_600.0
"""In hours; nobody means more."""


def whole(least: int) -> Callable[[str], int]:
    """Return what reads a whole number from `least` on."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text}: give a whole number from {least} on")
        return value

    return read


def from_zero(text: str) -> float:
    """Return the number that `text` is, if it is finite and not negative."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a number from 0 on")
    return value


def above_zero(most: float) -> Callable[[str], float]:
    """Return what reads a number above 0, and `most` at the most."""

    def read(text: str) -> float:
        value = _number(text)
        if not 0 < value <= most:
            raise argparse.ArgumentTypeError(
                f"{text}: give a number above 0, of {most:,.0f} at the most"
            )
        return value

    return read


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
