"""Puts right what crashes left: jobs without a lease, leases without a task, final leases not settled."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from spillway.backends.protocol import SupportsListing
from spillway.errors import BackendError, SpecError
from spillway.placement.lifecycle import is_final

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.dispatch import Dispatcher
    from spillway.model import Lease

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What a reconciliation found and put right, by key.

    Attributes:
        pools_unreachable: Pools that could not be asked, and why; their leases were left alone.
    """

    orphans_released: tuple[str, ...] = ()
    leases_cancelled: tuple[str, ...] = ()
    leases_settled: tuple[str, ...] = ()
    pools_unreachable: Mapping[str, str] = field(default_factory=dict[str, str])


def reconcile(dispatcher: Dispatcher, is_wanted: Callable[[Lease], bool]) -> Reconciliation:
    """Compare the providers with the ledger, and the ledger with Airflow; release what nobody answers for.

    Args:
        dispatcher: Of the deployment that is put right.
        is_wanted: Whether Airflow still wants the task of an open lease to run.
    """
    unreachable: dict[str, str] = {}
    orphans: list[str] = []
    for name in dispatcher.pools:
        try:
            orphans += _release_orphans(dispatcher, name)
        except (BackendError, SpecError) as error:
            unreachable[name] = str(error)
    cancelled: list[str] = []
    settled: list[str] = []
    for lease in dispatcher.ledger.open_leases():
        if lease.pool in unreachable:
            continue
        try:
            if is_final(lease.state):
                settled.append(dispatcher.settle(lease).key)
            elif not is_wanted(lease) and dispatcher.cancel(
                lease.key, detail="nobody waits for it"
            ):
                cancelled.append(lease.key)
        except (BackendError, SpecError) as error:
            unreachable[lease.pool] = str(error)
    return Reconciliation(
        orphans_released=tuple(orphans),
        leases_cancelled=tuple(cancelled),
        leases_settled=tuple(settled),
        pools_unreachable=unreachable,
    )


def _release_orphans(dispatcher: Dispatcher, pool: str) -> list[str]:
    backend = dispatcher.backend(pool)
    if not isinstance(backend, SupportsListing):
        return []
    listed = backend.list_jobs()
    # Read after the listing: a lease is granted before its job starts, so a listed job without one has lost it.
    open_keys = {lease.key for lease in dispatcher.ledger.open_leases(pool)}
    orphans = [job for job in listed if job.key not in open_keys]
    for job in orphans:
        log.warning("job without a lease released: %s on %s", job.key, pool)
        backend.release(job)
    return [job.key for job in orphans]
