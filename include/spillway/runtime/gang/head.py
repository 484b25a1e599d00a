"""The first member of a gang: where the others meet, and where it is decided how all of them end."""

from __future__ import annotations

import logging
import math
import time
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from spillway.errors import GangError
from spillway.runtime import exit_codes
from spillway.runtime.gang.watch import Cause, Gang, GangTerms, Stop, lost
from spillway.runtime.gang.wire import Line, Message, greet

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from spillway.runtime.gang.membership import Member
    from spillway.runtime.notice import Notice

log = logging.getLogger(__name__)

SETTLE_SECONDS: Final = 2.0
"""A member's failure is its own only if no other is lost meanwhile: work breaks where a peer of it is gone."""

_ACCEPT_SECONDS: Final = 0.2


class Head(Gang):
    """Member 0."""

    def __init__(
        self,
        member: Member,
        terms: GangTerms,
        machine: Notice,
        *,
        shared: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(member, terms, machine, **options)
        self.shared = dict(shared or {})
        self._lines: dict[int, Line] = {}
        self._at_the_door: dict[Line, float] = {}
        self._counts: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        self._lost: set[int] = set()
        self._ready: set[int] = set()
        self._is_explained = False
        self._settled_at: float | None = None

    def gather(self, server: socket.socket) -> None:
        """Let all other members in.

        Raises:
            GangError: They did not all come in time, or this machine is about to be taken back.
        """
        deadline = time.monotonic() + self._terms.start_seconds
        server.settimeout(_ACCEPT_SECONDS)
        while len(self._lines) < self.member.nodes - 1:
            if self._machine.received or time.monotonic() > deadline:
                self._close()
                missing = sorted(set(range(1, self.member.nodes)) - self._lines.keys())
                raise GangError(
                    f"members {missing} of {self.member.nodes} did not come to "
                    f"{self.member.head_address}:{self.member.port}; see their logs and the network between"
                )
            self._open(server)
            self._turn_away(before=time.monotonic() - self._terms.silence_seconds)
            self._ping()  # those who wait must not think that we are gone
        self._turn_away(before=math.inf)
        for rank, line in sorted(self._lines.items()):
            line.send({"type": "welcome", "shared": self.shared})
            Thread(
                target=self._listen, args=(rank, line), name=f"spillway-gang-{rank}", daemon=True
            ).start()
        log.info("all %d members are there", self.member.nodes)
        self._ticker.start()

    def tell_restored(self, name: str | None) -> None:
        """Tell the others from which checkpoint all go on."""
        with self._changed:
            self._restored.append(name)
        self._broadcast({"type": "restored", "name": name})

    def say_ready(self) -> None:
        """Wait until all others have said that they are ready."""
        with self._changed:
            while len(self._ready) < self.member.nodes - 1:
                if self._stop is not None or self._is_halting:
                    self._tell_session("the gang stopped before its work began")
                    raise GangError("the gang stopped before all members were ready")
                self._changed.wait()

    def end(self, code: int, message: str = "") -> int:
        """Say how this member ended; wait for all others, and decide."""
        with self._changed:
            self._member_ended(0, code, message)  # a reason to stop is heard before anybody leaves
            self._broadcast({"type": "head_ended"})
            while not self._is_decided():
                self._changed.wait(0.1)
            self._verdict = verdict = self._judge()
        self._broadcast({"type": "bye", "code": verdict})
        self._close()
        return verdict

    # ---- what members say -------------------------------------------------------------------------------------------

    def _listen(self, rank: int, line: Line) -> None:
        while (message := line.receive()) is not None:
            with self._changed:
                self._take(rank, message)
        with self._changed:
            if rank not in self._ended and self._verdict is None:
                self._lose(rank)
            self._changed.notify_all()

    def _lose(self, rank: int) -> None:
        if self._terms.can_shrink and rank in self._ready:
            log.warning("member %d is lost; the others go on without it", rank)
            self._member_ended(rank, exit_codes.SUCCEEDED, "")
            return
        self._lost.add(rank)
        self._explain()
        self._stop_all(lost(rank))

    def _take(self, rank: int, message: Message) -> None:
        match message.get("type"):
            case "notice":
                self._begin_halt(rank, str(message["reason"]), float(message["seconds_left"]))
            case "boundary":
                self._counts[rank] = int(message["count"])
                self._settle_on_a_boundary()
            case "ready":
                self._ready.add(rank)
                self._changed.notify_all()
            case "ended":
                self._member_ended(rank, int(message["code"]), str(message["message"]))

    def _begin_halt(self, rank: int, reason: str, seconds_left: float) -> None:
        self._explain()
        if self._is_halting:
            return
        log.warning("member %d is about to be taken back: %s", rank, reason)
        self._broadcast({"type": "halt", "seconds_left": seconds_left})
        self._counts[0] = self._halt(seconds_left)
        self._settle_on_a_boundary()

    def _settle_on_a_boundary(self) -> None:
        """Say at which boundary all stop, once every member that still works has said how many it has passed."""
        working = set(range(self.member.nodes)) - self._ended.keys()
        if not self._is_halting or self._stop_at is not None or not working <= self._counts.keys():
            return
        count = max(self._counts.values()) + 1
        self._broadcast({"type": "stop_at", "count": count})
        self._stop_at_boundary(count)

    def _member_ended(self, rank: int, code: int, message: str) -> None:
        self._ended[rank] = code
        if code == exit_codes.PREEMPTED:
            stop = Stop(cause=Cause.PREEMPTED, rank=rank, code=code, message=message)
        elif code != exit_codes.SUCCEEDED:
            stop = Stop(cause=Cause.FAILED, rank=rank, code=code, message=message)
            if self._settled_at is None:
                self._settled_at = time.monotonic() + SETTLE_SECONDS
        else:
            stop = None
        if stop is not None and not (self._is_halting and stop.cause is Cause.PREEMPTED):
            self._stop_all(stop)
        self._settle_on_a_boundary()
        self._changed.notify_all()

    def _explain(self) -> None:
        """Take note that a member is lost or about to be; a failure long before that has another cause."""
        if self._settled_at is None or time.monotonic() < self._settled_at:
            self._is_explained = True

    def _stop_all(self, stop: Stop) -> None:
        if self._stop is None:
            self._broadcast(
                {
                    "type": "stop",
                    "cause": stop.cause.value,
                    "rank": stop.rank,
                    "code": stop.code,
                    "message": stop.message,
                }
            )
        self._stop_now(stop)

    # ---- how all of them end ------------------------------------------------------------------------------------------

    def _is_decided(self) -> bool:
        if len(self._ended.keys() | self._lost) < self.member.nodes:
            return False
        is_settled = self._settled_at is None or time.monotonic() >= self._settled_at
        return self._is_explained or is_settled

    def _judge(self) -> int:
        """Return the exit code of the gang: a loss or a notice explains whatever broke after it."""
        if set(self._ended.values()) == {exit_codes.SUCCEEDED} and not self._lost:
            return exit_codes.SUCCEEDED
        if self._is_explained or self._stop is None:
            return exit_codes.PREEMPTED
        return self._stop.code

    def _last_word(self) -> int:
        code = self._judge()
        self._broadcast({"type": "bye", "code": code})
        return code

    # ---- beside the work ------------------------------------------------------------------------------------------

    def _machine_noticed(self, reason: str, seconds_left: float) -> None:
        with self._changed:
            self._begin_halt(0, reason, seconds_left)

    def _ping(self) -> None:
        self._broadcast({"type": "ping"})

    def _broadcast(self, message: Message) -> None:
        for line in list(self._lines.values()):
            line.send(message)

    def _open(self, server: socket.socket) -> None:
        try:
            connection, _ = server.accept()
        except TimeoutError:
            return
        line = Line(connection, silence_seconds=self._terms.silence_seconds)
        with self._changed:
            self._at_the_door[line] = time.monotonic()
        # In a thread: whoever says nothing, or never comes to an end, must not keep the others waiting.
        Thread(target=self._let_in, args=(line,), name="spillway-gang-door", daemon=True).start()

    def _let_in(self, line: Line) -> None:
        rank = greet(line, self._terms.secret, nodes=self.member.nodes)
        with self._changed:
            if self._at_the_door.pop(line, None) is None:
                return
            if rank is not None and rank not in self._lines:
                self._lines[rank] = line
                return
        line.close()

    def _turn_away(self, *, before: float) -> None:
        """Close the door to those who came `before` and are not in."""
        with self._changed:
            late = [line for line, came in self._at_the_door.items() if came < before]
            for line in late:
                del self._at_the_door[line]
        for line in late:
            line.close()

    def _close(self) -> None:
        self._finish()
        self._turn_away(before=math.inf)
        for line in self._lines.values():
            line.close()
