"""Training a small GPT; interrupted anywhere and resumed, it ends bit for bit like a run that was not.

That holds for the same kind of CPU and number of threads. Elsewhere the order of the data is the same and the last bits are not,
so the result says what each part ran on.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from spillway.errors import SpecError, WrongCheckpointError
from spillway.runtime.machine import describe
from spillway.workloads import dataset as datasets
from spillway.workloads.recipe import make_recipe
from spillway.workloads.sweeping.trial import read_state, write_state
from spillway.workloads.trainer import Trainer, be_repeatable
from spillway.workloads.utilisation import CHECKPOINTS, DATA, UsageMeter, advise

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from spillway.runtime import Checkpoint, Session
    from spillway.workloads.dataset import DatasetManifest
    from spillway.workloads.sweeping.trial import Trial

log = logging.getLogger(__name__)

_REPORTS_A_TRIAL = 10


def train(
    session: Session,
    *,
    dataset: str,
    threads: int = 1,
    eval_every: int = 50,
    prefetch: int = 0,
    gradient_checkpointing: bool = False,
    **recipe: Any,
) -> dict[str, JsonValue]:
    """Train on the dataset in that folder and return losses, speed and a checksum of the weights.

    One thread is the default because a lease often shares its machine, and then a second thread costs more than it gives. The
    final weights stay in the last checkpoint.

    Args:
        session: The attempt it runs in.
        dataset: Folder of the dataset.
        threads: Of torch.
        eval_every: Steps between evaluations; there is one after the last step in any case.
        prefetch: Batches that are read ahead while a step is at work.
        gradient_checkpointing: Whether to keep less in memory and compute it again; the same bits in more time.
        recipe: Numbers of `recipe.Recipe`; `steps` has to be there.

    Raises:
        SpecError: A number cannot be, there is no dataset, or the checkpoint is of another recipe or dataset.
        Preempted: The capacity is taken back, and the state is saved.
    """
    for name, number in (("threads", threads), ("eval_every", eval_every)):
        if number < 1:
            raise SpecError(f"{name} is {number}: give 1 or more")
    be_repeatable(threads)
    data = datasets.load(dataset)
    trainer = Trainer(
        data, make_recipe(recipe), prefetch=prefetch, recompute=gradient_checkpointing
    )
    history, machines = _resume(trainer, session.restore(), data.manifest)
    machine = describe()
    _say_what_is_promised(machine, machines)
    machines = [*machines, machine] if machine not in machines else machines

    identity = _identity(trainer, data.manifest)

    def save() -> None:
        state = {"trainer": trainer.state(), "history": history, "machines": machines}
        with meter.held_up_by(CHECKPOINTS):
            session.checkpoint(
                trainer.steps_done, state, recipe=identity["recipe"], dataset=identity["dataset"]
            )

    meter = UsageMeter(threads=threads)
    first, began = trainer.steps_done, time.perf_counter()
    while not trainer.is_done:
        with meter.held_up_by(DATA):
            batch = trainer.next_batch()
        metrics = {"loss": trainer.learn(batch)}
        meter.sample()
        if trainer.is_done or trainer.steps_done % eval_every == 0:
            metrics["validation_loss"] = trainer.validation_loss()
            history.append({"step": trainer.steps_done, **metrics})
        session.progress(trainer.steps_done, trainer.recipe.steps, **metrics)
        if not trainer.is_done and session.should_checkpoint(trainer.steps_done):
            save()
    seconds = time.perf_counter() - began
    usage = meter.usage()
    for line in advise(usage) if trainer.steps_done > first else ():
        log.warning("%s", line)
    save()
    tokens = (trainer.steps_done - first) * trainer.recipe.batch * trainer.recipe.context
    return {
        "validation_loss": history[-1]["validation_loss"],
        "unigram_loss": data.manifest.unigram_loss,
        "bigram_loss": data.manifest.bigram_loss,
        "steps": trainer.steps_done,
        "parameters": sum(each.numel() for each in trainer.model.parameters()),
        "tokens_per_second": round(tokens / seconds, 1) if tokens else None,
        "utilisation": usage.as_json(),
        "weights_checksum": trainer.weights_checksum(),
        "history": [dict(entry) for entry in history],
        "machines": list(machines),
    }


def trial(
    parameters: Mapping[str, JsonValue],
    *,
    dataset: str,
    max_steps: int,
    seed: int,
    trial: Trial | None = None,
) -> Iterator[dict[str, Any]]:
    """Train with `parameters`, numbers of `recipe.Recipe`, and yield `step` and `validation_loss` about ten times.

    As part of a sweep, which gives `trial`, it saves its state when told to, and goes on from there.
    """
    be_repeatable(threads=1)
    trainer = Trainer(
        datasets.load(dataset), make_recipe({"seed": seed, "steps": max_steps, **parameters})
    )
    if trial is not None and trial.restored is not None:
        trainer.load(read_state(trial.restored))
    every = max(1, max_steps // _REPORTS_A_TRIAL)
    while not trainer.is_done:
        loss = trainer.step()
        if trainer.is_done or trainer.steps_done % every == 0:
            report: dict[str, Any] = {
                "step": trainer.steps_done,
                "loss": loss,
                "validation_loss": trainer.validation_loss(),
            }
            if trial is not None and trial.should_checkpoint():
                report["checkpoint"] = write_state(trainer.state(), trial.scratch())
            yield report


def _resume(
    trainer: Trainer, checkpoint: Checkpoint | None, manifest: DatasetManifest
) -> tuple[list[dict[str, float]], list[str]]:
    """Put the trainer where the checkpoint was taken; return the history until there and the machines it ran on."""
    if checkpoint is None:
        return [], []
    for name, now in _identity(trainer, manifest).items():
        then = _with_usual_numbers(name, checkpoint.metadata.get(name))
        if then != now:
            raise WrongCheckpointError(
                f"the checkpoint of step {checkpoint.step} has {name} {then} and this run {now}: "
                "ask for a fresh start, or give what it was begun with"
            )
    trainer.load(checkpoint.state["trainer"])
    return list(checkpoint.state["history"]), list(checkpoint.state["machines"])


def _with_usual_numbers(name: str, then: JsonValue) -> JsonValue:
    """Return what a checkpoint says of itself, with the usual number where it was saved before a number was there to give."""
    return asdict(make_recipe(then)) if name == "recipe" and isinstance(then, dict) else then


def _say_what_is_promised(machine: str, before: Sequence[str]) -> None:
    if before and set(before) != {machine}:
        log.warning(
            "goes on with the same data order and random numbers on %s, after %s: the last bits may differ from a run on one"
            " of them",
            machine,
            ", ".join(before),
        )
    elif before:
        log.info("goes on bit for bit as if it had not stopped")


def _identity(trainer: Trainer, manifest: DatasetManifest) -> dict[str, JsonValue]:
    return {"recipe": asdict(trainer.recipe), "dataset": manifest.dataset}
