"""The whole state of a training loop, so that one that was stopped goes on as if it had not been.

```python
state = TrainingState(model=model, loader=loader, optimizer=optimizer, scheduler=scheduler, scaler=scaler)
if checkpoint := session.restore():
    state.load_state_dict(checkpoint.state)
while state.steps_done < steps:
    for batch in state.batches():
        ...
        state.steps_done += 1
        if session.should_checkpoint(state.steps_done):
            session.checkpoint(state.steps_done, state.state_dict())
```

Bit for bit holds on the same kind of CPU with as many threads and the same torch; what else changes is said in the log. It does
not hold for random numbers that are drawn inside data-loader workers: draw them in the loop, or from the sample's number.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import distributed

from spillway.errors import WrongCheckpointError
from spillway.runtime import randomness
from spillway.runtime.machine import describe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

log = logging.getLogger(__name__)


class Stateful(Protocol):
    """An optimizer, a scheduler, a gradient scaler, a torchdata loader, or anything of yours like them."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Go on from there."""
        ...


class TrainingState:
    """Everything that decides what a training loop does next.

    Model, optimizer and whatever else is given; the position in the data; gradients that wait for more of them; and every random
    number generator. Take it between two batches, at an optimizer step or between two: gradients that are there are saved, so
    set them to None after a step, or the checkpoint holds them for nothing.

    In a process group every rank calls `state_dict` at the same step, and the one of rank 0 is the one to save: what ranks do
    not share is gathered in it.

    Attributes:
        steps_done: Yours to count.
        metrics: Yours to fill with what JSON, arrays and tensors can say, such as running sums.
    """

    def __init__(
        self, *, model: nn.Module, loader: Stateful | None = None, **parts: Stateful | None
    ) -> None:
        """Take note of what belongs to the state; whatever changes from step to step has to be in it.

        Args:
            model: The model, within `DistributedDataParallel` or not.
            loader: A `torchdata.stateful_dataloader.StatefulDataLoader`, or what else can tell and take up its position.
            parts: Optimizer, scheduler, scaler and the like, each under its name; None for one that is not used.
        """
        self.steps_done = 0
        self.metrics: dict[str, Any] = {}
        self._model: nn.Module = getattr(model, "module", model)
        self._loader = loader
        self._parts = {name: part for name, part in parts.items() if part is not None}
        self._randomness: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the state as `Session.checkpoint` takes it. Within a process group it waits for all ranks."""
        return {
            "steps_done": self.steps_done,
            "metrics": dict(self.metrics),
            "model": self._model.state_dict(),
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
            "ranks": _gather(self._of_this_rank()),
            "setup": self._setup(),
            "machine": _machine(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> tuple[str, ...]:
        """Go on from `state`; return what is different from where it was saved, nothing when bit for bit is promised.

        Call it before the first of `batches`.

        Raises:
            WrongCheckpointError: It is the state of something else: other parts, shapes, data-loader workers or ranks.
        """
        self._check_setup(state["setup"])
        self.steps_done = state["steps_done"]
        self.metrics = dict(state["metrics"])
        self._load("model", self._model, state["model"])
        for name, part in self._parts.items():
            self._load(name, part, state["parts"][name])
        local = state["ranks"][_rank()]
        if self._loader is not None:
            self._load("loader", self._loader, local["loader"])
        for name, parameter in self._model.named_parameters():
            gradient = local["gradients"].get(name)
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
        self._randomness = local["randomness"]
        randomness.restore(local["randomness"])
        return _say_what_is_promised(state["machine"])

    def batches(self) -> Iterator[Any]:
        """Yield what is left of the loader's epoch, or a new epoch."""
        iterator = iter(self._loader)  # type: ignore[call-overload]  # it is a loader
        if self._randomness is not None:
            # Making the iterator draws a seed, which the run that was stopped had drawn before.
            randomness.restore(self._randomness)
            self._randomness = None
        yield from iterator

    def _of_this_rank(self) -> dict[str, Any]:
        return {
            "randomness": randomness.capture(),
            "loader": self._loader.state_dict() if self._loader is not None else None,
            "gradients": {
                name: parameter.grad
                for name, parameter in self._model.named_parameters()
                if parameter.grad is not None
            },
        }

    def _setup(self) -> dict[str, Any]:
        return {
            "parts": sorted(self._parts),
            "ranks": _world_size(),
            "data-loader workers": getattr(self._loader, "num_workers", None),
        }

    def _check_setup(self, then: dict[str, Any]) -> None:
        for name, now in self._setup().items():
            if then[name] != now:
                raise WrongCheckpointError(
                    f"the checkpoint was saved with {name} {then[name]} and this run has {now}: give the same, or ask for a"
                    " fresh start"
                )

    @staticmethod
    def _load(name: str, part: Stateful, state: dict[str, Any]) -> None:
        try:
            part.load_state_dict(state)
        except (KeyError, RuntimeError, ValueError) as error:
            first = " ".join(str(error).split("\n")[:2])  # a line for each tensor follows
            raise WrongCheckpointError(
                f"the checkpoint is of another {name}: {first} Build it as it was, or ask for a fresh start"
            ) from error


def _gather(local: dict[str, Any]) -> list[dict[str, Any]]:
    if _world_size() == 1:
        return [local]
    gathered: list[Any] = [None] * _world_size()
    distributed.all_gather_object(gathered, local)
    return gathered


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _world_size() -> int:
    return distributed.get_world_size() if _is_distributed() else 1


def _rank() -> int:
    return distributed.get_rank() if _is_distributed() else 0


def _machine() -> dict[str, str]:
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"CPU": describe(), "accelerator": accelerator, "torch": str(torch.__version__)}


def _say_what_is_promised(then: dict[str, str]) -> tuple[str, ...]:
    differences = tuple(
        f"{name} was {then.get(name)} and is {now}"
        for name, now in _machine().items()
        if then.get(name) != now
    )
    if differences:
        log.warning(
            "goes on with the same data order and random numbers, and may differ in the last bits: %s",
            "; ".join(differences),
        )
    else:
        log.info("goes on bit for bit as if it had not stopped")
    return differences
