from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from spillway.errors import SpecError
from spillway.model import Resources
from spillway.runtime import Preempted, Session
from spillway.runtime.signals import Notice
from spillway.workloads.sweep import sweep

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("leaves_nothing_running")

SPACE = {"x": {"uniform": [0, 1]}}
SHARED = {"trainable": "trial_samples:together", "accelerators_per_trial": 0.5}

Kind = TypeVar("Kind", bound=Session)


class NoticedSession(Session):
    """A session that gets its notice once so many steps are done."""

    notice_after = 0

    def progress(self, step: int, total: int | None = None, **metrics: float) -> None:
        super().progress(step, total, **metrics)
        if step >= self.notice_after:
            self._notice.receive()


def on_an_accelerator(session: Kind) -> Kind:
    lease = Resources(cpus=2, accelerator="L4", accelerator_count=1)
    session._submission = replace(session.submission, resources=lease)
    return session


def run(session: Session, folder: Path, **changes: Any) -> dict[str, Any]:
    arguments = {
        "dataset": str(folder),
        "space": SPACE,
        "num_samples": 5,
        "max_steps": 4,
        "metric": "loss",
        "trainable": "trial_samples:falling",
        "cpus": 2,
        "seed": 3,
    }
    return sweep(session, **{**arguments, **changes})


def starts(folder: Path) -> list[float]:
    return [float(line) for line in (folder / "starts").read_text().split()]


def test_a_preempted_sweep_goes_on_without_repeating_what_ended(folder: Path) -> None:
    """Its trials share the lease's accelerator, the first two of them waiting for each other."""
    first = on_an_accelerator(NoticedSession.local(folder / "session", notice=Notice()))
    first.notice_after = 9
    with pytest.raises(Preempted):
        run(first, folder, **SHARED)
    environment = dict(os.environ)
    before = starts(folder)

    second = on_an_accelerator(Session.local(folder / "session"))
    rows = second.restore().state["trials"]
    ended = [row["trial"] for row in rows if row["status"] != "running"]
    assert ended
    result = run(second, folder, **SHARED)

    rows = result["trials"]
    assert [row["trial"] for row in rows] == list(range(5))
    started_again = starts(folder)[len(before) :]
    assert sorted(started_again) == sorted(
        row["params"]["x"] for row in rows if row["trial"] not in ended
    )
    finished = [row for row in rows if row["status"] == "finished"]
    assert finished
    assert result["best"]["metric"] == min(row["metric"] for row in finished)
    assert all(row["status"] in ("finished", "stopped") for row in rows)
    assert dict(os.environ) == environment
    third = on_an_accelerator(Session.local(folder / "session"))
    again = run(third, folder, **SHARED)  # starts no Ray
    assert (again["trials"], again["best"]) == (result["trials"], result["best"])


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"num_samples": 0}, "num_samples is 0: give 1 or more"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"grace_steps": 5}, "give 4 or less"),
        ({"reduction_factor": 1}, "give 2 or more"),
        ({"mode": "least"}, "give min or max"),
        ({"cpus_per_trial": 3}, "give cpus_per_trial up to 2"),
        ({"trainable": "nowhere.at_all:f"}, "give package.module:function"),
        ({"trainable": "trial_samples"}, "give package.module:function"),
        ({"trainable": "trial_samples:rising"}, "module trial_samples has no rising"),
        ({"accelerators_per_trial": 0.5}, "the lease has 0: give accelerators_per_trial up to 0"),
        ({"cpus_per_trial": 0}, "give more than 0"),
        ({"search": "grid"}, "search is 'grid': give one of random, optuna"),
        ({"scheduler": "hope"}, "give one of asha, median, pbt, none"),
        ({"scheduler": "pbt", "search": "optuna"}, "give search random"),
        ({"max_usd": -1}, "max_usd is -1"),
        ({"space": {}}, "the space is empty"),
        ({"space": {"x": {"uniform": [1, 0]}}}, "x: uniform goes from"),
    ],
)
def test_bad_arguments_are_refused_before_ray_starts(
    folder: Path, change: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(SpecError, match=remedy):
        run(Session.local(folder / "session"), folder, **change)


def test_a_checkpoint_of_another_sweep_is_refused(folder: Path) -> None:
    session = Session.local(folder / "session")
    session.checkpoint(1, {"trials": []}, search={"seed": 9}, space=SPACE)
    with pytest.raises(SpecError, match="ask for a fresh start"):
        run(Session.local(folder / "session"), folder)
