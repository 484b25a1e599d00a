"""Any member of a gang but the first: it does what the head says, and stops when the head is gone."""

from __future__ import annotations

import logging
import time
from threading import Thread
from typing import TYPE_CHECKING, Any

from spillway.errors import GangError
from spillway.runtime import exit_codes
from spillway.runtime.gang.watch import Cause, Gang, GangTerms, Stop, code_of, lost

if TYPE_CHECKING:
    from spillway.runtime.gang.membership import Member
    from spillway.runtime.gang.wire import Line, Message
    from spillway.runtime.notice import Notice


log = logging.getLogger(__name__)


class Follower(Gang):
    """A member with a connection to the head."""

    def __init__(
        self, member: Member, terms: GangTerms, machine: Notice, *, line: Line, **options: Any
    ) -> None:
        super().__init__(member, terms, machine, **options)
        self._line = line
        self._is_head_lost = False
        self._is_ready = False

    def enter(self) -> None:
        """Wait until all are there.

        Raises:
            GangError: The head gave up waiting for the others.
        """
        while (message := self._line.receive()) is not None and message.get("type") != "welcome":
            continue
        if message is None:
            raise GangError("the head ended before all members were there; see its log")
        self.shared = {str(key): str(value) for key, value in message["shared"].items()}
        Thread(target=self._listen, name="spillway-gang-head", daemon=True).start()
        self._ticker.start()

    def tell_restored(self, name: str | None) -> None:
        """Only the head tells."""
        raise GangError(f"member {self.member.rank} is not the head and cannot say: {name}")

    def say_ready(self) -> None:
        """Tell the head, which waits for it."""
        self._is_ready = True
        self._line.send({"type": "ready"})

    def end(self, code: int, message: str = "") -> int:
        """Say how this member ended, and wait for the head's word on how all do; one that leaves has no part in that."""
        self._line.send({"type": "ended", "code": code, "message": message})
        with self._changed:
            if self._leaves_at is not None and self._stop is None and not self._head_ended:
                self._verdict = code
            while self._verdict is None and not self._is_head_lost:
                self._changed.wait()
            verdict = exit_codes.PREEMPTED if self._verdict is None else self._verdict
        self._finish()
        self._line.close()
        return verdict

    def _listen(self) -> None:
        while (message := self._line.receive()) is not None:
            with self._changed:
                self._take(message)
        with self._changed:
            if self._verdict is None:
                self._is_head_lost = True
                self._stop_now(lost(0))
            self._changed.notify_all()

    def _take(self, message: Message) -> None:
        match message.get("type"):
            case "halt":
                count = self._halt(float(message["seconds_left"]))
                self._line.send({"type": "boundary", "count": count})
            case "stop_at":
                self._stop_at_boundary(int(message["count"]))
            case "stop":
                self._stop_now(
                    Stop(
                        cause=Cause(message["cause"]),
                        rank=int(message["rank"]),
                        code=int(message["code"]),
                        message=str(message["message"]),
                    )
                )
            case "restored":
                self._restored.append(message["name"])
            case "head_ended":
                self._head_ended = True
            case "bye":
                self._verdict = int(message["code"])
        self._changed.notify_all()

    def _machine_noticed(self, reason: str, seconds_left: float) -> None:
        if self._terms.can_shrink and self._is_ready:
            log.warning("this member leaves, and the others go on without it: %s", reason)
            self._leaves_at = time.monotonic() + seconds_left / 2
            return
        self._line.send({"type": "notice", "reason": reason, "seconds_left": seconds_left})

    def _ping(self) -> None:
        self._line.send({"type": "ping"})

    def _last_word(self) -> int:
        code = code_of(self._stop) if self._verdict is None else self._verdict
        self._line.send({"type": "ended", "code": code, "message": "did not stop in time"})
        return code
