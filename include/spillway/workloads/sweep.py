"""A search for good parameters: Ray Tune inside one lease, and a table of trials that outlives the lease.

The table is saved whenever a trial ends, with the last checkpoint of each that runs. A sweep that goes on elsewhere repeats no
trial that had ended, and goes on with the others from their checkpoints. A Ray that dies inside the lease is started again.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING

from spillway.model import Launcher
from spillway.workloads.search import Request, Search, running
from spillway.workloads.space import draw, parse_space
from spillway.workloads.sweeping.checks import Room, look_up
from spillway.workloads.sweeping.choices import Schedule, SearchBy, choose
from spillway.workloads.sweeping.limits import parse_limits, reason_to_stop
from spillway.workloads.sweeping.rows import best_of, final_values
from spillway.workloads.sweeping.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from spillway.model import Submission
    from spillway.runtime import Session
    from spillway.workloads.sweeping.limits import Limits

log = logging.getLogger(__name__)

_MOST_LOSSES = 3
"""How often Ray may die with no trial ended in between."""

_MOST_ROWS = 200
"""Of the table in the result, which goes through Airflow's XCom; the file has all."""


def sweep(  # noqa: PLR0913  # the arguments of a task are flat JSON
    session: Session,
    *,
    dataset: str,
    space: Mapping[str, JsonValue],
    num_samples: int,
    max_steps: int,
    grace_steps: int | None = None,
    metric: str = "validation_loss",
    mode: str = "min",
    search: str = "random",
    scheduler: str = "asha",
    reduction_factor: int = 2,
    seed: int = 0,
    trainable: str = "spillway.workloads.train:trial",
    cpus: int | None = None,
    cpus_per_trial: float = 1,
    accelerators_per_trial: float = 0,
    max_seconds: float | None = None,
    max_usd: float | None = None,
    stop_when: Mapping[str, JsonValue] | None = None,
    output: str | None = None,
) -> dict[str, JsonValue]:
    """Try `num_samples` points of `space` and return the best and the table of trials; `docs/sweeps.md` has it at length.

    Args:
        session: The attempt it runs in.
        dataset: Folder of the dataset, handed on to each trial.
        space: As `space.parse_space` reads it.
        num_samples: Trials in all.
        max_steps: Steps of a trial that is not stopped early.
        grace_steps: Steps before which none is stopped; with `pbt`, between changes. A quarter of `max_steps` unless given.
        metric: Name of the reported number that counts.
        mode: `min` or `max`.
        search: `random`, or `optuna`, which learns from the trials before.
        scheduler: `asha`, `median`, `pbt` or `none`.
        reduction_factor: One in so many trials goes on at each rung of `asha`.
        seed: Of the points, and of each trial's own random numbers.
        trainable: `package.module:function`, see `sweeping.trial.run_function`, or a class, Ray's `Trainable`.
        cpus: CPUs on each machine of the lease; what the task asked for unless given.
        cpus_per_trial: CPUs each trial takes.
        accelerators_per_trial: Accelerators each trial takes; may be a part of one.
        max_seconds: Leased time after which the sweep ends with the best so far.
        max_usd: Money, by the leases' marginal prices, after which it does.
        stop_when: `{"usd_per_improvement": 5}` ends it once making the best better by 1 is expected to cost over 5 USD.
        output: Folder for the whole table and the plots; none are written without.

    Raises:
        SpecError: An argument cannot be, or the checkpoint is of a sweep with other arguments.
        TaskFailedError: Every trial fails; shows the last one's error.
        Preempted: The capacity is taken back, and the table is saved.
    """
    domains = parse_space(space)
    limits = parse_limits(max_seconds=max_seconds, max_usd=max_usd, stop_when=stop_when)
    room = Room.of(session.submission, cpus=cpus)
    asked = Search(
        trainable=trainable,
        dataset=dataset,
        metric=metric,
        mode=mode,
        max_steps=max_steps,
        grace_steps=grace_steps or max(1, max_steps // 4),
        reduction_factor=reduction_factor,
        seed=seed,
        cpus_per_trial=cpus_per_trial,
        accelerators_per_trial=accelerators_per_trial,
        search=choose("search", search, SearchBy),
        scheduler=choose("scheduler", scheduler, Schedule),
        is_class=look_up(trainable),
    )
    room.check(asked, num_samples=num_samples, domains=domains)
    table = Table(session, asked, space=space, num_samples=num_samples, share=room.share(asked))
    table.restore()
    drawn = (
        {}
        if asked.search is SearchBy.OPTUNA
        else {trial: draw(domains, seed=seed, trial=trial) for trial in range(num_samples)}
    )
    why = _run(session, table, limits, room=room, space=dict(space), drawn=drawn)
    return _result(table, why=why, output=output)


def _run(
    session: Session,
    table: Table,
    limits: Limits,
    *,
    room: Room,
    space: dict[str, JsonValue],
    drawn: dict[int, dict[str, JsonValue]],
) -> str | None:
    """Run what remains; return why the sweep ended before that was done, or None."""
    losses, ended = 0, table.ended
    why = table.stopped_by
    while table.remaining and why is None:
        request = Request(
            search=table.search,
            space=space,
            num_samples=table.num_samples,
            rows=tuple(table.rows.values()),
            drawn=drawn,
            checkpoints=table.checkpoints(),
            arrivals=str(table.arrivals),
            checkpoint_seconds=session.checkpoint_interval.total_seconds(),
            cpus=room.cpus,
            accelerators=room.accelerators,
            shared=_shared_by(session.submission),
        )
        why = _listen(table, limits, request)
        if not table.remaining or why is not None:
            break
        losses = 1 if table.ended > ended else losses + 1
        ended = table.ended
        if losses > _MOST_LOSSES:
            raise table.failure("Ray ended before the trials did; the lines before say why")
        log.warning("%d trial(s) are left, and Ray is gone: starting again", table.remaining)
        table.rewind()
    return why


def _shared_by(submission: Submission) -> tuple[str, str] | None:
    """Return where the lease's machines share files, where Ray spans them all; None where Ray is this process's own."""
    if submission.launcher is not Launcher.RAY:
        return None
    return submission.store, f"{submission.prefix}/trials"


def _listen(table: Table, limits: Limits, request: Request) -> str | None:
    """Take what the trials report until no more comes; return why they were stopped, or None."""
    with running(request) as reports:
        for some in reports:
            table.pay()
            table.leave_if_preempted()
            table.take(some)
            why = reason_to_stop(
                limits,
                table.spent,
                values=final_values(table.rows.values()) if limits.usd_per_improvement else (),
                mode=table.search.mode,
            )
            if why is not None and table.remaining:
                log.info("the sweep ends: %s", why)
                table.cut(why)
                return why
    return None


def _result(table: Table, *, why: str | None, output: str | None) -> dict[str, JsonValue]:
    """Return the best trial, every row, what it took and where the plots are.

    Raises:
        TaskFailedError: There is no trial to choose.
    """
    rows = [table.rows[trial] for trial in sorted(table.rows)]
    best = best_of(rows, mode=table.search.mode)
    if best is None:
        raise table.failure("no trial gave a number to compare")
    result: dict[str, JsonValue] = {
        "best": {"params": best.params, "metric": best.metric, "trial": best.trial},
        "trials": table.as_json(rows[:_MOST_ROWS], curves=False),
        "trials_in_all": len(rows),
        "spent": asdict(table.spent),
        "stopped_by": why,
    }
    if output is not None:
        from spillway.workloads.sweeping.artefacts import write_artefacts

        written = write_artefacts(
            output,
            rows,
            table=table.as_json(rows, curves=True),
            best=best,
            metric=table.search.metric,
            mode=table.search.mode,
        )
        result["artefacts"] = dict(written)
    return result
