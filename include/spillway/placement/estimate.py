"""What completing a task on an offer is expected to take."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Final

from spillway.model import Estimate, Offer, TaskSpec
from spillway.placement.price import MICRO_USD, hours
from spillway.placement.recovery import expected_course
from spillway.placement.transfer import transfer_usd

if TYPE_CHECKING:
    from spillway.placement.recovery import Course

_NOTHING: Final = Decimal(0)


def estimate(task: TaskSpec, offer: Offer) -> Estimate:
    """Return what completing `task` on `offer` is expected to take."""
    course = expected_course(task, offer)
    moved = transfer_usd(task, offer, course)
    hourly = offer.marginal_usd_per_hour * task.nodes
    return estimate_of(course, hourly, transfer_usd=moved)


def estimate_of(
    course: Course, marginal_usd_per_hour: Decimal, *, transfer_usd: Decimal = _NOTHING
) -> Estimate:
    """Return the estimate of a run that goes as `course` says, at a price for all nodes, with what it moves and keeps."""
    rented = hours(course.leased) * marginal_usd_per_hour
    return Estimate(
        leased=course.leased,
        cost_usd=(rented + transfer_usd).quantize(MICRO_USD),
        checkpoint_interval=course.checkpoint_interval,
        transfer_usd=transfer_usd.quantize(MICRO_USD),
    )
