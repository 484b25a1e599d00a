"""Offers: what each pool would rent to one task now, and at what price."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from spillway.model import CapacityBlock, Offer, Pool, PoolUsage, TaskSpec
from spillway.placement.price import price, slots_owed
from spillway.placement.recovery import expected_course

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

NEVER: Final[Mapping[str, datetime]] = MappingProxyType({})
NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


def make_offers(
    pools: Iterable[Pool],
    *,
    usage: Mapping[str, PoolUsage],
    free_slots: Mapping[str, int | None],
    task: TaskSpec,
    now: datetime,
    store_jurisdiction: str | None = None,
    quota_slots: Mapping[str, int] = NOTHING,
    last_launches: Mapping[str, datetime] = NEVER,
) -> tuple[Offer, ...]:
    """Return one offer a pool, those without room included: choosing is what says why they are passed over.

    Args:
        pools: The pools to ask.
        usage: By pool name, what the ledger knows; a pool that is not named is not in use.
        free_slots: By pool name, how many more jobs its provider says it would start; None, or not named, when the
            provider does not say.
        task: What the offers are for: how long it runs decides how much of a commitment it uses up.
        now: When the offers are made.
        store_jurisdiction: Whose law the store of checkpoints and outputs is under; None when it is not known.
        quota_slots: By pool name, how many more slots the provider's quota allows; not named where there is none.
        last_launches: By pool name, when a lease on it last started.
    """
    return tuple(
        _offer(
            pool,
            usage.get(pool.name, PoolUsage()),
            free_slots.get(pool.name),
            task,
            now,
            store_jurisdiction=store_jurisdiction,
            quota_slots=quota_slots.get(pool.name),
            last_launch_at=last_launches.get(pool.name),
        )
        for pool in pools
    )


def _offer(
    pool: Pool,
    usage: PoolUsage,
    provider_free: int | None,
    task: TaskSpec,
    now: datetime,
    *,
    store_jurisdiction: str | None,
    quota_slots: int | None,
    last_launch_at: datetime | None,
) -> Offer:
    ends_at, end_said_at = _end(pool)
    leased = expected_course(task, pool).leased
    quoted = price(pool, usage, leased=leased, now=now, slots=task.nodes)
    return Offer(
        pool=pool.name,
        backend=pool.backend,
        market=pool.market,
        region=pool.region,
        shape=pool.shape,
        free_slots=_free(slots_owed(pool, now), usage, provider_free),
        slots=pool.slots,
        cooling_down=usage.cooling_down,
        marginal_usd_per_hour=quoted.marginal,
        effective_usd_per_hour=quoted.effective,
        list_usd_per_hour=pool.list_usd_per_hour,
        price_reason=quoted.reason,
        preemptions_per_hour=pool.preemptions_per_hour,
        restart_overhead=pool.restart_overhead,
        grace_period=pool.grace_period,
        speed=pool.speed,
        provider=pool.provider,
        architecture=pool.architecture,
        jurisdiction=pool.jurisdiction,
        price_doubts=pool.price_doubts,
        priced_at=pool.priced_at,
        store_jurisdiction=store_jurisdiction,
        quota_slots=quota_slots,
        last_launch_at=last_launch_at,
        ends_at=ends_at,
        end_said_at=end_said_at,
    )


def _end(pool: Pool) -> tuple[datetime | None, datetime | None]:
    """Return when the slots of `pool` end, the earlier of what is configured and said, and when that was said."""
    owed, said = pool.commitment, pool.said_end
    configured = owed.ends_at if isinstance(owed, CapacityBlock) else None
    if said is None or (configured is not None and configured <= said.at):
        return configured, None
    return said.at, said.said_at


def _free(slots: int, usage: PoolUsage, provider_free: int | None) -> int:
    """Return the slots free by our count or by the provider's, whichever is the more careful, less those promised.

    Were they not taken off, every job that would rather be here would leave its place for one and the same slot.
    """
    ours = slots - usage.leased_slots
    there = ours if provider_free is None else min(ours, provider_free)
    return max(there - usage.promised_slots, 0)


def left_of_quotas(pools: Iterable[Pool], usage: Mapping[str, PoolUsage]) -> Mapping[str, int]:
    """Return how many more slots each pool's quota allows, by pool name; pools without a quota are left out."""
    pools = list(pools)
    leased: Counter[str] = Counter()
    for pool in pools:
        if pool.quota is not None and pool.name in usage:
            leased[pool.quota.name] += usage[pool.name].leased_slots
    return {
        pool.name: max(pool.quota.slots - leased[pool.quota.name], 0)
        for pool in pools
        if pool.quota is not None
    }
