"""A stored decision made again, from nothing but what was stored with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spillway.errors import LedgerError
from spillway.model import Move, Placement, Unplaced
from spillway.model.codec import decode
from spillway.placement.availability_prior import prior
from spillway.placement.choose import choose
from spillway.placement.leaving import leaving
from spillway.placement.over_time import Weighed, placed, wait_until, weigh
from spillway.placement.shifting import RoomAhead, later_start, waiting
from spillway.placement.value_table import build_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from pydantic import JsonValue

    from spillway.model import Offer, TaskSpec
    from spillway.placement.availability import AvailabilityModel
    from spillway.placement.value_table import TableSpec, ValueTable


def recompute(
    decision: Placement | Unplaced,
    *,
    table_of: Callable[[TableSpec, AvailabilityModel], ValueTable] = build_table,
) -> Placement | Unplaced:
    """Return the decision made again from what was stored with it: the offers, the policy's situation, the room foreseen.

    It equals the one that was stored, unless the rules have changed since, or somebody has changed the record.

    Args:
        decision: As it was stored.
        table_of: Where the policy's value tables come from; making one takes a second.

    Raises:
        LedgerError: It was stored without its task or its time.
    """
    task, decided_at = decision.task, decision.decided_at
    if task is None or decided_at is None:
        raise LedgerError(
            "this decision was stored without its task and time, so it cannot be made again"
        )
    offers = [passed.offer for passed in decision.passed_over]
    if isinstance(decision, Placement):
        offers.append(decision.offer)
    again = _decided(task, offers, decision.weighed, decided_at, table_of)
    if isinstance(decision, Placement) or decision.foreseen is None:
        return again
    ahead = decode(decision.foreseen, tuple[RoomAhead, ...])
    if isinstance(again, Unplaced):
        return again
    until = _wait_until(decision.weighed)
    plan = later_start(task, again, ahead, decided_at, wait_until=until)
    if plan is None:
        return again
    return waiting(again, plan, ahead, decided_at)


def recompute_move(
    move: Move, *, table_of: Callable[[TableSpec, AvailabilityModel], ValueTable] = build_table
) -> Move | None:
    """Return the decision to leave a pool made again from what was stored with it; None where the job would now stay."""
    offers = [passed.offer for passed in move.passed_over]
    return leaving(move.task, offers, _weighed_again(move.weighed, table_of), move.decided_at)


def _wait_until(stored: JsonValue) -> datetime | None:
    return None if stored is None else wait_until(decode(stored, Weighed).situation)


def _decided(
    task: TaskSpec,
    offers: Sequence[Offer],
    stored: JsonValue,
    decided_at: datetime,
    table_of: Callable[[TableSpec, AvailabilityModel], ValueTable],
) -> Placement | Unplaced:
    """Return what the expected cost decided, or the policy over time where it was asked."""
    if stored is None:
        return choose(task, offers, decided_at)
    return placed(task, offers, _weighed_again(stored, table_of), decided_at)


def _weighed_again(
    stored: JsonValue, table_of: Callable[[TableSpec, AvailabilityModel], ValueTable]
) -> Weighed:
    situation = decode(stored, Weighed).situation
    model = prior(sum(not pool.is_steady for pool in situation.pools))
    return weigh(situation, table=table_of(situation.spec, model), model=model)
