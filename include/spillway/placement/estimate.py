"""What completing a task on an offer is expected to take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spillway.model import Estimate, Offer, TaskSpec
from spillway.placement.price import MICRO_USD, hours
from spillway.placement.recovery import expected_course

if TYPE_CHECKING:
    from decimal import Decimal

    from spillway.placement.recovery import Course


def estimate(task: TaskSpec, offer: Offer) -> Estimate:
    """Return what completing `task` on `offer` is expected to take."""
    return estimate_of(expected_course(task, offer), offer.marginal_usd_per_hour)


def estimate_of(course: Course, marginal_usd_per_hour: Decimal) -> Estimate:
    """Return the estimate of a run that goes as `course` says, at a price."""
    return Estimate(
        leased=course.leased,
        cost_usd=(hours(course.leased) * marginal_usd_per_hour).quantize(MICRO_USD),
        checkpoint_interval=course.checkpoint_interval,
    )
