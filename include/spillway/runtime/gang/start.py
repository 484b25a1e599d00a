"""Run a submission as one member of a gang, by whatever launcher it asks for."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spillway.checkpoints.store import ObjectStore
from spillway.errors import GangError, SpecError, StoreError
from spillway.model import Launcher, Submission
from spillway.runtime import exit_codes
from spillway.runtime.clock import SystemClock
from spillway.runtime.exchange import ErrorRecord, Outcome, Result, read_result, write_result
from spillway.runtime.gang import ray_node, torchrun
from spillway.runtime.gang.join import join, own_addresses, terms_of
from spillway.runtime.gang.kernel_timer import KernelTimer
from spillway.runtime.gang.membership import (
    LOOPBACK,
    PLATFORMS,
    Member,
    is_torchrun_worker,
    membership,
)
from spillway.runtime.gang.ports import free_port
from spillway.runtime.gang.session import FollowerSession, FollowerStore, HeadSession
from spillway.runtime.log_tail import LogTail
from spillway.runtime.notice import Notice, NoticeSeen
from spillway.runtime.run import run

if TYPE_CHECKING:
    from spillway.runtime.gang.watch import Gang

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What one member runs, and with what.

    Attributes:
        notice: What is known of the end of this machine.
    """

    submission: Submission
    store: ObjectStore
    scratch: Path
    notice: Notice
    log_tail: LogTail
    environment: Mapping[str, str]


def run_in_gang(attempt: Attempt) -> int:
    """Run this member's part and return the exit code that all members agree on.

    Raises:
        SpecError: The environment does not say which member this is.
        StoreError: The store does not work.
    """
    if attempt.submission.launcher is Launcher.RAY and ray_node.is_given(attempt.environment):
        return _run_in_given_cluster(attempt)
    member = find_member(attempt.submission, attempt.environment)
    launcher, is_worker = attempt.submission.launcher, is_torchrun_worker(attempt.environment)
    if launcher is Launcher.TORCHRUN and not is_worker:
        return torchrun.run_node(
            attempt.submission, member, scratch=attempt.scratch, notice=attempt.notice
        )
    secrets = {ray_node.TOKEN: ray_node.new_token()} if launcher is Launcher.RAY else {}
    terms = terms_of(attempt.submission, attempt.environment)
    # A member without others is missed by nobody, and may hold the interpreter's lock for as long as it likes.
    timer = KernelTimer(terms.stuck_seconds if member.nodes > 1 else None)
    try:
        gang = join(member, terms, attempt.notice, shared=secrets, timer=timer)
    except GangError as error:  # the capacity did not come together; elsewhere it may
        log.error("%s", error)  # noqa: TRY400  # the message has the place and the remedy
        return _say(exit_codes.PREEMPTED, member, attempt.environment)
    # Whatever ends this process after it was told to stop, that it was told is on record.
    gang.notice.wake_by(lambda: _leave_word_of_stop(attempt, gang))
    gang.on_leaving = lambda code: _leave_word(attempt, gang, code)
    timer.put_off()
    code = _run_with_ray(attempt, gang) if launcher is Launcher.RAY else _run_member(attempt, gang)
    return _say(code, member, attempt.environment)


def find_member(submission: Submission, environment: Mapping[str, str]) -> Member:
    """Return which member of the submission's gang this process is.

    Raises:
        SpecError: The environment does not tell, or tells of a gang of another size.
    """
    member = membership(environment, nodes=submission.nodes, own_addresses=own_addresses())
    if submission.nodes == 1 and (member is None or _meets_nobody(member, environment)):
        return Member(rank=0, nodes=1, head_address=LOOPBACK, port=free_port(following=1))
    if member is None:
        raise SpecError(
            f"{submission.key} runs on {submission.nodes} nodes, and nothing in the environment says which this is "
            f"(looked for {', '.join(PLATFORMS)}); set SPILLWAY_GANG_RANK and SPILLWAY_GANG_HEAD on each"
        )
    if member.nodes != submission.nodes and not is_torchrun_worker(environment):
        raise SpecError(
            f"{submission.key} runs on {submission.nodes} nodes, and {member.source} says {member.nodes}"
        )
    return member


def _meets_nobody(member: Member, environment: Mapping[str, str]) -> bool:
    """Return whether no other process needs to know its port: it may be one that no other job of the machine takes."""
    return member.nodes == 1 and "SPILLWAY_GANG_PORT" not in environment


def _run_member(attempt: Attempt, gang: Gang) -> int:
    """Call the entry point here, and agree with the others on how it ended."""
    if gang.member.is_head:
        code = _run(attempt, gang, attempt.store, partial(HeadSession, gang=gang))
        verdict = gang.end(code, _message(_own_result(attempt)))
        _correct_result(attempt, gang, said=code, verdict=verdict)
        return verdict
    view = FollowerStore(attempt.store, attempt.submission)
    code = _run(attempt, gang, view, partial(FollowerSession, gang=gang))
    return gang.end(code, _message(view.result))


def _run(
    attempt: Attempt,
    gang: Gang,
    store: ObjectStore,
    make_session: partial[HeadSession] | partial[FollowerSession],
) -> int:
    try:
        return run(
            attempt.submission,
            store,
            scratch=attempt.scratch,
            notice=gang.notice,
            log_tail=attempt.log_tail,
            make_session=make_session,
        )
    except StoreError:
        log.exception("the store %s does not work", attempt.submission.store)
        return exit_codes.FAILED


def _run_in_given_cluster(attempt: Attempt) -> int:
    """Call the entry point where a Ray cluster is there already, which looks after its own nodes."""
    return run(
        attempt.submission,
        attempt.store,
        scratch=attempt.scratch,
        notice=attempt.notice,
        log_tail=attempt.log_tail,
    )


def _run_with_ray(attempt: Attempt, gang: Gang) -> int:
    """Span a Ray cluster over the members, and call the entry point on the head only.

    What the head's Ray knows of actors and objects ends with it, so that its end is one of the capacity: the attempt is
    preempted. The end of another node's Ray is one node less.
    """
    lost = partial(_lose_ray, attempt) if gang.member.is_head else gang.leave_alone
    try:
        with ray_node.ray_node(attempt.submission, gang, attempt.scratch, lost=lost):
            gang.say_ready()
            if gang.member.is_head:
                return _run_member(attempt, gang)
            gang.wait_for_head()
    except GangError as error:
        log.exception("no Ray on this node")
        stopped = gang.stopped is not None or gang.notice.received
        return gang.end(exit_codes.PREEMPTED if stopped else exit_codes.FAILED, str(error))
    return gang.end(exit_codes.SUCCEEDED)


def _lose_ray(attempt: Attempt) -> None:
    left = attempt.submission.grace_period.total_seconds()
    attempt.notice.receive(
        NoticeSeen(source="ray", reason="Ray ended on the head", seconds_left=left)
    )


def _own_result(attempt: Attempt) -> Result | None:
    with suppress(
        StoreError
    ):  # it was said to the log, and words for others are all that it is wanted for
        return read_result(attempt.store, attempt.submission.prefix, attempt.submission.token)
    return None


def _message(result: Result | None) -> str:
    return "" if result is None or result.error is None else result.error.message


def _correct_result(attempt: Attempt, gang: Gang, *, said: int | None, verdict: int) -> None:
    """Write how the gang ended over what the head alone had to say of itself."""
    stop = gang.stopped
    if verdict in (said, exit_codes.PREEMPTED) or stop is None:
        return
    message = f"member {stop.rank} of {gang.member.nodes} failed: {stop.message or 'see its log'}"
    result = Result(
        token=attempt.submission.token,
        outcome=Outcome.FAILED,
        written_at=SystemClock().now(),
        error=ErrorRecord(type=GangError.__name__, message=message),
    )
    write_result(attempt.store, attempt.submission.prefix, result)


def _leave_word(attempt: Attempt, gang: Gang, code: int) -> None:
    """Say how it ends, for work that will not come to an end by itself."""
    _say(code, gang.member, attempt.environment)
    if gang.member.is_head:
        _correct_result(attempt, gang, said=None, verdict=code)


def _leave_word_of_stop(attempt: Attempt, gang: Gang) -> None:
    _say(exit_codes.PREEMPTED, gang.member, attempt.environment)


def _say(code: int, member: Member, environment: Mapping[str, str]) -> int:
    """Leave the exit code where a launcher that hides it looks for it, and return it."""
    folder = environment.get(torchrun.ENDS)
    if folder:
        (Path(folder) / str(member.rank)).write_text(str(code), encoding="utf-8")
    return code
