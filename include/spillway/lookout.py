"""The policy over time with what it needs around it: value tables, and what is believed of the pools between two looks."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Final

from spillway.catalog.one_thread import one_blas_thread
from spillway.catalog.value_tables import ValueTables
from spillway.errors import SpecError
from spillway.kept import Kept
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
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path

    from spillway.ledger import Ledger
    from spillway.ledger.waiting import LineMember
    from spillway.model import Heartbeat, Lease, Offer, TaskKey, TaskSpec
    from spillway.placement.availability import AvailabilityModel
    from spillway.placement.policy_values import PoolView
    from spillway.placement.value_table import TableSpec, ValueTable

_LONGEST_LINE: Final = 50


class Silence(StrEnum):
    """Why the policy does not say what to do."""

    NOTHING_TO_SAY = "nothing_to_say"
    """The task has no time to use, or no steady capacity to fall back on."""
    NOT_YET = "not_yet"
    """A value table is made, aside; it takes a second. Ask again."""


class Lookout:
    """Asks the policy, and keeps what it remembers in the ledger, so that any process goes on from there.

    What is remembered is about pools and not about jobs: all jobs that may use the same pools share it.
    """

    def __init__(self, ledger: Ledger, tables: ValueTables) -> None:
        self._ledger = ledger
        self._tables = tables
        self._specs: dict[str, TableSpec] = {}
        self._looked: tuple[datetime | None, dict[str, PolicyState]] = (None, {})
        self._line: Kept[None, Sequence[LineMember]] = Kept(LOOK, tables.aside)

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
        queue = queue_before(_before(task, asking, self._read_line(now)), task, usable, now)
        job = new_job(task, queue=queue)
        pools = pool_views(task, usable, moved_gib=task.state_gib + task.input_gib)
        if not _can_fall_back(pools):
            return None
        spec, state = table_spec(job, pools, now), self._remembered(_name_of(pools))
        table = self._tables.get(spec, _model_of(pools))
        weighed = _asked(Situation(job=job, pools=pools, now=now, state=state, spec=spec), table)
        self._believe(weighed)
        return weighed

    def while_running(
        self,
        task: TaskSpec,
        lease: Lease,
        said: Heartbeat | None,
        offers: Sequence[Offer],
        now: datetime,
        *,
        next_look: timedelta = LOOK,
    ) -> Weighed | Silence:
        """Return what to do with the job on `lease`, or why the policy does not say.

        Jobs that are looked at at the same moment share one belief, read and kept once.

        Args:
            task: As it was placed.
            lease: Where it runs.
            said: What it said last; None when it has said nothing.
            offers: One of each pool.
            now: The moment of the look.
            next_look: How long it may be until this is asked again.
        """
        if not has_time(task):
            return Silence.NOTHING_TO_SAY
        left = what_is_left(task, lease, said, now)
        usable = usable_offers(left, offers, now, held=lease.pool)
        line = self._line.lately(None, now, lambda _: self._read_line(now))
        queue = queue_before(_before(task, lease.task, line), left, usable, now)
        taken = next(offer for offer in offers if offer.pool == lease.pool)
        job = running_job(task, lease, taken, said, now)
        job = replace(job, queue=queue, next_look=next_look)
        pools = pool_views(task, usable, moved_gib=task.state_gib + task.input_gib)
        if not _can_fall_back(pools):
            return Silence.NOTHING_TO_SAY
        table = self._table(lease.key, table_spec(job, pools, now), _model_of(pools))
        if table is None:
            return Silence.NOT_YET
        name, beliefs = _name_of(pools), self._beliefs_at(now)
        state = beliefs.get(name) or self._remembered(name)
        situation = Situation(job=job, pools=pools, now=now, state=state, spec=table.spec)
        weighed = _asked(situation, table)
        if name not in beliefs:
            self._believe(weighed)
            beliefs[name] = weighed.state
        return weighed

    def _read_line(self, now: datetime) -> Sequence[LineMember]:
        return self._ledger.line(now=now, overdue=LOOK, most=_LONGEST_LINE)

    def _table(self, key: str, wanted: TableSpec, model: AvailabilityModel) -> ValueTable | None:
        """Return the table of the lease's last look, as long as it serves or the next one is not there; None without either."""
        kept = self._specs.get(key)
        if kept is None or not still_serves(kept, wanted):
            table = self._tables.at_hand(wanted, model)
            if table is not None:
                self._specs[key] = wanted
            if table is not None or kept is None or not _is_alike(kept, wanted):
                return table
        return self._tables.at_hand(kept, model)

    def forget_others(self, keys: Collection[str]) -> None:
        """Forget what was looked into for other leases than `keys`."""
        self._specs = {key: spec for key, spec in self._specs.items() if key in keys}

    def _believe(self, weighed: Weighed) -> None:
        now = weighed.situation.now
        self._ledger.believe(_name_of(weighed.situation.pools), encode(weighed.state), now=now)

    def _remembered(self, name: str) -> PolicyState:
        kept = self._ledger.belief(name)
        if kept is None:
            return PolicyState()
        try:
            return decode(kept, PolicyState)
        except SpecError:  # another version's: beliefs start over from the prior
            return PolicyState()

    def _beliefs_at(self, now: datetime) -> dict[str, PolicyState]:
        """Return what is believed since the look at `now` began, by the name of the pools."""
        if self._looked[0] != now:
            self._looked = (now, {})
        return self._looked[1]


@cache
def tables_in(folder: Path) -> ValueTables:
    """Return this process's cache of value tables, kept below `folder`."""
    return ValueTables(folder)


def _before(task: TaskSpec, asking: TaskKey | None, line: Iterable[LineMember]) -> list[TaskSpec]:
    """Return the tasks that hold nothing and have their turn before, by their deadlines, then by name."""
    assert task.deadline is not None
    mine = task.deadline, str(asking)
    return [
        one.task
        for one in line
        if one.key != asking
        and one.task.deadline is not None
        and (one.task.deadline, str(one.key)) < mine
    ]


def _can_fall_back(pools: Iterable[PoolView]) -> bool:
    """Whether there is steady capacity; else the deadline cannot be kept for certain, and nothing is held back for it."""
    return any(pool.is_steady for pool in pools)


def _asked(situation: Situation, table: ValueTable) -> Weighed:
    with one_blas_thread():
        return weigh(situation, table=table, model=_model_of(situation.pools))


def _is_alike(spec: TableSpec, wanted: TableSpec) -> bool:
    """Whether a table is of the same market, so that it can stand in for the one that is wanted."""
    return (spec.pools, spec.evictions_per_hour) == (wanted.pools, wanted.evictions_per_hour)


def _model_of(pools: Iterable[PoolView]) -> AvailabilityModel:
    return prior(sum(not pool.is_steady for pool in pools))


def _name_of(pools: tuple[PoolView, ...]) -> str:
    """Return the name under which is kept what is believed of these pools together."""
    names = "\n".join(sorted(pool.name for pool in pools if not pool.is_steady))
    return hashlib.sha256(names.encode()).hexdigest()[:32]
