"""`spillway plan`: where a set of jobs that could start now adds least to the bill, all of them together."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from spillway.catalog.offers import left_of_quotas, make_offers
from spillway.catalog.pools_file import load_pools
from spillway.catalog.pools_schema import to_instant
from spillway.errors import ScenarioError, SpillwayError
from spillway.ledger import Ledger
from spillway.model import PoolDay, PoolUsage, SpeedSample
from spillway.placement.estimate import estimate
from spillway.placement.experience import LOOK_BACK, Experience, outlook
from spillway.placement.explain import aligned, usd
from spillway.placement.feasible import refusal
from spillway.placement.mix import Mix, PoolRoom, cheapest_mix
from spillway.placement.price import hours
from spillway.placement.table_choice import room_of
from spillway.sim.job_files import read_jobs
from spillway.sim.scenario import SimulatedJob, store_jurisdiction

if TYPE_CHECKING:
    import argparse

    from spillway.model import Offer, Pool, TaskSpec

_HEADER: Final = ("job", "slots", "hours each", "pool", "one by one")
_NOWHERE: Final = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the books tell; nothing where there are none.

    Attributes:
        usage: Of each pool, by name.
        days: What was seen of each pool, a day at a time.
        speeds: How fast leases worked, by workload.
    """

    usage: Mapping[str, PoolUsage]
    days: Mapping[str, Sequence[PoolDay]]
    speeds: Mapping[str, Sequence[SpeedSample]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the pools have for one job.

    Attributes:
        stays: By pool that can take it, how long it is expected to be leased there.
        refusals: By pool that cannot, why.
    """

    job: SimulatedJob
    stays: Mapping[str, timedelta]
    refusals: Mapping[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of the command."""
    parser.add_argument("--pools", type=Path, required=True, help="the pools file")
    parser.add_argument("--jobs", type=Path, required=True, metavar="FILE",
                        help="jobs from a .csv or .jsonl file, one a row")  # fmt: skip
    parser.add_argument(
        "--ledger", metavar="URL", help="what is leased and used up already; by default nothing"
    )
    parser.add_argument(
        "--at", metavar="TIME", help="when they start, such as 2026-10-05T18:00Z; by default now"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print where each job goes, and return the exit status: 1 where some have no pool."""
    try:
        now = _start(options.at)
        pools = load_pools(options.pools)
        jobs = read_jobs(options.jobs, now=now)
        known = _known(options.ledger, pools, jobs, now)
        asked = [_ask(job, pools, known, now) for job in jobs]
        rooms = _rooms(jobs, pools, known, now)
        sizes = [job.spec.nodes for job in jobs]
        found = cheapest_mix([one.stays for one in asked], rooms, now, nodes=sizes)
        alone = _one_by_one(asked, rooms, now)
        # A search that was cut off may have missed even that.
        together = min(found, alone, key=_rank)
    except SpillwayError as error:
        sys.stderr.write(f"spillway plan: {error}\n")
        return 1
    sys.stdout.write((_as_json if options.json else _as_text)(asked, together, alone))
    return 1 if None in together.pools else 0


def _start(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        return to_instant(text)
    except ValueError as error:
        raise ScenarioError(f"--at {text}: {error}") from error


def _known(
    url: str | None, pools: Sequence[Pool], jobs: Sequence[SimulatedJob], now: datetime
) -> Known:
    if url is None:
        return Known(usage={}, days={}, speeds={})
    ledger = Ledger.open_to_read(url)
    try:
        since = now - LOOK_BACK
        return Known(
            usage=ledger.usage(pools, now=now, cool_down=timedelta(0)),
            days=ledger.pool_days(pools, since=since, now=now),
            speeds={
                workload: ledger.speeds(workload, since=since)
                for workload in {job.spec.workload for job in jobs}
            },
        )
    finally:
        ledger.close()


def _ask(job: SimulatedJob, pools: Sequence[Pool], known: Known, now: datetime) -> Asked:
    """Return what `job` would find, were it the only one."""
    task = job.spec
    fits: list[tuple[Offer, timedelta]] = []
    refusals: dict[str, str] = {}
    for offer in _offers(task, pools, known, now):
        no = refusal(task, offer, now)
        if no is None:
            fits.append((offer, estimate(task, offer).leased))
        else:
            refusals[offer.pool] = no.reason
    in_time = [each for each in fits if task.deadline is None or now + each[1] <= task.deadline]
    for offer, leased in fits:
        if in_time and (offer, leased) not in in_time:
            refusals[offer.pool] = f"is expected to take {hours(leased):.1f} h and to be late"
    stays = {offer.pool: leased for offer, leased in in_time or fits}
    return Asked(job=job, stays=stays, refusals=refusals)


def _offers(
    task: TaskSpec, pools: Sequence[Pool], known: Known, now: datetime
) -> tuple[Offer, ...]:
    experience = Experience(pool_days=known.days, speeds=known.speeds.get(task.workload, ()))
    seen = outlook(pools, _usage(pools, known), task, experience, now)
    return make_offers(
        seen.pools,
        usage=seen.usage,
        free_slots={},
        task=task,
        now=now,
        store_jurisdiction=store_jurisdiction(task),
        quota_slots=left_of_quotas(pools, known.usage),
    )


def _rooms(
    jobs: Sequence[SimulatedJob], pools: Sequence[Pool], known: Known, now: datetime
) -> list[PoolRoom]:
    """Return the pools with what is left of them; how fast a job works on them is in its own stay."""
    task = jobs[0].spec
    room = {offer.pool: room_of(offer) for offer in _offers(task, pools, known, now)}
    seen = outlook(pools, _usage(pools, known), task, Experience(pool_days=known.days), now)
    return [
        PoolRoom(pool=pool, usage=seen.usage[pool.name], room=room[pool.name])
        for pool in seen.pools
    ]


def _usage(pools: Sequence[Pool], known: Known) -> dict[str, PoolUsage]:
    return {pool.name: known.usage.get(pool.name, PoolUsage()) for pool in pools}


def _rank(mix: Mix) -> tuple[int, Decimal]:
    """Return the key that sorts the best mix first."""
    return mix.pools.count(None), mix.added_usd


def _one_by_one(asked: Sequence[Asked], rooms: Sequence[PoolRoom], now: datetime) -> Mix:
    """Return where the jobs go if each, in the order of the file, takes what is cheapest for itself."""
    left = {one.pool.name: one for one in rooms}
    pools: list[str | None] = []
    added = Decimal(0)
    for one in asked:
        nodes = one.job.spec.nodes
        alone = cheapest_mix([one.stays], list(left.values()), now, nodes=[nodes])
        pools += alone.pools
        added += alone.added_usd
        if (taken := alone.pools[0]) is not None:
            left[taken] = _with_one_more(left[taken], one.stays[taken], nodes)
    return Mix(pools=tuple(pools), added_usd=added, is_proven=False)


def _with_one_more(entry: PoolRoom, leased: timedelta, nodes: int) -> PoolRoom:
    expected = entry.usage.forecast_slot_hours + hours(leased) * nodes
    usage = replace(entry.usage, forecast_slot_hours=expected)
    return replace(entry, usage=usage, room=entry.room - nodes)


def _as_text(asked: Sequence[Asked], together: Mix, alone: Mix) -> str:
    rows = [_HEADER]
    for one, pool, instead in zip(asked, together.pools, alone.pools, strict=True):
        leased = "" if pool is None else f"{hours(one.stays[pool]):.2f}"
        taken = "the same" if instead == pool else instead or _NOWHERE
        rows.append((one.job.name, str(one.job.spec.nodes), leased, pool or _NOWHERE, taken))
    lines = [aligned(rows), "", *_totals(together, alone)]
    for one, pool in zip(asked, together.pools, strict=True):
        if pool is None:
            lines.append(f"{one.job.name} has no pool beside the others:")
            lines += [f"  {name} {reason}" for name, reason in sorted(one.refusals.items())]
            lines += [f"  {name} has no slot left" for name in sorted(one.stays)]
    return "\n".join(lines) + "\n"


def _totals(together: Mix, alone: Mix) -> list[str]:
    placed = len(together.pools) - together.pools.count(None)
    proof = (
        "no other way adds less"
        if together.is_proven
        else "the search for a better way was cut off"
    )
    lines = [f"Together {placed} jobs add {usd(together.added_usd)} to the bill: {proof}."]
    if together.pools.count(None) != alone.pools.count(None):
        some = len(alone.pools) - alone.pools.count(None)
        lines.append(f"One after the other {some} of them find a pool.")
    elif alone.added_usd == together.added_usd:
        lines.append("One after the other, as listed, they add no more.")
    else:
        more = usd(alone.added_usd - together.added_usd)
        lines.append(f"One after the other, as listed, they add {more} more.")
    return lines


def _as_json(asked: Sequence[Asked], together: Mix, alone: Mix) -> str:
    jobs: list[dict[str, Any]] = [
        {
            "name": one.job.name,
            "slots": one.job.spec.nodes,
            "pool": pool,
            "leased_hours": None if pool is None else one.stays[pool] / timedelta(hours=1),
            "pool_one_by_one": instead,
            "refusals": dict(one.refusals),
        }
        for one, pool, instead in zip(asked, together.pools, alone.pools, strict=True)
    ]
    document = {
        "added_usd": float(together.added_usd),
        "added_usd_one_by_one": float(alone.added_usd),
        "is_proven": together.is_proven,
        "jobs": jobs,
    }
    return json.dumps(document, indent=2) + "\n"
