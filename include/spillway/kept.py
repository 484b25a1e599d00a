"""What was asked for a while ago and is still good, so that a look need not wait for it to be asked again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

from spillway.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Hashable
    from datetime import datetime, timedelta

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound="Hashable")
Fact = TypeVar("Fact")

Aside = Callable[[Callable[[], object]], object]
"""Runs a call beside whoever gives it, or at once."""


def at_once(call: Callable[[], object]) -> object:
    """Run `call` now, for those who have nobody to leave it to."""
    return call()


class Kept(Generic[Key, Fact]):
    """Answers of one question, by what was asked about, for `keep_for`; safe to share between threads."""

    def __init__(self, keep_for: timedelta, aside: Aside = at_once) -> None:
        self._keep_for = keep_for
        self._aside = aside
        self._facts: dict[Key, tuple[datetime, Fact]] = {}
        self._asked: set[Key] = set()
        self._lock = Lock()

    def __len__(self) -> int:
        """Return how many answers are kept."""
        return len(self._facts)

    def get(self, key: Key, now: datetime, ask: Callable[[Key], Fact]) -> Fact:
        """Return what is kept of `key`, or what `ask` says now."""
        kept = self._at_most(key, now, self._keep_for)
        return self._keep(key, now, ask) if kept is None else kept[1]

    def lately(self, key: Key, now: datetime, ask: Callable[[Key], Fact]) -> Fact:
        """Return what is kept of `key`, though it be twice as old; what is too old is asked again aside, for the next time."""
        kept = self._at_most(key, now, 2 * self._keep_for)
        if kept is None:
            return self._keep(key, now, ask)
        if now - kept[0] > self._keep_for and self._begins(key):
            self._aside(lambda: self._ask_aside(key, now, ask))
        return kept[1]

    def _at_most(self, key: Key, now: datetime, age: timedelta) -> tuple[datetime, Fact] | None:
        kept = self._facts.get(key)
        return kept if kept is not None and now - kept[0] <= age else None

    def _keep(self, key: Key, now: datetime, ask: Callable[[Key], Fact]) -> Fact:
        fact = ask(key)
        with self._lock:
            good = {k: one for k, one in self._facts.items() if now - one[0] <= 2 * self._keep_for}
            self._facts = {**good, key: (now, fact)}
        return fact

    def _begins(self, key: Key) -> bool:
        with self._lock:
            begins = key not in self._asked
            self._asked.add(key)
        return begins

    def _ask_aside(self, key: Key, now: datetime, ask: Callable[[Key], Fact]) -> None:
        try:
            self._keep(key, now, ask)
        except LedgerError as error:  # whoever needs it once it is too old meets the error itself
            log.warning("what is kept could not be read again: %s", error)
        finally:
            with self._lock:
                self._asked.discard(key)
