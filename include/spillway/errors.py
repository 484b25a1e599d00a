"""Every exception of Spillway, sorted by what the caller can do about it.

SpillwayError
  SpecError             fix the task; no attempt will help
    PoolsFileError      fix the pools file; lists every mistake with its line
    ScenarioError       fix what is to be simulated: the file, line or option that it names
    WrongCheckpointError        the checkpoint is another work's: ask for a fresh start, or give what it was begun with
  PlacementError
    NoOfferError        no pool can take the task: wait, or relax what the reasons name
    BudgetError         more than a person allowed; ask one
  BackendError
    TransientError      same request, later
    CapacityError       no room; another offer, now
    AccessError         fix credentials, permissions or quota
    RejectedError       the provider refused the request for good
  TaskFailedError       the user's code failed
  GangError             the nodes of a task did not find each other, or lost one: start all of them again
  CheckpointError
    StoreError          the store cannot be read or written: fix what the message names
      StoreUrlError         the URL names no store, or one that is not installed
      StoreAccessError      credentials are missing, wrong, or do not allow it; a folder is read-only
      StoreFullError        the disk or the quota has no room left
      StoreMissingError     there is no such bucket or container
      StoreUnavailableError the store could not be asked; the same call may succeed later
      UnfencedStoreError    the store ignores create-only writes, which fencing rests on: use another
    IncompleteCheckpointError   a part is missing: use the checkpoint before
    CorruptCheckpointError      a part is not what was written: say so loudly, use the one before
    FencedError         a newer lease owns the task: stop
  NoticeSourceError     nobody could be asked whether the capacity will be taken back; it says nothing of that
  LedgerError
    PoolFullError       the pool's last slot went to somebody else; another offer, now
    LedgerUnavailableError      the ledger could not be asked; the same call may succeed later

Facts are attributes, so that nobody parses a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta


class SpillwayError(Exception):
    """Base of everything Spillway raises on purpose."""


class SpecError(SpillwayError):
    """The task cannot be run as it is written."""


class PoolsFileError(SpecError):
    """The pools file has mistakes.

    Attributes:
        path: The file.
        problems: One line a mistake, each with its place and its remedy.
    """

    def __init__(self, path: str, problems: Sequence[str]) -> None:
        self.path = path
        self.problems = tuple(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{path} has {len(self.problems)} mistake(s):\n{lines}")


class ScenarioError(SpecError):
    """What is to be simulated cannot be, as it is written."""


class WrongCheckpointError(SpecError):
    """The checkpoint was saved by other work than this, or does not fit it."""


class PlacementError(SpillwayError):
    """The task was not placed."""


class NoOfferError(PlacementError):
    """No pool can take the task.

    Attributes:
        reasons: Pool name to why it was passed over.
        can_wait: Whether waiting can help: every reason left is a lack of room.
    """

    def __init__(self, message: str, *, reasons: dict[str, str], can_wait: bool) -> None:
        self.reasons = reasons
        self.can_wait = can_wait
        super().__init__(message)


class BudgetError(PlacementError):
    """The task would cost more than was allowed."""


class BackendError(SpillwayError):
    """A provider did not do what it was asked.

    Attributes:
        backend: Name of the backend.
        key: The attempt concerned, if there is one.
    """

    def __init__(self, message: str, *, backend: str, key: str | None = None) -> None:
        self.backend = backend
        self.key = key
        super().__init__(message)


class TransientError(BackendError):
    """The provider could not be asked; the same request may succeed later.

    Attributes:
        retry_after: How long the provider wants not to be asked again, as throttling answers say; None when it said nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        backend: str,
        key: str | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        self.retry_after = retry_after
        super().__init__(message, backend=backend, key=key)


class CapacityError(BackendError):
    """The provider has no room now; another offer may do."""


class AccessError(BackendError):
    """Credentials, permissions or quota do not allow the request."""


class RejectedError(BackendError):
    """The provider refused the request, and will again."""


class TaskFailedError(SpillwayError):
    """The user's code failed.

    Attributes:
        key: The attempt that failed.
        exit_code: Its exit code, or None when it is not known.
    """

    def __init__(self, message: str, *, key: str, exit_code: int | None) -> None:
        self.key = key
        self.exit_code = exit_code
        super().__init__(message)


class GangError(SpillwayError):
    """The nodes of one task did not come together, or did not stay so."""


class CheckpointError(SpillwayError):
    """A checkpoint could not be written or read."""


class StoreError(CheckpointError):
    """The checkpoint store itself cannot be read or written."""


class StoreUrlError(StoreError):
    """The URL names no store that is known and installed here."""


class StoreAccessError(StoreError):
    """Credentials are missing or wrong, or what was asked is not allowed, as writing to a read-only folder."""


class StoreFullError(StoreError):
    """There is no room left in the store: its disk is full, or a quota is used up."""


class StoreMissingError(StoreError):
    """The store's bucket or container does not exist."""


class StoreUnavailableError(StoreError):
    """The store could not be asked, which says nothing of what is in it; the same call may succeed later."""


class UnfencedStoreError(StoreError):
    """The store does not keep two writers from creating the same object."""


class IncompleteCheckpointError(CheckpointError):
    """A part that the manifest names is missing."""


class CorruptCheckpointError(CheckpointError):
    """A part is not what was written."""


class FencedError(CheckpointError):
    """A newer lease owns the task, so this writer may not commit.

    Attributes:
        token: This writer's fencing token.
        newest: The token of the lease that replaced it.
    """

    def __init__(self, *, token: int, newest: int) -> None:
        self.token = token
        self.newest = newest
        super().__init__(
            f"lease {token} was replaced by lease {newest}; nothing it writes counts any more"
        )


class NoticeSourceError(SpillwayError):
    """Where notices of preemption come from could not be asked, which says nothing of the capacity."""


class LedgerError(SpillwayError):
    """The ledger does not allow, or does not know, what was asked of it."""


class PoolFullError(LedgerError):
    """The pool has no slot left at the moment of granting."""


class LedgerUnavailableError(LedgerError):
    """The ledger could not be asked, which says nothing of the answer; the same call may succeed later."""
