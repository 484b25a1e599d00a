"""What a user's trial calls to say how far it is and to keep what it can go on from.

def train(config, trial):
    model, first = load(trial.restored) if trial.restored else (make(config), 0)
    for step in range(first + 1, trial.max_steps + 1):
        loss = model.learn()
        if trial.should_checkpoint():
            trial.report(step, checkpoint=model.write(trial.scratch()), loss=loss)
        else:
            trial.report(step, loss=loss)
"""

from __future__ import annotations

import inspect
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spillway.checkpoints.formats import decode_state, encode_state
from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Trial:
    """One trial, as the code that does its work sees it.

    Attributes:
        number: Counted from 0.
        dataset: Folder of the dataset.
        max_steps: Steps after which it is done.
        seed: Of the sweep's random numbers.
        restored: Folder with what was last given as `checkpoint`, when the trial goes on; None at its beginning.
    """

    def __init__(  # noqa: PLR0913  # what a trial is told, each by its name
        self,
        *,
        number: int,
        dataset: str,
        max_steps: int,
        seed: int,
        metric: str,
        send: Callable[[dict[str, Any], Path | None], None],
        restored: Path | None = None,
        checkpoint_seconds: float = 0.0,
        folder: Path | str | None = None,
    ) -> None:
        self.number = number
        self.dataset = dataset
        self.max_steps = max_steps
        self.seed = seed
        self.restored = restored
        self._metric = metric
        self._send = send
        self._checkpoint_seconds = checkpoint_seconds
        self._saved_at = time.monotonic()
        self._folder = folder  # of `scratch`; the system's own for such without it
        self._scratch: set[Path] = set()

    def should_checkpoint(self) -> bool:
        """Return whether it is time to give a checkpoint with the next report."""
        return time.monotonic() - self._saved_at >= self._checkpoint_seconds

    def scratch(self) -> Path:
        """Return a new empty folder, to write a checkpoint into; it is gone once that has been given to `report`."""
        made = Path(tempfile.mkdtemp(prefix="trial-", dir=self._folder))
        self._scratch.add(made)
        return made

    def report(self, step: int, *, checkpoint: Path | str | None = None, **metrics: float) -> None:
        """Say that `step` steps are done, with the metric; `checkpoint` is a folder, copied when this returns.

        Raises:
            SpecError: The metric that the sweep compares is not among those given.
        """
        if self._metric not in metrics:
            raise SpecError(
                f"the trial reports no {self._metric}: let it, or give as metric one of {', '.join(sorted(metrics))}"
            )
        folder = Path(checkpoint) if checkpoint else None
        try:
            self._send({"step": step, **metrics}, folder)
        finally:
            for made in self._scratch.intersection([folder, *folder.parents] if folder else ()):
                shutil.rmtree(made, ignore_errors=True)
                self._scratch.remove(made)
        if checkpoint:
            self._saved_at = time.monotonic()


def write_state(state: object, folder: Path) -> Path:
    """Write a state, such as `Session.checkpoint` takes, as files of `folder`, which is made, and return that.

    Raises:
        SpecError: Something in it cannot be saved; the message says where it is.
    """
    folder.mkdir(exist_ok=True)
    for name, part in encode_state(state).items():
        (folder / name).write_bytes(part)
    return folder


def read_state(folder: Path) -> Any:
    """Return the state that `write_state` wrote; no code that is in the files is run.

    Raises:
        CorruptCheckpointError: They are not the files of a state.
    """
    return decode_state({file.name: file.read_bytes() for file in folder.iterdir()})


def run_function(
    function: Callable[..., object], parameters: Mapping[str, Any], trial: Trial
) -> None:
    """Call a trial's function and pass on what it yields, if it does.

    It gets the parameters first, and by name those of `trial`, `dataset`, `max_steps` and `seed` that it takes.
    """
    takes = inspect.signature(function).parameters
    takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in takes.values())
    offered = {
        "trial": trial,
        "dataset": trial.dataset,
        "max_steps": trial.max_steps,
        "seed": trial.seed,
    }
    accepted = {name: each for name, each in offered.items() if name in takes or takes_all}
    returned = function(dict(parameters), **accepted)
    if not isinstance(returned, Iterator):
        return
    for report in returned:
        if "step" not in report:
            raise SpecError(
                f"the trial reports no step: let it, beside {', '.join(sorted(report))}"
            )
        trial.report(**report)
