"""One number, beside the number it should be compared with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What else was measured in the same run, in the same unit."""

    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What was measured.

    Attributes:
        unit: Such as `1/s` or `ms`; it says whether more is better.
        baseline: None where there is nothing sensible to compare with.
    """

    name: str
    value: float
    unit: str
    baseline: Baseline | None = None

    @property
    def ratio(self) -> float | None:
        """The value as a multiple of its baseline's."""
        if self.baseline is None or self.baseline.value == 0:
            return None
        return self.value / self.baseline.value


class NotHere(Exception):  # noqa: N818 - an answer, not an error
    """The benchmark needs something that this machine does not have."""
