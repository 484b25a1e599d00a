"""How often a pool's capacity is taken back, learned from its own leases on top of a stated prior.

Losses are counted against slot hours held: a Poisson process whose rate has a Gamma belief. What is not known about a
pool comes from the pools beside it, in the same region and market, and what is not known about those from published
figures. So a new pool is never thought perfect, and one bad afternoon does not condemn a pool that has run for months.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from spillway.model import Market, Pool, PoolDay

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import date, datetime

# Capacity comes and goes in weeks of plenty and weeks of drought; what was seen two weeks ago counts half.
HALF_LIFE_DAYS: Final = 14.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HazardBelief:
    """A Gamma belief about preemptions per hour, as if `losses` had been seen in `slot_hours`.

    Source: Gelman et al., Bayesian Data Analysis, 3rd ed., 2013, section 2.6 (Poisson rate with exposure).
    """

    losses: float
    slot_hours: float

    @property
    def preemptions_per_hour(self) -> float:
        """The mean of the belief."""
        return self.losses / self.slot_hours

    def after(self, seen: Exposure) -> HazardBelief:
        """Return the belief once `seen` is taken into account."""
        return HazardBelief(
            losses=self.losses + seen.losses, slot_hours=self.slot_hours + seen.slot_hours
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """Losses seen, and the slot hours they were seen in; old ones count less."""

    losses: float = 0.0
    slot_hours: float = 0.0

    def at_most(self, slot_hours: float) -> Exposure:
        """Return the same rate, seen for no longer than `slot_hours`."""
        weight = min(1.0, slot_hours / self.slot_hours) if self.slot_hours else 1.0
        return Exposure(losses=weight * self.losses, slot_hours=weight * self.slot_hours)

    def __add__(self, other: Exposure) -> Exposure:
        return Exposure(
            losses=self.losses + other.losses, slot_hours=self.slot_hours + other.slot_hours
        )


# Spot accelerators: 20 recorded availability series of V100 and K80 (AWS, 2022 and 2023) lose capacity 0.1 to 1.3
# times per hour available. By moments over the series: mean 0.5, shape 2.
# Source: traces of Wu et al., "Can't Be Late: Optimizing Spot Instance Savings under Deadlines", NSDI 2024.
SPOT_ACCELERATOR_PRIOR: Final = HazardBelief(losses=2.0, slot_hours=4.0)

# Other spot capacity lies between the traces and the advisor's bands, two orders of magnitude apart. The mean is a
# caution, not a measurement; it counts as a single loss, so ten quiet hours halve it.
SPOT_PRIOR: Final = HazardBelief(losses=1.0, slot_hours=10.0)

# Capacity that nobody takes back still breaks: 419 unexpected interruptions in 54 days on 16,384 GPUs, eight a machine.
# Source: Llama team, "The Llama 3 Herd of Models", 2024, section 3.3.4.
MACHINE_PRIOR: Final = HazardBelief(losses=0.5, slot_hours=0.5 * 54 * 24 * 16384 / 8 / 419)

# How many losses a rate that a person configured counts for.
CONFIGURED_LOSSES: Final = 4.0

# For how many hours at most the pools beside a pool speak for it: they are like it, not the same. Two days of its own
# weigh as much.
# Source: Ibrahim and Chen, "Power prior distributions for regression models", Statistical Science 15 (1), 2000.
BORROWED_HOURS: Final = 48.0

# Zones of one region lose capacity together now and then, but mostly by themselves. A guess.
OTHER_ZONE_HOURS: Final = 12.0

# Share of instances reclaimed in the trailing month, by band: the middle, and 30 % for the open one.
# Source: AWS, EC2 Spot Instance Advisor, "frequency of interruption" (<5 %, 5-10 %, 10-15 %, 15-20 %, >20 %).
_ADVISOR_SHARES: Final = MappingProxyType(
    {"<5%": 0.025, "5-10%": 0.075, "10-15%": 0.125, "15-20%": 0.175, ">20%": 0.30}
)
ADVISOR_BANDS: Final = tuple(_ADVISOR_SHARES)

# How long the instances of the advisor's month were held is not published. A day is a guess at a spot job's length; with
# a month instead, every band would promise years without a loss, which no recorded trace shows.
_ADVISOR_HOURS_HELD: Final = 24.0
_ADVISOR_STRENGTH_HOURS: Final = 100.0


def advisor_prior(band: str) -> HazardBelief:
    """Return the prior for a pool in `band` of the Spot Instance Advisor, one of `ADVISOR_BANDS`.

    Approximate: it takes an instance of the advisor's statistics to be held for a day, and counts for a hundred hours.
    """
    # A share p is lost within T hours at the rate -ln(1 - p) / T.
    rate = -math.log1p(-_ADVISOR_SHARES[band]) / _ADVISOR_HOURS_HELD
    return HazardBelief(losses=rate * _ADVISOR_STRENGTH_HOURS, slot_hours=_ADVISOR_STRENGTH_HOURS)


def with_learned_hazards(
    pools: Iterable[Pool], history: Mapping[str, Sequence[PoolDay]], now: datetime
) -> tuple[Pool, ...]:
    """Return `pools` with the preemptions per hour to reckon with, in the same order.

    Args:
        pools: As configured. A rate that is configured is where learning starts; one left out starts from the prior.
        history: By pool name, what was seen of it.
        now: The moment old observations are old by.
    """
    pools = tuple(pools)
    today = now.date()
    seen = {pool.name: exposure(history.get(pool.name, ()), today) for pool in pools}
    return tuple(
        replace(pool, preemptions_per_hour=_rate(pool, seen[pool.name], _beside(pool, pools, seen)))
        for pool in pools
    )


def exposure(days: Iterable[PoolDay], today: date) -> Exposure:
    """Return what was seen, each day discounted by its age."""
    total = Exposure()
    for day in days:
        weight = 0.5 ** (max((today - day.day).days, 0) / HALF_LIFE_DAYS)
        total += Exposure(losses=weight * day.losses, slot_hours=weight * day.slot_hours)
    return total


def prior(pool: Pool) -> HazardBelief:
    """Return what is believed of `pool` before anything of it, or of pools beside it, was seen."""
    configured = pool.preemptions_per_hour
    if configured is not None and configured > 0:
        return HazardBelief(losses=CONFIGURED_LOSSES, slot_hours=CONFIGURED_LOSSES / configured)
    if pool.market is not Market.SPOT or configured == 0:
        return MACHINE_PRIOR
    if pool.interruption_band is not None:
        return advisor_prior(pool.interruption_band)
    return SPOT_ACCELERATOR_PRIOR if pool.shape.accelerator_count else SPOT_PRIOR


def belief(pool: Pool, seen: Exposure, beside: Exposure) -> HazardBelief:
    """Return what is believed of `pool` after what was `seen` of it, and what the pools `beside` it may say.

    A rate that a person configured for it goes before what the pools beside it show.
    """
    start = prior(pool)
    if not pool.preemptions_per_hour:
        start = start.after(beside)
    return start.after(seen)


def _rate(pool: Pool, seen: Exposure, beside: Exposure) -> float:
    # Machines that have never been lost stay at exactly 0: among steady pools the tiny rates of the prior would decide
    # ties that the price of a commitment should decide.
    if pool.preemptions_per_hour == 0 and seen.losses == 0:
        return 0.0
    return belief(pool, seen, beside).preemptions_per_hour


def _beside(pool: Pool, pools: Sequence[Pool], seen: Mapping[str, Exposure]) -> Exposure:
    """Return what the other pools of the same backend, region and market, with accelerators or without, may say of `pool`.

    Those of another zone speak for a part of the time that those of its own do.
    """
    near = far = Exposure()
    for other in pools:
        if other.name == pool.name or _kind(other) != _kind(pool):
            continue
        if other.zone == pool.zone:
            near += seen[other.name]
        else:
            far += seen[other.name]
    return near.at_most(BORROWED_HOURS) + far.at_most(OTHER_ZONE_HOURS)


def _kind(pool: Pool) -> tuple[object, ...]:
    return pool.backend, pool.region, pool.market, pool.shape.accelerator_count > 0
