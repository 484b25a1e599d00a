"""What a pool of Vertex AI may say under `options`."""

from __future__ import annotations

from datetime import timedelta  # noqa: TC003  # pydantic reads it
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal

from google.cloud import aiplatform_v1
from pydantic import PositiveInt  # noqa: TC002  # pydantic reads it

from spillway.backends.google.options import GoogleOptions, Word, read_options
from spillway.errors import SpecError
from spillway.model import Market

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.model import Pool

# Source: Google Cloud, Vertex AI API, Scheduling.Strategy.
Strategy = Literal["STANDARD", "SPOT", "FLEX_START"]

_OF_MARKET: Final[Mapping[Market, Strategy]] = MappingProxyType(
    {
        Market.SPOT: "SPOT",
        Market.ON_DEMAND: "STANDARD",
        Market.RESERVED: "STANDARD",
        Market.PARTNER: "STANDARD",
    }
)


class VertexOptions(GoogleOptions):
    """Options of a pool of Vertex AI.

    Attributes:
        machine_type: Such as `a3-highgpu-8g`.
        accelerator_type: As the API has it, such as `NVIDIA_H100_80GB`; needed where tasks have accelerators.
        tpu_topology: Of machine types with TPUs, such as `2x2`.
        strategy: How the machines are bought, where the pool's market does not say it.
        reservation: The reservation that the machines are taken from.
        max_wait: How long flex-start waits for machines; None for the service's own day.
        max_run: Longest a job may run; past it the task goes on in another.
    """

    machine_type: Word
    accelerator_type: Word | None = None
    tpu_topology: Word | None = None
    strategy: Strategy | None = None
    reservation: Word | None = None
    boot_disk_gib: PositiveInt | None = None
    boot_disk_type: Word = "pd-ssd"
    max_wait: timedelta | None = None
    max_run: timedelta | None = None


def read_vertex_options(pool: Pool) -> VertexOptions:
    """Return the pool's options, with `strategy` settled.

    Raises:
        SpecError: They have a mistake, or do not go with the pool's market; the message names pool and option.
    """
    options = read_options(pool, VertexOptions)
    settled = options.strategy or _OF_MARKET[pool.market]
    problem = _problem(pool, options, settled)
    if problem:
        raise SpecError(f"pool {pool.name!r} has a mistake: {problem}")
    return options.model_copy(update={"strategy": settled})


def _problem(pool: Pool, options: VertexOptions, strategy: Strategy) -> str | None:
    if (strategy == "SPOT") != (pool.market is Market.SPOT):
        return f"option strategy: {strategy} does not go with the market {pool.market}"
    if pool.market is Market.RESERVED and not options.reservation:
        return "option reservation: name the reservation that this reserved pool stands for"
    if strategy != "STANDARD" and options.reservation:
        return f"option reservation: {strategy} machines are not taken from a reservation"
    if strategy != "FLEX_START" and options.max_wait:
        return "option max_wait: only the strategy FLEX_START waits for so long; use start_within"
    return _accelerator_problem(pool, options)


def _accelerator_problem(pool: Pool, options: VertexOptions) -> str | None:
    if pool.shape.accelerator_count and not (options.accelerator_type or options.tpu_topology):
        return f"option accelerator_type: say what Vertex AI calls {pool.shape.accelerator}"
    theirs: Any = aiplatform_v1.AcceleratorType  # an enumeration, which type checkers do not see
    known: list[str] = [one.name for one in theirs if one]
    if options.accelerator_type and options.accelerator_type not in known:
        return f"option accelerator_type: {options.accelerator_type} is none of {', '.join(known)}"
    return None
