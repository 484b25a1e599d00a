"""The decision that a running job leaves its pool, with what is stored of it and the reason for every offer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from spillway.model import Move, PassedOver
from spillway.model.codec import encode
from spillway.placement.explain import usd
from spillway.placement.feasible import refusal
from spillway.placement.over_time import goes_on_in
from spillway.placement.policy_values import PolicyState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from spillway.model import Offer, TaskSpec
    from spillway.placement.over_time import Weighed


def leaving(
    task: TaskSpec, offers: Iterable[Offer], weighed: Weighed, now: datetime
) -> Move | None:
    """Return the move that follows from what the policy answered; None where the job goes on where it is.

    Args:
        task: What is left to do.
        offers: What the policy was asked with, one of each pool.
        weighed: What it answered.
        now: When it was asked.
    """
    held, better = weighed.situation.job.held, goes_on_in(weighed)
    if held is None or better == held.pool:
        return None
    return Move(
        held=held.pool,
        to=better,
        reason=weighed.decision.reason,
        passed_over=tuple(
            PassedOver(offer=offer, reason=_reason(task, offer, weighed, now))
            for offer in sorted(offers, key=lambda offer: offer.pool)
        ),
        task=replace(task, arguments={}),
        decided_at=now,
        weighed=encode(replace(weighed, state=PolicyState())),
    )


def _reason(task: TaskSpec, offer: Offer, weighed: Weighed, now: datetime) -> str:
    """Return what the policy expects of going on on an offer's pool, or why that was no option."""
    for option in weighed.decision.options:
        if option.pool == offer.pool:
            late = "" if option.in_time else ", and might be late"
            return f"is expected to complete for {usd(option.expected_usd)}{late}"
    no = refusal(task, offer, now)
    return "was seen full" if no is None else no.reason
