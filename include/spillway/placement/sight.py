"""What is believed of a set of spot pools at one look, and all that follows from it whatever the job.

Many jobs look at the same pools at the same time, so what was worked out is remembered: `see` is pure, and its last
answers are kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from spillway.placement.availability import Array, chain_of, market_of
from spillway.placement.policy_values import PolicyState, PoolBelief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spillway.placement.availability import AvailabilityModel, Chain

Seen = tuple[tuple[str, bool | None], ...]
"""The spot pools, and whether each has room; None where that was not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSight:
    """One spot pool.

    Attributes:
        chance: That it has room.
        stay_hours: Expected time until that changes.
        evictions_per_hour: Rate at which the pool, once available, goes while the market stays.
    """

    chance: float
    stay_hours: float
    evictions_per_hour: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Sight:
    """All spot pools; arrays are not to be changed.

    Attributes:
        pools: By name; empty without spot pools.
        market: Belief about the market: whether any spot pool has room.
        found: The belief in its available states, once it turns out to be available.
        missed: The belief once it turns out not to be.
        market_stay_hours: Expected time until the market changes.
        beliefs: What to remember of the pools.
        chances: What to remember of the market.
    """

    pools: Mapping[str, PoolSight]
    market: Array
    found: Array
    missed: Array
    market_stay_hours: float
    beliefs: tuple[PoolBelief, ...]
    chances: tuple[float, ...]

    def remembered(self, now: datetime) -> PolicyState:
        """Return what to remember until the next look."""
        return PolicyState(seen_at=now, beliefs=self.beliefs, market=self.chances)


def sight(
    seen: Seen, now: datetime, state: PolicyState, *, market_pools: int, model: AvailabilityModel
) -> Sight:
    """Return what is believed at `now`, given what is seen now and what was remembered."""
    return see(seen, _since(now, state), state.beliefs, state.market, market_pools, model)


@lru_cache(maxsize=64)
def see(
    seen: Seen,
    hours: float,
    beliefs: tuple[PoolBelief, ...],
    market: tuple[float, ...],
    market_pools: int,
    model: AvailabilityModel,
) -> Sight:
    """Return what is believed `hours` after what was remembered, given what is seen now."""
    chain, market_chain = chain_of(model), chain_of(market_of(model, market_pools))
    now = _look(seen, hours, beliefs, chain)
    together = _market(now, market, hours, market_chain)
    found = market_chain.condition(together, available=True)
    stay = float(found @ market_chain.mean_stay_hours)
    return Sight(
        pools={name: _pool(belief, chain, stay, len(now)) for name, belief in now.items()},
        market=together,
        found=found[market_chain.half :],
        missed=market_chain.condition(together, available=False),
        market_stay_hours=float(together @ market_chain.mean_stay_hours),
        beliefs=tuple(
            PoolBelief(pool=name, chances=_rounded(belief)) for name, belief in sorted(now.items())
        ),
        chances=_rounded(together),
    )


def _look(
    seen: Seen, hours: float, beliefs: tuple[PoolBelief, ...], chain: Chain
) -> dict[str, Array]:
    """Return the belief about each spot pool, given what is seen now."""
    known = {belief.pool: belief.chances for belief in beliefs}
    found: dict[str, Array] = {}
    for name, available in seen:
        belief = _carried(known.get(name, ()), hours, chain)
        if available is not None:
            belief = chain.condition(belief, available=available)
        found[name] = belief
    return found


def _market(
    beliefs: dict[str, Array], market: Sequence[float], hours: float, chain: Chain
) -> Array:
    """Return the belief about the market: whether any spot pool has room, which may not be seen for certain."""
    if len(beliefs) == 1:
        return next(iter(beliefs.values()))
    together = _carried(market, hours, chain)
    none = math.prod(float(belief[: chain.half].sum()) for belief in beliefs.values())
    available = chain.condition(together, available=True)
    unavailable = chain.condition(together, available=False)
    return (1.0 - none) * available + none * unavailable


def _pool(belief: Array, chain: Chain, market_stay_hours: float, pools: int) -> PoolSight:
    evictions = 0.0
    if pools > 1:
        stay = float(chain.condition(belief, available=True) @ chain.mean_stay_hours)
        evictions = max(0.0, 1.0 / stay - 1.0 / market_stay_hours)
    return PoolSight(
        chance=float(belief[chain.half :].sum()),
        stay_hours=float(belief @ chain.mean_stay_hours),
        evictions_per_hour=evictions,
    )


def _carried(chances: Sequence[float], hours: float, chain: Chain) -> Array:
    """Return the belief that was remembered, `hours` later; of another model's, nothing is kept."""
    if len(chances) != len(chain.stationary):
        return chain.stationary
    return chain.predict(np.array(chances), hours)


def _since(now: datetime, state: PolicyState) -> float:
    """Return the hours since the last look."""
    return 0.0 if state.seen_at is None else max((now - state.seen_at) / timedelta(hours=1), 0.0)


def _rounded(belief: Array) -> tuple[float, ...]:
    return tuple(np.round(belief, 7).tolist())
