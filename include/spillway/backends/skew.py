"""How far a provider's clock is from ours: what it stamped is compared with its own now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

TOLERANCE: Final = timedelta(seconds=15)
"""Differences up to this may be the way that an answer took, and are none."""


def clock_ahead(date: str | None, now: datetime) -> timedelta:
    """Return how far ahead of `now` the clock is that wrote the header `Date` of an answer; zero without one.

    Source: RFC 9110, HTTP Semantics, section 6.6.1.
    """
    try:
        return difference(parsedate_to_datetime(date or ""), now)
    except ValueError:
        return timedelta(0)


def difference(there: datetime, now: datetime) -> timedelta:
    """Return how far `there` is ahead of `now`; zero for what may be the way."""
    there = there if there.tzinfo is not None else there.replace(tzinfo=UTC)
    ahead = there - now
    return ahead if abs(ahead) > TOLERANCE else timedelta(0)
