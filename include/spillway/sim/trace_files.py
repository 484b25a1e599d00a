"""Recorded capacity from files: our own table, and plain recordings at a cadence."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from spillway.catalog.pools_schema import to_instant
from spillway.errors import ScenarioError
from spillway.sim.outages import CapacityTrace
from spillway.sim.rows import Row, read_rows, read_text
from spillway.sim.scenario import unknown_pool

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_WANTED: Final = ("at", "pool", "slots")
_BEGINNING: Final = datetime(2000, 1, 1, tzinfo=UTC)


def read_traces(arguments: Iterable[str], pools: Collection[str]) -> tuple[CapacityTrace, ...]:
    """Return the traces of some command line arguments: `FILE.csv`, or `POOL=FILE.json`.

    A table has the columns `at`, `pool` and `slots`: from `at` on, that many slots could be had. A recording is an object with
    `gap_seconds` and a list `slots`, one number a gap, and may have a `start`; `metadata.gap_seconds`, `metadata.start_time`
    and `data` will do as well. Where its numbers are 0 and 1 only, 1 stands for all slots.

    Raises:
        ScenarioError: A file cannot be read, has a mistake, or names a pool there is none of.
    """
    traces: dict[str, CapacityTrace] = {}
    for argument in arguments:
        pool, is_one, name = argument.rpartition("=")
        read = [_recording(pool, Path(name), pools)] if is_one else _table(Path(name), pools)
        for trace in read:
            if trace.pool in traces:
                raise ScenarioError(
                    f"{argument}: pool {trace.pool} has a trace already; give it one"
                )
            traces[trace.pool] = trace
    return tuple(traces.values())


def _table(path: Path, pools: Collection[str]) -> list[CapacityTrace]:
    steps: dict[str, list[tuple[datetime, int | None]]] = defaultdict(list)
    last = _BEGINNING
    for row in read_rows(path, _WANTED):
        at, pool, slots = row_instant(row, "at"), str(row.cells["pool"]), _slots(row)
        if pool not in pools:
            raise ScenarioError(f"{row.place}: {unknown_pool(pool, pools)}")
        if steps[pool] and steps[pool][-1][0] >= at:
            raise ScenarioError(
                f"{row.place}: is not later than the row of {pool} before it; sort by time"
            )
        steps[pool].append((at, slots))
        last = max(last, at)
    # The last row of all says how long was recorded; a second more keeps it from being empty.
    end = last + timedelta(seconds=1)
    return [
        CapacityTrace(pool=pool, steps=tuple(rows), end=end, is_table=True)
        for pool, rows in steps.items()
    ]


def _recording(pool: str, path: Path, pools: Collection[str]) -> CapacityTrace:
    if pool not in pools:
        raise ScenarioError(f"{path}: {unknown_pool(pool, pools)}")
    said = _object(path)
    about = said.get("metadata", said)
    gap, counts = about.get("gap_seconds"), said.get("slots", said.get("data"))
    if not isinstance(gap, int | float) or gap <= 0:
        raise ScenarioError(
            f"{path}: has no gap_seconds above 0; give the seconds between two numbers"
        )
    if (
        not isinstance(counts, list)
        or not counts
        or not all(type(c) is int and c >= 0 for c in counts)
    ):
        raise ScenarioError(
            f"{path}: has no list `slots` of whole numbers; give how many slots could be had"
        )
    start = _start(path, about.get("start", about.get("start_time")))
    is_flag = max(counts) <= 1
    steps: list[tuple[datetime, int | None]] = []
    place = 0
    for count, same in groupby(counts):
        slots = None if is_flag and count else count
        steps.append((start + place * timedelta(seconds=gap), slots))
        place += len(list(same))
    return CapacityTrace(
        pool=pool, steps=tuple(steps), end=start + len(counts) * timedelta(seconds=gap)
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ScenarioError(
            f"{path}:{error.lineno}: not JSON: {error.msg}; mend the file"
        ) from error
    if not isinstance(said, dict) or not isinstance(said.get("metadata", {}), dict):
        raise ScenarioError(f"{path}: is not an object; write {{...}} with gap_seconds and slots")
    return said


def _start(path: Path, said: object) -> datetime:
    if said is None:
        return _BEGINNING
    try:
        return to_instant(said)
    except ValueError as error:
        raise ScenarioError(f"{path}: start {said!r} {error}") from error


def row_instant(row: Row, column: str) -> datetime:
    """Return the instant in a cell.

    Raises:
        ScenarioError: It is none.
    """
    try:
        return to_instant(row.cells[column])
    except ValueError as error:
        raise ScenarioError(f"{row.place}: {column} {row.cells[column]!r} {error}") from error


def _slots(row: Row) -> int:
    try:
        slots = int(row.cells["slots"])
    except (TypeError, ValueError) as error:
        raise ScenarioError(
            f"{row.place}: slots {row.cells['slots']!r} is not a whole number"
        ) from error
    if slots < 0:
        raise ScenarioError(f"{row.place}: slots {slots} is below 0; write 0 for none")
    return slots
