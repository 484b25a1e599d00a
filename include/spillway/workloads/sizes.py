"""How much work a run of the shipped pipeline is, by the names that people choose from; read by DAG files, so it imports little."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One size of the pipeline.

    The `..._seconds` are what its tasks take, undisturbed, on two cores of the machine that the project is developed on:
    what placement starts from.

    Attributes:
        summary: For people who choose.
        text: Size of the corpus, a name of `preprocess.SIZES`.
        shards: Encoding tasks.
        trials: Parameter sets the sweep tries.
        trial_steps: Optimizer steps of a trial that is not stopped early.
        train_steps: Optimizer steps of the training.
    """

    summary: str
    text: str
    shards: int
    trials: int
    trial_steps: int
    train_steps: int
    plan_seconds: float
    encode_seconds: float
    merge_seconds: float
    sweep_seconds: float
    train_seconds: float


SIZES: Final[Mapping[str, Size]] = MappingProxyType(
    {
        "tiny": Size(
            summary="seconds, to see that it runs",
            text="tiny",
            shards=2,
            trials=2,
            trial_steps=6,
            train_steps=40,
            plan_seconds=3,
            encode_seconds=2,
            merge_seconds=2,
            sweep_seconds=20,
            train_seconds=10,
        ),
        "short": Size(
            summary="about a minute, long enough to be moved while it trains",
            text="tiny",
            shards=2,
            trials=2,
            trial_steps=6,
            train_steps=150,
            plan_seconds=3,
            encode_seconds=2,
            merge_seconds=2,
            sweep_seconds=20,
            train_seconds=12,
        ),
        "small": Size(
            summary="about two minutes on two cores",
            text="small",
            shards=3,
            trials=4,
            trial_steps=60,
            train_steps=500,
            plan_seconds=4,
            encode_seconds=3,
            merge_seconds=2,
            sweep_seconds=30,
            train_seconds=34,
        ),
        "full": Size(
            summary="all of the text, about an hour on two cores",
            text="full",
            shards=8,
            trials=12,
            trial_steps=400,
            train_steps=20_000,
            plan_seconds=8,
            encode_seconds=5,
            merge_seconds=5,
            sweep_seconds=900,
            train_seconds=2400,
        ),
    }
)


def size_of(name: str) -> Size:
    """Return the size called `name`.

    Raises:
        SpecError: There is none; the message lists those there are.
    """
    if name not in SIZES:
        raise SpecError(f"size {name!r} is unknown: give one of {', '.join(SIZES)}")
    return SIZES[name]
