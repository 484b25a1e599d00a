"""Jobs from a file: one row a job."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from spillway.catalog.pools_schema import to_instant
from spillway.errors import ScenarioError
from spillway.model import ALL_MARKETS, Market, Resources, TaskSpec
from spillway.sim.rows import Row, read_rows
from spillway.sim.scenario import SimulatedJob

if TYPE_CHECKING:
    from pathlib import Path

_WORK = "work_hours"
_ARRIVAL = "arrives_at"

Instant = Annotated[datetime, BeforeValidator(to_instant)]


def _words(value: object) -> object:
    return value.split() if isinstance(value, str) else value


Words = Annotated[frozenset[str], BeforeValidator(_words)]
Markets = Annotated[frozenset[Market], BeforeValidator(_words)]


class _JobRow(BaseModel):
    """One row, in the units that its columns name; lists are words with spaces between them."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = None
    arrives_at: Instant | None = None
    work_hours: float = Field(gt=0, le=87_600)
    deadline: Instant | None = None
    deadline_hours: float | None = Field(default=None, gt=0, le=87_600)
    workload: str = "default"
    cpus: float = Field(default=1.0, ge=0)
    memory_gib: float = Field(default=1.0, ge=0)
    accelerator: str | None = None
    accelerator_count: int = Field(default=0, ge=0)
    markets: Markets = ALL_MARKETS
    regions: Words = frozenset()
    providers: Words = frozenset()
    nodes: int = Field(default=1, ge=1)
    checkpoints: bool = False
    checkpoint_write_seconds: float = Field(default=1.0, ge=0)
    restart_seconds: float = Field(default=5.0, ge=0)
    max_usd_per_hour: Decimal | None = None
    max_cost_usd: Decimal | None = None


def read_jobs(path: Path, *, now: datetime | None = None) -> tuple[SimulatedJob, ...]:
    """Return the jobs of a `.csv` or `.jsonl` file, by their arrival.

    Args:
        path: The file.
        now: When all of them come, in the order of the file, whatever it says; None where it is to say.

    Raises:
        ScenarioError: The file cannot be read, or a row has a mistake; the message names its line.
    """
    wanted = (_ARRIVAL, _WORK) if now is None else (_WORK,)
    jobs = [_job(row, number, now) for number, row in enumerate(read_rows(path, wanted), start=1)]
    if now is not None:
        return tuple(jobs)
    return tuple(sorted(jobs, key=lambda job: (job.arrives_at, job.name)))


def _job(row: Row, number: int, now: datetime | None) -> SimulatedJob:
    try:
        said = _JobRow.model_validate(row.cells)
    except ValidationError as error:
        raise ScenarioError(f"{row.place}: {_problems(error)}") from error
    arrives_at = now or said.arrives_at
    assert arrives_at is not None  # rows without it are refused where it is needed
    deadline = said.deadline
    if said.deadline_hours is not None:
        if deadline is not None:
            raise ScenarioError(
                f"{row.place}: has deadline and deadline_hours; keep one of the two"
            )
        deadline = arrives_at + timedelta(hours=said.deadline_hours)
    return SimulatedJob(
        name=said.name or f"job-{number:06}",
        arrives_at=arrives_at,
        spec=TaskSpec(
            entry_point="simulated:job",
            workload=said.workload,
            resources=Resources(
                cpus=said.cpus,
                memory_gib=said.memory_gib,
                accelerator=said.accelerator,
                accelerator_count=max(said.accelerator_count, int(said.accelerator is not None)),
            ),
            work=timedelta(hours=said.work_hours),
            nodes=said.nodes,
            markets=said.markets,
            regions=said.regions,
            providers=said.providers,
            checkpoints=said.checkpoints,
            checkpoint_write=timedelta(seconds=said.checkpoint_write_seconds),
            restart_overhead=timedelta(seconds=said.restart_seconds),
            deadline=deadline,
            max_usd_per_hour=said.max_usd_per_hour,
            max_cost_usd=said.max_cost_usd,
        ),
    )


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{problem['loc'][0] if problem['loc'] else 'the row'}: "
        + (
            f"there is no such column; there are {', '.join(_JobRow.model_fields)}"
            if problem["type"] == "extra_forbidden"
            else problem["msg"]
        )
        for problem in error.errors(include_url=False)
    )
