"""What has been seen of pools and jobs in the past: what hazards, speeds and forecasts are learned from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDay:
    """The leases of one pool that ended on one day (UTC); those still open belong to the day that is asked on.

    Attributes:
        slot_hours: How long they were held, all together; each slot of a gang counts.
        losses: How many of them the provider took back, or lost; one for a gang, which the loss of one node ends.
    """

    day: date
    slot_hours: float
    losses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedSample:
    """How fast one lease worked, from its reported progress.

    Attributes:
        workload: What kind of work it did.
        accelerator: Model of the accelerators it had; None for none.
        accelerator_count: How many it had.
        accelerator_fraction: Which part of one it had, from 0 to 1.
        speed: Hours of work at speed 1 that it did in an hour.
        hours: How long that was measured.
        measured_at: When it was last measured.
    """

    workload: str
    accelerator: str | None
    accelerator_count: int
    speed: float
    hours: float
    measured_at: datetime
    accelerator_fraction: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotInterval:
    """Slots of a pool held over `[start, end)` by one lease.

    Attributes:
        end: When they were given back; of an open lease, when that is expected.
        is_open: Whether they are held now.
    """

    start: datetime
    end: datetime
    slots: int = 1
    is_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomAnswer:
    """What a pool answered when it was asked for capacity, or did unasked.

    Attributes:
        had_room: Whether a lease on it started; if not, it refused one, or took the capacity of one back.
    """

    at: datetime
    had_room: bool
