"""Whether a pool that refused has room again by now, learned from what it answered: refusals, losses and launches.

How long an outage lasts is not known and spans seconds to hours, so the belief has a heavy tail: of outages that have
lasted `D`, half are over after another `typical + D` (Lomax with shape 1). The longer a pool has been out, the longer it
is expected to stay so, which recorded spot capacity shows as well. A pool is tried again when the chance is a half; so
tries come at doubling intervals, and a pool whose outages were long before is not asked as often in the next one.

Approximate: an outage counts up to its last refusal, as nobody knows what the pool would have answered later; and an answer
counts alike for one node and for many.

Source: Lomax, Business Failures, Journal of the American Statistical Association 49, 1954 (the distribution).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from spillway.model import RoomAnswer

COOL_DOWN: Final = timedelta(seconds=30)
"""How long half of all outages last, by the prior; it counts for one outage seen just now."""

LONGEST_COOL_DOWN: Final = timedelta(minutes=10)
"""A pool is tried this often whatever is believed of it: a try costs one call, and nothing else tells when it is back."""

HALF_LIFE: Final = timedelta(hours=2)
"""How old an outage is when it counts half: days are good or bad, hours are too short to tell."""

LOOK_BACK: Final = 4 * HALF_LIFE

SAME_OUTAGE: Final = 2 * LONGEST_COOL_DOWN
"""Refusals further apart are two outages: nobody asked in between, though somebody could have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """A time for which a pool is known to have had no room.

    Attributes:
        first: When it refused, or took capacity back, first.
        last: When it did so last.
        refusals: How often it did.
    """

    first: datetime
    last: datetime
    refusals: int

    @property
    def known_to_last(self) -> timedelta:
        """How long it certainly lasted."""
        return self.last - self.first


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What is believed of one pool's room.

    Attributes:
        chance: That it has room now; 1 where its last answer was a launch, which is taken at its word.
        outage: The one that may still last; None where the last answer was a launch.
        next_try_at: When to ask it again; None where nothing speaks against asking now or ever before.
    """

    chance: float = 1.0
    outage: Outage | None = None
    next_try_at: datetime | None = None

    def is_cooling_down(self, now: datetime) -> bool:
        """Whether it is too early to ask."""
        return self.next_try_at is not None and now < self.next_try_at

    def reason(self, now: datetime) -> str:
        """Return why the pool is passed over while it cools down, for people; empty when it is not."""
        if self.outage is None or self.next_try_at is None or now >= self.next_try_at:
            return ""
        since = f"{_text(now - self.outage.first)} ago"
        if self.outage.refusals > 1:
            since = f"{self.outage.refusals} times in {_text(now - self.outage.first)}"
        return (
            f"refused or took back capacity {since}, next try in {_text(self.next_try_at - now)} "
            f"(chance of room now {self.chance:.0%})"
        )


def room_of(answers: Iterable[RoomAnswer], now: datetime, said_at: datetime | None = None) -> Room:
    """Return what `answers`, in any order, tell of the pool's room at `now`.

    Args:
        answers: What the pool did when it was asked for capacity.
        now: The moment to tell it for.
        said_at: When the provider said that there is room; None where it does not say. What it said after a refusal is
            believed, unless the pool has gone on refusing all the same for `COOL_DOWN`.
    """
    # Of two answers at once the refusal counts: it is the careful one, and a loss comes after its launch.
    ordered = sorted(answers, key=lambda answer: (answer.at, not answer.had_room))
    outages, is_out = _outages(ordered)
    if not is_out:
        return Room()
    outage = outages.pop()
    if said_at is not None and said_at >= outage.last and outage.known_to_last < COOL_DOWN:
        return Room()
    scale = typical_outage(outages, now) + outage.known_to_last
    silent = max(now - outage.last, timedelta(0))
    return Room(
        chance=silent / (scale + silent),
        outage=outage,
        next_try_at=outage.last + min(scale, LONGEST_COOL_DOWN),
    )


def typical_outage(outages: Iterable[Outage], now: datetime) -> timedelta:
    """Return how long half of a pool's outages last: a geometric mean of those seen and the prior, older ones for less."""
    prior = math.log(COOL_DOWN.total_seconds())
    total, weights = prior, 1.0
    for outage in outages:
        weight = 2.0 ** -((now - outage.last) / HALF_LIFE)
        total += weight * max(math.log(outage.known_to_last.total_seconds() or 1.0), prior)
        weights += weight
    return timedelta(seconds=math.exp(total / weights))


def _outages(ordered: Sequence[RoomAnswer]) -> tuple[list[Outage], bool]:
    """Return every outage, the oldest first, and whether the last of them may still last."""
    outages: list[Outage] = []
    is_out = False
    for answer in ordered:
        if answer.had_room:
            is_out = False
        elif is_out and answer.at - outages[-1].last <= SAME_OUTAGE:
            before = outages.pop()
            outages.append(Outage(first=before.first, last=answer.at, refusals=before.refusals + 1))
        else:
            outages.append(Outage(first=answer.at, last=answer.at, refusals=1))
            is_out = True
    return outages, is_out


def _text(duration: timedelta) -> str:
    seconds = math.ceil(duration.total_seconds())
    return f"{seconds} s" if seconds < 100 else f"{round(seconds / 60)} min"
