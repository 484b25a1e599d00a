"""What decides about offers, in columns: a row an offer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]

# What floats may get wrong of a cost that is rounded to the micro-dollar.
ABSOLUTE_USD: Final = 3e-6
RELATIVE: Final = 1e-9
CHUNK: Final = 256
"""Rows of a table that are left out together where none of them is large enough."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
NEVER_US: Final = int(np.iinfo(np.int64).min)
MANY: Final = int(np.iinfo(np.int64).max)
"""Slots of a row that does not say how many it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What decides about offers, a row an offer; text is a number into its vocabulary, -1 for None.

    Attributes:
        market: Number into `list(Market)`.
        preemptions_per_hour: NaN where it is not known.
        restart_us: Microseconds from lease to first instruction.
        tariff: Rows of one number pay the same for what they move and keep.
        room: How many slots can be leased now, within the quota; none while it is cooling down.
        slots: How many slots there are in all, leased ones too; the highest number where that is not known.
        doubted: Whether there are doubts about the price.
        ends_us, priced_us, launched_us: Microseconds since 1970; the lowest number for never.
        names: Vocabularies of `accelerator`, `region`, `provider`, `architecture`, `jurisdiction`.
    """

    market: NDArray[np.int8]
    accelerator: NDArray[np.int32]
    preemptions_per_hour: NDArray[np.float64]
    restart_us: NDArray[np.int64]
    speed: NDArray[np.float64]
    ends_us: NDArray[np.int64]
    tariff: NDArray[np.int64]
    marginal: NDArray[np.float64]
    effective: NDArray[np.float64]
    cpus: NDArray[np.float64]
    memory_gib: NDArray[np.float64]
    accelerator_count: NDArray[np.float64]
    accelerator_memory_gib: NDArray[np.float64]
    accelerator_fraction: NDArray[np.float64]
    region: NDArray[np.int32]
    provider: NDArray[np.int32]
    architecture: NDArray[np.int32]
    jurisdiction: NDArray[np.int32]
    store_jurisdiction: NDArray[np.int32]
    room: NDArray[np.int64]
    slots: NDArray[np.int64]
    doubted: NDArray[np.bool_]
    priced_us: NDArray[np.int64]
    launched_us: NDArray[np.int64]
    names: dict[str, list[str]]


def microseconds(instant: datetime | None) -> int:
    """Return the microseconds from 1970 to `instant`; `NEVER_US` for None."""
    return NEVER_US if instant is None else (instant - _EPOCH) // timedelta(microseconds=1)


def tolerance(usd: float) -> float:
    """Return what a cost in floating point may be off, in US dollars."""
    return ABSOLUTE_USD + (usd * RELATIVE if math.isfinite(usd) else 0.0)
