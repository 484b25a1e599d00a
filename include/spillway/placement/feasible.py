"""Which offers can take a task at all, and why the others cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Final

from spillway.model import Offer, Resources, TaskSpec
from spillway.placement.estimate import estimate
from spillway.placement.explain import span, usd
from spillway.placement.recovery import (
    LONGEST_RUN,
    expected_course,
    hazard,
    restart_overhead,
    undisturbed_work,
)
from spillway.placement.trust import distrust

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


def region_allowed(task: TaskSpec, region: str) -> bool:
    """Whether `region` is one that `task` allows."""
    return not task.regions or any(fnmatchcase(region, pattern) for pattern in task.regions)


def lacks(needed: Resources, there: Resources) -> Iterator[str]:
    """Yield what `there` has too little of for `needed`."""
    if there.cpus < needed.cpus:
        yield f"has {there.cpus:g} CPUs of {needed.cpus:g} needed"
    if there.memory_gib < needed.memory_gib:
        yield f"has {there.memory_gib:g} GiB of memory of {needed.memory_gib:g} needed"
    if needed.accelerator is not None and needed.accelerator != there.accelerator:
        yield f"has {there.accelerator or 'no accelerator'}, not {needed.accelerator}"
        return
    if there.accelerator_count < needed.accelerator_count:
        yield f"has {there.accelerator_count} accelerators of {needed.accelerator_count} needed"
    if needed.accelerator_count and there.accelerator_fraction < needed.accelerator_fraction:
        yield (
            f"has {there.accelerator_fraction:.3g} of an accelerator "
            f"of {needed.accelerator_fraction:.3g} needed"
        )
    if there.accelerator_memory_gib < needed.accelerator_memory_gib:
        yield (
            f"has {there.accelerator_memory_gib:g} GiB on an accelerator "
            f"of {needed.accelerator_memory_gib:g} needed"
        )


def shape_for(task: TaskSpec, there: Resources) -> Resources:
    """Return what the task takes of a slot: the first of the shapes that would do which fits; `resources` where none does."""
    return next((shape for shape in task.shapes if not any(lacks(shape, there))), task.resources)


def _market(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    if offer.market in task.markets:
        return None
    allowed = ", ".join(sorted(task.markets)) or "none"
    return f"is bought as {offer.market}; the task allows {allowed}"


def _shape(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    """Say what is missing for each shape that would do, unless one of them is there."""
    missing: list[str] = []
    for needed in task.shapes:
        lacking = "; ".join(lacks(needed, offer.shape))
        if not lacking:
            return None
        missing.append(lacking)
    return "; or ".join(missing)


def _provider(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    provider = offer.provider or offer.backend
    if not task.providers or provider in task.providers:
        return None
    return f"belongs to {provider}; the task allows {_any_of(task.providers)}"


def _region(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    if region_allowed(task, offer.region):
        return None
    return f"is in {offer.region}; the task allows {_any_of(task.regions)}"


def _residency(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    """Refuse whatever is not known to stay: machines, and where checkpoints and outputs are written."""
    if not task.residency:
        return None
    allowed = _any_of(task.residency)
    if offer.jurisdiction not in task.residency:
        return f"runs in {offer.jurisdiction or 'an unknown jurisdiction'}; the task's data must stay in {allowed}"
    if offer.store_jurisdiction not in task.residency:
        there = offer.store_jurisdiction or "an unknown jurisdiction"
        return f"leaves checkpoints and outputs in {there}; the task's data must stay in {allowed}"
    return None


def _architecture(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    if not task.architectures or offer.architecture in task.architectures:
        return None
    there = offer.architecture or "an unknown architecture"
    return f"runs {there}; the image is built for {_any_of(task.architectures)}"


def _price_cap(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    cap, asked = task.max_usd_per_hour, offer.marginal_usd_per_hour
    if cap is None or asked <= cap:
        return None
    return f"asks {usd(asked)}/h; the task allows at most {usd(cap)}/h"


def _budget(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    if task.max_cost_usd is None or task.budget_left_usd is None:
        return None
    expected = estimate(task, offer).cost_usd
    if expected <= task.budget_left_usd:
        return None
    if not task.spent_usd:
        return f"is expected to cost {usd(expected)}; the budget is {usd(task.max_cost_usd)}"
    spent, budget = usd(task.spent_usd), usd(task.max_cost_usd)
    return f"is expected to cost {usd(expected)} more; {spent} of the budget of {budget} is spent"


def _trust(_task: TaskSpec, offer: Offer, now: datetime) -> str | None:
    return distrust(
        offer.market,
        offer.price_doubts,
        priced_at=offer.priced_at,
        last_launch_at=offer.last_launch_at,
        now=now,
    )


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
    rate, work = hazard(task, offer), undisturbed_work(task, offer)
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


def _ending(task: TaskSpec, offer: Offer, now: datetime) -> str | None:
    """Refuse what would be lost when the slots end: a run that ends later, or whose first checkpoint is written later.

    Slots that have ended already are not free, which is said elsewhere.
    """
    if offer.ends_at is None or offer.ends_at <= now:
        return None
    course = expected_course(task, offer)
    needed, what = course.leased, f"the task takes {span(course.leased)} and saves no checkpoints"
    if course.checkpoint_interval is not None:
        first = restart_overhead(task, offer) + course.checkpoint_interval + task.checkpoint_write
        needed = min(needed, first)
        what = f"the task's first checkpoint takes {span(needed)}"
    if needed <= offer.ends_at - now:
        return None
    return f"{end_of(offer, now)}, in {span(offer.ends_at - now)}; {what}"


def end_of(offer: Offer, now: datetime) -> str:
    """Return in words when the slots of an offer end, and who says so; empty where they do not."""
    if offer.ends_at is None:
        return ""
    ends = f"ends on {offer.ends_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if offer.end_said_at is None:
        return f"{ends} as configured"
    who = offer.provider or offer.backend
    return f"{ends} as {who} said {span(max(now - offer.end_said_at, timedelta(0)))} ago"


def _nodes(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    if task.nodes < 1:
        return f"cannot run on {task.nodes} nodes; a task needs at least one"
    if offer.slots is None or offer.slots >= task.nodes or task.nodes == 1:
        return None
    return f"has {offer.slots} slots in all, of {task.nodes} needed at once"


def _room(task: TaskSpec, offer: Offer, now: datetime) -> str | None:
    if offer.free_slots >= task.nodes:
        return None
    age = timedelta(0) if offer.room_at is None else now - offer.room_at
    asked = f", asked {span(age)} ago" if age > timedelta(0) else ""
    if offer.left_to_others:
        asked = f" beside {offer.left_to_others} left to tasks that wait for room{asked}"
    if offer.free_slots <= 0:
        return f"has no free slot{asked}"
    return f"has {offer.free_slots} free slots of {task.nodes} needed at once{asked}"


def _quota(task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    if offer.quota_slots is None or offer.quota_slots >= task.nodes:
        return None
    if offer.quota_slots <= 0:
        return "is used up to the provider's quota; free some of it or ask for more"
    return f"has {offer.quota_slots} slots left of the provider's quota, of {task.nodes} needed at once"


def _cooling_down(_task: TaskSpec, offer: Offer, _now: datetime) -> str | None:
    if not offer.cooling_down:
        return None
    return offer.cooling_reason or "refused, took back capacity or did not answer a moment ago"


def _any_of(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


# What offers of one market, hazard, start, speed and end are refused for alike, whatever their host, place and price.
OF_A_KIND: Final[tuple[Check, ...]] = (_market, _deadline, _unprotected, _endless, _ending)
_LASTING: Final[tuple[Check, ...]] = (
    _market,
    _shape,
    _nodes,
    _provider,
    _region,
    _residency,
    _architecture,
    _price_cap,
    _budget,
    _trust,
    _deadline,
    _unprotected,
    _endless,
    _ending,
)
_PASSING: Final[tuple[Check, ...]] = (_room, _quota, _cooling_down)
