"""When a sweep has had enough: time, money, or a gain that is no longer worth its price. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from statistics import NormalDist, fmean, pstdev
from typing import TYPE_CHECKING

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from spillway.model import Submission

_SECONDS_AN_HOUR = 3600

LEAST_TRIALS = 5
"""Before so many have ended nobody knows how their results spread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a sweep may take; None for no limit.

    Attributes:
        max_seconds: Leased time, over all attempts.
        max_usd: What its leases add to the bill, by their marginal prices at launch.
        usd_per_improvement: What making the best metric better by one may cost.
    """

    max_seconds: float | None = None
    max_usd: float | None = None
    usd_per_improvement: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that nothing could keep."""
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is not None and not 0 < limit < math.inf:
                raise SpecError(f"{field.name} is {limit}: give a number above 0, or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a sweep, or a trial, has taken so far over all attempts: leased time, and that time at the leases' prices."""

    seconds: float = 0.0
    marginal_usd: float = 0.0
    effective_usd: float = 0.0

    def and_lease(self, submission: Submission, seconds: float) -> Spent:
        """Return this and so much time of a lease, at its price at launch."""
        hours = seconds / _SECONDS_AN_HOUR
        return Spent(
            seconds=self.seconds + seconds,
            marginal_usd=self.marginal_usd + hours * float(submission.marginal_usd_per_hour or 0),
            effective_usd=self.effective_usd
            + hours * float(submission.effective_usd_per_hour or 0),
        )


def parse_limits(
    *,
    max_seconds: float | None,
    max_usd: float | None,
    stop_when: Mapping[str, JsonValue] | None,
) -> Limits:
    """Return the limits that a sweep's arguments ask for.

    Raises:
        SpecError: One of them cannot be.
    """
    wanted = dict(stop_when or {})
    price = wanted.pop("usd_per_improvement", None)
    if wanted:
        raise SpecError(
            f'stop_when has {", ".join(sorted(wanted))}: write {{"usd_per_improvement": ...}}'
        )
    for name, limit in (
        ("max_seconds", max_seconds),
        ("max_usd", max_usd),
        ("usd_per_improvement", price),
    ):
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float)):
            raise SpecError(f"{name} is {limit!r}: give a number above 0, or leave it out")
    assert price is None or isinstance(price, int | float)
    return Limits(max_seconds=max_seconds, max_usd=max_usd, usd_per_improvement=price)


def reason_to_stop(
    limits: Limits, spent: Spent, *, values: Sequence[float], mode: str
) -> str | None:
    """Return why the sweep should end now, for people; None while it should go on.

    Args:
        limits: What it may take.
        spent: What it has taken.
        values: Last metric of each trial that ended with one.
        mode: Which metric is better, `min` or `max`.
    """
    if limits.max_seconds is not None and spent.seconds >= limits.max_seconds:
        return f"max_seconds: {spent.seconds:.0f} s of {limits.max_seconds:.0f} are over"
    if limits.max_usd is not None and spent.marginal_usd >= limits.max_usd:
        return f"max_usd: {spent.marginal_usd:.4g} USD of {limits.max_usd:.4g} are spent"
    if limits.usd_per_improvement is None or len(values) < LEAST_TRIALS or not spent.marginal_usd:
        return None
    gain, cost = expected_gain(values, mode=mode), spent.marginal_usd / len(values)
    if cost <= gain * limits.usd_per_improvement:
        return None
    return (
        f"usd_per_improvement: one more trial costs about {cost:.3g} USD and is expected to make the best better by"
        f" {gain:.3g}, which is over {limits.usd_per_improvement:.4g} USD for 1"
    )


def expected_gain(values: Sequence[float], *, mode: str) -> float:
    """Return by how much one more trial is expected to beat the best: its result is taken for normal, like those so far.

    It takes no account of what a searcher has learned, so it is low where that helps much, and it lets a far outlier among
    bad results count as spread.

    Source: Jones, Schonlau and Welch, Efficient Global Optimization of Expensive Black-Box Functions, 1998, equation 15.
    """
    sign = 1 if mode == "min" else -1
    signed = [sign * value for value in values]
    best, mean, deviation = min(signed), fmean(signed), pstdev(signed)
    if deviation == 0:
        return 0.0
    standard, z = NormalDist(), (best - mean) / deviation
    return max(0.0, (best - mean) * standard.cdf(z) + deviation * standard.pdf(z))
