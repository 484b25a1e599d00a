"""Operators place, defer, resume and refuse, in-process and on fake pools."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import TaskDeferralTimeout, TaskDeferred

from spillway.airflow.operators import ReconcileOperator, SpillwayOperator
from spillway.airflow.retry import RETRY_POLICY
from spillway.airflow.run_options import RunOptions
from spillway.airflow.triggers import LeaseTrigger
from spillway.checkpoints import FolderStore
from spillway.errors import (
    AccessError,
    BudgetError,
    CapacityError,
    NoOfferError,
    RejectedError,
    SpecError,
    StoreUnavailableError,
    TaskFailedError,
    TransientError,
)
from spillway.model import Launcher, Lease, LeaseState, Resources, Retention

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spillway.testing.fake_deployment import FakeDeployment


@dataclass
class Run:
    """The fields of a worker's `dag_run` that operators read."""

    conf: dict[str, Any] = field(default_factory=dict)
    run_type: str = "manual"
    start_date: datetime = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class TaskInstance:
    """The fields of a worker's task instance that operators read."""

    dag_id: str = "nightly"
    run_id: str = "manual__2026"
    task_id: str = "train"
    map_index: int = -1
    try_number: int = 1
    max_tries: int = 2


class StateStore(dict[str, Any]):
    def set(self, key: str, value: Any) -> None:
        self[key] = value


def context(**changes: Any) -> dict[str, Any]:
    return {
        "ti": TaskInstance(),
        "dag_run": Run(),
        "params": {},
        "task_state_store": StateStore(),
    } | changes


def operator(**changes: Any) -> SpillwayOperator:
    return SpillwayOperator(**{"task_id": "train", "entry_point": "package.module:train"} | changes)


def deferral(task: SpillwayOperator, at: dict[str, Any]) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(at)
    return deferred.value


def only_lease(world: FakeDeployment) -> Lease:
    (lease,) = world.ledger.open_leases()
    return lease


def test_a_task_defers_to_a_trigger_that_watches_its_lease(world: FakeDeployment) -> None:
    at = context()
    before = datetime.now(UTC)
    deferred = deferral(operator(), at)
    lease = only_lease(world)
    assert isinstance(deferred.trigger, LeaseTrigger)
    assert deferred.method_name == "resume"
    assert (deferred.trigger.key, deferred.trigger.pool) == (lease.key, "reserved")
    assert datetime.fromisoformat(deferred.trigger.not_before) >= before + timedelta(seconds=10)
    assert at["task_state_store"]["lease"]["key"] == lease.key


def test_a_task_resumes_with_what_its_job_returned(world: FakeDeployment) -> None:
    task = operator()
    deferral(task, context())
    lease = only_lease(world)
    world.succeed(lease, {"loss": 1.5})
    event = {"key": lease.key, "state": "succeeded"}
    assert task.resume_execution("resume", {"event": event}, context()) == {"loss": 1.5}
    assert world.ledger.open_leases() == []


def test_a_preempted_task_defers_again_on_another_pool_in_the_same_try(
    world: FakeDeployment,
) -> None:
    task = operator()
    deferral(task, context())
    first = only_lease(world)
    world.providers["reserved"].preempt(first.key)
    world.providers["reserved"].has_capacity = False
    with pytest.raises(TaskDeferred) as deferred:
        task.resume(context(), {"key": first.key, "state": "preempted"})
    second = only_lease(world)
    assert (second.pool, second.owner_try) == ("spot", 1)
    assert deferred.value.trigger.key == second.key


def test_a_failed_job_fails_its_task(world: FakeDeployment) -> None:
    task = operator()
    deferral(task, context())
    lease = only_lease(world)
    world.fail(lease, "the loss is not a number")
    with pytest.raises(TaskFailedError, match="the loss is not a number"):
        task.resume(context(), {"key": lease.key, "state": "failed"})


def test_a_task_for_which_there_is_no_room_asks_again_later(world: FakeDeployment) -> None:
    for provider in world.providers.values():
        provider.has_capacity = False
    deferred = deferral(operator(), context())
    assert isinstance(deferred.trigger, DateTimeTrigger)
    world.providers["spot"].has_capacity = True
    with pytest.raises(TaskDeferred) as again:
        operator().resume_execution(deferred.method_name, {"event": None}, context())
    assert isinstance(again.value.trigger, LeaseTrigger)


def test_a_lost_answer_costs_no_try_and_starts_no_second_job(world: FakeDeployment) -> None:
    provider = world.providers["reserved"]
    provider.before_submit = lambda: setattr(provider, "loses_answers", True)
    deferred = deferral(operator(), context())
    assert isinstance(deferred.trigger, DateTimeTrigger)
    provider.before_submit, provider.loses_answers = None, False
    with pytest.raises(TaskDeferred) as again:
        operator().resume_execution(deferred.method_name, {"event": None}, context())
    assert world.live == [again.value.trigger.key]


class AwayStore(FolderStore):
    """A store that does not answer."""

    def get(self, path: str) -> bytes | None:
        raise StoreUnavailableError(f"cannot read {path}: no answer; try again")


@pytest.fixture
def store_is_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    with monkeypatch.context() as away:
        away.setattr("spillway.heard.open_store", lambda _url: AwayStore(Path("/nowhere")))
        yield away


def test_a_result_that_cannot_be_asked_for_costs_no_try_and_is_read_later(
    world: FakeDeployment, store_is_away: pytest.MonkeyPatch
) -> None:
    task = operator()
    deferral(task, context())
    lease = only_lease(world)
    world.succeed(lease, {"loss": 1.5})
    with pytest.raises(TaskDeferred) as again:
        task.resume(context(), {"key": lease.key, "state": "succeeded"})
    assert isinstance(again.value.trigger, DateTimeTrigger)
    deferral(task, context())
    store_is_away.undo()
    method = again.value.method_name
    assert task.resume_execution(method, {"event": None}, context()) == {"loss": 1.5}
    assert world.ledger.open_leases() == []


@pytest.mark.usefixtures("store_is_away")
def test_a_job_that_failed_is_a_failure_though_its_own_words_cannot_be_asked_for(
    world: FakeDeployment,
) -> None:
    task = operator()
    deferral(task, context())
    lease = only_lease(world)
    world.fail(lease, "the loss is not a number")
    with pytest.raises(TaskFailedError, match=r"failed on reserved \(exit code 1\)"):
        task.resume(context(), {"key": lease.key, "state": "failed"})


def test_a_deferral_that_timed_out_leaves_no_job(world: FakeDeployment) -> None:
    task = operator()
    deferral(task, context())
    with pytest.raises(TaskDeferralTimeout):
        task.resume_execution("__fail__", {"error": "Trigger timeout"}, context())
    assert world.live == []
    assert world.ledger.open_leases() == []


def test_a_cleared_task_begins_anew(world: FakeDeployment) -> None:
    task = operator()
    deferral(task, context())
    old = only_lease(world)
    deferral(task, context(ti=TaskInstance(try_number=2, max_tries=3)))
    assert world.ledger.lease(old.key).state is LeaseState.CANCELLED
    assert world.live == [only_lease(world).key]


# ---- bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [{1, 2}, object(), float("nan"), datetime(2026, 1, 1, tzinfo=UTC)]
)
def test_arguments_that_are_not_json_are_refused_by_the_tasks_name(
    world: FakeDeployment, value: object
) -> None:
    with pytest.raises(SpecError, match="arguments of train are not JSON"):
        operator(arguments={"rate": [value]}).execute(context())
    assert world.ledger.open_leases() == []


@pytest.mark.parametrize("work", ["soon", "inf", "nan", "-1", None])
def test_work_that_is_no_time_is_refused_by_the_tasks_name(
    world: FakeDeployment, work: object
) -> None:
    with pytest.raises(SpecError, match="work of train"):
        operator(work=work).execute(context())


def test_an_unknown_key_of_the_runs_conf_is_refused(world: FakeDeployment) -> None:
    run = Run(conf={"marktes": ["spot"]})
    with pytest.raises(SpecError, match="did you mean 'markets'"):
        operator().execute(context(dag_run=run, params={"markets": None}))
    assert world.live == []


def test_what_a_task_needs_reaches_placement(world: FakeDeployment) -> None:
    shape = Resources(cpus=1, memory_gib=2)
    task = operator(
        alternatives=[shape],
        nodes=2,
        launcher="torchrun",
        state_gib=3.0,
        input_gib=4.0,
        retention=Retention(last=5),
        regions=["loc*"],
        residency=["EU"],
        providers=["fake"],
        architectures=["amd64"],
        max_cost_usd=12.5,
    )
    with pytest.raises(NoOfferError, match="must stay in EU"):
        task.execute(context())
    spec = task._spec(RunOptions(max_cost_usd=Decimal(20)), started_at=None)
    assert (spec.alternatives, spec.nodes, spec.launcher) == ((shape,), 2, Launcher.TORCHRUN)
    assert (spec.state_gib, spec.input_gib, spec.retention.last) == (3.0, 4.0, 5)
    assert spec.max_cost_usd == Decimal("12.5")  # the lower of the task's and the run's
    assert (spec.regions, spec.residency) == ({"loc*"}, {"EU"})
    assert (spec.providers, spec.architectures) == ({"fake"}, {"amd64"})


def test_a_launcher_that_is_none_is_refused_when_the_dag_is_read() -> None:
    with pytest.raises(SpecError, match="known are plain, torchrun, ray"):
        operator(launcher="mpi")


def test_an_entry_point_that_is_none_is_refused_when_the_dag_is_read() -> None:
    with pytest.raises(SpecError, match=r"package\.module:function"):
        operator(entry_point="train.py")


def test_a_task_that_no_pool_can_take_fails_with_the_table_of_reasons(
    world: FakeDeployment,
) -> None:
    with pytest.raises(NoOfferError) as refusal:
        operator(cpus=64).execute(context())
    assert all(pool in str(refusal.value) for pool in ("reserved", "spot", "on_demand"))


@pytest.mark.parametrize(
    ("error", "action"),
    [
        (SpecError("x"), RetryAction.FAIL),
        (NoOfferError("x", reasons={}, can_wait=False), RetryAction.FAIL),
        (BudgetError("x"), RetryAction.FAIL),
        (AccessError("x", backend="fake"), RetryAction.FAIL),
        (RejectedError("x", backend="fake"), RetryAction.FAIL),
        (TaskFailedError("x", key="k", exit_code=1), RetryAction.DEFAULT),
        (TransientError("x", backend="fake"), RetryAction.DEFAULT),
        (CapacityError("x", backend="fake"), RetryAction.DEFAULT),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_a_retry_may_cure_is_retried(error: Exception, action: RetryAction) -> None:
    assert operator().retry_policy is RETRY_POLICY
    assert RETRY_POLICY.evaluate(error, 1, 2).action is action


# ---- reconciliation -------------------------------------------------------------------------------------------


def test_reconciling_cancels_what_airflow_does_not_want_any_more(
    world: FakeDeployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("alive", "over"):
        world.dispatcher.begin(world.request(name))
    states = {"alive": "deferred", "over": "failed"}
    monkeypatch.setattr("spillway.airflow.operators.task_state", lambda task: states[task.task_id])
    found = ReconcileOperator(task_id="reconcile").execute(context())
    assert found["leases_cancelled"] == ["nightly/manual__2026/over/-1/1"]
    assert world.live == ["nightly/manual__2026/alive/-1/1"]
