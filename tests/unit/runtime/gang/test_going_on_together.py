"""All members go on from one checkpoint, or none does, whatever a member can read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from spillway.errors import GangError, WrongCheckpointError
from spillway.model import Resources, Submission
from spillway.runtime import Session, exit_codes
from spillway.runtime.gang.join import join
from spillway.runtime.gang.membership import LOOPBACK, Member
from spillway.runtime.gang.ports import free_port
from spillway.runtime.gang.session import FollowerSession, FollowerStore, HeadSession
from spillway.runtime.gang.watch import GangTerms
from spillway.runtime.notice import Notice
from spillway.testing.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from spillway.checkpoints import ObjectStore
    from spillway.runtime.gang.watch import Gang

TERMS = GangTerms(secret=b"of this test", grace_seconds=60, start_seconds=30)


class CutStore(MemoryStore):
    """Another's objects, with those of a kind cut short the first times that they are read."""

    def __init__(self, whole: MemoryStore, *, kind: str, times: int) -> None:
        super().__init__()
        self.objects = whole.objects
        self._kind, self._times = kind, times

    def get(self, path: str) -> bytes | None:
        data = super().get(path)
        if self._kind not in path or not self._times or data is None:
            return data
        self._times -= 1
        return data[: len(data) // 2]


class Lost(MemoryStore):
    """Another's objects without those of a kind."""

    def __init__(self, whole: MemoryStore, *, kind: str) -> None:
        super().__init__()
        self.objects = {path: data for path, data in whole.objects.items() if kind not in path}


def submission(token: int) -> Submission:
    return Submission(
        key=f"dag/run/gang/-1/{token}",
        pool="here",
        token=token,
        entry_point="gang_jobs:any",
        arguments={},
        resources=Resources(),
        store="file:///nowhere",
        prefix="gang",
        grace_period=timedelta(seconds=20),
        checkpoint_interval=timedelta(hours=1),
        nodes=2,
    )


def save(store: MemoryStore, folder: Path, token: int, *steps: int) -> None:
    session = Session(submission(token), store, scratch=folder)
    for step in steps:
        session.checkpoint(step, {"lease": token, "step": step})
    session.flush()


def together(
    folder: Path,
    head: ObjectStore,
    follower: ObjectStore,
    *,
    token: int,
    work: Callable[[Session], Any],
) -> list[Any]:
    """Return what `work` returns on each of two members, or why one does not go on."""
    port = free_port()

    def run(rank: int) -> Any:
        member = Member(rank=rank, nodes=2, head_address=LOOPBACK, port=port)
        gang = join(member, TERMS, Notice(), leave=lambda code: pytest.fail(f"left with {code}"))
        with ExitStack() as ending:
            ending.callback(gang.end, exit_codes.SUCCEEDED)
            try:
                return work(_session(gang))
            except GangError as error:
                return str(error)

    def _session(gang: Gang) -> Session:
        if gang.member.is_head:
            return HeadSession(submission(token), head, gang=gang, scratch=folder)
        view = FollowerStore(follower, submission(token))
        return FollowerSession(submission(token), view, gang=gang, scratch=folder)

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(run, range(2)))


def restore(
    folder: Path, head: ObjectStore, follower: ObjectStore, *, token: int
) -> list[dict[str, Any] | str | None]:
    """Return the states that both members go on from, or why one does not."""
    return together(folder, head, follower, token=token, work=state_of)


def state_of(session: Session, **options: Any) -> dict[str, Any] | None:
    checkpoint = session.restore(**options)
    return None if checkpoint is None else checkpoint.state


@pytest.mark.parametrize("kind", ["manifests/000000000001-000000000008", "state.json"])
def test_a_member_that_reads_badly_once_reads_again(tmp_path: Path, kind: str) -> None:
    store = MemoryStore()
    save(store, tmp_path, 1, 5, 8)
    cut = CutStore(store, kind=kind, times=1)
    assert restore(tmp_path, store, cut, token=2) == [{"lease": 1, "step": 8}] * 2


@pytest.mark.parametrize("kind", ["manifests/", "parts/000000000001-000000000008/"])
def test_a_member_that_cannot_read_what_the_head_read_goes_on_from_nothing_else(
    tmp_path: Path, kind: str
) -> None:
    store = MemoryStore()
    save(store, tmp_path, 1, 5, 8)
    for follower in (CutStore(store, kind=kind, times=10**6), Lost(store, kind=kind)):
        read, why = restore(tmp_path, store, follower, token=2)
        assert read == {"lease": 1, "step": 8}
        assert isinstance(why, str)
        assert "member 1 of 2 cannot read the checkpoint" in why
        assert "000000000001-000000000008" in why


def test_a_member_reads_the_lease_that_the_head_read_where_two_have_the_step(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    save(store, tmp_path, 1, 8)
    save(store, tmp_path, 2, 8)
    damaged = CutStore(store, kind="manifests/000000000002-000000000008", times=10**6)
    assert restore(tmp_path, damaged, store, token=2) == [{"lease": 1, "step": 8}] * 2


def test_all_begin_at_the_beginning_where_the_head_found_nothing(tmp_path: Path) -> None:
    assert restore(tmp_path, MemoryStore(), MemoryStore(), token=1) == [None, None]


def test_all_go_back_to_one_checkpoint_whenever_they_restore_again(tmp_path: Path) -> None:
    """As after a loss that is no number; the head, which saves first, is the last to say what it found."""

    def work(session: Session) -> list[dict[str, Any] | None]:
        first = state_of(session)
        session.checkpoint(3, {"lease": 1, "step": 3})
        return [first, state_of(session), state_of(session)]

    store = MemoryStore()
    saved = {"lease": 1, "step": 3}
    assert together(tmp_path, store, store, token=1, work=work) == [[None, saved, saved]] * 2


def test_what_a_member_could_not_go_on_from_is_not_taken_for_restored(tmp_path: Path) -> None:
    def work(session: Session) -> dict[str, Any] | None:
        with pytest.raises(WrongCheckpointError):
            session.restore(like={"other": 1})
        return state_of(session, like={"lease": 1, "step": 1})

    store = MemoryStore()
    save(store, tmp_path, 1, 5)
    assert together(tmp_path, store, store, token=2, work=work) == [{"lease": 1, "step": 5}] * 2
