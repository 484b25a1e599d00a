"""The table of a sweep spread over pools, and the choice of the mode."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk.exceptions import AirflowSkipException, ParamValidationError, TaskDeferred

from spillway.airflow import pipeline as pipeline_tasks
from spillway.airflow.hook import SpillwayHook
from spillway.airflow.run_options import read_run_options
from spillway.airflow.trials import CollectTrialsOperator, SweepOperator, TrialOperator
from spillway.checkpoints import FolderStore, open_store
from spillway.dispatch import Running
from spillway.errors import SpecError, StoreUnavailableError
from spillway.model import Resources, TaskKey
from spillway.runtime import Session
from spillway.workloads import dataset, pipeline, spread
from spillway.workloads.sizes import SIZES

if TYPE_CHECKING:
    from spillway.testing.fake_deployment import FakeDeployment

RUN = "manual__2026"
FOLDER = "sweep/manual__2026"


def table_task() -> CollectTrialsOperator:
    return CollectTrialsOperator(task_id="table", output_folder=FOLDER, trials="spread.trial")


def context() -> Any:
    ti = SimpleNamespace(dag_id="sweep", run_id=RUN, task_id="spread.table", map_index=-1)
    return {"ti": ti}


def request_of(world: FakeDeployment, number: int) -> Any:
    task = TaskKey(dag_id="sweep", run_id=RUN, task_id="spread.trial", map_index=number)
    return replace(world.request(), task=task)


def run_trial(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch, *, output: str) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "unit" / "workloads"))
    search = {
        "dataset": str(folder),
        "space": {"x": {"uniform": [0, 1]}},
        "num_samples": 2,
        "max_steps": 2,
        "metric": "loss",
        "trainable": "trial_samples:falling",
    }
    spread.trial(Session.local(folder / str(number)), output=output, trial=number, **search)


def test_the_table_has_pools_and_costs_of_all_attempts_from_the_ledger(
    world: FakeDeployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    monkeypatch.setattr(SpillwayHook, "deployment", SimpleNamespace(data=str(data)))
    for number in (0, 1):
        run_trial(tmp_path, number, monkeypatch, output=str(data / FOLDER))
        step = world.dispatcher.begin(request_of(world, number))
        assert isinstance(step, Running)
        world.clock.advance(timedelta(hours=1))
        if number == 1:  # its first attempt is preempted
            world.providers[step.lease.pool].preempt(step.lease.key)
            step = world.dispatcher.advance(request_of(world, number), step.lease.key)
            assert isinstance(step, Running)
            world.clock.advance(timedelta(hours=1))
        world.succeed(step.lease)
        world.dispatcher.advance(request_of(world, number), step.lease.key)

    table: Any = table_task().execute(context())

    leases = [world.ledger.attempts(request_of(world, number).task) for number in (0, 1)]
    assert [len(attempts) for attempts in leases] == [1, 2]
    for row, attempts in zip(table["trials"], leases, strict=True):
        assert row["pools"] == list(dict.fromkeys(lease.pool for lease in attempts))
        assert row["seconds"] == 3600 * len(attempts)
        charged = sum(
            (
                record.effective_cost
                for le in attempts
                for record in world.ledger.cost_records(le.key)
            ),
            Decimal(0),
        )
        assert row["effective_usd"] == pytest.approx(float(charged))
        assert charged > 0
    assert table["best"]["metric"] == min(row["metric"] for row in table["trials"])
    assert table["spent"]["seconds"] == 3 * 3600


def test_a_sweep_none_of_whose_trials_began_says_so(
    world: FakeDeployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpillwayHook, "deployment", SimpleNamespace(data=str(tmp_path)))
    with pytest.raises(SpecError, match="run its trials first"):
        table_task().execute(context())


def test_the_mode_is_one_lease_unless_chosen(project: Path) -> None:
    dag = DagBag(str(project / "dags" / "sweep.py")).dags["sweep"]
    mode = dag.params.get_param("mode")
    assert mode.value == "one_lease"
    with pytest.raises(ParamValidationError):
        mode.resolve("everywhere")
    choose = dag.get_task("choose").python_callable
    assert dag.has_task(choose("one_lease"))
    assert dag.has_task(choose("spread"))
    # Whatever is not chosen is skipped by the choice itself or by what it waits for.
    assert dag.get_task("choose").downstream_task_ids == {"sweep", "spread.plan", "spread.table"}


@pytest.mark.parametrize("size", sorted(SIZES))
def test_both_modes_run_the_same_search(size: str) -> None:
    trials = pipeline.trials(dataset="/data", size=size, seed=1)
    assert [each["trial"] for each in trials] == list(range(SIZES[size].trials))
    assert {(each["dataset"], each["size"], each["seed"]) for each in trials} == {
        ("/data", size, 1)
    }


def test_a_trial_of_a_sweep_that_has_ended_is_skipped_and_leaves_no_job(
    world: FakeDeployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpillwayHook, "deployment", SimpleNamespace(data=str(tmp_path)))
    request = request_of(world, 3)
    world.dispatcher.begin(request)
    put = open_store((tmp_path / FOLDER).as_uri()).put
    put(spread.ENDED, json.dumps({"why": "max_usd: 2 USD are spent"}).encode())
    operator = TrialOperator(task_id="trial", entry_point="a.b:c", output_folder=FOLDER)
    facts = {"dag_id": "sweep", "run_id": RUN, "task_id": "spread.trial", "map_index": 3}
    with pytest.raises(AirflowSkipException, match="max_usd: 2 USD are spent"):
        operator.execute({"ti": SimpleNamespace(**facts)})
    assert world.live == []


class AwayStore(FolderStore):
    """A store that does not answer."""

    def get(self, path: str) -> bytes | None:
        raise StoreUnavailableError(f"cannot read {path}: no answer; try again")


def test_a_sweep_that_cannot_be_asked_costs_its_trials_no_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SpillwayHook, "deployment", SimpleNamespace(data=str(tmp_path)))
    monkeypatch.setattr(dataset, "open_folder", lambda _: AwayStore(tmp_path))
    operator = TrialOperator(task_id="trial", entry_point="a.b:c", output_folder=FOLDER)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context())
    assert isinstance(deferred.value.trigger, DateTimeTrigger)


PARAMS = {
    "cpus": None,
    "cpus_per_trial": 2,
    "memory_gib": None,
    "accelerator": "L4",
    "accelerators": 0,
    "accelerators_per_trial": 0,
}


@pytest.mark.parametrize(
    ("changes", "lease", "trial"),
    [
        ({}, Resources(cpus=2, memory_gib=4), Resources(cpus=2, memory_gib=4)),
        (
            {"cpus": 16, "memory_gib": 32, "accelerators_per_trial": 0.25},
            Resources(cpus=16, memory_gib=32, accelerator="L4", accelerator_count=1),
            Resources(
                cpus=2,
                memory_gib=32,
                accelerator="L4",
                accelerator_count=1,
                accelerator_fraction=0.25,
            ),
        ),
        (
            {"accelerators": 8, "accelerators_per_trial": 2},
            Resources(cpus=2, memory_gib=4, accelerator="L4", accelerator_count=8),
            Resources(cpus=2, memory_gib=4, accelerator="L4", accelerator_count=2),
        ),
    ],
)
def test_a_run_says_what_its_trials_need(
    changes: dict[str, Any], lease: Resources, trial: Resources
) -> None:
    options = read_run_options({}, conf={}, run_type="manual")
    for make, wanted in ((pipeline_tasks.lease_shape, lease), (pipeline_tasks.trial_shape, trial)):
        operator = SweepOperator(
            task_id="a",
            entry_point="a.b:c",
            cpus=2,
            memory_gib=4,
            shape=make({**PARAMS, **changes}),
        )
        assert operator._spec(options, started_at=None).resources == wanted


def test_a_shape_that_is_none_is_told() -> None:
    operator = SweepOperator(task_id="a", entry_point="a.b:c", shape={"gpus": 1})
    with pytest.raises(SpecError, match="shape of a is"):
        operator._spec(read_run_options({}, conf={}, run_type="manual"), started_at=None)
