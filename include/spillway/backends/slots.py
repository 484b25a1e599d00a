"""The slots that a pool is said to have, which every backend counts for itself: a provider does not know them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spillway.errors import CapacityError

if TYPE_CHECKING:
    from spillway.model import Pool, Submission


def check_slots(pool: Pool, submission: Submission, *, taken: int) -> None:
    """Refuse a job that needs more slots than are free.

    Args:
        pool: Where it would run.
        submission: Takes a slot for each of its nodes.
        taken: Slots of jobs that have not ended, without this one.

    Raises:
        CapacityError: There are too few.
    """
    if taken + submission.nodes > pool.slots:
        raise CapacityError(
            f"pool {pool.name!r} has {taken} of its {pool.slots} slots taken, and {submission.nodes} are asked for",
            backend=pool.backend,
            key=submission.key,
        )
