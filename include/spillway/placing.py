"""Where a task goes now: offers are asked for, the policy over time or the expected cost decides, and slack is made use of."""

from __future__ import annotations

import importlib.util
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spillway.model import Placement, TaskKey, TaskSpec, Unplaced
from spillway.placement.choose import choose
from spillway.placement.over_time import placed, wait_until
from spillway.placement.shifting import later_start, waiting

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from spillway.lookout import Lookout
    from spillway.model import Offer
    from spillway.quotes import Quotes

_CAN_PLAN: Final = importlib.util.find_spec("scipy") is not None
_LONGEST_QUEUE: Final = 50
_SAME_MOMENT: Final = timedelta(microseconds=1)
_LATEST_TO_ASK: Final = timedelta(minutes=1)
"""How long room is left to a task after it was to ask again, and did not."""


class Placing:
    """Puts the three questions of a placement one after the other."""

    def __init__(self, quotes: Quotes, lookout: Lookout) -> None:
        self._quotes = quotes
        self._lookout = lookout

    def place(
        self,
        task: TaskSpec,
        now: datetime,
        refused: Collection[str] = (),
        *,
        asking: TaskKey | None = None,
    ) -> Placement | Unplaced:
        """Return where `task` would go now, and why.

        Args:
            task: What is to be placed.
            now: The moment of asking.
            refused: Pools that have just shown that they have no room.
            asking: Whose task it is; what others wait for is left to them.
        """
        offers = self._quotes.offers(task, now, refused)
        if _CAN_PLAN:
            offers = self._beside_others(task, offers, now, refused, asking)
        weighed = self._lookout.before_placing(task, offers, now, asking=asking)
        if weighed is None:
            decision = choose(task, offers, now)
        else:
            decision = placed(task, offers, weighed, now)
        until = None if weighed is None else wait_until(weighed.situation)
        return self._shifted(task, decision, now, asking, until)

    def _beside_others(
        self,
        task: TaskSpec,
        offers: tuple[Offer, ...],
        now: datetime,
        refused: Collection[str],
        asking: TaskKey | None,
    ) -> tuple[Offer, ...]:
        """Return the offers with the room that is left beside tasks which found none and wait, placed together with this one.

        The earliest deadline goes first, then who has waited the longest; a task that is new waits since now.
        """
        queued = self._quotes.waiting_for_room(now, overdue=_LATEST_TO_ASK, most=_LONGEST_QUEUE)
        others = [one for one in queued if one.task != asking]
        if not others:
            return offers
        from spillway.placement.plan import left_beside  # scipy: an extra, and slow

        since = next((one.since for one in queued if one.task == asking), now)
        queue = [(_turn(task, since, asking), task, offers)]
        quoted: list[tuple[TaskSpec, tuple[Offer, ...]]] = []
        for one in others:
            other = one.unplaced.task
            assert other is not None
            known = [found for like, found in quoted if like == other]
            if not known:
                known = [self._quotes.offers(other, now, refused, max_age=_SAME_MOMENT)]
                quoted.append((other, known[0]))
            queue.append((_turn(other, one.since, one.task), other, known[0]))
        place = sorted(range(len(queue)), key=lambda number: queue[number][0])
        line = [queue[number][1:] for number in place]
        return left_beside(line, place.index(0), now)

    def _shifted(
        self,
        task: TaskSpec,
        decision: Placement | Unplaced,
        now: datetime,
        asking: TaskKey | None,
        until: datetime | None,
    ) -> Placement | Unplaced:
        """Return the decision, or the plan to wait for committed capacity where there is time for it and it saves."""
        if isinstance(decision, Unplaced) or task.deadline is None:
            return decision
        if not decision.estimate.cost_usd:
            return decision
        ahead = self._quotes.room_ahead(now, task.deadline, asking=asking)
        plan = later_start(task, decision, ahead, now, wait_until=until)
        return decision if plan is None else waiting(decision, plan, ahead, now)


def _turn(
    task: TaskSpec, since: datetime, key: TaskKey | None
) -> tuple[bool, float, datetime, str]:
    """Return the key that sorts tasks by whose turn it is."""
    deadline = task.deadline.timestamp() if task.deadline is not None else 0.0
    return task.deadline is None, deadline, since, str(key)
