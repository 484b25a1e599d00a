"""What a local pool may say under `options`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    ValidationError,
)

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.model import Pool

Period = tuple[NonNegativeFloat, NonNegativeFloat]

_KINDS: Final = ("trace", "lifetimes", "preemptions_per_hour")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Trace(_Strict):
    """Capacity comes and goes as it was recorded; after the recording's end it stays.

    Attributes:
        trace: Pairs of seconds up, then seconds down, or the path of a JSON file with such pairs, below the home of
            the deployment unless absolute.
        speed: How many seconds of the pool's time pass in a second.
    """

    trace: Annotated[tuple[Period, ...], Field(min_length=1)] | Path
    speed: PositiveFloat = 1.0


class Hazard(_Strict):
    """Each job is taken back after a random time of its own, which the seed decides.

    Attributes:
        speed: How many seconds of the pool's time pass in a second.
    """

    preemptions_per_hour: PositiveFloat
    seed: int
    speed: PositiveFloat = 1.0


class Lifetimes(_Strict):
    """Jobs are taken back after so many seconds each, in the order of their launch; after the last the pool is gone.

    Attributes:
        lifetimes: Seconds of the pool's time, one for each node of a job.
        speed: How many seconds of the pool's time pass in a second.
    """

    lifetimes: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    speed: PositiveFloat = 1.0


class LocalOptions(_Strict):
    """Options of a local pool.

    Attributes:
        interruptions: How a spot pool takes its capacity back; None when it does not.
        python_path: Folders to find entry points in, before the installed packages.
        env: Environment variables of every job.
    """

    interruptions: Trace | Hazard | Lifetimes | None = None
    python_path: tuple[Path, ...] = ()
    env: dict[str, str] = Field(default_factory=dict)


def read_options(pool: Pool, home: Path) -> LocalOptions:
    """Return the pool's options, a trace in a file read.

    Raises:
        SpecError: They have a mistake; the message names pool and option.
    """
    options = _validate(pool, pool.options)
    if not isinstance(options.interruptions, Trace) or not isinstance(
        options.interruptions.trace, Path
    ):
        return options
    path = home / options.interruptions.trace
    try:
        trace = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(
            f"pool {pool.name!r}, option interruptions.trace: cannot read {path} ({error}); name a JSON file of"
            " [seconds up, seconds down] pairs, or write the pairs themselves"
        ) from error
    read = {
        **dict(pool.options),
        "interruptions": {"trace": trace, "speed": options.interruptions.speed},
    }
    return _validate(pool, read)


def _validate(pool: Pool, options: Mapping[str, object]) -> LocalOptions:
    _check_kind(pool, options.get("interruptions"))
    try:
        return LocalOptions.model_validate(dict(options))
    except ValidationError as error:
        problems = "; ".join(
            f"option {_place(problem['loc'])}: {problem['msg']}" for problem in error.errors()
        )
        raise SpecError(f"pool {pool.name!r} has a mistake: {problems}") from error


def _check_kind(pool: Pool, interruptions: object) -> None:
    if isinstance(interruptions, dict) and sum(kind in interruptions for kind in _KINDS) != 1:
        raise SpecError(
            f"pool {pool.name!r}, option interruptions: write either trace, or lifetimes, or preemptions_per_hour and seed"
        )


def _place(location: tuple[int | str, ...]) -> str:
    alternatives = {kind.__name__ for kind in (Trace, Hazard, Lifetimes)}
    return ".".join(str(part) for part in location if part not in alternatives)
