"""Trainables without a model, for sweeps whose Ray is real."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
from ray import tune


def falling(parameters, *, dataset, max_steps, seed):
    """Report a loss that is lower the larger x is; leave a mark in the folder `dataset` for each start."""
    with (Path(dataset) / "starts").open("a") as starts:
        starts.write(f"{parameters['x']}\n")
    for step in range(1, max_steps + 1):
        time.sleep(parameters.get("seconds", 0))
        yield {"step": step, "loss": (1 - parameters["x"]) / step}


def breaking(parameters, *, dataset, max_steps, seed):
    yield {"step": 1, "loss": 1.0}
    raise ArithmeticError(f"cannot take {parameters['x']}")


def silent(parameters):
    """Report nothing."""


def other(parameters):
    yield {"step": 1, "accuracy": 1.0}


def kept(parameters, trial):
    """Save every second step; write down each step, and as which trials some step kills Ray or the whole job."""
    folder = Path(trial.dataset)
    step = json.loads((trial.restored / "state").read_text()) if trial.restored else 0
    while step < trial.max_steps:
        time.sleep(0.05)
        step += 1
        with (folder / "steps").open("a") as steps:
            steps.write(f"{trial.number} {step}\n")
        _kill_once(folder, trial.number, step)
        loss = (1 - parameters["x"]) / step
        if step % 2:
            trial.report(step, loss=loss)
        else:
            saved = trial.scratch()
            with (folder / "folders").open("a") as folders:
                folders.write(f"{saved}\n{trial.restored or saved}\n")
            (saved / "state").write_text(json.dumps(step))
            trial.report(step, loss=loss, checkpoint=saved)


def climbing(parameters, trial):
    """Get better by x with each step, from wherever the checkpoint was; save when told to.

    The trial that the file `last` names comes to each step after the three others, until it goes on from one of theirs.
    No other waits: while Tune copies a trial it does nothing else, so one that waited for the rest would wait for ever.
    """
    folder = Path(trial.dataset)
    state = {"step": 0, "height": 0.0}
    if trial.restored:
        state = json.loads((trial.restored / "state").read_text())
    comes_last = not trial.restored and (folder / "last").read_text() == str(trial.number)
    while state["step"] < trial.max_steps:
        state = {"step": state["step"] + 1, "height": state["height"] + parameters["x"]}
        (folder / f"at-{trial.number}-{state['step']}").touch()
        if comes_last:
            _wait_for_others(folder, trial.number, state["step"])
        saved = None
        if trial.should_checkpoint():
            saved = trial.scratch()
            (saved / "state").write_text(json.dumps(state))
        trial.report(state["step"], checkpoint=saved, height=state["height"])


def together(parameters, *, dataset, max_steps, seed):
    """Do as `falling` once two trials have been at work at the same time."""
    (Path(dataset) / f"here-{parameters['x']}").touch()
    while len(list(Path(dataset).glob("here-*"))) < 2:
        time.sleep(0.01)
    yield from falling(parameters, dataset=dataset, max_steps=max_steps, seed=seed)


def _wait_for_others(folder, number, step):
    while any(_furthest(folder, other) < step for other in {0, 1, 2, 3} - {number}):
        time.sleep(0.01)


def _furthest(folder, number):
    """Return the last step of a trial; one that goes on from another's checkpoint leaves steps out."""
    return max((int(path.name.split("-")[2]) for path in folder.glob(f"at-{number}-*")), default=0)


def _kill_once(folder: Path, number: int, step: int) -> None:
    """Obey `kill-<trial>-<step>`, which names a process of Ray's, once."""
    order = folder / f"kill-{number}-{step}"
    if not order.exists():
        return
    name = order.read_text()
    order.rename(folder / f"killed-{number}-{step}")
    session = os.getsid(0)
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.name() == name:
                process.send_signal(signal.SIGKILL)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    time.sleep(30)  # until this process is ended as well


class Nothing:
    """No trainable."""


class Counting(tune.Trainable):
    """Ray's own kind: an iteration is a step."""

    def setup(self, config):
        self.x, self.done = config["x"], 0

    def step(self):
        self.done += 1
        return {"loss": (1 - self.x) / self.done}

    def save_checkpoint(self, checkpoint_dir):
        (Path(checkpoint_dir) / "done").write_text(str(self.done))

    def load_checkpoint(self, checkpoint):
        self.done = int((Path(checkpoint) / "done").read_text())

    def reset_config(self, new_config):
        self.setup(new_config)
        return True


class Remembering(Counting):
    """One that saves a dict; after two steps it waits for the file `go`, and it leaves a mark where it goes on."""

    def setup(self, config):
        super().setup(config)
        self.folder = Path(config["folder"])

    def step(self):
        while self.done == 2 and not (self.folder / "go").exists():
            time.sleep(0.02)
        return super().step()

    def save_checkpoint(self, checkpoint_dir):  # noqa: ARG002  # Tune gives it
        return {"done": self.done, "since": (1, 2)}

    def load_checkpoint(self, checkpoint):
        assert checkpoint["since"] == (1, 2)
        self.done = checkpoint["done"]
        (self.folder / f"went-on-from-{self.done}").touch()
