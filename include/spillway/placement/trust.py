"""Whether a price may be rested on: how old it may be, what is odd about it, and what proves it all the same."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from spillway.model import Market
from spillway.placement.explain import span

if TYPE_CHECKING:
    from collections.abc import Sequence

# Spot prices are set anew every few hours to days, list prices a few times a year. A price older than this is one that
# a feed has stopped telling.
OLDEST_PRICE: Final = {
    Market.SPOT: timedelta(days=2),
    Market.ON_DEMAND: timedelta(days=60),
    Market.RESERVED: timedelta(days=60),
    Market.PARTNER: timedelta(days=60),
}

# A launch shows that the price was real and the capacity there; it is forgotten about as fast as both change.
LAUNCH_PROVES_FOR: Final = timedelta(days=7)


def distrust(
    market: Market,
    doubts: Sequence[str],
    *,
    priced_at: datetime | None,
    last_launch_at: datetime | None,
    now: datetime,
) -> str | None:
    """Return why a price cannot win a placement on its own, or None when it can.

    A recent launch at the price outweighs what is odd about it. Nothing outweighs its age.
    """
    found = list(doubts)
    if found and last_launch_at is not None and now - last_launch_at <= LAUNCH_PROVES_FOR:
        found = []
    if priced_at is not None and now - priced_at > OLDEST_PRICE[market]:
        found.append(f"it is {span(now - priced_at)} old")
    return f"its price is not trusted: {', '.join(found)}" if found else None
