"""The study that the trials of a spread sweep share: which parameters each has, what it has reported, how it ended.

Trial 7 of the sweep is the first trial of the Optuna study that is marked as such. It is made once, and an attempt that goes on
where another was preempted finds it there with its parameters and all that it has reported.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from spillway.workloads.space import draw, parse_space
from spillway.workloads.study_journal import StoreJournal
from spillway.workloads.sweeping.choices import LEAST_TRIALS_FOR_A_MEDIAN, Schedule, SearchBy
from spillway.workloads.sweeping.rows import Row, TrialStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from spillway.checkpoints import ObjectStore
    from spillway.workloads.spread_search import SpreadSearch
    from spillway.workloads.sweeping.limits import Spent

_NAME: Final = "sweep"
_FOLDER: Final = "study"
_NUMBER: Final = "trial"
_PARAMS: Final = "params"
_ERROR: Final = "error"
_SPENT: Final = "spent"
_POOLS: Final = "pools"
_CUT: Final = "cut"


class SharedStudy:
    """The study as one process sees it. Not for several threads at once."""

    def __init__(self, store: ObjectStore, search: SpreadSearch) -> None:
        """Open the study in `store`, or begin it there.

        Raises:
            StoreError: The store could not be read or written.
        """
        self._search = search
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            study_name=_NAME,
            storage=optuna.storages.JournalStorage(StoreJournal(store, _FOLDER)),
            direction="minimize" if search.mode == "min" else "maximize",
            pruner=_pruner(search),
            load_if_exists=True,
        )

    def begin(self, number: int) -> SharedTrial:
        """Return trial `number`, made now unless it is there."""
        if not self._find(number):
            # The parameters come with the trial and not after it, so that nobody ever sees the one without the other.
            marks = {_NUMBER: number, _PARAMS: self._choose(number)}
            self._study.add_trial(
                optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=marks)
            )
        first, *others = self._find(number)
        for other in others:  # two attempts of one task made it at once
            with suppress(UpdateFinishedTrialError):
                self._study.tell(other.number, state=TrialState.FAIL, skip_if_finished=True)
        return SharedTrial(self._study, first, self._search)

    def rows(self) -> dict[int, Row]:
        """Return the row of each trial that was begun, by its number in the sweep."""
        return _rows(self._study, self._search)

    def _find(self, number: int) -> list[FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.user_attrs[_NUMBER] == number]

    def _choose(self, number: int) -> dict[str, JsonValue]:
        domains = parse_space(self._search.space)
        if self._search.search == SearchBy.RANDOM:
            return draw(domains, seed=self._search.seed, trial=number)
        from spillway.workloads.sweeping.proposals import Proposer

        proposer = Proposer(domains, seed=self._search.seed, mode=self._search.mode)
        proposer.take_over(self.rows().values())
        return proposer.propose(number)


class SharedTrial:
    """One trial of the study, for whoever runs it.

    Where another attempt of the same task was quicker to end it, what that one said is what counts.
    """

    def __init__(self, study: optuna.Study, frozen: FrozenTrial, search: SpreadSearch) -> None:
        self._study = study
        self._search = search
        self._number = frozen.number
        # Optuna offers no other way to go on with a trial.
        self._trial = optuna.Trial(study, frozen._trial_id)  # noqa: SLF001
        self._reported = dict(frozen.intermediate_values)

    @property
    def row(self) -> Row:
        """Its row of the table, as it is now."""
        return _row(self._study.get_trials(deepcopy=False)[self._number], self._search)

    def charge(self, spent: Spent, *, pool: str) -> None:
        """Write down what the trial has taken so far, over all attempts, and that it ran on the pool."""
        pools = self._trial.user_attrs.get(_POOLS, [])
        if pool not in pools:
            self._set(_POOLS, [*pools, pool])
        self._set(_SPENT, asdict(spent))

    def rows(self) -> Sequence[Row]:
        """Return the row of each trial that was begun, as this process has last seen them."""
        return list(_rows(self._study, self._search).values())

    def cut(self) -> None:
        """End it for a limit of the sweep, with what it has reported."""
        self._set(_CUT, True)  # noqa: FBT003  # Optuna's marks are values
        with suppress(UpdateFinishedTrialError):
            self._study.tell(self._trial, state=TrialState.PRUNED, skip_if_finished=True)

    def report(self, step: int, value: float) -> bool:
        """Tell the study; return whether to go on. What an earlier attempt reported is not reported twice."""
        if step in self._reported:
            return True
        self._reported[step] = value
        try:
            self._trial.report(value, step)
            return step >= self._search.max_steps or not self._trial.should_prune()
        except UpdateFinishedTrialError:
            return False

    def _set(self, mark: str, value: object) -> None:
        with suppress(UpdateFinishedTrialError):
            self._trial.set_user_attr(mark, value)

    def end(self, error: str | None = None) -> None:
        """End it with what it has reported; as failed if there is an `error`, or no report."""
        ended = self.row.ended(
            max_steps=self._search.max_steps, error=error, metric_name=self._search.metric
        )
        with suppress(UpdateFinishedTrialError):
            if ended.error is not None:
                self._set(_ERROR, ended.error)
                self._study.tell(self._trial, state=TrialState.FAIL, skip_if_finished=True)
            elif ended.steps < self._search.max_steps:
                self._study.tell(self._trial, state=TrialState.PRUNED, skip_if_finished=True)
            else:
                self._study.tell(self._trial, ended.metric, skip_if_finished=True)


def _rows(study: optuna.Study, search: SpreadSearch) -> dict[int, Row]:
    rows: dict[int, Row] = {}
    for trial in study.get_trials(deepcopy=False):
        rows.setdefault(trial.user_attrs[_NUMBER], _row(trial, search))
    return rows


def _row(trial: FrozenTrial, search: SpreadSearch) -> Row:
    """Return the row of the table that a trial of Optuna's is."""
    row = Row(
        trial=trial.user_attrs[_NUMBER],
        params=trial.user_attrs[_PARAMS],
        pools=tuple(trial.user_attrs.get(_POOLS, ())),
        **trial.user_attrs.get(_SPENT, {}),
    )
    for step, value in sorted(trial.intermediate_values.items()):
        row = row.reported(step, value)
    if not trial.state.is_finished():
        return row
    if trial.user_attrs.get(_CUT):
        return replace(row, status=TrialStatus.CUT)
    error = trial.user_attrs.get(_ERROR)
    return row.ended(max_steps=search.max_steps, error=error, metric_name=search.metric)


def _pruner(search: SpreadSearch) -> optuna.pruners.BasePruner:
    match search.scheduler:
        case Schedule.ASHA:
            return optuna.pruners.SuccessiveHalvingPruner(
                min_resource=search.first_rung, reduction_factor=search.reduction_factor
            )
        case Schedule.MEDIAN:
            return optuna.pruners.MedianPruner(
                n_startup_trials=LEAST_TRIALS_FOR_A_MEDIAN, n_warmup_steps=search.first_rung
            )
        case _:
            return optuna.pruners.NopPruner()
