"""What is odd about a table of prices: the rules that no price may break and still win a placement on its own.

A price list is wrong in two ways. Some rows are impossible by themselves: nothing, less than a twentieth of the list price,
more than the list price, or a spot price that is exactly the list price or a tenth of it, which is what a feed writes when it
has no spot price. Other rows are odd beside their own kind: the same machine elsewhere, or the same accelerator in other
machines. Those are compared after a region's usual level is taken out, so a dear region is not an odd one.

Nothing here says that a price is wrong, and a row that all of its kind is wrong with passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

# On demand, a price is held against the dearer ones of its kind. A feed that takes a spot or committed price for the list
# price makes it too low, in more than half of the places if need be, and a price too low is the one that wins.
REFERENCE_QUANTILE: Final = 0.75
LOWEST_OF_REFERENCE: Final = 0.55
HIGHEST_OF_REFERENCE: Final = 2.0

# Spot prices of one machine really differ by a factor of five between places.
SPOT_FACTOR: Final = 5.0
LOWEST_SPOT_SHARE: Final = 0.05
EXACTLY: Final = 5e-4

# Per accelerator, against the dearer machines of the provider that have it. Hosts differ, so only dear is odd.
HIGHEST_PER_ACCELERATOR: Final = 1.6
FEWEST_PEERS: Final = 4


class Doubt(IntFlag):
    """Something odd about a price."""

    NO_PRICE = 1
    SPOT_IS_LIST = 2
    SPOT_IS_TENTH = 4
    SPOT_ABOVE_LIST = 8
    SPOT_TOO_LOW = 16
    LOW_FOR_ITS_KIND = 32
    HIGH_FOR_ITS_KIND = 64
    HIGH_PER_ACCELERATOR = 128

    @property
    def words(self) -> tuple[str, ...]:
        """Each of the doubts for people."""
        return tuple(_WORDS[doubt] for doubt in Doubt if doubt in self)


_WORDS: Final = {
    Doubt.NO_PRICE: "it is zero",
    Doubt.SPOT_IS_LIST: "spot costs what on-demand does",
    Doubt.SPOT_IS_TENTH: "spot is exactly a tenth of on-demand",
    Doubt.SPOT_ABOVE_LIST: "spot costs more than on-demand",
    Doubt.SPOT_TOO_LOW: "spot is less than a twentieth of on-demand",
    Doubt.LOW_FOR_ITS_KIND: "it is far below the same machine elsewhere",
    Doubt.HIGH_FOR_ITS_KIND: "it is far above the same machine elsewhere",
    Doubt.HIGH_PER_ACCELERATOR: "it is far above the same accelerator in other machines",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotes:
    """Prices as a feed tells them, a row a machine and place; every column has one entry a row.

    Attributes:
        sku: Number of the machine: rows of one number are the same thing, wherever it is.
        region: Number of the region.
        accelerator: Number of the accelerator's model; -1 for none.
        accelerator_count: How many of it; 0 for none.
        on_demand: US dollars an hour; NaN where there is none.
        spot: US dollars an hour; NaN where there is none.
    """

    sku: Ints
    region: Ints
    accelerator: Ints
    accelerator_count: Floats
    on_demand: Floats
    spot: Floats


def doubts(quotes: Quotes) -> tuple[Ints, Ints]:
    """Return the doubts about each on-demand and each spot price, as numbers of `Doubt`; 0 for none."""
    on_demand, spot = quotes.on_demand, quotes.spot
    with np.errstate(invalid="ignore", divide="ignore"):
        share = spot / on_demand
    list_found = _flags(
        (on_demand <= 0, Doubt.NO_PRICE),
        *_beside_its_kind(quotes),
        (_high_per_accelerator(quotes), Doubt.HIGH_PER_ACCELERATOR),
    )
    usual = _relative(spot, quotes.sku, quotes.region, quantile=0.5)
    spot_found = _flags(
        (spot <= 0, Doubt.NO_PRICE),
        (np.abs(share - 1) <= EXACTLY, Doubt.SPOT_IS_LIST),
        (np.abs(share * 10 - 1) <= EXACTLY, Doubt.SPOT_IS_TENTH),
        ((share > 1 + EXACTLY) & np.isfinite(share), Doubt.SPOT_ABOVE_LIST),
        ((share > 0) & (share < LOWEST_SPOT_SHARE), Doubt.SPOT_TOO_LOW),
        (usual < 1 / SPOT_FACTOR, Doubt.LOW_FOR_ITS_KIND),
        (usual > SPOT_FACTOR, Doubt.HIGH_FOR_ITS_KIND),
    )
    return list_found, spot_found


def _beside_its_kind(quotes: Quotes) -> tuple[tuple[NDArray[np.bool_], Doubt], ...]:
    usual = _relative(quotes.on_demand, quotes.sku, quotes.region, quantile=REFERENCE_QUANTILE)
    return (
        (usual < LOWEST_OF_REFERENCE, Doubt.LOW_FOR_ITS_KIND),
        (usual > HIGHEST_OF_REFERENCE, Doubt.HIGH_FOR_ITS_KIND),
    )


def _high_per_accelerator(quotes: Quotes) -> NDArray[np.bool_]:
    has = quotes.accelerator >= 0
    each = np.full(len(has), np.nan)
    np.divide(quotes.on_demand, quotes.accelerator_count, out=each, where=has)
    usual = _group_quantile(each, np.where(has, quotes.accelerator, 0), REFERENCE_QUANTILE)
    with np.errstate(invalid="ignore"):
        return np.asarray(each > HIGHEST_PER_ACCELERATOR * usual)


def _relative(price: Floats, sku: Ints, region: Ints, *, quantile: float) -> Floats:
    """Return each price over what its kind costs, the level of its region taken out; NaN where peers are too few."""
    with np.errstate(invalid="ignore", divide="ignore"):
        log = np.where(price > 0, np.log(price), np.nan)
    level = log - _group_quantile(log, sku, 0.5, fewest=1)
    level = _group_quantile(level, region, 0.5)
    adjusted = log - np.nan_to_num(level)
    # The kind as it is told, or with the regions' levels out: a row is odd only where it is odd both ways.
    plain = log - _group_quantile(log, sku, quantile)
    flat = adjusted - _group_quantile(adjusted, sku, quantile)
    nearer = np.where(np.abs(plain) < np.abs(flat), plain, flat)
    return np.asarray(np.exp(nearer))


def _group_quantile(
    values: Floats, group: Ints, quantile: float, *, fewest: int = FEWEST_PEERS
) -> Floats:
    """Return for each row the quantile of `values` over its group, NaN left out; NaN for groups with fewer values."""
    order = np.lexsort((values, group))  # NaN sorts last within its group
    counts = np.bincount(group, weights=np.isfinite(values)).astype(np.int64)
    starts = np.concatenate(([0], np.cumsum(np.bincount(group))))[:-1]
    position = np.maximum(counts - 1, 0) * quantile
    low = np.floor(position).astype(np.int64)
    high = np.ceil(position).astype(np.int64)
    ordered = values[order]
    last = len(values) - 1
    below = ordered[np.minimum(starts + low, last)]
    above = ordered[np.minimum(starts + high, last)]
    found = below + (above - below) * (position - low)
    return np.asarray(np.where(counts >= fewest, found, np.nan)[group])


def _flags(*found: tuple[NDArray[np.bool_], Doubt]) -> Ints:
    total = np.zeros(len(found[0][0]), dtype=np.int64)
    for rows, doubt in found:
        total |= np.where(rows, int(doubt), 0)
    return total
