"""The choice over a table of offers: `choose` on the few that may be the best, and reasons for all the others on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, overload

import numpy as np

from spillway.model import Market, Offer, PassedOver, Placement, TaskSpec, Unplaced
from spillway.placement.choose import choose, pass_over
from spillway.placement.columns import MANY, Columns, microseconds
from spillway.placement.offer_table import OfferTable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from spillway.placement.fits import Fits


@dataclass(frozen=True, kw_only=True)
class TableChoice:
    """What was chosen from a table, and why not each of the others, made when it is asked for.

    Attributes:
        row: The row taken; None where none can take the task.
        decision: `choose` on the rows that may be the best; says nothing of the others.
    """

    task: TaskSpec
    table: OfferTable
    now: datetime
    row: int | None
    decision: Placement | Unplaced

    @property
    def offer(self) -> Offer | None:
        """The offer taken."""
        return self.decision.offer if isinstance(self.decision, Placement) else None

    @property
    def passed_over(self) -> Sequence[PassedOver]:
        """Every other offer with its reason, in the order of the rows."""
        return _Reasons(self)

    @cached_property
    def can_wait(self) -> bool:
        """Whether no row has room and some would do if it had."""
        gone: frozenset[int] = frozenset()
        while self.row is None:
            found = self.table.best(self.task, self.now, ignore_room=True, without=gone)
            if not found:
                break
            rows = [one.row for one in found]
            offers = [self.table.source.offer(row) for row in rows]
            if any(pass_over(self.task, one, None, self.now).can_wait for one in offers):
                return True
            gone |= set(rows)  # at the edge of the budget, on the wrong side of it
        return False

    def to_record(self, *, others: int = 20) -> Placement | Unplaced:
        """Return the decision with the best `others` passed over, to be stored: small, and it can be made again.

        Where none can take the task, these are the rows that would if they had room.
        """
        found = self.table.best(self.task, self.now, count=others + 1, ignore_room=self.row is None)
        ranked = sorted(found, key=lambda one: (one.late_us, one.cost_usd, one.row))
        rows = {one.row for one in ranked[: others + 1]}
        rows |= set() if self.row is None else {self.row}
        return choose(self.task, [self.table.source.offer(row) for row in rows], self.now)

    def to_decision(self) -> Placement | Unplaced:
        """Return the decision with every reason, as `choose` would have it; slow where the table is long."""
        return choose(self.task, self.table.offers(), self.now)


class _Reasons(Sequence[PassedOver]):
    """The offers passed over, made one at a time."""

    def __init__(self, choice: TableChoice) -> None:
        self._choice = choice

    def __len__(self) -> int:
        return len(self._choice.table) - (self._choice.row is not None)

    @overload
    def __getitem__(self, index: int) -> PassedOver: ...
    @overload
    def __getitem__(self, index: slice) -> list[PassedOver]: ...
    def __getitem__(self, index: int | slice) -> PassedOver | list[PassedOver]:
        rows = range(len(self))[index]
        return self._of(rows) if isinstance(rows, int) else [self._of(row) for row in rows]

    def _of(self, place: int) -> PassedOver:
        choice = self._choice
        row = place + (choice.row is not None and place >= choice.row)
        return pass_over(choice.task, choice.table.source.offer(row), choice.offer, choice.now)


def choose_from(
    table: OfferTable, task: TaskSpec, now: datetime, *, fits: Fits | None = None
) -> TableChoice:
    """Return what `choose` would take of all the offers in the table; `fits` as in `OfferTable.best`."""
    gone: frozenset[int] = frozenset()
    while True:
        known = None if gone else fits
        found = [one.row for one in table.best(task, now, without=gone, fits=known)]
        offers = {row: table.source.offer(row) for row in found}
        decision = choose(task, offers.values(), now)
        if isinstance(decision, Placement) or not found:
            break
        gone |= set(found)  # they were at the edge of the budget, on the wrong side of it
    row = None
    if isinstance(decision, Placement):
        row = next(r for r, offer in offers.items() if offer is decision.offer)
    return TableChoice(task=task, table=table, now=now, row=row, decision=decision)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listed:
    """Rows that are whole offers already."""

    listed: Sequence[Offer]

    def offer(self, row: int) -> Offer:
        """Return the offer of `row`."""
        return self.listed[row]

    def pool(self, row: int) -> str:
        """Return the name of the pool of `row`."""
        return self.listed[row].pool


def table_of(offers: Iterable[Offer]) -> OfferTable:
    """Return offers as a table."""
    rows = list(offers)
    words = _Vocabularies()
    columns = Columns(
        market=np.array([list(Market).index(o.market) for o in rows], dtype=np.int8),
        accelerator=words.numbers("accelerator", [o.shape.accelerator for o in rows]),
        preemptions_per_hour=_floats(
            np.nan if o.preemptions_per_hour is None else o.preemptions_per_hour for o in rows
        ),
        restart_us=np.array([_microseconds(o) for o in rows], dtype=np.int64),
        speed=_floats(o.speed for o in rows),
        ends_us=np.array([microseconds(o.ends_at) for o in rows], dtype=np.int64),
        tariff=_tariffs(rows),
        marginal=_floats(float(o.marginal_usd_per_hour) for o in rows),
        effective=_floats(float(o.effective_usd_per_hour) for o in rows),
        cpus=_floats(o.shape.cpus for o in rows),
        memory_gib=_floats(o.shape.memory_gib for o in rows),
        accelerator_count=_floats(o.shape.accelerator_count for o in rows),
        accelerator_memory_gib=_floats(o.shape.accelerator_memory_gib for o in rows),
        accelerator_fraction=_floats(o.shape.accelerator_fraction for o in rows),
        region=words.numbers("region", [o.region for o in rows]),
        provider=words.numbers("provider", [o.provider or o.backend for o in rows]),
        architecture=words.numbers("architecture", [o.architecture for o in rows]),
        jurisdiction=words.numbers("jurisdiction", [o.jurisdiction for o in rows]),
        store_jurisdiction=words.numbers("jurisdiction", [o.store_jurisdiction for o in rows]),
        room=np.array([room_of(o) for o in rows], dtype=np.int64),
        slots=np.array([MANY if o.slots is None else o.slots for o in rows], dtype=np.int64),
        doubted=np.array([bool(o.price_doubts) for o in rows], dtype=bool),
        priced_us=np.array([microseconds(o.priced_at) for o in rows], dtype=np.int64),
        launched_us=np.array([microseconds(o.last_launch_at) for o in rows], dtype=np.int64),
        names=words.names,
    )
    return OfferTable(columns, _Listed(listed=rows))


class _Vocabularies:
    """Names given numbers in the order in which they are met."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def numbers(
        self, vocabulary: str, values: Sequence[str | None]
    ) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        known = self.names.setdefault(vocabulary, [])
        number = {name: i for i, name in enumerate(known)}
        for value in values:
            if value is not None and value not in number:
                number[value] = len(known)
                known.append(value)
        return np.array([-1 if v is None else number[v] for v in values], dtype=np.int32)


def _floats(values: Iterable[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.fromiter(values, dtype=np.float64)


def _tariffs(offers: Sequence[Offer]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return for each offer the number of its transfer prices."""
    known: dict[object, int] = {}
    prices = [
        (o.restore_usd_per_gib, o.save_usd_per_gib, o.storage_usd_per_gib_month) for o in offers
    ]
    return np.array([known.setdefault(each, len(known)) for each in prices], dtype=np.int64)


def _microseconds(offer: Offer) -> int:
    return round(offer.restart_overhead.total_seconds() * 1e6)


def room_of(offer: Offer) -> int:
    """Return how many slots of an offer can be leased now."""
    if offer.cooling_down:
        return 0
    slots = offer.free_slots
    return max(slots if offer.quota_slots is None else min(slots, offer.quota_slots), 0)
