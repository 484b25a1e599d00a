"""What jobs have said of themselves, through the store, and what is made of it for the placements to come."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spillway.checkpoints.open import open_store
from spillway.errors import StoreError
from spillway.ledger.storage import usd_per_gib_month
from spillway.placement.throughput import speed_sample
from spillway.runtime.exchange import Result, read_heartbeat, read_result

if TYPE_CHECKING:
    from collections.abc import Iterable

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

    def result_if_any(self, lease: Lease) -> Result | None:
        """Return how the job ended by its own account; None, too, when that cannot be read: what it means is known."""
        try:
            return self.result(lease)
        except StoreError as error:
            log.warning("the result of %s cannot be read: %s", lease.key, error)
            return None

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
