"""Placement over every provider's whole price list: loading it, one decision, and a queue of fifty.

The lists are reference data beside a development tree, in ../shared/catalog; they are not part of the project.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import process_time
from timeit import Timer
from typing import TYPE_CHECKING

import numpy as np
from measurement import Baseline, Measurement, NotHere

from spillway.catalog.catalogue import Terms, make_catalogue
from spillway.catalog.price_list import read_price_list
from spillway.model import Market, Resources, TaskSpec
from spillway.placement.plan import plan_from
from spillway.placement.table_choice import choose_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.placement.offer_table import OfferTable

REFERENCE = Path(__file__).parents[3] / "shared" / "catalog"
NOW = datetime(2026, 5, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)


def run() -> list[Measurement]:
    """Measure loading, deciding and planning over about 90,000 rows."""
    if not REFERENCE.is_dir():
        raise NotHere("no reference price lists lie in ../shared/catalog")
    loads = []
    for _ in range(3):
        began = process_time()
        table = load(Terms())
        loads.append(process_time() - began)
    scarce = load(Terms(slots=1))
    tasks = kinds_of_task()
    measurements = [
        Measurement(
            name=f"catalogue loaded: {len(table):,} offers", value=min(loads), unit="s CPU"
        ),
        *(measure(table, name, task) for name, task in tasks.items()),
    ]
    kinds = list(tasks.values())
    alike = [task for task in kinds for _ in range(10)]
    different = [replace(task, work=(n + 1) * HOUR / 5) for n, task in enumerate(alike)]
    for name, queue, offers in (
        ("different", different, table),
        ("of five kinds", alike, table),
        ("different, one slot each", different, scarce),
        ("of five kinds, one slot each", alike, scarce),
    ):
        value = milliseconds(lambda queue=queue, offers=offers: plan_from(offers, queue, NOW))
        measurements.append(
            Measurement(
                name=f"plan of {len(queue)} tasks, {name}: {sum(map(offers.considered, queue)):,} candidates considered",
                value=value,
                unit="ms CPU",
            )
        )
    return measurements


def measure(table: OfferTable, name: str, task: TaskSpec) -> Measurement:
    considered = f"{table.considered(task):,} candidates considered"
    return Measurement(
        name=f"decision, {name}: {considered}",
        value=milliseconds(lambda: choose_from(table, task, NOW)),
        unit="ms CPU",
        baseline=Baseline(
            name="lowest price of a machine large enough, all rows, NumPy",
            value=milliseconds(lambda: cheapest_hour(table, task)),
        ),
    )


def cheapest_hour(table: OfferTable, task: TaskSpec) -> int:
    """Return the row with the lowest price of those large enough, every row looked at and nothing else asked."""
    columns, needed = table.columns, task.resources
    fits = (columns.cpus >= needed.cpus) & (columns.memory_gib >= needed.memory_gib)
    return int(np.where(fits, columns.marginal, np.inf).argmin())


def load(terms: Terms) -> OfferTable:
    paths = {path.parent.name: path for path in REFERENCE.glob("skypilot-schema/*/vms.csv")}
    paths["aws"] = REFERENCE / "aws_gpu_rows.csv"
    return make_catalogue([read_price_list(path, name) for name, path in paths.items()], terms)


def kinds_of_task() -> dict[str, TaskSpec]:
    plain = TaskSpec(
        entry_point="package.module:train",
        resources=Resources(cpus=8, memory_gib=32),
        work=8 * HOUR,
        checkpoints=True,
    )
    return {
        "8 CPUs": plain,
        "8 CPUs in two regions by a deadline": with_(
            plain, regions=frozenset({"europe-west4", "westeurope"}), deadline=NOW + 9 * HOUR
        ),
        "400 CPUs and 4 TiB": with_(plain, resources=Resources(cpus=400, memory_gib=4000)),
        "8 H100": with_(plain, resources=accelerators("H100", 8)),
        "8 A100 or 4 H100 on demand": with_(
            plain,
            resources=accelerators("A100", 8),
            alternatives=(accelerators("H100", 4),),
            markets=frozenset({Market.ON_DEMAND}),
        ),
    }


def with_(task: TaskSpec, **changes: object) -> TaskSpec:

    return replace(task, **changes)  # type: ignore[arg-type]


def accelerators(name: str, count: int) -> Resources:
    return Resources(cpus=8, memory_gib=32, accelerator=name, accelerator_count=count)


def milliseconds(work: Callable[[], object]) -> float:
    """Return the CPU time of one call, the best of several rounds: a busy machine only ever makes it longer."""
    timer = Timer(work, timer=process_time)
    calls, _ = timer.autorange()
    return min(timer.repeat(5, max(calls // 5, 1))) / max(calls // 5, 1) * 1000
