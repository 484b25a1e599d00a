"""A trainable that saves its state, for trials on pools that are taken back."""

from __future__ import annotations

from pathlib import Path


def counting_on(config, trial):
    """Count on from the checkpoint; leave a mark for each step that is done."""
    first = int((trial.restored / "step").read_text()) if trial.restored else 0
    for step in range(first + 1, trial.max_steps + 1):
        with (Path(trial.dataset) / "steps").open("a") as steps:
            steps.write(f"{trial.number} {step}\n")
        checkpoint = None
        if trial.should_checkpoint():
            checkpoint = trial.scratch()
            (checkpoint / "step").write_text(str(step))
        trial.report(step, checkpoint=checkpoint, loss=(1 - config["x"]) / step)


def keeping(config, trial):
    """Save at each step, by turns in a folder of the trial's and in one that is the user's own."""
    own = Path(trial.dataset) / "own"
    own.mkdir(exist_ok=True)
    for step in range(1, trial.max_steps + 1):
        checkpoint = trial.scratch() / "inner" if step % 2 else own
        checkpoint.mkdir(exist_ok=True)
        (checkpoint / "step").write_text(str(step))
        trial.report(step, checkpoint=checkpoint, loss=1.0)
