"""What a price list asks for one machine, with what is odd about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from spillway.catalog.catalogue import Quoted, quoted
from spillway.catalog.price_list import read_price_list
from spillway.errors import SpecError
from spillway.model import Market
from spillway.placement.sanity import Doubt

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPrice:
    """One price of a list.

    Attributes:
        doubts: What is odd about it beside the other prices of the list, in words.
        priced_at: When the list was last written.
    """

    usd_per_hour: Decimal
    doubts: tuple[str, ...]
    priced_at: datetime


def listed_price(
    path: Path, provider: str, *, instance: str, region: str, zone: str | None, market: Market
) -> ListedPrice:
    """Return what `provider` asks for `instance`: the spot price on that market, the public one on the others.

    Where no zone is named the cheapest of the region counts: a backend may start the machine in any. A price that is doubted
    stands for the region only where all of them are.

    Raises:
        SpecError: The list cannot be read, or has no such machine there; names the places that have it.
    """
    written = _written_at(path)
    listed = _quoted(path, written, provider)
    nodes = listed.nodes
    there = (nodes.instance == instance) & (nodes.region == region)
    if zone is not None:
        there &= nodes.zone == zone
    prices = nodes.spot if market is Market.SPOT else nodes.on_demand
    rows = np.flatnonzero(there & ~np.isnan(prices))
    if not len(rows):
        raise SpecError(_missing(listed, path, instance, market))
    found = listed.spot_doubts if market is Market.SPOT else listed.on_demand_doubts
    row = int(rows[np.lexsort((prices[rows], found[rows] != 0))[0]])
    return ListedPrice(
        usd_per_hour=Decimal(str(float(prices[row]))),
        doubts=Doubt(int(found[row])).words,
        priced_at=datetime.fromtimestamp(written, UTC),
    )


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError as error:
        raise SpecError(f"cannot read the price list {path}: {error.strerror}") from error


@lru_cache(maxsize=4)
def _quoted(path: Path, _written: float, provider: str) -> Quoted:
    """Return the list; read again when it was written again."""
    return quoted(read_price_list(path, provider))


def _missing(listed: Quoted, path: Path, instance: str, market: Market) -> str:
    nodes = listed.nodes
    regions = sorted(set(nodes.region[nodes.instance == instance].tolist()))
    if not regions:
        return f"{path.name} has no machine {instance!r}"
    return f"{path.name} has no {market} price of {instance} there, but in {', '.join(regions[:8])}"
