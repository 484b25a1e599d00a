"""Hypothesis strategies for what placement decides on and what it says; `lease_strategies` has what comes of it.

Those that placement is tested with (`tasks`, `offers`, `offer_sets`, `pools`) keep to numbers a real deployment could have.
"""

from __future__ import annotations

import string
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from hypothesis import strategies as st

from spillway.model import (
    CapacityBlock,
    Commitment,
    Estimate,
    HourlyCommitment,
    Market,
    MonthlyMinimum,
    Move,
    Offer,
    PassedOver,
    Placement,
    PlannedSlots,
    Pool,
    PoolDay,
    PoolUsage,
    PrepaidHours,
    Quota,
    Resources,
    Retention,
    RoomAnswer,
    SaidEnd,
    SlotInterval,
    SpeedSample,
    TaskSpec,
    Unplaced,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

ACCELERATORS: Final = (None, "L4", "H100")

names: Final = st.text(string.ascii_lowercase + string.digits + "_-", min_size=1, max_size=12)
words: Final = st.text(max_size=20)
markets: Final = st.sampled_from(Market)
instants: Final = st.datetimes(
    min_value=datetime(2020, 1, 1),  # noqa: DTZ001 - the timezone is given beside it
    max_value=datetime(2040, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)


def durations(
    *, longest: timedelta = timedelta(days=30), shortest: timedelta = timedelta(0)
) -> st.SearchStrategy[timedelta]:
    """Return durations from `shortest` to `longest`, to the microsecond."""
    return st.timedeltas(min_value=shortest, max_value=longest)


def money(*, highest: int = 100) -> st.SearchStrategy[Decimal]:
    """Return amounts from 0 to `highest` dollars, to the micro-dollar."""
    return st.decimals(min_value=0, max_value=highest, places=6)


def json_objects() -> st.SearchStrategy[dict[str, JsonValue]]:
    """Return small JSON objects."""
    return st.dictionaries(words, _json(), max_size=3)


def _json() -> st.SearchStrategy[JsonValue]:
    scalars: st.SearchStrategy[JsonValue] = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        words,
    )
    return st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3)
        ),
        max_leaves=5,
    )


def resources() -> st.SearchStrategy[Resources]:
    """Return shapes; an accelerator and its count go together."""

    def shape(cpus: float, memory_gib: float, accelerator: str | None, count: int) -> Resources:
        return Resources(
            cpus=cpus,
            memory_gib=memory_gib,
            accelerator=accelerator,
            accelerator_count=count if accelerator else 0,
        )

    return st.builds(
        shape,
        cpus=st.sampled_from([0.5, 1.0, 2.0, 8.0, 96.0]),
        memory_gib=st.sampled_from([0.5, 2.0, 8.0, 512.0]),
        accelerator=st.sampled_from(ACCELERATORS),
        count=st.integers(1, 8),
    )


def hazards() -> st.SearchStrategy[float | None]:
    """Return preemptions per hour: none, unknown, and from once a month to once a minute."""
    return st.one_of(st.none(), st.just(0.0), st.floats(1 / 720, 60.0))


def speeds() -> st.SearchStrategy[float]:
    """Return speeds relative to 1."""
    return st.sampled_from([0.25, 0.5, 1.0, 1.5, 4.0])


def sizes_gib() -> st.SearchStrategy[float]:
    """Return sizes of states, none and up to a large model's."""
    return st.just(0.0) | st.floats(0.0, 4000.0)


def transfer_prices() -> st.SearchStrategy[Decimal]:
    """Return dollars for a GiB, moved or kept."""
    return st.just(Decimal(0)) | st.decimals(min_value=0, max_value=1, places=4)


def node_counts() -> st.SearchStrategy[int]:
    """Return how many nodes a task may need: mostly one, sometimes a small gang."""
    return st.just(1) | st.integers(1, 3)


def retentions() -> st.SearchStrategy[Retention]:
    """Return rules of which checkpoints to keep."""
    return st.builds(
        Retention,
        last=st.integers(1, 4),
        every_steps=st.none() | st.integers(1, 100),
        metric=st.none() | st.just("loss"),
        highest=st.booleans(),
        best=st.integers(1, 3),
    )


def tasks(
    *, deadlines: st.SearchStrategy[datetime | None] | None = None
) -> st.SearchStrategy[TaskSpec]:
    """Return tasks; `deadlines` says when they are due, any time or never unless given."""
    return st.builds(
        TaskSpec,
        entry_point=st.just("package.module:function"),
        arguments=json_objects(),
        workload=names,
        resources=resources(),
        work=durations(longest=timedelta(hours=100), shortest=timedelta(seconds=1)),
        markets=st.frozensets(markets),
        checkpoints=st.booleans(),
        checkpoint_write=durations(longest=timedelta(minutes=2)),
        restart_overhead=durations(longest=timedelta(minutes=20)),
        deadline=st.none() | instants if deadlines is None else deadlines,
        max_usd_per_hour=st.none() | money(),
        spent_usd=money(),
        max_attempts=st.integers(1, 100),
        state_gib=sizes_gib(),
        input_gib=sizes_gib(),
        retention=retentions(),
        nodes=node_counts(),
    )


def offers(
    *,
    pools: st.SearchStrategy[str] = names,
    usd_per_gib: st.SearchStrategy[Decimal] = st.just(Decimal(0)),  # noqa: B008 - a strategy holds no state
) -> st.SearchStrategy[Offer]:
    """Return offers of pools named by `pools`; `usd_per_gib` is what a GiB costs that is moved or kept."""
    return st.builds(
        Offer,
        pool=pools,
        backend=names,
        market=markets,
        region=names,
        shape=resources(),
        free_slots=st.integers(0, 3),
        cooling_down=st.booleans(),
        marginal_usd_per_hour=st.just(Decimal(0)) | money(),
        effective_usd_per_hour=money(),
        list_usd_per_hour=money(),
        price_reason=words,
        preemptions_per_hour=hazards(),
        restart_overhead=durations(longest=timedelta(minutes=20)),
        grace_period=durations(longest=timedelta(minutes=5)),
        speed=speeds(),
        ends_at=st.none() | instants,
        end_said_at=st.none() | instants,
        restore_usd_per_gib=usd_per_gib,
        save_usd_per_gib=usd_per_gib,
        storage_usd_per_gib_month=usd_per_gib,
    )


def offer_sets(
    *, of: st.SearchStrategy[Offer] | None = None, max_size: int = 6
) -> st.SearchStrategy[list[Offer]]:
    """Return lists of offers drawn from `of`, any unless given, one a pool."""
    drawn = offers() if of is None else of
    return st.lists(drawn, max_size=max_size, unique_by=lambda offer: offer.pool)


def commitments() -> st.SearchStrategy[Commitment]:
    """Return commitments of every kind."""
    return st.one_of(hourly_commitments(), monthly_minimums(), prepaid_hours(), capacity_blocks())


def hourly_commitments() -> st.SearchStrategy[HourlyCommitment]:
    """Return hourly commitments."""
    return st.builds(HourlyCommitment, usd_per_slot_hour=money())


def monthly_minimums() -> st.SearchStrategy[MonthlyMinimum]:
    """Return monthly minimums."""
    return st.builds(
        MonthlyMinimum,
        slot_hours=st.decimals(min_value=0, max_value=7000, places=2),
        usd_per_slot_hour=money(),
        overage_usd_per_slot_hour=money(),
        variable_usd_per_slot_hour=money(highest=1),
        ends_at=st.none() | instants,
    )


def prepaid_hours() -> st.SearchStrategy[PrepaidHours]:
    """Return prepaid hours, their period over, running or still to come."""

    def bought(start: datetime, length: timedelta, **terms: Decimal) -> PrepaidHours:
        return PrepaidHours(starts_at=start, ends_at=start + length, **terms)

    return st.builds(
        bought,
        instants,
        durations(longest=timedelta(days=366), shortest=timedelta(hours=1)),
        slot_hours=st.decimals(min_value=0, max_value=7000, places=2),
        usd_per_slot_hour=money(),
        overage_usd_per_slot_hour=money(),
    )


def capacity_blocks() -> st.SearchStrategy[CapacityBlock]:
    """Return capacity blocks, over, running or still to come."""

    def block(start: datetime, length: timedelta, usd_per_slot_hour: Decimal) -> CapacityBlock:
        return CapacityBlock(
            starts_at=start, ends_at=start + length, usd_per_slot_hour=usd_per_slot_hour
        )

    lengths = durations(longest=timedelta(days=182), shortest=timedelta(hours=1))
    return st.builds(block, instants, lengths, money())


def usages() -> st.SearchStrategy[PoolUsage]:
    """Return how pools may be used."""
    return st.builds(
        PoolUsage,
        leased_slots=st.integers(0, 12),
        month_slot_hours=st.decimals(min_value=0, max_value=8000, places=4),
        cooling_down=st.booleans(),
        period_slot_hours=st.decimals(min_value=0, max_value=8000, places=4),
        forecast_slot_hours=st.decimals(min_value=0, max_value=8000, places=4),
        forecast_error_slot_hours=st.just(Decimal(0))
        | st.decimals(min_value=0, max_value=800, places=4),
    )


def pool_days() -> st.SearchStrategy[PoolDay]:
    """Return days of a pool."""
    return st.builds(
        PoolDay,
        day=st.dates(date(2020, 1, 1), date(2040, 1, 1)),
        slot_hours=st.floats(0, 1000),
        losses=st.integers(0, 100),
    )


def slot_intervals() -> st.SearchStrategy[SlotInterval]:
    """Return intervals over which slots may have been held."""

    def held(start: datetime, length: timedelta, slots: int, is_open: bool) -> SlotInterval:  # noqa: FBT001
        return SlotInterval(start=start, end=start + length, slots=slots, is_open=is_open)

    return st.builds(held, instants, durations(), node_counts(), st.booleans())


def room_answers() -> st.SearchStrategy[RoomAnswer]:
    """Return what pools may have answered when they were asked for capacity."""
    return st.builds(RoomAnswer, at=instants, had_room=st.booleans())


def quotas() -> st.SearchStrategy[Quota]:
    """Return quotas."""
    return st.builds(Quota, name=names, slots=st.integers(0, 100))


def speed_samples() -> st.SearchStrategy[SpeedSample]:
    """Return speeds that leases may have worked at."""
    return st.builds(
        SpeedSample,
        workload=names,
        accelerator=st.sampled_from(ACCELERATORS),
        accelerator_count=st.integers(0, 8),
        accelerator_fraction=st.sampled_from([1.0, 0.5, 1 / 7]),
        speed=st.floats(0.01, 100),
        hours=st.floats(0.01, 100),
        measured_at=instants,
    )


def pools() -> st.SearchStrategy[Pool]:
    """Return pools whose commitment goes with their market."""
    return markets.flatmap(_pools_of)


def _pools_of(market: Market) -> st.SearchStrategy[Pool]:
    return st.builds(
        Pool,
        name=names,
        backend=names,
        market=st.just(market),
        slots=st.integers(0, 10),
        shape=resources(),
        list_usd_per_hour=money(),
        commitment=commitments() if market.is_committed else st.none(),
        preemptions_per_hour=hazards(),
        grace_period=durations(longest=timedelta(minutes=5)),
        restart_overhead=durations(longest=timedelta(minutes=20)),
        speed=speeds(),
        region=names,
        provider=st.none() | names,
        said_end=st.none() | said_ends(),
        connection=st.none() | names,
        options=json_objects(),
    )


def said_ends() -> st.SearchStrategy[SaidEnd]:
    """Return ends that a provider said."""
    return st.builds(SaidEnd, at=instants, said_at=instants)


def estimates() -> st.SearchStrategy[Estimate]:
    """Return estimates."""
    return st.builds(
        Estimate,
        leased=durations(),
        cost_usd=money(),
        checkpoint_interval=st.none() | durations(),
        transfer_usd=money(),
    )


def passed_over() -> st.SearchStrategy[PassedOver]:
    """Return offers with a reason against each."""
    return st.builds(
        PassedOver,
        offer=offers(),
        reason=words,
        can_wait=st.booleans(),
        estimate=st.none() | estimates(),
    )


def placements() -> st.SearchStrategy[Placement]:
    """Return placements, not necessarily ones that `choose` would make."""
    return st.builds(
        Placement,
        offer=offers(),
        estimate=estimates(),
        reason=words,
        passed_over=st.lists(passed_over(), max_size=2).map(tuple),
        task=st.none() | tasks(),
        decided_at=st.none() | instants,
    )


def decided_moves() -> st.SearchStrategy[Move]:
    """Return decisions to go on elsewhere, not necessarily ones that the policy would make."""
    return st.builds(
        Move,
        held=names,
        to=st.none() | names,
        reason=words,
        passed_over=st.lists(passed_over(), max_size=2).map(tuple),
        task=tasks(),
        decided_at=instants,
        weighed=json_objects(),
    )


def unplaced() -> st.SearchStrategy[Unplaced]:
    """Return refusals by every pool."""
    return st.builds(
        Unplaced,
        passed_over=st.lists(passed_over(), max_size=2).map(tuple),
        task=st.none() | tasks(),
        decided_at=st.none() | instants,
        planned=st.none() | planned_slots(),
    )


def planned_slots() -> st.SearchStrategy[PlannedSlots]:
    """Return slots that tasks which wait may count on."""

    def counted_on(pool: str, start: datetime, length: timedelta, slots: int) -> PlannedSlots:
        return PlannedSlots(pool=pool, start=start, end=start + length, slots=slots)

    return st.builds(counted_on, names, instants, durations(), node_counts())
