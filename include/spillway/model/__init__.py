"""Frozen values, one noun a module."""

from spillway.model.checkpoint import Manifest, Part
from spillway.model.cost import CostRecord, PricingCategory
from spillway.model.history import PoolDay, RoomAnswer, SlotInterval, SpeedSample
from spillway.model.lease import (
    Heartbeat,
    JobEvent,
    Lease,
    LeaseState,
    Observation,
    Submission,
)
from spillway.model.offer import Offer, PoolUsage
from spillway.model.placement import (
    Estimate,
    Move,
    PassedOver,
    Placement,
    PlannedSlots,
    Unplaced,
)
from spillway.model.pool import (
    CapacityBlock,
    Commitment,
    HourlyCommitment,
    MonthlyMinimum,
    Pool,
    PrepaidHours,
    Quota,
    SaidEnd,
)
from spillway.model.retention import Retention
from spillway.model.task import ALL_MARKETS, Launcher, Market, Resources, TaskKey, TaskSpec

__all__ = [
    "ALL_MARKETS",
    "CapacityBlock",
    "Commitment",
    "CostRecord",
    "Estimate",
    "Heartbeat",
    "HourlyCommitment",
    "JobEvent",
    "Launcher",
    "Lease",
    "LeaseState",
    "Manifest",
    "Market",
    "MonthlyMinimum",
    "Move",
    "Observation",
    "Offer",
    "Part",
    "PassedOver",
    "Placement",
    "PlannedSlots",
    "Pool",
    "PoolDay",
    "PoolUsage",
    "PrepaidHours",
    "PricingCategory",
    "Quota",
    "Resources",
    "Retention",
    "RoomAnswer",
    "SaidEnd",
    "SlotInterval",
    "SpeedSample",
    "Submission",
    "TaskKey",
    "TaskSpec",
    "Unplaced",
]
