"""Operators: they turn Airflow's words into ours and back, and hold no decisions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import TaskDeferralTimeout

from spillway.airflow.context import ALIVE_STATES, life, task_key, task_state
from spillway.airflow.hook import DEFAULT_CONNECTION, SpillwayHook
from spillway.airflow.links import PlacementLink
from spillway.airflow.retry import RETRY_POLICY
from spillway.airflow.run_options import RunOptions, read_run_options
from spillway.airflow.triggers import LeaseTrigger
from spillway.dispatch import Finished, Running, TaskRequest, Waiting
from spillway.errors import (
    BackendError,
    LedgerUnavailableError,
    SpecError,
    StoreUnavailableError,
    TransientError,
)
from spillway.model import Launcher, Resources, Retention, TaskSpec
from spillway.model.task import ENTRY_POINT
from spillway.placement.lifecycle import is_final
from spillway.reconcile import reconcile

if TYPE_CHECKING:
    from collections.abc import Collection

    from airflow.sdk import BaseOperatorLink, Context
    from pydantic import JsonValue

    from spillway.dispatch import Dispatcher, Step
    from spillway.model import Lease

FIRST_EVENT_AFTER: Final = timedelta(seconds=10)
"""Source: measured on Airflow 3.3.2: 5 of 60 tasks failed falsely with events 50 ms after deferring, none of 60 with 8 s."""

SHORT_WORK: Final = timedelta(seconds=10)
"""Tasks expected to take no longer are waited for in the worker: deferring would take longer than they do."""

COME_BACK_AFTER: Final = timedelta(seconds=30)
"""When to ask again after a provider, the ledger or the checkpoint store did not answer."""

_COULD_NOT_ASK: Final = (TransientError, LedgerUnavailableError, StoreUnavailableError)

SHOWN_LINES: Final = 50
"""How much of an attempt's output is repeated when it is over."""

SHOWN_CHARACTERS: Final = 1 << 20
"""More than this of one attempt's output is not put into the task's log at once."""

SHORT_WAIT: Final = timedelta(seconds=20)
"""How long a short task is waited for before it is deferred after all."""


class SpillwayOperator(BaseOperator):
    """Runs an entry point on the cheapest pool that can take it now, and goes on elsewhere when the pool takes it back.

    While the job runs the task is deferred and holds no worker slot. A preemption makes a new attempt inside the same try.
    Which markets, deadline and price cap apply is read from the run's params where the DAG declares them; see
    `run_options.placement_params`.

    Args:
        entry_point: `package.module:function`, called as `function(session, **arguments)` on the pool.
        arguments: Its keyword arguments, JSON. Templated.
        output_folder: Where its outputs go, relative to the deployment's data folder; arrives as the argument `output`. Templated.
        work: Time it would take, undisturbed, at speed 1; as a number or text, in seconds. Templated.
        workload: Name under which its speed is learned; by default the entry point.
        cpus: Of each machine.
        memory_gib: Host memory of each machine, in GiB.
        accelerator: Model of the accelerators it needs, such as `H100`.
        accelerator_count: How many of them on each machine.
        accelerator_memory_gib: Memory that each must have, in GiB.
        accelerator_fraction: Which part of one accelerator is enough, from 0 to 1.
        alternatives: Other shapes that would do as well.
        nodes: Machines it needs at once.
        launcher: What calls the entry point on them: `plain`, `torchrun` or `ray`. Templated.
        checkpoints: Whether it saves checkpoints.
        checkpoint_write: Time one checkpoint takes to write.
        state_gib: Size of one checkpoint, in GiB: what is moved and kept costs money.
        input_gib: What every start reads out of the store beside it, in GiB.
        retention: Which checkpoints are kept; by default the last two.
        regions: Shell patterns of the regions allowed, such as `europe-*`.
        residency: Jurisdictions that its machines, checkpoints and outputs must stay in, such as `EU`.
        providers: Providers allowed.
        architectures: Processor architectures its image is built for, such as `amd64`.
        max_cost_usd: What completing it may be expected to cost, over all of its tries; a run may set a lower one.
        max_attempts: Leases it may use in one try.
        spillway_conn_id: Connection of type `spillway`; the default needs not be defined.
    """

    template_fields: Sequence[str] = ("arguments", "output_folder", "work", "launcher")
    operator_extra_links: Collection[BaseOperatorLink] = (PlacementLink(),)
    ui_color = "#dcebf7"

    def __init__(  # noqa: PLR0913 # an operator's arguments are its form
        self,
        *,
        entry_point: str,
        arguments: Mapping[str, Any] | None = None,
        output_folder: str | None = None,
        work: timedelta | float | str = timedelta(hours=1),
        workload: str | None = None,
        cpus: float = 1.0,
        memory_gib: float = 1.0,
        accelerator: str | None = None,
        accelerator_count: int = 0,
        accelerator_memory_gib: float = 0.0,
        accelerator_fraction: float = 1.0,
        alternatives: Sequence[Resources] = (),
        nodes: int = 1,
        launcher: str = Launcher.PLAIN,
        checkpoints: bool = False,
        checkpoint_write: timedelta = timedelta(seconds=1),
        state_gib: float = 0.0,
        input_gib: float = 0.0,
        retention: Retention | None = None,
        regions: Iterable[str] = (),
        residency: Iterable[str] = (),
        providers: Iterable[str] = (),
        architectures: Iterable[str] = (),
        max_cost_usd: Decimal | float | None = None,
        max_attempts: int = 10,
        spillway_conn_id: str = DEFAULT_CONNECTION,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("retry_policy", RETRY_POLICY)
        super().__init__(**kwargs)
        if not ENTRY_POINT.match(entry_point):
            raise SpecError(
                f"entry_point {entry_point!r} is not of the form package.module:function"
            )
        self.entry_point = entry_point
        self.arguments = arguments or {}
        self.output_folder = output_folder
        self.work = work
        self.workload = workload or entry_point
        self.resources_needed = Resources(
            cpus=cpus,
            memory_gib=memory_gib,
            accelerator=accelerator,
            accelerator_count=accelerator_count,
            accelerator_memory_gib=accelerator_memory_gib,
            accelerator_fraction=accelerator_fraction,
        )
        self.alternatives = tuple(alternatives)
        self.nodes = nodes
        self.launcher = launcher
        if "{{" not in launcher:
            _launcher(launcher)
        self.checkpoints = checkpoints
        self.checkpoint_write = checkpoint_write
        self.state_gib = state_gib
        self.input_gib = input_gib
        self.retention = retention or Retention()
        self.regions = frozenset(regions)
        self.residency = frozenset(residency)
        self.providers = frozenset(providers)
        self.architectures = frozenset(architectures)
        self.max_cost_usd = None if max_cost_usd is None else Decimal(str(max_cost_usd))
        self.max_attempts = max_attempts
        self.spillway_conn_id = spillway_conn_id

    # ---- what Airflow calls -----------------------------------------------------------------------------------

    def execute(self, context: Context) -> JsonValue:
        """Adopt the job of an earlier try, or place and start one; then defer until it is over."""
        request = self._request(context)
        try:
            dispatcher = self._hook.dispatcher()
            step = dispatcher.begin(request)
            if isinstance(step, Running) and request.spec.work <= SHORT_WORK:
                step = self._wait_shortly(dispatcher, request, step)
        except _COULD_NOT_ASK as error:
            self._come_back(error)
        return self._follow(context, step)

    def resume(self, context: Context, event: dict[str, Any]) -> JsonValue:
        """Settle what the trigger saw; return the result, fail, or place again and defer again."""
        request, key = self._request(context), event["key"]
        try:
            dispatcher = self._hook.dispatcher()
            # The triggerer writes over its log at the next deferral: what a preempted attempt printed last is kept here.
            self._show_output(dispatcher, dispatcher.ledger.lease(key), last_lines=SHOWN_LINES)
            step = dispatcher.advance(request, key)
        except _COULD_NOT_ASK as error:
            self._come_back(error)
        return self._follow(context, step)

    def place_again(self, context: Context, event: Any = None) -> JsonValue:  # noqa: ARG002
        """Ask again for room, after a wait."""
        return self.execute(context)

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Go on after a deferral; one that timed out leaves no job behind, as its trigger is not told."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            self._hook.dispatcher().cancel_task(
                task_key(context["ti"]), detail="the deferral timed out"
            )
            raise

    # ---- Airflow's words into ours ----------------------------------------------------------------------------

    @property
    def _hook(self) -> SpillwayHook:
        return SpillwayHook(self.spillway_conn_id)

    def _request(self, context: Context) -> TaskRequest:
        ti = context["ti"]
        run = context["dag_run"]
        options = read_run_options(context["params"], conf=run.conf or {}, run_type=run.run_type)
        return TaskRequest(
            task=task_key(ti),
            spec=self._spec(options, started_at=run.start_date),
            owner_try=ti.try_number,
            owner_clear=life(ti),
            fresh_start=options.fresh_start,
        )

    def _spec(self, options: RunOptions, *, started_at: datetime | None) -> TaskSpec:
        deadline = None
        if options.deadline is not None:
            deadline = (started_at or datetime.now(UTC)) + options.deadline
        return TaskSpec(
            entry_point=self.entry_point,
            arguments=self._checked_arguments(),
            workload=self.workload,
            resources=self.resources_needed,
            alternatives=self.alternatives,
            nodes=self.nodes,
            launcher=_launcher(self.launcher),
            work=self._checked_work(),
            markets=options.markets,
            checkpoints=self.checkpoints,
            checkpoint_write=self.checkpoint_write,
            state_gib=self.state_gib,
            input_gib=self.input_gib,
            retention=self.retention,
            deadline=deadline,
            regions=self.regions,
            residency=self.residency,
            providers=self.providers,
            architectures=self.architectures,
            max_usd_per_hour=options.max_usd_per_hour,
            max_cost_usd=_lower(self.max_cost_usd, options.max_cost_usd),
            max_attempts=self.max_attempts,
        )

    def _checked_work(self) -> timedelta:
        if isinstance(self.work, timedelta):
            return self.work
        try:
            work = timedelta(seconds=float(self.work))
        except (TypeError, ValueError, OverflowError) as error:
            raise SpecError(
                f"work of {self.task_id} is {self.work!r}; give a timedelta, or text that renders to seconds"
            ) from error
        if work < timedelta(0):
            raise SpecError(
                f"work of {self.task_id} is {self.work!r}; it cannot be less than nothing"
            )
        return work

    def _checked_arguments(self) -> Mapping[str, JsonValue]:
        arguments: dict[str, JsonValue] = _plain(self.arguments)
        if self.output_folder is not None:
            arguments["output"] = f"{self._hook.deployment.data.rstrip('/')}/{self.output_folder}"
        try:
            json.dumps(arguments, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise SpecError(
                f"the arguments of {self.task_id} are not JSON: {error}; pass numbers, text, lists and mappings"
            ) from error
        return arguments

    # ---- our words into Airflow's -----------------------------------------------------------------------------

    def _follow(self, context: Context, step: Step) -> JsonValue:
        match step:
            case Finished(result=result):
                return result
            case Waiting(until=until):
                self._ask_again(until)
            case Running(lease=lease):
                self._remember(context, lease)
                self.defer(
                    trigger=self._trigger(lease),
                    method_name="resume",
                    timeout=self.execution_timeout,
                )
        raise AssertionError(step)  # defer() always raises

    def _come_back(self, error: Exception) -> NoReturn:
        """Wait and go on where this left off: what could not be asked says nothing of the job, and costs no try."""
        self.log.warning("could not ask, and will again in a moment: %s", error)
        self._ask_again(datetime.now(UTC) + COME_BACK_AFTER)

    def _ask_again(self, at: datetime) -> NoReturn:
        earliest = datetime.now(UTC) + FIRST_EVENT_AFTER
        self.defer(trigger=DateTimeTrigger(moment=max(at, earliest)), method_name="place_again")
        raise AssertionError  # defer() always raises

    def _trigger(self, lease: Lease) -> LeaseTrigger:
        return LeaseTrigger(
            key=lease.key,
            pool=lease.pool,
            owner_try=lease.owner_try,
            conn_id=self.spillway_conn_id,
            poll_seconds=conf.getfloat("spillway", "poll_seconds", fallback=5.0),
            not_before=(datetime.now(UTC) + FIRST_EVENT_AFTER).isoformat(),
        )

    def _remember(self, context: Context, lease: Lease) -> None:
        """Show the lease in the task's state store; the ledger is what we rely on."""
        store = context.get("task_state_store")
        if store is not None:
            store.set(
                "lease",
                {
                    "key": lease.key,
                    "pool": lease.pool,
                    "try": lease.owner_try,
                    "life": lease.owner_clear,
                },
            )

    def _wait_shortly(self, dispatcher: Dispatcher, request: TaskRequest, step: Step) -> Step:
        end = time.monotonic() + SHORT_WAIT.total_seconds()
        while isinstance(step, Running) and time.monotonic() < end:
            time.sleep(0.3)  # a poll of a job that runs for seconds; deferring it would take longer
            lease = step.lease
            try:
                step = dispatcher.advance(request, lease.key)
            finally:
                if is_final(dispatcher.ledger.lease(lease.key).state):
                    self._show_output(dispatcher, lease)
        return step

    def _show_output(
        self, dispatcher: Dispatcher, lease: Lease, *, last_lines: int | None = None
    ) -> None:
        """Put what the lease's job printed into the task's log."""
        text, offset = "", 0
        try:
            while (chunk := dispatcher.read_log(lease, offset)).text:
                text = (text + chunk.text)[-SHOWN_CHARACTERS:]
                offset = chunk.next_offset
        except BackendError as error:
            self.log.warning("the output of %s cannot be read: %s", lease.key, error)
        lines = text.splitlines()
        for line in lines[-last_lines:] if last_lines else lines:
            self.log.info("%s", line)


class ReconcileOperator(BaseOperator):
    """Puts right what crashes left: jobs without a lease, leases without a task, final leases not settled."""

    def __init__(self, *, spillway_conn_id: str = DEFAULT_CONNECTION, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spillway_conn_id = spillway_conn_id

    def execute(self, context: Context) -> dict[str, Any]:  # noqa: ARG002
        """Return what was found and put right, by key."""
        found = reconcile(SpillwayHook(self.spillway_conn_id).dispatcher(), _is_wanted)
        if found.pools_unreachable:
            self.log.warning("pools that could not be asked: %s", found.pools_unreachable)
        return {
            "orphans_released": list(found.orphans_released),
            "leases_cancelled": list(found.leases_cancelled),
            "leases_settled": list(found.leases_settled),
            "pools_unreachable": dict(found.pools_unreachable),
        }


def _launcher(name: str) -> Launcher:
    try:
        return Launcher(name)
    except ValueError:
        known = ", ".join(launcher.value for launcher in Launcher)
        raise SpecError(f"launcher is {name!r}; known are {known}") from None


def _lower(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)


def _plain(value: Any) -> Any:
    """Return `value` with Airflow's lazy sequences and mappings made into lists and dicts."""
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(member) for member in value]
    return value


def _is_wanted(lease: Lease) -> bool:
    return task_state(lease.task) in ALIVE_STATES
