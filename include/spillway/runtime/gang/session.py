"""Sessions of a gang: the head's says where all go on from and saves; those of the others read, and write nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from spillway.checkpoints import CheckpointName, Found
from spillway.checkpoints.verify import read_manifest, read_parts
from spillway.errors import CorruptCheckpointError, GangError, IncompleteCheckpointError
from spillway.model.codec import decode_json
from spillway.runtime.exchange import Result
from spillway.runtime.session import Checkpoint, Preempted, Session

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spillway.checkpoints.store import BytesLike, ObjectStore
    from spillway.model import Submission
    from spillway.runtime.gang.watch import Gang

log = logging.getLogger(__name__)

_READS: Final = 3
"""How often a member reads what the head has read whole before it gives up: answers are cut short now and then."""


class HeadSession(Session):
    """The session of member 0: as any other, and the others begin and stop where it does."""

    def __init__(
        self, submission: Submission, store: ObjectStore, *, gang: Gang, **options: Any
    ) -> None:
        super().__init__(submission, store, **options)
        self.gang = gang.member
        self._members = gang
        self._found: str | None = None

    def restore(self, **options: Any) -> Checkpoint | None:
        """Return the newest whole checkpoint of the task, and have all members go on from the same."""
        checkpoint = super().restore(**options)
        self._members.tell_restored(self._found)
        return checkpoint

    @override
    def _find(self) -> Found | None:
        found = super()._find()
        self._found = None if found is None else str(found.name)
        return found

    def should_checkpoint(self, step: int | None = None) -> bool:
        """Return whether it is time to save; call it once a step, on every member."""
        self._members.boundary()
        return super().should_checkpoint(step)


class FollowerSession(Session):
    """The session of any other member: it goes on from where the head does, and leaves saving and reporting to it."""

    def __init__(
        self, submission: Submission, store: FollowerStore, *, gang: Gang, **options: Any
    ) -> None:
        super().__init__(submission, store, **options)
        self.gang = gang.member
        self._members = gang

    def restore(self, **options: Any) -> Checkpoint | None:
        """Return the checkpoint that the head goes on from; waits until the head has found it.

        Raises:
            GangError: The gang stopped first, or the checkpoint cannot be read here.
        """
        checkpoint = super().restore(**options)
        self._members.follow()
        return checkpoint

    @override
    def _find(self) -> Found | None:
        told = self._members.wait_restored()
        name = None if told is None else CheckpointName.parse(told)
        return None if name is None else self._read(name)

    def _read(self, name: CheckpointName) -> Found:
        for _ in range(_READS):
            try:
                manifest = read_manifest(self._store, self._prefix, name)
                return Found(
                    manifest=manifest, parts=read_parts(self._store, self._prefix, manifest)
                )
            except (CorruptCheckpointError, IncompleteCheckpointError) as error:
                log.warning("cannot read what the head goes on from: %s", error)
                problem = error
        raise GangError(
            f"member {self.gang.rank} of {self.gang.nodes} cannot read the checkpoint {name} that the head goes on from, "
            f"and no member may go on from another: {problem}; see that this machine reads the same store"
        ) from problem

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
    """A store as a follower sees it: what it writes goes nowhere.

    Attributes:
        result: How the member ended by its own account, which would have been written.
    """

    def __init__(self, store: ObjectStore, submission: Submission) -> None:
        self.result: Result | None = None
        self._store = store
        self._prefix = submission.prefix

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
        """Return the paths of all objects below the folder `prefix`, sorted."""
        return self._store.list(prefix)

    def delete(self, path: str) -> None:
        """Remove nothing."""
