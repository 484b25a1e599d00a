"""How one lease goes, second by second: restart, work, checkpoints, and what is lost when it ends early."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

_NOTHING: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What leased time went into. The parts sum to the time leased.

    Attributes:
        restart: Boot, pull and restore, before new work.
        writing: Checkpoints being written.
        kept: Work that a checkpoint holds, or the end of the job.
        at_risk: Work since the last checkpoint.
    """

    restart: timedelta
    writing: timedelta
    kept: timedelta
    at_risk: timedelta

    @property
    def leased(self) -> timedelta:
        """All of it."""
        return self.restart + self.writing + self.kept + self.at_risk


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseCourse:
    """A lease as it goes if nothing interrupts it.

    Attributes:
        restart: Time from the grant to the first new work.
        work: Time of work at the pool's speed, to the end of the job.
        interval: Work between two checkpoints; None where none is written.
        write: Time one checkpoint takes; none is written at the very end.
    """

    restart: timedelta
    work: timedelta
    interval: timedelta | None
    write: timedelta

    @property
    def length(self) -> timedelta:
        """Time from the grant to the end of the job."""
        writes = 0 if self.interval is None else -(-self.work // self.interval) - 1
        return self.restart + self.work + max(writes, 0) * self.write

    def spent(self, elapsed: timedelta) -> Spent:
        """Return what the first `elapsed` of the lease went into, at most its length."""
        restart = min(elapsed, self.restart)
        since = elapsed - restart
        if self.interval is None or self.work <= self.interval:
            return Spent(restart=restart, writing=_NOTHING, kept=_NOTHING, at_risk=since)
        segments, rest = divmod(since, self.interval + self.write)
        working = min(rest, self.interval)
        return Spent(
            restart=restart,
            writing=segments * self.write + (rest - working),
            kept=segments * self.interval,
            at_risk=working,
        )
