"""Which offers can take a task at all, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from spillway.model import Offer, TaskSpec
from spillway.placement.explain import span, usd
from spillway.placement.recovery import (
    LONGEST_RUN,
    expected_course,
    hazard,
    restart_overhead,
    undisturbed_work,
)

Check = Callable[[TaskSpec, Offer, datetime], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an offer cannot take a task.

    Attributes:
        can_wait: Whether only room is missing, so that time may cure it.
    """

    reason: str
    can_wait: bool


def refusal(task: TaskSpec, offer: Offer, now: datetime) -> Refusal | None:
    """Return everything that keeps `offer` from taking `task`, or None when it can.

    A lack of room is named only when nothing else is wrong, since waiting cures nothing else.
    """
    lasting = [reason for check in _LASTING if (reason := check(task, offer, now))]
    if lasting:
        return Refusal(reason="; ".join(lasting), can_wait=False)
    passing = [reason for check in _PASSING if (reason := check(task, offer, now))]
    if passing:
        return Refusal(reason="; ".join(passing), can_wait=True)
    return None


def _market(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    if offer.market in task.markets:
        return None
    allowed = ", ".join(sorted(task.markets)) or "none"
    return f"is bought as {offer.market}; the task allows {allowed}"


def _cpus(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    needed, there = task.resources.cpus, offer.shape.cpus
    return f"has {there:g} CPUs of {needed:g} needed" if there < needed else None


def _memory(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    needed, there = task.resources.memory_gib, offer.shape.memory_gib
    return f"has {there:g} GiB of memory of {needed:g} needed" if there < needed else None


def _accelerator(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    needed, there = task.resources, offer.shape
    if needed.accelerator is not None and needed.accelerator != there.accelerator:
        return f"has {there.accelerator or 'no accelerator'}, not {needed.accelerator}"
    if there.accelerator_count < needed.accelerator_count:
        return f"has {there.accelerator_count} accelerators of {needed.accelerator_count} needed"
    return None


def _price_cap(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    cap, asked = task.max_usd_per_hour, offer.marginal_usd_per_hour
    if cap is None or asked <= cap:
        return None
    return f"asks {usd(asked)}/h; the task allows at most {usd(cap)}/h"


def _deadline(task: TaskSpec, offer: Offer, now: datetime) -> str | None:
    if task.deadline is None:
        return None
    needed = restart_overhead(task, offer) + undisturbed_work(task, offer)
    left = max(task.deadline - now, timedelta(0))
    if needed <= left:
        return None
    return f"takes {span(needed)} undisturbed; the deadline is in {span(left)}"


def _unprotected(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    """Refuse work that would most often be lost before it is done: longer than `1/h`, and never saved."""
    rate, work = hazard(offer), undisturbed_work(task, offer)
    if task.checkpoints or work / timedelta(hours=1) * rate <= 1:
        return None
    return (
        f"takes capacity back about every {span(timedelta(hours=1 / rate))}, and the task works {span(work)} "
        f"without checkpoints"
    )


def _endless(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    if expected_course(task, offer).leased < LONGEST_RUN:
        return None
    return f"is preempted so often that the task would take longer than {span(LONGEST_RUN)}"


def _room(_task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    return "has no free slot" if offer.free_slots <= 0 else None


def _cooling_down(_task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    return "refused or took back capacity a moment ago" if offer.cooling_down else None


_LASTING: Final[tuple[Check, ...]] = (
    _market,
    _cpus,
    _memory,
    _accelerator,
    _price_cap,
    _deadline,
    _unprotected,
    _endless,
)
_PASSING: Final[tuple[Check, ...]] = (_room, _cooling_down)
