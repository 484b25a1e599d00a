"""Which checkpoints of a task are worth keeping."""

from __future__ import annotations

from dataclasses import dataclass

from spillway.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Which checkpoints stay when a new one is saved; one that any line asks for stays.

    Attributes:
        last: How many of the newest, at least one: a second one stands in where the newest turns out damaged.
        every_steps: Keep one for each stretch of so many steps, the first in it; None for none.
        metric: Keep the best by this metric, by the name it has in `Session.progress`; None for none.
        highest: Whether a larger `metric` is better.
        best: How many of the best.
    """

    last: int = 2
    every_steps: int | None = None
    metric: str | None = None
    highest: bool = False
    best: int = 1

    def __post_init__(self) -> None:
        """Refuse a rule that would keep nothing to resume from."""
        if self.last < 1:
            raise SpecError(f"last is {self.last}: the newest whole checkpoint always stays")
        if self.every_steps is not None and self.every_steps < 1:
            raise SpecError(f"every_steps is {self.every_steps}: give 1 or more, or None")
        if self.best < 1:
            raise SpecError(f"best is {self.best}: give 1 or more, or leave metric out")
