"""How much of the hardware a training uses, and what to do when it is little."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import JsonValue

DATA: Final = "data"
CHECKPOINTS: Final = "checkpoints"

LOW: Final = 0.6
"""Below this there is advice. It is where the articles on accelerator cost begin to speak of waste."""

_SAMPLE_SECONDS: Final = 1.0
_NOTABLE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Shares from 0 to 1 of the time a training took.

    Attributes:
        cpu: CPU time of the process over wall time and torch's threads.
        accelerator: Time the accelerator was busy, by its driver's samples; None without one that says.
        waiting_for_data: Wall time the loop waited for a batch.
        saving: Wall time the loop was held up by checkpoints.
    """

    cpu: float
    accelerator: float | None
    waiting_for_data: float
    saving: float

    @property
    def busy(self) -> float:
        """What is paid for most: the accelerator where there is one, else the CPU."""
        return self.cpu if self.accelerator is None else self.accelerator

    def as_json(self) -> dict[str, JsonValue]:
        """Return it rounded for people, with the advice."""
        shares = {name: share and round(share, 3) for name, share in asdict(self).items()}
        return {**shares, "advice": list(advise(self))}


def advise(usage: Usage) -> tuple[str, ...]:
    """Return what would let a training with that usage use more of its hardware; nothing where it uses enough."""
    if usage.busy >= LOW:
        return ()
    device = "the CPU" if usage.accelerator is None else "the accelerator"
    found = [f"{device} is busy {usage.busy:.0%} of the time"]
    if usage.waiting_for_data > _NOTABLE:
        found.append(
            f"{usage.waiting_for_data:.0%} of it goes into waiting for data: raise prefetch, or bring the data nearer"
        )
    if usage.saving > _NOTABLE:
        found.append(f"{usage.saving:.0%} of it goes into checkpoints: save less often")
    if len(found) == 1 and usage.accelerator is None:
        found.append("others want the same cores: ask for more of them, or give fewer threads")
    elif len(found) == 1:
        found.append(
            "steps are too small for it: raise batch, take bfloat16, or ask for a smaller accelerator"
        )
    return tuple(found)


class UsageMeter:
    """Measures from its making on. Not for use from several threads at once."""

    def __init__(
        self,
        *,
        threads: int,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
        accelerator: Callable[[], float | None] | None = None,
    ) -> None:
        """Begin to measure.

        Args:
            threads: Of torch.
            clock: Wall time, in seconds.
            cpu_clock: CPU time of the process, in seconds.
            accelerator: Share of the last moment it was busy; None when it does not say.
        """
        self._threads = threads
        self._clock, self._cpu_clock = clock, cpu_clock
        self._accelerator = accelerator or accelerator_share
        self._began, self._cpu_began = clock(), cpu_clock()
        self._next_sample = self._began
        self._samples: list[float] = []
        self._held_up: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def held_up_by(self, what: str) -> Iterator[None]:
        """Count the time inside as time that the loop waited for `what`."""
        began = self._clock()
        try:
            yield
        finally:
            self._held_up[what] += self._clock() - began

    def sample(self) -> None:
        """Look at the accelerator, once a second at most; cheap enough for every step."""
        if self._clock() < self._next_sample:
            return
        self._next_sample = self._clock() + _SAMPLE_SECONDS
        share = self._accelerator()
        if share is not None:
            self._samples.append(share)

    def usage(self) -> Usage:
        """Return the shares until now."""
        seconds = max(self._clock() - self._began, 1e-9)
        busy = (self._cpu_clock() - self._cpu_began) / (seconds * self._threads)
        return Usage(
            cpu=min(busy, 1.0),
            accelerator=sum(self._samples) / len(self._samples) if self._samples else None,
            waiting_for_data=self._held_up[DATA] / seconds,
            saving=self._held_up[CHECKPOINTS] / seconds,
        )


def accelerator_share() -> float | None:
    """Return which share of the last moment the accelerator was busy, or None where there is none or NVML is missing."""
    if not torch.cuda.is_available():
        return None
    with suppress(ModuleNotFoundError, RuntimeError):  # nvidia-ml-py, or a driver that does not say
        return torch.cuda.utilization() / 100
    return None
