"""Tune's searchers and schedulers, begun with what the attempt before knew."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.fs
from ray import tune
from ray.train._internal.session import _FutureTrainingResult, _TrainingResult
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import Searcher
from typing_extensions import override

from spillway.workloads.space import (
    Choice,
    Domain,
    LogUniform,
    QuantizedUniform,
    RandomInteger,
    Uniform,
    parse_space,
)
from spillway.workloads.sweeping.choices import LEAST_TRIALS_FOR_A_MEDIAN, Schedule

if TYPE_CHECKING:
    from spillway.workloads.search import Request
    from spillway.workloads.sweeping.rows import Row

TRIAL = "spillway_trial"
"""Beside a trial's parameters, its number."""


def parameters_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return a trial's parameters without its number."""
    return {name: value for name, value in config.items() if name != TRIAL}


def make_searcher(request: Request, remaining: list[int]) -> Searcher:
    """Return a searcher that proposes the remaining trials, those that go on first, knowing what the ended ones reported."""
    going_on = {row.trial: row.params for row in request.rows if not row.has_ended}
    return _Searcher(request, sorted(remaining, key=lambda number: number not in going_on))


def make_scheduler(
    request: Request, *, step: str, files: pyarrow.fs.FileSystem, folder: str
) -> Any:
    """Return a scheduler whose trials begin where they were in the attempt before.

    Args:
        request: What is asked for.
        step: Tune's name for the steps of a trial.
        files: What trials read their checkpoints from.
        folder: For the checkpoints that they begin from, in `files`.
    """
    search, before = request.search, _Before(request, files, f"{folder}/restored")
    match search.scheduler:
        case Schedule.NONE:
            return _Fifo(before)
        case Schedule.ASHA:
            return _Asha(
                before,
                time_attr=step,
                max_t=search.max_steps,
                grace_period=search.grace_steps,
                reduction_factor=search.reduction_factor,
            )
        case Schedule.MEDIAN:
            return _Median(
                before,
                time_attr=step,
                grace_period=search.grace_steps,
                min_samples_required=LEAST_TRIALS_FOR_A_MEDIAN,
            )
        case Schedule.PBT:
            return Pbt(before, step)


class _Before:
    """What the attempt before knew of the trials that go on."""

    def __init__(self, request: Request, files: pyarrow.fs.FileSystem, folder: str) -> None:
        self.request = request
        self.ended = [row for row in request.rows if row.has_ended]
        self._going_on = {row.trial: row for row in request.rows if not row.has_ended}
        self._files = files
        self._folder = folder

    def row_of(self, trial: Any) -> Row | None:
        """Return the row of the trial, if it goes on."""
        return self._going_on.get(trial.config[TRIAL])

    def prepare(self, trial: Any) -> None:
        """Give a new trial the parameters and the checkpoint it had."""
        number, row = trial.config[TRIAL], self.row_of(trial)
        known = row.params if row else self.request.drawn.get(number)
        if known is not None:
            trial.set_config({TRIAL: number, **known})
        folder = self.request.checkpoints.get(number)
        if row and folder:
            _begin_from(trial, self._reachable(folder, number), row)

    def _reachable(self, folder: str, number: int) -> Any:
        """Return the checkpoint in a folder of this machine as one that whatever machine the trial runs on can read."""
        if self.request.shared is None:
            return tune.Checkpoint.from_directory(folder)
        there = f"{self._folder}/{number}"
        self._files.create_dir(there)
        pyarrow.fs.copy_files(folder, there, destination_filesystem=self._files)
        return tune.Checkpoint(there, filesystem=self._files)


class _GoesOn(TrialScheduler):
    """Lets each trial begin where it was."""

    def __init__(self, before: _Before, **options: Any) -> None:
        self._before = before
        super().__init__(**options)  # type: ignore[no-untyped-call]  # Tune's

    @override
    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._before.prepare(trial)
        super().on_trial_add(tune_controller, trial)


class _Fifo(_GoesOn, FIFOScheduler):
    """Lets every trial run to its end."""


@dataclass(frozen=True)
class _Ended:
    """What a scheduler asks of a trial that ended in an attempt before."""

    trial_id: str


class _Remembers(_GoesOn):
    """Knows what trials reported in attempts before."""

    _time_attr: str
    _metric: str
    _knows = False

    @override
    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if not self._knows:
            self._knows = True
            for row in self._before.ended:
                ended: Any = _Ended(trial_id=f"ended-{row.trial}")
                super(_GoesOn, self).on_trial_add(tune_controller, ended)
                self._replay(tune_controller, ended, row)
        super().on_trial_add(tune_controller, trial)
        row_before = self._before.row_of(trial)
        if row_before:
            self._replay(tune_controller, trial, row_before)

    def _replay(self, tune_controller: Any, trial: Any, row: Row) -> None:
        for step, value in row.curve:
            result = {self._time_attr: step, self._metric: value}
            self.on_trial_result(tune_controller, trial, result)


class _Asha(_Remembers, ASHAScheduler):
    """Remembers what each rung has seen."""


class _Median(_Remembers, MedianStoppingRule):
    """Remembers what the median is taken of; a trial that waits gets its turn when another has ended, and not before."""

    @override
    def _replay(self, tune_controller: Any, trial: Any, row: Row) -> None:
        self._results[trial] += [
            {self._time_attr: step, self._metric: value} for step, value in row.curve
        ]

    @override
    def _on_insufficient_samples(self, tune_controller: Any, trial: Any, time: float) -> str:
        return TrialScheduler.CONTINUE


class Pbt(_GoesOn, PopulationBasedTraining):
    """Changes parameters within the space."""

    def __init__(self, before: _Before, step: str) -> None:
        search = before.request.search
        domains = parse_space(before.request.space)
        # Tune draws from the generators of the process.
        random.seed(search.seed)
        np.random.seed(search.seed % 2**32)  # noqa: NPY002
        super().__init__(
            before,
            time_attr=step,
            perturbation_interval=search.grace_steps,
            hyperparam_mutations={
                name: _for_tune(domain)
                for name, domain in domains.items()
                if not (isinstance(domain, Choice) and len(domain.values) == 1)
            },
            custom_explore_fn=lambda config: _within(domains, config),
            log_config=False,
        )

    @override
    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        row = self._before.row_of(trial)
        if row:  # the next change is due when it would have been
            done = row.checkpoint_step or 0
            state: Any = self._trial_state[trial]
            state.last_perturbation_time = done - done % int(self._perturbation_interval)

    @override
    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], Any]:
        config, operations = super()._get_new_config(trial, trial_to_clone)
        return {**config, TRIAL: trial.config[TRIAL]}, operations

    def in_use(self) -> set[str]:
        """Return where the checkpoints are that a trial may still begin from."""
        found: list[Any] = [trial.checkpoint for trial in self._trial_state]
        for state in self._trial_state.values():
            kept = state.last_checkpoint
            if isinstance(kept, _FutureTrainingResult):
                saved = kept.resolve(block=False)  # while it is under way it is that trial's latest
                kept = saved.checkpoint if saved else None
            found.append(kept)
        return {checkpoint.path for checkpoint in found if checkpoint}


class Retention(tune.Callback):
    """Deletes a population's checkpoints once no trial may begin from them.

    Tune's own rule counts: it would delete a good trial's checkpoint while one that waits for a CPU is to go on from it.
    """

    def __init__(self, scheduler: Pbt) -> None:
        self._scheduler = scheduler
        self._made: dict[str, Any] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave all behind; see `ray_trials`."""
        return (tune.Callback, ())

    @override
    def on_checkpoint(
        self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        in_use = {checkpoint.path, *self._scheduler.in_use()}
        for path in [path for path in self._made if path not in in_use]:
            old = self._made.pop(path)
            old.filesystem.delete_dir(old.path)
        self._made[checkpoint.path] = checkpoint


class _Searcher(Searcher):
    """Proposes by what the trials reported; see `proposals`."""

    def __init__(self, request: Request, numbers: list[int]) -> None:
        super().__init__(metric=request.search.metric, mode=request.search.mode)
        self._going_on = {row.trial: row.params for row in request.rows if not row.has_ended}
        self._numbers = numbers
        self._trials: dict[str, int] = {}
        # Not above: every process of a trial imports this module, and has no use for Optuna.
        from spillway.workloads.sweeping.proposals import Proposer

        self._proposer = Proposer(
            parse_space(request.space), seed=request.search.seed, mode=request.search.mode
        )
        self._proposer.take_over(request.rows)

    @override
    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if not self._numbers:
            return None
        number = self._trials[trial_id] = self._numbers.pop(0)
        known = self._going_on.get(number)
        return {TRIAL: number, **(known or self._proposer.propose(number))}

    @override
    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        value = None if error or not result else result.get(self.metric)
        self._proposer.learn(self._trials[trial_id], value)

    @override
    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the table of trials is all it knows."""

    @override
    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


def _begin_from(trial: Any, checkpoint: Any, row: Row) -> None:
    """Let the trial begin from a checkpoint, as Tune's own argument for that does, which takes only one for all trials."""
    trial._restore_checkpoint_result = _TrainingResult(  # noqa: SLF001  # see above
        checkpoint=checkpoint, metrics={"training_iteration": row.checkpoint_step}
    )


def _for_tune(domain: Domain) -> Any:
    match domain:
        case Uniform(low=low, high=high):
            return tune.uniform(low, high)
        case LogUniform(low=low, high=high):
            return tune.loguniform(low, high)
        case RandomInteger(low=low, high=high):
            return tune.randint(low, high)
        case QuantizedUniform() as steps:
            return [steps.value(index) for index in range(steps.count)]
        case Choice(values=values):
            return list(values)
        case _:
            raise AssertionError(domain)


def _within(domains: dict[str, Domain], config: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters put back into their ranges, which multiplying by 1.2 may leave."""
    for name, domain in domains.items():
        match domain:
            case Uniform(low=low, high=high) | LogUniform(low=low, high=high):
                config[name] = min(max(config[name], low), high)
            case RandomInteger(low=low, high=high):
                config[name] = min(max(int(config[name]), low), high - 1)
            case _:
                pass
    return config
