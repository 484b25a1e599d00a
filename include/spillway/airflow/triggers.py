"""Watches a lease while its task is deferred; decides nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from spillway.airflow.context import task_key, task_state
from spillway.airflow.hook import SpillwayHook
from spillway.airflow.observer import Sighting, observer_of
from spillway.placement.lifecycle import is_final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from spillway.model import Heartbeat


class LeaseTrigger(BaseTrigger):
    """Fires once when the job of a lease is over.

    Args:
        key: The lease.
        pool: The pool it is on.
        owner_try: Airflow's try that answers for it; a trigger of another try cannot cancel it.
        not_before: ISO time of the earliest event. An event within moments of deferring can fail the task falsely, as the
            executor has not yet heard that the worker's leg is over (apache/airflow issue 72716).
    """

    def __init__(
        self,
        *,
        key: str,
        pool: str,
        owner_try: int,
        conn_id: str,
        poll_seconds: float,
        not_before: str,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.key = key
        self.pool = pool
        self.owner_try = owner_try
        self.conn_id = conn_id
        self.poll_seconds = poll_seconds
        self.not_before = not_before
        self._fired = False
        self._shown: Heartbeat | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments to make this trigger again elsewhere."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "key": self.key,
                "pool": self.pool,
                "owner_try": self.owner_try,
                "conn_id": self.conn_id,
                "poll_seconds": self.poll_seconds,
                "not_before": self.not_before,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Show what the job prints and reports; yield one event when it is over, and end."""
        observer = observer_of(
            self.conn_id, self.pool, self.poll_seconds, SpillwayHook(self.conn_id).dispatcher
        )
        async with observer.watch(self.key) as watch:
            sighting = await watch.next()
            self._show(sighting)
            while not is_final(sighting.lease.state):
                sighting = await watch.next()
                self._show(sighting)
        early = datetime.fromisoformat(self.not_before) - datetime.now(UTC)
        await asyncio.sleep(max(0.0, early.total_seconds()))
        self._fired = True
        yield TriggerEvent(  # type: ignore[no-untyped-call]
            {"key": self.key, "state": sighting.lease.state.value}
        )

    async def on_kill(self) -> None:
        """Stop the job when a person acted on the deferred task.

        Airflow also calls this when nobody did: after the event was sent, and, on every trigger at once, in a triggerer
        that was paused for so long that another took over. So it first asks what became of the task.
        """
        if self._fired:
            return
        task = task_key(self.task_instance)
        if await sync_to_async(task_state)(task) == "deferred":
            self.log.info("not cancelled, as the task is still deferred: %s", self.key)
            return
        dispatcher = await sync_to_async(SpillwayHook(self.conn_id).dispatcher)()
        detail = "a person ended the task"
        await asyncio.to_thread(
            dispatcher.cancel, self.key, detail=detail, owner_try=self.owner_try
        )

    def _show(self, sighting: Sighting) -> None:
        for line in (sighting.output or "").splitlines():
            self.log.info("%s", line)
        if sighting.output is None and is_final(sighting.lease.state):
            self.log.info(
                "its last output was not read: too many jobs ended at once, or it was out of reach"
            )
        heartbeat = sighting.heartbeat
        if heartbeat is None:
            return
        shown, self._shown = self._shown, heartbeat
        if heartbeat.notice and (shown is None or heartbeat.notice != shown.notice):
            self.log.warning("notice: %s", heartbeat.notice)
        if heartbeat.step is None or (
            shown is not None and heartbeat.written_at == shown.written_at
        ):
            return  # it is alive, and has nothing new to say
        facts = [f"step {heartbeat.step} of {heartbeat.total_steps or '?'} on {self.pool}"]
        if heartbeat.steps_per_second is not None:
            facts.append(f"at {heartbeat.steps_per_second:.3g} steps/s")
        facts += [f"{name}={value:.4g}" for name, value in heartbeat.metrics.items()]
        self.log.info("%s", " ".join(facts))
