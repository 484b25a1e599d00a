"""Hypothesis strategies for leases, what jobs say and what is kept of them; and `ANY_VALUE`, for all of `spillway.model`.

`ANY_VALUE` maps each exported class to a strategy that covers all its fields.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from spillway.model import (
    CapacityBlock,
    CostRecord,
    Estimate,
    Heartbeat,
    HourlyCommitment,
    JobEvent,
    Launcher,
    Lease,
    LeaseState,
    Manifest,
    Market,
    MonthlyMinimum,
    Move,
    Observation,
    Offer,
    Part,
    PassedOver,
    Placement,
    PlannedSlots,
    Pool,
    PoolDay,
    PoolUsage,
    PrepaidHours,
    PricingCategory,
    Quota,
    Resources,
    Retention,
    RoomAnswer,
    SaidEnd,
    SlotInterval,
    SpeedSample,
    Submission,
    TaskKey,
    TaskSpec,
    Unplaced,
)
from spillway.testing.strategies import (
    capacity_blocks,
    decided_moves,
    durations,
    estimates,
    hourly_commitments,
    instants,
    json_objects,
    markets,
    money,
    monthly_minimums,
    names,
    node_counts,
    offers,
    passed_over,
    placements,
    planned_slots,
    pool_days,
    pools,
    prepaid_hours,
    quotas,
    resources,
    retentions,
    room_answers,
    said_ends,
    sizes_gib,
    slot_intervals,
    speed_samples,
    tasks,
    transfer_prices,
    unplaced,
    usages,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def task_keys() -> st.SearchStrategy[TaskKey]:
    """Return names of task instances, mapped and not."""
    return st.builds(
        TaskKey, dag_id=names, run_id=words, task_id=names, map_index=st.integers(-1, 9)
    )


def submissions() -> st.SearchStrategy[Submission]:
    """Return submissions."""
    return st.builds(
        Submission,
        key=words,
        pool=names,
        token=st.integers(1),
        entry_point=words,
        arguments=json_objects(),
        resources=resources(),
        store=words,
        prefix=words,
        grace_period=durations(),
        checkpoint_interval=st.none() | durations(),
        fresh_start=st.booleans(),
        retention=retentions(),
        nodes=node_counts(),
        launcher=st.sampled_from(Launcher),
    )


def leases() -> st.SearchStrategy[Lease]:
    """Return leases in every state."""
    return st.builds(
        Lease,
        key=words,
        task=task_keys(),
        number=st.integers(1, 99),
        token=st.integers(1),
        pool=names,
        backend=names,
        state=st.sampled_from(LeaseState),
        owner_try=st.integers(1, 9),
        owner_clear=st.integers(0, 9),
        granted_at=instants,
        marginal_usd_per_hour=money(),
        effective_usd_per_hour=money(),
        list_usd_per_hour=money(),
        submission=submissions(),
        started_at=st.none() | instants,
        ended_at=st.none() | instants,
        exit_code=st.none() | st.integers(-64, 255),
        detail=words,
        provider_id=st.none() | words,
        slots=node_counts(),
    )


def observations() -> st.SearchStrategy[Observation]:
    """Return what a provider may say."""
    return st.builds(
        Observation,
        event=st.none() | st.sampled_from(JobEvent),
        seen_at=instants,
        exit_code=st.none() | st.integers(-64, 255),
        detail=words,
    )


def heartbeats() -> st.SearchStrategy[Heartbeat]:
    """Return what a task may say; a diverged loss is infinite."""
    return st.builds(
        Heartbeat,
        token=st.integers(1),
        written_at=instants,
        step=st.none() | st.integers(0),
        total_steps=st.none() | st.integers(0),
        metrics=st.dictionaries(words, st.floats(allow_nan=False), max_size=3),
        checkpoint_step=st.none() | st.integers(0),
        useful=durations(),
        first_progress_at=st.none() | instants,
        first_step=st.none() | st.integers(0),
        stored_gib=st.none() | sizes_gib(),
        stored_since=st.none() | instants,
        stored_from=st.none() | instants,
        stored_gib_hours=sizes_gib(),
    )


def parts() -> st.SearchStrategy[Part]:
    """Return parts of checkpoints."""
    return st.builds(Part, name=names, path=words, size=st.integers(0), checksum=words)


def manifests() -> st.SearchStrategy[Manifest]:
    """Return manifests."""
    return st.builds(
        Manifest,
        token=st.integers(1),
        step=st.integers(0),
        created_at=instants,
        parts=st.lists(parts(), max_size=3).map(tuple),
        metadata=json_objects() | st.dictionaries(words, st.floats(allow_nan=False), max_size=3),
        metrics=st.dictionaries(words, st.floats(allow_nan=False), max_size=3),
    )


def cost_records() -> st.SearchStrategy[CostRecord]:
    """Return cost records."""
    return st.builds(
        CostRecord,
        lease_key=words,
        pool=names,
        pricing_category=st.sampled_from(PricingCategory),
        charge_period_start=instants,
        charge_period_end=instants,
        marginal_cost=money(),
        effective_cost=money(),
        list_cost=money(),
    )


ANY_VALUE: Final[Mapping[type, st.SearchStrategy[Any]]] = MappingProxyType(
    {
        CapacityBlock: capacity_blocks(),
        CostRecord: cost_records(),
        Estimate: estimates(),
        Heartbeat: heartbeats(),
        HourlyCommitment: hourly_commitments(),
        JobEvent: st.sampled_from(JobEvent),
        Launcher: st.sampled_from(Launcher),
        Lease: leases(),
        LeaseState: st.sampled_from(LeaseState),
        Manifest: manifests(),
        Market: markets,
        MonthlyMinimum: monthly_minimums(),
        Move: decided_moves(),
        Observation: observations(),
        Offer: offers(usd_per_gib=transfer_prices()),
        Part: parts(),
        PassedOver: passed_over(),
        Placement: placements(),
        PlannedSlots: planned_slots(),
        Pool: pools(),
        PoolDay: pool_days(),
        PoolUsage: usages(),
        PrepaidHours: prepaid_hours(),
        PricingCategory: st.sampled_from(PricingCategory),
        Quota: quotas(),
        Resources: resources(),
        Retention: retentions(),
        RoomAnswer: room_answers(),
        SaidEnd: said_ends(),
        SlotInterval: slot_intervals(),
        SpeedSample: speed_samples(),
        Submission: submissions(),
        TaskKey: task_keys(),
        TaskSpec: tasks(),
        Unplaced: unplaced(),
    }
)
