from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.workloads.utilisation import (
    CHECKPOINTS,
    DATA,
    LOW,
    Usage,
    UsageMeter,
    accelerator_share,
    advise,
)

shares = st.floats(0, 1)


class Time:
    """Two clocks that move by hand."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    def passes(self, seconds: float, *, busy: float) -> None:
        self.wall += seconds
        self.cpu += seconds * busy


def test_shares_are_measured_over_the_whole_training() -> None:
    time, busy = Time(), iter([0.2, 0.4, 0.6])
    meter = UsageMeter(
        threads=2,
        clock=lambda: time.wall,
        cpu_clock=lambda: time.cpu,
        accelerator=lambda: next(busy),
    )
    for _ in range(6):
        time.passes(0.25, busy=2)
        with meter.held_up_by(DATA):
            time.passes(0.25, busy=0)
        meter.sample()
    with meter.held_up_by(CHECKPOINTS):
        time.passes(1, busy=1)
    usage = meter.usage()
    assert usage.cpu == pytest.approx(0.5)
    assert usage.accelerator == pytest.approx(0.4)  # three samples a second apart, and not six
    assert usage.waiting_for_data == pytest.approx(1.5 / 4)
    assert usage.saving == pytest.approx(1 / 4)


@given(shares, st.none() | shares, shares, shares)
def test_there_is_advice_below_sixty_percent_and_none_above(
    cpu: float, accelerator: float | None, data: float, saving: float
) -> None:
    usage = Usage(cpu=cpu, accelerator=accelerator, waiting_for_data=data, saving=saving)
    said = advise(usage)
    assert bool(said) == (usage.busy < LOW)
    assert not said or len(said) > 1  # what is wrong, and what to do
    assert usage.as_json()["advice"] == list(said)


@pytest.mark.parametrize(
    ("usage", "remedy"),
    [
        ({"waiting_for_data": 0.4}, "raise prefetch"),
        ({"saving": 0.4}, "save less often"),
        ({}, "others want the same cores"),
        ({"accelerator": 0.1}, "raise batch"),
    ],
)
def test_advice_names_what_holds_the_training_up(usage: dict[str, float], remedy: str) -> None:
    facts = {"cpu": 0.3, "accelerator": None, "waiting_for_data": 0.0, "saving": 0.0, **usage}
    assert remedy in " ".join(advise(Usage(**facts)))


def test_a_machine_without_an_accelerator_says_so() -> None:
    share = accelerator_share()
    assert share is None or 0 <= share <= 1
    assert not math.isnan(share or 0.0)
