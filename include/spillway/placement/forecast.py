"""How many slot hours of a commitment other work will still use, from what was used lately."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from spillway.model import MonthlyMinimum, Pool, PoolDay, PoolUsage, PrepaidHours
from spillway.placement.price import NOTHING_FORECAST, Forecast, next_month

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Four whole weeks, so that each day of the week counts alike.
WINDOW_DAYS: Final = 28
_MILLI: Final = Decimal("0.001")


def with_forecasts(
    usage: Mapping[str, PoolUsage],
    pools: Iterable[Pool],
    history: Mapping[str, Sequence[PoolDay]],
    now: datetime,
) -> dict[str, PoolUsage]:
    """Return `usage` with the forecast of every pool whose commitment is for a period."""
    forecasts = dict(usage)
    for pool in pools:
        period = period_ahead(pool, now)
        if period is not None:
            used = usage.get(pool.name, PoolUsage())
            since, until = period
            days = history.get(pool.name, ())
            expected = forecast_use(days, now=now, since=since, until=until)
            forecasts[pool.name] = replace(
                used,
                forecast_slot_hours=expected.slot_hours,
                forecast_error_slot_hours=expected.error,
            )
    return forecasts


def period_ahead(pool: Pool, now: datetime) -> tuple[datetime, datetime] | None:
    """Return what is left, or to come, of the period that the hours of `pool` are bought for; None where they are for none.

    It is over where it ends before it begins.
    """
    match pool.commitment:
        case MonthlyMinimum() as monthly:
            month = next_month(now.astimezone(UTC))
            return now, month if monthly.ends_at is None else min(month, monthly.ends_at)
        case PrepaidHours() as prepaid:
            return max(now, prepaid.starts_at), prepaid.ends_at
        case _:
            return None


def forecast_use(
    days: Iterable[PoolDay], *, now: datetime, until: datetime, since: datetime | None = None
) -> Forecast:
    """Return the slot hours expected in `[since, until)` if things go on as in the last `WINDOW_DAYS`; from `now` on unless said.

    The mean of the days since the first that was seen, times the days to come. Its error holds both what days differ by
    and how badly so few of them tell the mean; after a single day it is as large as the forecast.

    It fails where use changes for a reason: the end of a quarter, a team that joins, a price that drives work away.
    """
    today = now.astimezone(UTC).date()
    recent = {d.day: d.slot_hours for d in days if 1 <= (today - d.day).days <= WINDOW_DAYS}
    left = max(until - (since or now), timedelta(0)) / timedelta(days=1)
    if not recent or left == 0:
        return NOTHING_FORECAST
    whole_days = (today - min(recent)).days
    each = [*recent.values(), *[0.0] * (whole_days - len(recent))]
    mean = statistics.fmean(each)
    spread = statistics.stdev(each) if whole_days > 1 else mean
    error = spread * math.sqrt(left + left**2 / whole_days)
    return Forecast(slot_hours=_rounded(mean * left), error=_rounded(error))


def _rounded(slot_hours: float) -> Decimal:
    return Decimal(slot_hours).quantize(_MILLI)
