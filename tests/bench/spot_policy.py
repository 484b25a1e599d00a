"""The production policy behind the interface of the spot evaluator: `spot_policy:SpillwayPolicy`.

The evaluator's package must be importable as `spoteval`.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from spoteval import Action, Job, Kind, Observation

from spillway.catalog.value_tables import ValueTables
from spillway.model import Market
from spillway.placement.availability_prior import prior
from spillway.placement.over_time import Situation, goes_on_in, weigh
from spillway.placement.policy import still_serves, table_spec
from spillway.placement.policy_values import Held, JobProgress, PolicyState, PoolView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spillway.placement.availability import AvailabilityModel
    from spillway.placement.over_time import Weighed
    from spillway.placement.value_table import TableSpec

START = datetime(2000, 1, 1, tzinfo=UTC)
ON_DEMAND = "on_demand"


class SpillwayPolicy:
    """Asks the policy at every tick, with what the evaluator shows and nothing else, and does what production does."""

    def believed(self, zones: int) -> AvailabilityModel:
        return prior(zones)

    def reset(self, job: Job, zones: Sequence[str], tick_s: int) -> None:
        self.model = self.believed(len(zones))
        self.zones = [f"{number:03}:{name}" for number, name in enumerate(zones)]
        self.zone_move = timedelta(seconds=job.zone_move_s)
        self.state = PolicyState()
        self.spec: TableSpec | None = None
        self.used_zone: int | None = None
        progress = JobProgress(
            work_left=timedelta(seconds=job.work_s),
            deadline=START + timedelta(seconds=job.deadline_s),
            restart_overhead=timedelta(seconds=job.restart_s),
            next_look=timedelta(seconds=tick_s),
        )
        prices = [job.spot_price] * len(zones)
        self._prepare(progress, self._pools(prices, [None] * len(zones), job.od_price), START)

    def decide(self, obs: Observation) -> Action:
        now = START + timedelta(seconds=obs.now_s)
        pools = self._pools(obs.spot_price, obs.spot_up, obs.od_price)
        progress = self._progress(obs)
        self._prepare(progress, pools, now)
        assert self.spec is not None
        situation = Situation(
            job=progress, pools=tuple(pools), now=now, state=self.state, spec=self.spec
        )
        table = tables().get(self.spec, self.model)
        weighed = weigh(situation, table=table, model=self.model)
        self.state = weighed.state
        return self._action(self.followed(weighed), obs)

    def followed(self, weighed: Weighed) -> str | None:
        """Return the pool to be in: production waits and moves only for what shows on a bill."""
        return goes_on_in(weighed)

    def _prepare(self, progress: JobProgress, pools: Sequence[PoolView], now: datetime) -> None:
        wanted = table_spec(progress, pools, now)
        if self.spec is None or not still_serves(self.spec, wanted):
            self.spec = wanted
            tables().get(wanted, self.model)

    def _progress(self, obs: Observation) -> JobProgress:
        held = None
        if obs.running is not Kind.NONE:
            pool = ON_DEMAND if obs.running is Kind.ON_DEMAND else self.zones[obs.zone]
            held = Held(pool=pool, restart_left=timedelta(seconds=obs.pending_restart_s))
        return JobProgress(
            work_left=timedelta(seconds=obs.work_left_s),
            deadline=START + timedelta(seconds=obs.deadline_s),
            restart_overhead=timedelta(seconds=obs.restart_s),
            next_look=timedelta(seconds=obs.tick_s),
            held=held,
        )

    def _pools(
        self, prices: Sequence[float], seen: Sequence[bool | None], od_price: float
    ) -> list[PoolView]:
        spot = [
            PoolView(
                name=name,
                market=Market.SPOT,
                usd_per_hour=price,
                available=available,
                extra_restart=timedelta(0) if self.used_zone in (None, number) else self.zone_move,
            )
            for number, (name, price, available) in enumerate(
                zip(self.zones, prices, seen, strict=True)
            )
        ]
        return [*spot, PoolView(name=ON_DEMAND, market=Market.ON_DEMAND, usd_per_hour=od_price)]

    def _action(self, pool: str | None, obs: Observation) -> Action:
        if pool is None:
            return Action(Kind.NONE, self._where_to_look(obs))
        if pool == ON_DEMAND:
            zone = obs.zone if self.used_zone is None else self.used_zone
            kind = Kind.ON_DEMAND
        else:
            zone, kind = self.zones.index(pool), Kind.SPOT
        # Whether an unseen zone had room shows at the next tick, when it is the zone one is in.
        if kind is Kind.ON_DEMAND or obs.spot_up[zone]:
            self.used_zone = zone
        return Action(kind, zone)

    def _where_to_look(self, obs: Observation) -> int:
        """Return the zone likeliest to be available, of those that are not seen; the present one when all are."""
        unseen = [number for number, seen in enumerate(obs.spot_up) if seen is None]
        if not unseen:
            return obs.zone
        chances = {belief.pool: belief.chances for belief in self.state.beliefs}

        def available(number: int) -> float:
            states = chances[self.zones[number]]
            return sum(states[len(states) // 2 :])

        return max(unseen, key=available)


class Unhesitating(SpillwayPolicy):
    """Does what the policy thinks best, however little it saves."""

    def followed(self, weighed: Weighed) -> str | None:
        return weighed.decision.pool


@cache
def tables() -> ValueTables:
    """Return the cache of value tables, below `SPILLWAY_CACHE` or the user's cache folder."""
    chosen = os.environ.get("SPILLWAY_CACHE")
    return ValueTables(Path(chosen) if chosen else Path.home() / ".cache" / "spillway" / "tables")
