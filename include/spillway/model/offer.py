"""A quote from one pool, and the usage it was quoted from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from spillway.model.task import Market, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUsage:
    """How a pool is used at one moment, as the ledger knows it.

    Attributes:
        leased_slots: Slots held by open leases.
        month_slot_hours: Slot hours leased since the start of the calendar month (UTC), open leases up to now; 0 for a pool
            that does not owe by the month.
        cooling_down: Whether the provider refused or took back capacity a moment ago.
        period_slot_hours: Slot hours leased since the period of a prepaid commitment began, open leases up to now.
        forecast_slot_hours: Slot hours expected between now and the end of the commitment's period, beside the task
            that is being placed.
        forecast_error_slot_hours: Standard error of that forecast.
        promised_slots: Slots that jobs which were asked to move here are on their way to.
    """

    leased_slots: int = 0
    month_slot_hours: Decimal = Decimal(0)
    cooling_down: bool = False
    period_slot_hours: Decimal = Decimal(0)
    forecast_slot_hours: Decimal = Decimal(0)
    forecast_error_slot_hours: Decimal = Decimal(0)
    promised_slots: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Capacity one pool would rent to one task now.

    An offer is a quote, not a promise: it may be gone by the time it is taken. Its prices are those of one slot; a gang
    pays for one slot a node.

    Attributes:
        free_slots: Slots free when the offer was made.
        marginal_usd_per_hour: What taking the offer adds to the bill. Zero on a reserved pool with room, whose price is
            already owed.
        effective_usd_per_hour: The price with commitments amortised.
        list_usd_per_hour: The public price.
        preemptions_per_hour: Expected rate at which the provider takes one slot back; None when unknown.
        price_reason: Why the marginal price is what it is, for people.
        provider: Who owns the machines, where that is not the backend.
        architecture: Of its processors, in OCI's words, such as `amd64`; None when unknown.
        jurisdiction: Whose law its machines are under, such as `EU`; None when unknown.
        store_jurisdiction: Whose law the checkpoints and outputs written on it end up under; None when unknown.
        quota_slots: Slots that the provider's quota still allows; None where there is no quota.
        price_doubts: What is odd about the price.
        priced_at: When a feed said the price; None for one that a person configured.
        restore_usd_per_gib: What it costs to read a GiB out of the checkpoint store from here.
        save_usd_per_gib: What it costs to write a GiB into it.
        storage_usd_per_gib_month: What it costs to keep a GiB there.
        is_far_from_store: Whether the checkpoint store is known to be with another provider or in another region.
        last_launch_at: When a lease last started at this price, which proves that it can be had.
        slots: How many slots the pool has in all, free or not; None when unknown.
        room_at: When the provider said how much room it has, which is part of `free_slots`, or was asked what of the pool
            is taken. None for one that does not say.
        ends_at: First instant on which its slots are gone, as the pool is configured or as its provider says, whichever is
            earlier; None where there is no end.
        end_said_at: When the provider said so; None for an end that is configured.
        left_to_others: Slots that are free, and left to tasks which wait for room; `free_slots` is without them.
        cooling_reason: Why it is cooling down and until when, for people; empty when nothing more is known.
    """

    pool: str
    backend: str
    market: Market
    region: str
    shape: Resources
    free_slots: int
    cooling_down: bool
    marginal_usd_per_hour: Decimal
    effective_usd_per_hour: Decimal
    list_usd_per_hour: Decimal
    price_reason: str
    preemptions_per_hour: float | None
    restart_overhead: timedelta
    grace_period: timedelta
    speed: float
    provider: str | None = None
    architecture: str | None = None
    jurisdiction: str | None = None
    store_jurisdiction: str | None = None
    quota_slots: int | None = None
    price_doubts: tuple[str, ...] = ()
    priced_at: datetime | None = None
    last_launch_at: datetime | None = None
    slots: int | None = None
    room_at: datetime | None = None
    ends_at: datetime | None = None
    end_said_at: datetime | None = None
    cooling_reason: str = ""
    left_to_others: int = 0
    restore_usd_per_gib: Decimal = Decimal(0)
    save_usd_per_gib: Decimal = Decimal(0)
    storage_usd_per_gib_month: Decimal = Decimal(0)
    is_far_from_store: bool = False
