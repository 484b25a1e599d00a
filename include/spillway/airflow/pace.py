"""How long to wait between two looks at a pool: longer where the provider is hindered, and never the same twice."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spillway.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BACK_OFF: Final = 12.0
"""A provider that cannot be asked is asked this many times less often, at the most."""

LONGEST_WISH: Final = timedelta(minutes=15)
"""A provider that wants to be left alone for longer is asked after this all the same: its clock may be wrong."""

_JITTER: Final = 0.1


def wish_of(error: Exception) -> timedelta | None:
    """Return how long the provider wants not to be asked; None where it said nothing of that."""
    return error.retry_after if isinstance(error, TransientError) else None


class Pace:
    """Pauses that double with every failure and halve with every success.

    They shrink no faster than they grew, as a provider that throttles would do so again. They vary by a tenth, so that the
    many triggerers that were throttled together do not come back together.

    Args:
        poll_seconds: The pause while all is well.
        uniform: Draws a number between two; random unless a test says otherwise.
    """

    def __init__(
        self, poll_seconds: float, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._poll_seconds = poll_seconds
        self._uniform = uniform
        self._back_off = 1.0
        self._wish = timedelta(0)

    def went_well(self) -> None:
        """Note that the provider did all it was asked."""
        self._back_off = max(self._back_off / 2, 1.0)
        self._wish = timedelta(0)

    def was_hindered(self, error: Exception) -> None:
        """Note that the provider could not be asked, and for how long it wants not to be."""
        self._back_off = min(self._back_off * 2, MAX_BACK_OFF)
        self._wish = min(wish_of(error) or timedelta(0), LONGEST_WISH)

    def pause_seconds(self) -> float:
        """Return how long to wait before the next look, at least as long as the provider asked for."""
        usual = self._poll_seconds * self._back_off * self._uniform(1 - _JITTER, 1 + _JITTER)
        return max(usual, self._wish.total_seconds() * self._uniform(1.0, 1 + _JITTER))
