"""A sweep spread over pools: each trial a task of its own, placed on its own, and one study that all of them share.

    plan    which trials there are: the arguments of each task, to be mapped over
    trial   one of them; runs where its task was placed, and reaches nothing but the store that `output` is in
    table   the best and the rows of all, as `sweep.sweep` returns them, once all tasks are over

What is known of a trial is in the study and not in its task. A task that is preempted, retried or cleared goes on with the same
trial and the same parameters, and one whose trial has ended returns its row again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from spillway.errors import SpecError, TaskFailedError
from spillway.model import codec
from spillway.workloads import dataset
from spillway.workloads.spread_search import SpreadSearch, make_search
from spillway.workloads.spread_trial import run_trial
from spillway.workloads.sweeping.artefacts import write_artefacts
from spillway.workloads.sweeping.limits import Limits, Spent, parse_limits, reason_to_stop
from spillway.workloads.sweeping.rows import Row, TrialStatus, best_of, final_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import JsonValue

    from spillway.checkpoints import ObjectStore
    from spillway.runtime import Session
    from spillway.workloads.shared_study import SharedStudy, SharedTrial

SEARCH: Final = "sweep.json"
"""What the sweep in a folder is: written once, by whichever trial is first."""

ENDED: Final = "ended.json"
"""Why the sweep ended before all trials did: written once, by whichever trial is the first to see that."""

_MOST_ROWS: Final = 200
_MOST_FAILURES: Final = 3


def plan(
    *,
    max_seconds: float | None = None,
    max_usd: float | None = None,
    stop_when: Mapping[str, JsonValue] | None = None,
    **search: Any,
) -> list[dict[str, JsonValue]]:
    """Return the arguments of each trial, which are those of this and its number. Touches nothing.

    Raises:
        SpecError: The search or a limit has mistakes; says the remedy.
    """
    limits: dict[str, Any] = {
        "max_seconds": max_seconds,
        "max_usd": max_usd,
        "stop_when": stop_when,
    }
    parse_limits(**limits)
    given = {name: limit for name, limit in limits.items() if limit is not None}
    asked = make_search(search)
    return [{"trial": number, **search, **given} for number in range(asked.num_samples)]


def trial(  # the arguments of a task are flat JSON
    session: Session,
    *,
    output: str,
    trial: int,
    max_seconds: float | None = None,
    max_usd: float | None = None,
    stop_when: Mapping[str, JsonValue] | None = None,
    **search: Any,
) -> JsonValue:
    """Run one trial until it ends, the others are better, or the sweep has had enough; return its row of the table.

    A trial that has not begun when the sweep ends has no row, and returns None.

    Args:
        session: The attempt it runs in.
        output: Folder of the sweep, the same for all its trials and nobody else's.
        trial: Its number, from 0.
        max_seconds: Leased time, of all trials together, after which the sweep ends with the best so far.
        max_usd: Money, by the leases' marginal prices, after which it does.
        stop_when: As of `sweep.sweep`.
        search: What `spread_search.SpreadSearch` has.

    Raises:
        SpecError: The search has mistakes, or `output` holds another sweep.
        CheckpointError: `output` or the checkpoints cannot be read or written.
        Preempted: The capacity is taken back.
    """
    asked = make_search(search)
    limits = parse_limits(max_seconds=max_seconds, max_usd=max_usd, stop_when=stop_when)
    if not 0 <= trial < asked.num_samples:
        raise SpecError(f"trial is {trial}: give 0 to {asked.num_samples - 1}")
    store = dataset.open_folder(output)
    _claim(store, asked)
    study = _open(store, asked)
    over = _why_ended(store)
    if over is not None and trial not in study.rows():
        return None
    shared = study.begin(trial)
    if shared.row.has_ended:
        return codec.encode(shared.row)
    hopeless = _why_hopeless(study.rows().values())
    if hopeless is not None:
        _end(store, hopeless)
        shared.end(hopeless)
    elif over is not None:
        shared.cut()
    else:
        ends = partial(_end_if_over, store, shared, limits, mode=asked.mode)
        why_over = ends if limits != Limits() else None
        run_trial(session, shared, asked, number=trial, why_over=why_over)
    return codec.encode(shared.row)


def why_ended(output: str) -> str | None:
    """Return why the sweep in the folder ended before all trials did; None unless it has.

    Raises:
        SpecError: `output` is neither a path nor a URL.
        StoreError: It cannot be read.
    """
    return _why_ended(dataset.open_folder(output))


def read_rows(output: str) -> tuple[SpreadSearch, list[Row]]:
    """Return the search in the folder and the row of each of its trials.

    Those that have not ended will not: this is for when all tasks have, and a trial whose task broke apart has failed.

    Raises:
        SpecError: There is no sweep in `output`.
        StoreError: `output` cannot be read.
    """
    store = dataset.open_folder(output)
    asked = dataset.read_value(store, SEARCH, SpreadSearch, "run its trials first")
    rows = _open(store, asked).rows()
    if _why_ended(store) is not None:
        return asked, [_cut_unless_ended(rows[number]) for number in sorted(rows)]
    return asked, [
        _lost_unless_ended(rows.get(number) or Row(trial=number, params={}))
        for number in range(asked.num_samples)
    ]


def table(output: str, rows: Iterable[Row], search: SpreadSearch) -> dict[str, JsonValue]:
    """Return the best trial, the rows, and where the whole table and the plots are: in the folder too.

    Raises:
        TaskFailedError: No trial gave a number to compare.
        StoreError: `output` cannot be written.
    """
    rows = list(rows)
    best = best_of(rows, mode=search.mode)
    if best is None:
        errors = [row.error for row in rows if row.error]
        raise TaskFailedError(
            "\n".join(["no trial gave a number to compare", *errors[:1]]),
            key=output,
            exit_code=None,
        )
    artefacts = write_artefacts(
        output,
        rows,
        table=[codec.encode(row) for row in rows],
        best=best,
        metric=search.metric,
        mode=search.mode,
    )
    return {
        "best": {"params": best.params, "metric": best.metric, "trial": best.trial},
        "trials": [_without_curve(row) for row in rows[:_MOST_ROWS]],
        "trials_in_all": len(rows),
        "spent": asdict(_spent(rows)),
        "stopped_by": why_ended(output),
        "artefacts": dict(artefacts),
    }


def _without_curve(row: Row) -> JsonValue:
    """Return the row for Airflow's XCom; the curves are most of it, and are in the file."""
    fields = codec.encode(replace(row, curve=()))
    assert isinstance(fields, dict)
    return {
        name: value for name, value in fields.items() if name not in ("curve", "checkpoint_step")
    }


def _why_hopeless(rows: Iterable[Row]) -> str | None:
    ended = [row for row in rows if row.has_ended]
    failed = [row for row in ended if row.status is TrialStatus.FAILED]
    if len(failed) < _MOST_FAILURES or len(failed) < len(ended):
        return None
    return f"{failed[0].error}\nnot tried: every trial that ended before has failed, one as above"


def _lost_unless_ended(row: Row) -> Row:
    if row.has_ended:
        return row
    error = "its task came to an end before it did; the task's log says why"
    return replace(row, status=TrialStatus.FAILED, error=error)


def _cut_unless_ended(row: Row) -> Row:
    return row if row.has_ended else replace(row, status=TrialStatus.CUT)


def _spent(rows: Sequence[Row]) -> Spent:
    return Spent(
        seconds=sum(row.seconds for row in rows),
        marginal_usd=sum(row.marginal_usd for row in rows),
        effective_usd=sum(row.effective_usd for row in rows),
    )


def _why_ended(store: ObjectStore) -> str | None:
    written = store.get(ENDED)
    return None if written is None else str(json.loads(written)["why"])


def _end(store: ObjectStore, why: str) -> None:
    store.create(ENDED, json.dumps({"why": why}).encode())


def _end_if_over(
    store: ObjectStore, shared: SharedTrial, limits: Limits, *, mode: str
) -> str | None:
    """Return why the sweep ends now, having ended it for all if this is the first to see; None while it goes on."""
    if (over := _why_ended(store)) is not None:
        return over
    rows = shared.rows()
    why = reason_to_stop(limits, _spent(rows), values=final_values(rows), mode=mode)
    if why is not None:
        _end(store, why)
    return why


def _claim(store: ObjectStore, asked: SpreadSearch) -> None:
    """Make the folder this sweep's; refuse a folder that is another's."""
    if store.create(SEARCH, codec.encode_json(asked)):
        return
    there: Mapping[str, Any] = asdict(
        dataset.read_value(store, SEARCH, SpreadSearch, "run the trial again")
    )
    changed = [name for name, value in asdict(asked).items() if there[name] != value]
    if changed:
        raise SpecError(
            f"{store} holds a sweep with another {' and another '.join(changed)}: "
            "give what it was begun with, or another output"
        )


def _open(store: ObjectStore, asked: SpreadSearch) -> SharedStudy:
    try:
        from spillway.workloads.shared_study import SharedStudy
    except ModuleNotFoundError as error:
        raise SpecError(
            f"a spread sweep needs {error.name}: pip install 'spillway[ray]' where it runs"
        ) from error
    return SharedStudy(store, asked)
