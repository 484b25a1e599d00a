"""What jobs have said of themselves, through the store, and what is made of it for the placements to come."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spillway.checkpoints.open import open_store
from spillway.errors import StoreError, TaskFailedError
from spillway.ledger.storage import usd_per_gib_month
from spillway.placement.throughput import speed_sample
from spillway.runtime.exchange import Result, read_heartbeat, read_result

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import JsonValue

    from spillway.ledger import Ledger
    from spillway.model import Heartbeat, Lease

log = logging.getLogger(__name__)

LEAST_WORK: Final = timedelta(seconds=1)
"""What a task whose last checkpoint is at its end is still taken to need."""


class Heard:
    """Reads heartbeats and results, and keeps in the ledger what they teach."""

    def __init__(self, ledger: Ledger, *, store_provider: str | None) -> None:
        self._ledger = ledger
        self._usd_per_gib_month = usd_per_gib_month(store_provider)

    def heartbeat(self, lease: Lease) -> Heartbeat | None:
        """Return the last thing the job said, or None when it said nothing yet.

        Raises:
            StoreError: The store could not be read.
        """
        store = open_store(lease.submission.store)
        return read_heartbeat(store, lease.submission.prefix, lease.token)

    def heartbeat_if_any(self, lease: Lease) -> Heartbeat | None:
        """Return the last thing the job said; None, too, when it cannot be read: an estimate is made of it, no more."""
        try:
            return self.heartbeat(lease)
        except StoreError as error:
            log.warning("the heartbeat of %s cannot be read: %s", lease.key, error)
            return None

    def result(self, lease: Lease) -> Result | None:
        """Return how the job ended by its own account, or None when it has not said so.

        Raises:
            StoreError: The store could not be read.
        """
        store = open_store(lease.submission.store)
        return read_result(store, lease.submission.prefix, lease.token)

    def value(self, lease: Lease) -> JsonValue:
        """Return the result of a job that exited with 0.

        Raises:
            TaskFailedError: It left none.
            StoreError: The store could not be read.
        """
        result = self.result(lease)
        if result is None or result.error is not None:
            raise TaskFailedError(
                f"{lease.key} exited with 0 but left no result in {lease.submission.store}; "
                "is the checkpoint store of the job the one the scheduler reads?",
                key=lease.key,
                exit_code=lease.exit_code,
            )
        return result.value

    def failure(self, lease: Lease, *, shows_output: bool) -> TaskFailedError:
        """Return what a job failed of, as well as it can be told: a store that does not answer changes nothing of it.

        Args:
            lease: That of the job.
            shows_output: Whether people can see its log elsewhere; what it printed last is told of one that was killed, too.
        """
        result = None
        try:
            result = self.result(lease)
        except StoreError as error:
            log.warning("the result of %s cannot be read: %s", lease.key, error)
        cause = result.error.message if result and result.error else lease.detail
        said = result or self.heartbeat_if_any(lease)
        if said and said.log_tail and not (result and shows_output):
            cause += f"; it printed last:\n{said.log_tail}"
        return TaskFailedError(
            f"{lease.key} {lease.state} on {lease.pool} (exit code {lease.exit_code}): {cause}",
            key=lease.key,
            exit_code=lease.exit_code,
        )

    def work_left(self, work: timedelta, attempts: Iterable[Lease]) -> timedelta:
        """Return a task's work without the share that a checkpoint of one of `attempts`, newest first, has saved."""
        for attempt in attempts:
            said = self.heartbeat_if_any(attempt)
            if said is not None and said.checkpoint_step is not None and said.total_steps:
                left = 1 - min(said.checkpoint_step / said.total_steps, 1.0)
                return max(work * left, LEAST_WORK)
        return work

    def learn(self, lease: Lease) -> None:
        """Keep how fast the lease worked, to place by, and what it stored, to charge for. Repeats safely."""
        said = self.heartbeat_if_any(lease)
        if said is None:
            return
        self._ledger.note_stored(lease.key, said, usd_per_gib_month=self._usd_per_gib_month)
        placement = self._ledger.placement(lease.key)
        if placement.task is None:
            return
        sample = speed_sample(placement.task, placement.offer.shape, said)
        if sample is not None:
            self._ledger.note_speed(lease.key, sample)
