"""The policy over time with what it needs around it: value tables, and what is believed of the pools between two looks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Final

from spillway.catalog.one_thread import one_blas_thread
from spillway.catalog.value_tables import ValueTables
from spillway.errors import SpecError
from spillway.model.codec import decode, encode
from spillway.placement.availability_prior import prior
from spillway.placement.over_time import (
    LOOK,
    Situation,
    Weighed,
    has_time,
    new_job,
    pool_views,
    queue_before,
    running_job,
    usable_offers,
    weigh,
    what_is_left,
)
from spillway.placement.policy import still_serves, table_spec
from spillway.placement.policy_values import PolicyState

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from pathlib import Path

    from spillway.ledger import Ledger
    from spillway.model import Heartbeat, Lease, Offer, TaskKey, TaskSpec
    from spillway.placement.policy_values import JobProgress, PoolView
    from spillway.placement.value_table import TableSpec

_LINE_KEPT_FOR: Final = timedelta(seconds=30)
_LONGEST_LINE: Final = 50


class Lookout:
    """Asks the policy, and keeps what it remembers in the ledger, so that any process goes on from there.

    What is remembered is about pools and not about jobs: all jobs that may use the same pools share it.
    """

    def __init__(self, ledger: Ledger, tables: ValueTables) -> None:
        self._ledger = ledger
        self._tables = tables
        self._specs: dict[str, TableSpec] = {}
        self._line: tuple[datetime, list[tuple[datetime, str, TaskSpec]]] | None = None

    def before_placing(
        self,
        task: TaskSpec,
        offers: Iterable[Offer],
        now: datetime,
        *,
        asking: TaskKey | None = None,
    ) -> Weighed | None:
        """Return what to do with a task that holds nothing; None where the policy has nothing to say.

        May take a second: the value table is made where there is none yet.
        """
        if not has_time(task):
            return None
        usable = usable_offers(task, offers, now)
        queue = queue_before(self._before(task, asking, now), task, usable, now)
        views = pool_views(task, usable, moved_gib=task.state_gib + task.input_gib)
        return self._weigh(new_job(task, queue=queue), views, now, None)

    def while_running(
        self,
        task: TaskSpec,
        lease: Lease,
        taken: Offer,
        said: Heartbeat | None,
        offers: Iterable[Offer],
        now: datetime,
    ) -> Weighed | None:
        """Return what to do with the job on `lease`, placed on the offer `taken`; None where the policy has nothing to say."""
        if not has_time(task):
            return None
        left = what_is_left(task, said)
        usable = usable_offers(left, offers, now, held=lease.pool)
        queue = queue_before(self._before(task, lease.task, now), left, usable, now)
        job = replace(running_job(task, lease, taken, said, now), queue=queue)
        views = pool_views(task, usable, moved_gib=task.state_gib + task.input_gib)
        return self._weigh(job, views, now, lease.key)

    def _before(self, task: TaskSpec, asking: TaskKey | None, now: datetime) -> list[TaskSpec]:
        """Return the tasks that hold nothing and have their turn before, by their deadlines, then by name."""
        assert task.deadline is not None
        if self._line is None or not timedelta(0) <= now - self._line[0] < _LINE_KEPT_FOR:
            waiting = self._ledger.waiting(now=now, overdue=LOOK, most=_LONGEST_LINE)
            self._line = (
                now,
                [
                    (one.unplaced.task.deadline, str(one.task), one.unplaced.task)
                    for one in waiting
                    if one.unplaced.task is not None
                    and one.unplaced.task.deadline is not None
                    and one.unplaced.planned is None
                ],
            )
        mine = task.deadline, str(asking)
        return [spec for deadline, key, spec in self._line[1] if (deadline, key) < mine]

    def _weigh(
        self, job: JobProgress, pools: tuple[PoolView, ...], now: datetime, key: str | None
    ) -> Weighed | None:
        if not any(pool.is_steady for pool in pools):
            return None  # nothing to fall back on: the deadline cannot be kept for certain, so nothing is held back for it
        model = prior(sum(not pool.is_steady for pool in pools))
        name = _name_of(pools)
        spec = self._spec(job, pools, now, key)
        situation = Situation(
            job=job, pools=pools, now=now, state=self._remembered(name), spec=spec
        )
        with one_blas_thread():
            weighed = weigh(situation, table=self._tables.get(spec, model), model=model)
        self._ledger.believe(name, encode(weighed.state), now=now)
        return weighed

    def _spec(
        self, job: JobProgress, pools: tuple[PoolView, ...], now: datetime, key: str | None
    ) -> TableSpec:
        """Return the table to look into: that of the lease's last look, as long as it serves."""
        wanted = table_spec(job, pools, now)
        if key is None:
            return wanted
        kept = self._specs.get(key)
        if kept is None or not still_serves(kept, wanted):
            self._specs[key] = kept = wanted
        return kept

    def forget(self, key: str) -> None:
        """Forget a lease that has ended."""
        self._specs.pop(key, None)

    def _remembered(self, name: str) -> PolicyState:
        kept = self._ledger.belief(name)
        if kept is None:
            return PolicyState()
        try:
            return decode(kept, PolicyState)
        except SpecError:  # another version's: beliefs start over from the prior
            return PolicyState()


@cache
def tables_in(folder: Path) -> ValueTables:
    """Return this process's cache of value tables, kept below `folder`."""
    return ValueTables(folder)


def _name_of(pools: tuple[PoolView, ...]) -> str:
    """Return the name under which is kept what is believed of these pools together."""
    names = "\n".join(sorted(pool.name for pool in pools if not pool.is_steady))
    return hashlib.sha256(names.encode()).hexdigest()[:32]
