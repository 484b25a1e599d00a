"""What a person may set for a run, in the trigger form or as `--dag-run-conf`.

Checked here again, since Airflow accepts unknown keys.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

from airflow.sdk import Param
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from spillway.errors import SpecError
from spillway.model import ALL_MARKETS, Market

if TYPE_CHECKING:
    from collections.abc import Mapping

BACKFILL_MARKETS: Final = frozenset({Market.RESERVED, Market.PARTNER, Market.SPOT})
"""A backfill has no reader waiting: it takes what is paid for already and what is cheap."""

_PLACEMENT: Final = "Placement"
_MARKET_NAMES: Final = [market.value for market in Market]


def placement_params(*, deadline_minutes: int | None = None) -> dict[str, Param]:
    """Return the params of the trigger form that say where a run's tasks may go; the operator reads them by name."""
    return {
        "markets": Param(
            None,
            type=["null", "array"],
            items={"type": "string", "enum": _MARKET_NAMES},
            examples=_MARKET_NAMES,
            title="Markets",
            description="Where capacity may be bought. Empty: everywhere; for a backfill, reserved, partner and spot.",
            section=_PLACEMENT,
        ),
        "deadline_minutes": Param(
            deadline_minutes,
            type=["null", "integer"],
            minimum=1,
            maximum=60 * 24 * 30,
            title="Deadline, minutes",
            description="When the run should be complete, counted from its start. Empty: whenever is cheapest.",
            section=_PLACEMENT,
        ),
        "max_usd_per_hour": Param(
            None,
            type=["null", "number"],
            exclusiveMinimum=0,
            title="Price cap, USD per hour",
            description="Dearest marginal price a task may be placed at. Empty: none.",
            section=_PLACEMENT,
        ),
        "max_cost_usd": Param(
            None,
            type=["null", "number"],
            exclusiveMinimum=0,
            title="Budget, USD",
            description="What one task may be expected to cost, over all of its tries. Empty: no budget.",
            section=_PLACEMENT,
        ),
        "fresh_start": Param(
            default=False,
            type="boolean",
            title="Fresh start",
            description="Ignore checkpoints that earlier attempts of this run left, after a clear for instance.",
            section=_PLACEMENT,
        ),
    }


class _Checked(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=False)

    markets: list[Market] | None = None
    deadline_minutes: Annotated[int, Field(ge=1)] | None = None
    max_usd_per_hour: Annotated[Decimal, Field(gt=0)] | None = None
    max_cost_usd: Annotated[Decimal, Field(gt=0)] | None = None
    fresh_start: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the person who started a run allows."""

    markets: frozenset[Market] = ALL_MARKETS
    deadline: timedelta | None = None
    max_usd_per_hour: Decimal | None = None
    max_cost_usd: Decimal | None = None
    fresh_start: bool = False


def read_run_options(
    params: Mapping[str, Any], *, conf: Mapping[str, Any], run_type: str
) -> RunOptions:
    """Return what `params`, the run's merged params, allow.

    Args:
        params: Every param that the DAG declares, with the run's values.
        conf: What the run was started with.
        run_type: Airflow's `dag_run.run_type`. The run id says nothing: a reprocessed run keeps its old one.

    Raises:
        SpecError: A key of `conf` that the DAG does not declare, or a value out of range.
    """
    unknown = sorted(set(conf) - set(params))
    if unknown:
        near = difflib.get_close_matches(unknown[0], params, n=1)
        hint = (
            f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(params))}"
        )
        raise SpecError(f"the run's conf has the unknown key {unknown[0]!r}{hint}")
    try:
        checked = _Checked.model_validate(dict(params))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(place) for place in first["loc"])
        raise SpecError(
            f"param {name}: {first['msg']} (got {first['input']!r}); correct it and trigger the run again"
        ) from error
    default = BACKFILL_MARKETS if run_type == "backfill" else ALL_MARKETS
    minutes = checked.deadline_minutes
    return RunOptions(
        markets=frozenset(checked.markets) if checked.markets else default,
        deadline=timedelta(minutes=minutes) if minutes else None,
        max_usd_per_hour=checked.max_usd_per_hour,
        max_cost_usd=checked.max_cost_usd,
        fresh_start=checked.fresh_start,
    )
