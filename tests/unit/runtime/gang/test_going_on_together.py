"""All members go on from one checkpoint, or none does, whatever a member can read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from spillway.errors import GangError
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


def restore(
    folder: Path, head: ObjectStore, follower: ObjectStore, *, token: int
) -> list[dict[str, Any] | str | None]:
    """Return the states that both members go on from, or why one does not."""
    port = free_port()

    def work(rank: int) -> dict[str, Any] | str | None:
        member = Member(rank=rank, nodes=2, head_address=LOOPBACK, port=port)
        gang = join(member, TERMS, Notice(), leave=lambda code: pytest.fail(f"left with {code}"))
        with ExitStack() as ending:
            ending.callback(gang.end, exit_codes.SUCCEEDED)
            try:
                checkpoint = _session(gang).restore()
            except GangError as error:
                return str(error)
            return None if checkpoint is None else checkpoint.state

    def _session(gang: Gang) -> Session:
        if gang.member.is_head:
            return HeadSession(submission(token), head, gang=gang, scratch=folder)
        view = FollowerStore(follower, submission(token))
        return FollowerSession(submission(token), view, gang=gang, scratch=folder)

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(work, range(2)))


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
