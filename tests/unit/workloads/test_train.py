from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.errors import SpecError, WrongCheckpointError
from spillway.runtime import Preempted, Session
from spillway.runtime.signals import Notice
from spillway.workloads import dataset as datasets
from spillway.workloads.batches import Batch, Windows
from spillway.workloads.recipe import Recipe, make_recipe
from spillway.workloads.sweeping.trial import Trial
from spillway.workloads.train import train, trial
from spillway.workloads.trainer import Trainer
from spillway.workloads.utilisation import accelerator_share

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

STEPS = 10
# Dropout draws from torch's generator, so a run that resumes it wrongly ends elsewhere.
TINY = {
    "width": 16,
    "layers": 1,
    "heads": 2,
    "context": 16,
    "batch": 4,
    "warmup": 2,
    "dropout": 0.2,
}


class InterruptedSession(Session):
    """A session that gets its notice after a step, and notes the losses it is told."""

    stop_after: int | None = None
    losses: dict[int, float]

    def progress(self, step: int, total: int | None = None, **metrics: float) -> None:
        super().progress(step, total, **metrics)
        self.losses[step] = metrics["loss"]
        if step == self.stop_after:
            self._notice.receive()


def run(
    folder: Path | str, dataset: str, interruptions: Collection[int], **options: object
) -> tuple[dict[str, object], dict[int, float]]:
    """Train to the end, in one attempt more than there are interruptions; return the result and the loss of each step."""
    losses: dict[int, float] = {}
    for stop_after in [*sorted(interruptions), None]:
        session = InterruptedSession.local(folder, notice=Notice())
        session.stop_after, session.losses = stop_after, losses
        try:
            how = {**TINY, **options}
            result = train(session, dataset=dataset, steps=STEPS, eval_every=3, seed=5, **how)
        except Preempted as preempted:
            assert preempted.step == stop_after  # noqa: PT017
    return result, losses


def timeless(result: dict[str, object]) -> dict[str, object]:
    """Return what does not depend on how fast the machine was."""
    return {**result, "tokens_per_second": None, "utilisation": None}


@pytest.fixture(scope="module")
def uninterrupted(
    tiny_dataset: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, object], dict[int, float]]:
    return run(tmp_path_factory.mktemp("uninterrupted"), tiny_dataset, [])


@settings(max_examples=6)
@given(st.sets(st.integers(1, STEPS - 1), min_size=1, max_size=3))
def test_a_run_interrupted_anywhere_ends_bit_for_bit_like_one_that_was_not(
    tiny_dataset: str,
    uninterrupted: tuple[dict[str, object], dict[int, float]],
    interruptions: set[int],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result, losses = run(folder, tiny_dataset, interruptions)
    expected, expected_losses = uninterrupted
    assert losses == expected_losses
    assert timeless(result) == timeless(expected)


@pytest.mark.parametrize(
    "options",
    [{"gradient_checkpointing": True}, {"prefetch": 3}],
    ids=["gradient checkpointing", "prefetch"],
)
def test_what_saves_memory_or_time_changes_no_bit(
    tiny_dataset: str,
    uninterrupted: tuple[dict[str, object], dict[int, float]],
    tmp_path: Path,
    options: dict[str, object],
) -> None:
    result, losses = run(tmp_path, tiny_dataset, [4], **options)
    assert losses == uninterrupted[1]
    assert timeless(result) == timeless(uninterrupted[0])


@pytest.mark.parametrize(
    "options",
    [{"precision": "bfloat16"}, {"accumulation": 2}],
    ids=["bfloat16", "accumulation"],
)
def test_what_changes_bits_is_resumed_bit_for_bit_as_well(
    tiny_dataset: str,
    uninterrupted: tuple[dict[str, object], dict[int, float]],
    tmp_path: Path,
    options: dict[str, object],
) -> None:
    whole, losses = run(tmp_path / "whole", tiny_dataset, [], **options)
    stopped, losses_of_parts = run(tmp_path / "parts", tiny_dataset, [3, 7], **options)
    assert losses == losses_of_parts
    assert timeless(stopped) == timeless(whole)
    assert losses != uninterrupted[1]
    assert losses[STEPS] == pytest.approx(uninterrupted[1][STEPS], rel=0.02)


def test_a_checkpoint_from_before_an_option_was_there_still_counts(
    tiny_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Session.checkpoint

    def older(session: Session, step: int, state: object, **metadata: Any) -> None:
        del metadata["recipe"]["accumulation"], metadata["recipe"]["precision"]
        checkpoint(session, step, state, **metadata)

    monkeypatch.setattr(Session, "checkpoint", older)
    train(Session.local(tmp_path), dataset=tiny_dataset, steps=2, **TINY)
    assert train(Session.local(tmp_path), dataset=tiny_dataset, steps=2, **TINY)["steps"] == 2


def test_another_machine_is_told_what_it_may_expect(
    tiny_dataset: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        train(Session.local(tmp_path), dataset=tiny_dataset, steps=2, **TINY)
        assert "last bits" not in caplog.text
        again = train(Session.local(tmp_path), dataset=tiny_dataset, steps=2, threads=2, **TINY)
    assert "the last bits may differ" in caplog.text
    assert len(again["machines"]) == 2


def test_how_much_of_the_hardware_it_used_is_in_the_result(
    uninterrupted: tuple[dict[str, Any], dict[int, float]],
) -> None:
    usage = uninterrupted[0]["utilisation"]
    assert set(usage) == {"cpu", "accelerator", "waiting_for_data", "saving", "advice"}
    assert all(0 <= usage[name] <= 1 for name in ("cpu", "waiting_for_data", "saving"))
    assert usage["cpu"] > 0
    assert (usage["accelerator"] is None) is (accelerator_share() is None)
    assert isinstance(usage["advice"], list)


def test_a_slow_loader_brings_advice_into_log_and_result(
    tiny_dataset: str,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    draw = Windows.draw

    def draw_far_away(windows: Windows, **facts: int) -> Batch:
        """Draw once another process has ended, whose CPU time is not ours."""
        subprocess.run([sys.executable, "-c", "import ssl, asyncio"], check=True)
        return draw(windows, **facts)

    monkeypatch.setattr(Windows, "draw", draw_far_away)
    result = train(session, dataset=tiny_dataset, steps=STEPS, **TINY)
    advice = result["utilisation"]["advice"]
    assert any("waiting for data: raise prefetch" in line for line in advice)
    assert [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ] == advice


def test_another_seed_ends_elsewhere(
    tiny_dataset: str, session: Session, uninterrupted: tuple[dict[str, object], dict[int, float]]
) -> None:
    result = train(session, dataset=tiny_dataset, steps=STEPS, seed=6, **TINY)
    assert result["weights_checksum"] != uninterrupted[0]["weights_checksum"]


def test_a_finished_run_gives_its_result_again(tiny_dataset: str, tmp_path: Path) -> None:
    first = train(Session.local(tmp_path), dataset=tiny_dataset, steps=3, **TINY)
    again = train(Session.local(tmp_path), dataset=tiny_dataset, steps=3, **TINY)
    assert timeless(again) == timeless(first)


def test_training_beats_guessing(tiny_dataset: str, session: Session) -> None:
    result = train(
        session,
        dataset=tiny_dataset,
        steps=60,
        width=32,
        layers=1,
        context=32,
        warmup=5,
        learning_rate=0.01,
    )
    assert result["validation_loss"] < 6.9  # of 7.62, knowing nothing
    assert [entry["step"] for entry in result["history"]] == [50, 60]


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"steps": 0}, "steps is 0: give 1 or more"),
        ({"steps": "many"}, "steps"),
        ({"width": 30, "heads": 4}, "give a multiple of 4"),
        ({"learning_rate": 0.0}, "give a number above 0"),
        ({"dropout": 1.0}, "less than 1"),
        ({"depth": 3}, "depth is unknown: give some of steps, learning_rate"),
        ({"threads": 0}, "threads is 0"),
        ({"prefetch": -1}, "prefetch is -1: give 0 or more"),
        ({"accumulation": 0}, "accumulation is 0"),
        ({"batch": 6, "accumulation": 4}, "give a batch that it divides"),
        ({"precision": "float8"}, "precision"),
        ({"context": 10_000_000}, "give a context under"),
        ({"dataset": "/nowhere"}, "run the preprocessing first"),
    ],
)
def test_bad_arguments_are_refused_with_a_remedy(
    tiny_dataset: str, session: Session, change: dict[str, object], remedy: str
) -> None:
    with pytest.raises(SpecError, match=remedy):
        train(session, **{"dataset": tiny_dataset, "steps": 1, **change})


def test_a_checkpoint_of_another_recipe_is_refused(tiny_dataset: str, tmp_path: Path) -> None:
    train(Session.local(tmp_path), dataset=tiny_dataset, steps=2, **TINY)
    with pytest.raises(WrongCheckpointError, match="ask for a fresh start"):
        train(Session.local(tmp_path), dataset=tiny_dataset, steps=3, **TINY)


def test_a_trial_reports_about_ten_times_and_at_its_end(tiny_dataset: str) -> None:
    reports = list(trial(TINY, dataset=tiny_dataset, max_steps=25, seed=0))
    assert [report["step"] for report in reports] == [*range(2, 25, 2), 25]
    assert all(0 < report["validation_loss"] < 9 for report in reports)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(1, 8))
def test_every_window_is_a_run_of_one_array(lengths: list[int], length: int) -> None:
    starts = itertools.accumulate(lengths, initial=0)
    arrays = [
        np.arange(start, start + count, dtype=np.uint16)
        for start, count in zip(starts, lengths, strict=False)
    ]
    expected = [
        array[start : start + length].tolist()
        for array in arrays
        for start in range(len(array) - length + 1)
    ]
    if not expected:
        with pytest.raises(SpecError, match="larger dataset"):
            Windows(arrays, length)
        return
    windows = Windows(arrays, length)
    assert windows.take(range(len(windows))).tolist() == expected
    assert windows.spread(3).tolist()[0] == expected[0]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    windows = Windows([np.arange(1000, dtype=np.uint16)], 8)
    later = windows.draw(seed=1, step=7, size=4).tolist()
    windows.draw(seed=1, step=6, size=4)
    assert windows.draw(seed=1, step=7, size=4).tolist() == later
    assert windows.draw(seed=2, step=7, size=4).tolist() != later
    assert windows.draw(seed=1, step=8, size=4).tolist() != later


@given(st.integers(1, 300), st.integers(0, 50))
def test_the_learning_rate_stays_between_nothing_and_its_highest(steps: int, warmup: int) -> None:
    recipe = Recipe(steps=steps, warmup=warmup)
    rates = [recipe.learning_rate_at(step) for step in range(steps)]
    assert all(0 < rate <= recipe.learning_rate for rate in rates)
    after = rates[warmup:]
    assert after == sorted(after, reverse=True)


def test_numbers_written_as_text_are_read_as_numbers() -> None:
    assert make_recipe({"steps": "5", "learning_rate": "1e-3"}) == Recipe(
        steps=5, learning_rate=1e-3
    )


def test_importing_the_workloads_loads_none_of_their_libraries() -> None:
    heavy = "{'torch', 'ray', 'numpy', 'pyarrow', 'tokenizers'}"
    code = f"import sys, spillway.workloads; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_trial_that_goes_on_reports_what_it_would_have(tiny_dataset: str, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"dataset": tiny_dataset, "max_steps": 25, "seed": 0}
    whole = list(trial(TINY, **asked))

    def part(restored: Path | None) -> Trial:
        return Trial(number=0, metric="loss", send=lambda *_: None, restored=restored, **asked)

    first = trial(TINY, **asked, trial=part(None))
    begun = [next(first) for _ in range(4)]
    saved = [report.pop("checkpoint") for report in begun]
    assert all(saved)
    rest = list(trial(TINY, **asked, trial=part(saved[-1])))
    assert [*begun, *({name: report[name] for name in whole[0]} for report in rest)] == whole


def test_all_of_a_step_is_on_one_device(tiny_dataset: str) -> None:
    """On the device that only knows shapes, two devices in one operation are an error, and so is asking for a number."""
    recipe = make_recipe({"steps": STEPS, **TINY})
    trainer = Trainer(datasets.load(tiny_dataset), recipe, device=torch.device("meta"))
    with pytest.raises(RuntimeError, match="item"):  # of the loss, once there are gradients
        trainer.step()
    gradients = [each.grad for each in trainer.model.parameters()]
    assert all(gradient is not None and gradient.is_meta for gradient in gradients)
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        trainer.validation_loss()
    trainer.optimizer.step()
