"""Where a task goes now: offers are asked for, the policy over time or the expected cost decides, and slack is made use of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spillway.model import Placement, TaskKey, TaskSpec, Unplaced
from spillway.placement.choose import choose
from spillway.placement.over_time import placed
from spillway.placement.shifting import later_start, waiting

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from spillway.lookout import Lookout
    from spillway.quotes import Quotes


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
        weighed = self._lookout.before_placing(task, offers, now)
        if weighed is None:
            decision = choose(task, offers, now)
        else:
            decision = placed(task, offers, weighed, now)
        return self._shifted(task, decision, now, asking)

    def _shifted(
        self,
        task: TaskSpec,
        decision: Placement | Unplaced,
        now: datetime,
        asking: TaskKey | None,
    ) -> Placement | Unplaced:
        """Return the decision, or the plan to wait for committed capacity where there is time for it and it saves."""
        if isinstance(decision, Unplaced) or task.deadline is None:
            return decision
        if not decision.estimate.cost_usd:
            return decision
        ahead = self._quotes.room_ahead(now, task.deadline, asking=asking)
        plan = later_start(task, decision, ahead, now)
        return decision if plan is None else waiting(decision, plan, ahead, now)
