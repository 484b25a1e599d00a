"""What one member of a gang knows and does, whichever member it is; `head` and `follower` say how it comes to know it.

How a gang stops at one step. A notice to any member reaches the head, which says *halt*. Each member then answers, from
a thread beside the work, how many boundaries between steps it has passed, and waits at the next one it comes to. The
head makes the largest of these numbers and one the boundary at which all of them stop. Nobody can have passed it, since
all wait at their next boundary until they know it; and nobody waits for ever, since the answers do not wait for the
work. Work that goes in step, as all training with a collective operation in each step does, so ends with every member
at the same step, and the head saves that step.
"""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING, Final

from spillway.errors import GangError
from spillway.runtime import exit_codes
from spillway.runtime.gang.kernel_timer import KernelTimer
from spillway.runtime.gang.wire import PING_SECONDS, SILENCE_SECONDS
from spillway.runtime.notice import Notice, NoticeSeen

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.runtime.gang.membership import Member

log = logging.getLogger(__name__)

LEAST_GRACE_SECONDS: Final = 5.0
"""What a member gets to stop by itself, however short the pool's grace period is."""

_TICK_SECONDS: Final = 0.1
_LAST_WORDS_SECONDS: Final = 2.0


class Cause(StrEnum):
    """Why a gang stops before its work is done."""

    PREEMPTED = "preempted"
    LOST = "lost"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Why all members stop.

    Attributes:
        rank: Whose doing it is.
        code: Exit code of all members.
    """

    cause: Cause
    rank: int
    code: int
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GangTerms:
    """What members agree on before they meet.

    Attributes:
        grace_seconds: What members get to stop by themselves.
        silence_seconds: How long a member may say nothing before it counts as lost.
        start_seconds: How long members wait for each other at the start.
        can_shrink: Whether the work goes on without a member that only lends its machine, which all but the head do.
    """

    secret: bytes
    grace_seconds: float = 30.0
    silence_seconds: float = SILENCE_SECONDS
    start_seconds: float = 600.0
    can_shrink: bool = False

    @property
    def stuck_seconds(self) -> float:
        """How long a member that lets none of our threads run may be there: by then the others, who hear nothing, have ended."""
        grace = max(self.grace_seconds, LEAST_GRACE_SECONDS)
        return self.silence_seconds + grace + _LAST_WORDS_SECONDS


class Gang(ABC):
    """One member's view of its gang; made by `join`.

    Attributes:
        member: Who this is.
        notice: What the session is told: that all stop at this step, which is later than when the machine was told.
        shared: What the head gave to all members when they met.
        on_leaving: Called with the exit code before the process is ended because its work did not stop in time.
    """

    def __init__(
        self,
        member: Member,
        terms: GangTerms,
        machine: Notice,
        *,
        leave: Callable[[int], object] = os._exit,
        timer: KernelTimer | None = None,
    ) -> None:
        self.member = member
        self.notice = Notice()
        self.shared: dict[str, str] = {}
        self.on_leaving: Callable[[int], None] = lambda _code: None
        self._terms, self._machine, self._leave = terms, machine, leave
        self._timer = timer or KernelTimer(None)
        self._changed = Condition()
        self._over = Event()
        self._count = 0
        self._stop_at: int | None = None
        self._is_halting = False
        self._halting_since: float | None = None
        self._stop: Stop | None = None
        self._deadline: float | None = None
        self._restored: list[str | None] = []  # what the head went on from, each time
        self._followed = 0
        self._head_ended = False
        self._leaves_at: float | None = None
        self._verdict: int | None = None
        self._ticker = Thread(target=self._tick, name="spillway-gang", daemon=True)

    # ---- for the session ----------------------------------------------------------------------------------------

    def boundary(self) -> None:
        """Come between two steps: wait here while it is not known at which step all stop, and learn when it is this one."""
        with self._changed:
            while self._is_halting and self._stop_at is None and self._stop is None:
                self._changed.wait()
            self._count += 1
            if self._stop_at is not None and self._count >= self._stop_at:
                self._tell_session("all members stop at this step")

    @abstractmethod
    def tell_restored(self, name: str | None) -> None:
        """Tell the others, as the head, from which checkpoint all go on; None for the beginning."""

    def wait_restored(self) -> str | None:
        """Return the name of the checkpoint that the head goes on from; None for the beginning.

        It is the same until `follow` says that this member goes on from it. Then it is what the head goes on from next.

        Raises:
            GangError: The gang stopped first.
        """
        with self._changed:
            while len(self._restored) <= self._followed:
                if self._stop is not None or self._is_halting or self._head_ended:
                    self._tell_session("the gang stopped before its work began")
                    raise GangError(
                        "the gang stopped before its head said which checkpoint to go on from"
                    )
                self._changed.wait()
            return self._restored[self._followed]

    def follow(self) -> None:
        """Say that this member goes on from what `wait_restored` returned."""
        with self._changed:
            self._followed += 1

    def wait_for_head(self) -> None:
        """Return when the head's work is over, or the gang stops: for members that only lend their machine.

        Where the work goes on without this member, it is time to leave, too, when half of what this machine has left is over.
        """
        with self._changed:
            while not self._head_ended and self._stop is None and not self._is_leaving():
                self._changed.wait(_TICK_SECONDS)

    @abstractmethod
    def say_ready(self) -> None:
        """Say that what the head's work needs of this machine is there; the head waits here for all others to say so.

        Raises:
            GangError: The gang stopped first.
        """

    @abstractmethod
    def end(self, code: int, message: str = "") -> int:
        """Say how this member's work ended; return the exit code that all agree on, once all have ended."""

    @property
    def stopped(self) -> Stop | None:
        """Why the gang stops, when it does so before its work is done."""
        return self._stop

    def leave_alone(self) -> None:
        """Take this member out, whose machine has nothing left to lend; the others go on if their work can."""
        with self._changed:
            self._leaves_at = time.monotonic()
            self._changed.notify_all()

    def _is_leaving(self) -> bool:
        return self._leaves_at is not None and time.monotonic() >= self._leaves_at

    # ---- for the members' messages, under the lock ----------------------------------------------------------------

    def _halt(self, seconds_left: float) -> int:
        """Have the work stop at its next boundary; return how many it has passed."""
        self._is_halting = True
        self._halting_since = time.monotonic()
        self._set_deadline(seconds_left)
        self._changed.notify_all()
        return self._count

    def _stop_at_boundary(self, count: int) -> None:
        self._stop_at = count
        log.info("all members stop at boundary %d; this one has passed %d", count, self._count)
        if (
            self._count == 0 or self._count >= count
        ):  # the work never comes to boundaries, or is there
            self._tell_session("all members stop")
        self._changed.notify_all()

    def _stop_now(self, stop: Stop) -> None:
        if self._stop is not None:
            return
        self._stop = stop
        log.warning("the gang stops: member %d %s: %s", stop.rank, stop.cause, stop.message)
        self._set_deadline(self._terms.grace_seconds)
        self._tell_session(f"member {stop.rank} {stop.cause}")
        self._changed.notify_all()

    def _set_deadline(self, seconds_left: float) -> None:
        ends = time.monotonic() + max(seconds_left, LEAST_GRACE_SECONDS)
        self._deadline = ends if self._deadline is None else min(self._deadline, ends)

    def _tell_session(self, reason: str) -> None:
        left = None if self._deadline is None else self._deadline - time.monotonic()
        if self._stop is not None and self._stop.cause is Cause.FAILED:
            left = None  # what hangs is then ended by us, as failed, and not by the session, as preempted
        self.notice.receive(NoticeSeen(source="gang", reason=reason, seconds_left=left))

    # ---- beside the work ------------------------------------------------------------------------------------------

    @abstractmethod
    def _machine_noticed(self, reason: str, seconds_left: float) -> None:
        """This machine is about to be taken back."""

    @abstractmethod
    def _ping(self) -> None:
        """Say that this member is there."""

    @abstractmethod
    def _last_word(self) -> int:
        """Return the exit code when there is no time left to agree on one, and say so; under the lock."""

    def _tick(self) -> None:
        told, pinged = False, 0.0
        while not self._over.wait(_TICK_SECONDS):
            now = time.monotonic()
            if self._machine.received and not told:
                told = True
                left = self._machine.seconds_left
                grace = self._terms.grace_seconds
                self._machine_noticed(self._machine.reason, grace if left is None else left)
            if now - pinged >= PING_SECONDS:
                pinged = now
                self._ping()
                self._timer.put_off()
            self._pass_advice_on()
            with self._changed:
                self._watch_deadline(now)
        self._timer.stop()  # what is still to be said may take its time

    def _pass_advice_on(self) -> None:
        if self._machine.advised_at is not None and self.notice.advised_at is None:
            self.notice.advise(
                NoticeSeen(source="gang", reason="this machine may be taken back", is_advice=True)
            )

    def _watch_deadline(self, now: float) -> None:
        if self._deadline is None:
            return
        if self._halting_since is not None and now > (self._halting_since + self._deadline) / 2:
            self._tell_session("half of the grace period is over")
        if now > self._deadline:
            code = self._last_word()
            log.error("member %d did not stop in time and is ended with %d", self.member.rank, code)
            words = Thread(target=self.on_leaving, args=(code,), daemon=True)
            words.start()
            words.join(_LAST_WORDS_SECONDS)  # no store may keep a process that has to end
            self._leave(code)

    def _finish(self) -> None:
        self._over.set()


def lost(rank: int) -> Stop:
    """Return the stop of a gang that lost a member."""
    return Stop(
        cause=Cause.LOST,
        rank=rank,
        code=exit_codes.PREEMPTED,
        message="its connection ended, or it was silent for too long",
    )


def code_of(stop: Stop | None) -> int:
    """Return the exit code that `stop` means; that of a preemption when nobody said why."""
    return exit_codes.PREEMPTED if stop is None else stop.code
