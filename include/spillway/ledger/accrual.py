"""What leased time costs: exact, in one record per UTC hour, with parts that always sum to the whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from spillway.model import CostRecord, Lease, Market, PricingCategory

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOUR: Final = timedelta(hours=1)
_MICROSECOND: Final = timedelta(microseconds=1)
_DIGITS: Final = 10


def cost(usd_per_hour: Decimal, *, since: datetime, start: datetime, end: datetime) -> Decimal:
    """Return what `[start, end)` adds to the bill of a lease granted at `since`, in US dollars.

    It is the difference of two totals since `since`, each rounded to 1e-10 dollars, half to even. So the costs of
    adjacent parts sum exactly to the cost of the whole, and a whole lease costs price times time, rounded once.
    """
    return _total(usd_per_hour, end - since) - _total(usd_per_hour, start - since)


def _total(usd_per_hour: Decimal, leased: timedelta) -> Decimal:
    hours = Fraction(leased // _MICROSECOND, _HOUR // _MICROSECOND)
    return Decimal(round(Fraction(usd_per_hour) * hours * 10**_DIGITS)).scaleb(-_DIGITS)


def charge_periods(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield `[start, end)` cut at every full UTC hour, in order; nothing when it is empty."""
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    while start < end:
        full_hour = start.replace(minute=0, second=0, microsecond=0) + _HOUR
        yield start, min(full_hour, end)
        start = full_hour


def accrue(lease: Lease, market: Market, *, until: datetime) -> list[CostRecord]:
    """Return the cost records that cover exactly `[lease.granted_at, until)`."""
    since = lease.granted_at
    return [
        CostRecord(
            lease_key=lease.key,
            pool=lease.pool,
            pricing_category=PricingCategory.of(market),
            charge_period_start=start,
            charge_period_end=end,
            marginal_cost=cost(lease.marginal_usd_per_hour, since=since, start=start, end=end),
            effective_cost=cost(lease.effective_usd_per_hour, since=since, start=start, end=end),
            list_cost=cost(lease.list_usd_per_hour, since=since, start=start, end=end),
        )
        for start, end in charge_periods(since, until)
    ]
