"""Capacity as configured: pools and what is owed for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from pydantic import JsonValue

from spillway.model.task import Market, Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyCommitment:
    """Slots owed every hour, used or not: a reserved instance, a committed-use discount."""

    usd_per_slot_hour: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthlyMinimum:
    """Take-or-pay: slot hours owed every calendar month (UTC), and the price of each hour past them.

    Attributes:
        variable_usd_per_slot_hour: Fees that every used hour adds, inside the minimum too.
        ends_at: First instant on which the contract's term is over: no month is owed that begins later, and each hour
            costs the overage. None for one that goes on.
    """

    slot_hours: Decimal
    usd_per_slot_hour: Decimal
    overage_usd_per_slot_hour: Decimal
    variable_usd_per_slot_hour: Decimal = Decimal(0)
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepaidHours:
    """Slot hours paid for in advance, used up as they are used; what is left at the period's end lapses.

    Attributes:
        slot_hours: How many were bought.
        usd_per_slot_hour: What each of them cost.
        overage_usd_per_slot_hour: Price of each hour that they do not cover, in the period and after it.
        starts_at: First instant on which they may be used.
        ends_at: First instant on which they have lapsed.
    """

    slot_hours: Decimal
    usd_per_slot_hour: Decimal
    overage_usd_per_slot_hour: Decimal
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityBlock:
    """Slots reserved and paid for over `[starts_at, ends_at)`: there is nothing before it, and nothing after.

    Attributes:
        usd_per_slot_hour: What each slot and hour of the block costs, used or not.
    """

    usd_per_slot_hour: Decimal
    starts_at: datetime
    ends_at: datetime


Commitment = HourlyCommitment | MonthlyMinimum | PrepaidHours | CapacityBlock


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What a provider allows over several pools together.

    Attributes:
        slots: How many slots of all pools that count against it may be leased at once.
    """

    name: str
    slots: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidEnd:
    """When a pool's slots end, as its provider says.

    Attributes:
        at: First instant on which they are gone.
        said_at: When the provider said so.
    """

    at: datetime
    said_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Capacity with one provider, market and shape.

    Attributes:
        backend: Name of the backend in the registry.
        slots: How many leases fit at once; each is one `shape`.
        list_usd_per_hour: Public price of one slot.
        commitment: What is owed for it whether used or not; None for spot and on-demand.
        preemptions_per_hour: Expected rate at which the provider takes one slot back; None when unknown.
        grace_period: Warning time between notice and preemption.
        restart_overhead: Time from lease to first instruction: boot, pull.
        speed: Work done in an hour, relative to speed 1.
        provider: Who owns the machines, such as `aws`, where that is not the backend.
        architecture: Of its processors, in OCI's words, such as `amd64`; None when unknown.
        jurisdiction: Whose law its machines are under, such as `EU`; None when unknown.
        price_doubts: What is odd about its public price, where a price list says it.
        priced_at: When the list said it; None for a price that a person configured.
        zone: Where in the region, in the provider's words; None where that is not said.
        interruption_band: What AWS's Spot Instance Advisor says of its kind, such as `<5%`; None where nothing is known.
        quota: The provider's quota that its slots count against; None where there is none.
        mig_profile: What each whole slot of its provider was divided by, such as `3g.40gb`; None where nothing was.
        said_end: When its slots end, where its provider says so; what is configured is part of the commitment.
        connection: Airflow connection with its credentials; None when it needs none.
        options: What only its backend understands; checked by the backend.
    """

    name: str
    backend: str
    market: Market
    slots: int
    shape: Resources
    list_usd_per_hour: Decimal
    commitment: Commitment | None = None
    preemptions_per_hour: float | None = 0.0
    grace_period: timedelta = timedelta(seconds=30)
    restart_overhead: timedelta = timedelta(0)
    speed: float = 1.0
    region: str = "local"
    provider: str | None = None
    architecture: str | None = None
    jurisdiction: str | None = None
    price_doubts: tuple[str, ...] = ()
    priced_at: datetime | None = None
    zone: str | None = None
    interruption_band: str | None = None
    quota: Quota | None = None
    mig_profile: str | None = None
    said_end: SaidEnd | None = None
    connection: str | None = None
    options: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
