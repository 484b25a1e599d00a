"""Sessions of a gang: the head's says where all go on from and saves; those of the others read, and write nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spillway.checkpoints.find import chain
from spillway.checkpoints.layout import CheckpointName
from spillway.errors import StoreError
from spillway.model.codec import decode_json
from spillway.runtime.exchange import Result
from spillway.runtime.session import Checkpoint, Preempted, Session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spillway.checkpoints.store import BytesLike, ObjectStore
    from spillway.model import Submission
    from spillway.runtime.gang.watch import Gang


class HeadSession(Session):
    """The session of member 0: as any other, and the others begin and stop where it does."""

    def __init__(
        self, submission: Submission, store: ObjectStore, *, gang: Gang, **options: Any
    ) -> None:
        super().__init__(submission, store, **options)
        self.gang = gang.member
        self._members = gang
        self._where = store, submission.prefix

    def restore(self, **options: Any) -> Checkpoint | None:
        """Return the newest whole checkpoint of the task, and have all members go on from the same."""
        checkpoint = super().restore(**options)
        self._members.tell_restored(None if checkpoint is None else self._name(checkpoint.step))
        return checkpoint

    def should_checkpoint(self, step: int | None = None) -> bool:
        """Return whether it is time to save; call it once a step, on every member."""
        self._members.boundary()
        return super().should_checkpoint(step)

    def _name(self, step: int) -> str:
        store, prefix = self._where
        for name in chain(store, prefix):
            if name.step == step:
                return str(name)
        raise StoreError(f"the checkpoint of step {step} of {prefix} is gone since it was read")


class FollowerSession(Session):
    """The session of any other member: it goes on from where the head does, and leaves saving and reporting to it."""

    def __init__(
        self, submission: Submission, store: FollowerStore, *, gang: Gang, **options: Any
    ) -> None:
        super().__init__(submission, store, **options)
        self.gang = gang.member
        self._members = gang
        self._view = store

    def restore(self, **options: Any) -> Checkpoint | None:
        """Return the checkpoint that the head goes on from; waits until the head has found it.

        Raises:
            GangError: The gang stopped first.
        """
        self._view.show(self._members.wait_restored())
        return super().restore(**options)

    def should_checkpoint(self, step: int | None = None) -> bool:  # noqa: ARG002  # the head knows when
        """Return whether all members stop at this step; only then is there anything to do."""
        self._members.boundary()
        return self.preempted

    def checkpoint(self, step: int, state: object = None, **facts: Any) -> None:  # noqa: ARG002
        """Save nothing: the head does.

        Raises:
            Preempted: All members stop here.
        """
        if self.preempted:
            raise Preempted(step)


class FollowerStore:
    """A store as a follower sees it: what it writes goes nowhere, and what the head saves after the start is not there.

    Attributes:
        result: How the member ended by its own account, which would have been written.
    """

    def __init__(self, store: ObjectStore, submission: Submission) -> None:
        self.result: Result | None = None
        self._store = store
        self._prefix, self._token = submission.prefix, submission.token
        self._last: CheckpointName | None = None

    def show(self, name: str | None) -> None:
        """Let checkpoints up to `name` be seen, and none that this lease saved after it."""
        self._last = None if name is None else CheckpointName.parse(name)

    def put(self, path: str, data: BytesLike) -> None:
        """Write nothing."""
        if path.startswith(f"{self._prefix}/results/"):
            self.result = decode_json(bytes(data), Result)

    def create(self, path: str, data: BytesLike) -> bool:  # noqa: ARG002
        """Write nothing, as if it had worked."""
        return True

    def get(self, path: str) -> bytes | None:
        """Return the object, or None when there is none."""
        return self._store.get(path)

    def list(self, prefix: str) -> Iterable[str]:
        """Return the paths of all objects below the folder `prefix` that may be seen, sorted."""
        found = self._store.list(prefix)
        if prefix != f"{self._prefix}/manifests":
            return found
        return [path for path in found if self._is_shown(path)]

    def delete(self, path: str) -> None:
        """Remove nothing."""

    def _is_shown(self, path: str) -> bool:
        name = CheckpointName.parse(path.rpartition("/")[2].removesuffix(".json"))
        if name is None or name.token != self._token:
            return True
        return self._last is not None and name <= self._last
