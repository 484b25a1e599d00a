"""Tune's searchers and schedulers, begun with what the attempt before knew."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.train._internal.session import _TrainingResult
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining
from ray.tune.search import Searcher
from typing_extensions import override

from spillway.workloads.search import Schedule
from spillway.workloads.space import (
    Choice,
    Domain,
    LogUniform,
    QuantizedUniform,
    RandomInteger,
    Uniform,
    parse_space,
)
from spillway.workloads.sweeping.proposals import Proposer

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


def make_scheduler(request: Request, *, step: str) -> Any:
    """Return a scheduler whose trials begin where they were in the attempt before."""
    search = request.search
    if search.scheduler is Schedule.NONE:
        return _Fifo(request)
    if search.scheduler is Schedule.ASHA:
        return _Asha(
            request,
            time_attr=step,
            max_t=search.max_steps,
            grace_period=search.grace_steps,
            reduction_factor=search.reduction_factor,
        )
    return _Pbt(request, step)


class _GoesOn:
    """Gives a trial that is added the parameters and the checkpoint it had."""

    def __init__(self, request: Request, **options: Any) -> None:
        self._request = request
        self._going_on = {row.trial: row for row in request.rows if not row.has_ended}
        super().__init__(**options)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Come before the scheduler's own."""
        number = trial.config[TRIAL]
        row = self._going_on.get(number)
        known = row.params if row else self._request.drawn.get(number)
        if known is not None:
            trial.set_config({TRIAL: number, **known})
        folder = self._request.checkpoints.get(number)
        if row and folder:
            _begin_from(trial, folder, row)
        super().on_trial_add(tune_controller, trial)  # type: ignore[misc]  # the scheduler's


class _Fifo(_GoesOn, FIFOScheduler):
    """Lets every trial run to its end."""


class _Asha(_GoesOn, ASHAScheduler):
    """Remembers what trials reported at each rung in attempts before."""

    _knows = False

    @override
    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if not self._knows:
            self._knows = True
            for row in self._request.rows:
                if row.has_ended:
                    stub: Any = SimpleNamespace(trial_id=f"ended-{row.trial}")
                    ASHAScheduler.on_trial_add(self, tune_controller, stub)
                    self._replay(tune_controller, stub, row)
        super().on_trial_add(tune_controller, trial)
        row_before = self._going_on.get(trial.config[TRIAL])
        if row_before:
            self._replay(tune_controller, trial, row_before)

    def _replay(self, tune_controller: Any, trial: Any, row: Row) -> None:
        for step, value in row.curve:
            result = {self._time_attr: step, self._metric: value}
            ASHAScheduler.on_trial_result(self, tune_controller, trial, result)


class _Pbt(_GoesOn, PopulationBasedTraining):
    """Changes parameters within the space."""

    def __init__(self, request: Request, step: str) -> None:
        domains = parse_space(request.space)
        search = request.search
        super().__init__(
            request,
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


class _Searcher(Searcher):
    """Proposes by what the trials reported; see `proposals`."""

    def __init__(self, request: Request, numbers: list[int]) -> None:
        super().__init__(metric=request.search.metric, mode=request.search.mode)
        self._going_on = {row.trial: row.params for row in request.rows if not row.has_ended}
        self._numbers = numbers
        self._trials: dict[str, int] = {}
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


def _begin_from(trial: Any, folder: str, row: Row) -> None:
    """Let the trial begin from a checkpoint, as Tune's own argument for that does, which takes only one for all trials."""
    trial._restore_checkpoint_result = _TrainingResult(  # noqa: SLF001  # see above
        checkpoint=tune.Checkpoint.from_directory(folder),
        metrics={"training_iteration": row.checkpoint_step},
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
