"""What was lived through with pools and work, put into the values that placement decides on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spillway.model import Pool, PoolDay, PoolUsage, SpeedSample
from spillway.placement.forecast import with_forecasts
from spillway.placement.hazard import with_learned_hazards
from spillway.placement.throughput import with_learned_speeds

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from spillway.model import TaskSpec

# Four half-lives: what is older counts for less than a sixteenth.
LOOK_BACK: Final = timedelta(days=56)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience:
    """What was seen in the last `LOOK_BACK`.

    Attributes:
        pool_days: By pool name, hours held and losses, a day at a time.
        speeds: How fast leases of the task's workload worked.
    """

    pool_days: Mapping[str, Sequence[PoolDay]] = field(
        default_factory=dict[str, "Sequence[PoolDay]"]
    )
    speeds: Sequence[SpeedSample] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Pools and their use as they are to be reckoned with for one task."""

    pools: tuple[Pool, ...]
    usage: Mapping[str, PoolUsage]


def outlook(
    pools: Iterable[Pool],
    usage: Mapping[str, PoolUsage],
    task: TaskSpec,
    experience: Experience,
    now: datetime,
) -> Outlook:
    """Return the pools with learned hazards and speeds, and their use with its forecast; the order is kept."""
    learned = with_learned_hazards(pools, experience.pool_days, now)
    learned = with_learned_speeds(learned, task, experience.speeds, now)
    return Outlook(pools=learned, usage=with_forecasts(usage, learned, experience.pool_days, now))
