"""`torchrun` across the members of a gang, for real; `test_ray_over_a_lease` has Ray."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any

import pytest

from spillway.checkpoints import latest
from spillway.model import Launcher
from spillway.runtime.exit_codes import PREEMPTED
from spillway.runtime.gang.torchrun import judge

if TYPE_CHECKING:
    from conftest import Machines
    from spillway.model import Submission

STEPS = 9
SEED = 3  # it stops within an epoch


@pytest.mark.parametrize(
    ("codes", "left", "noticed", "said"),
    [
        ([0, 0], 0, False, 0),
        ([75, 75], 1, False, PREEMPTED),
        ([75, 1], 1, False, 1),
        ([64], 1, False, 64),
        ([], 1, False, 1),  # killed before it could say a word
        ([], 1, True, PREEMPTED),
    ],
)
def test_a_node_s_end_is_what_its_workers_say(
    codes: list[int], left: int, noticed: bool, said: int
) -> None:
    assert judge(codes, left=left, noticed=noticed) == said


def training(machines: Machines, **facts: Any) -> Submission:
    return dataclasses.replace(
        machines.submission("", 2),
        entry_point="gang_training:train_gpt",
        launcher=Launcher.TORCHRUN,
        **facts,
    )


def test_a_gpt_over_two_nodes_that_is_stopped_ends_bit_for_bit_like_one_that_was_not(
    machines: Machines,
) -> None:
    """The first time for all steps; then stopped after a random one by a notice to one node, and again for the rest."""
    patient = {"SPILLWAY_GANG_SILENCE_SECONDS": "60"}  # nobody is lost here but by the notice
    stop = random.Random(SEED).randrange(1, STEPS)
    machines.start(training(machines, arguments={"steps": STEPS}, prefix="whole"), **patient)
    assert machines.codes() == [0, 0], machines.logs()
    whole = machines.result(prefix="whole").value
    assert isinstance(whole, dict)
    assert (whole["ranks"], whole["begun"], len(whole["losses"])) == (2, 0, STEPS)
    machines.start(training(machines, arguments={"steps": STEPS, "stop_after": stop}), **patient)
    assert machines.codes() == [PREEMPTED, PREEMPTED], machines.logs()
    saved = latest(machines.store, "gang")
    assert saved is not None
    assert saved.manifest.step == stop
    machines.start(training(machines, arguments={"steps": STEPS}, token=2), **patient)
    assert machines.codes() == [0, 0], machines.logs()
    after = {step: loss for step, loss in whole["losses"].items() if int(step) > stop}
    assert machines.result(token=2).value == {**whole, "losses": after, "begun": stop}
