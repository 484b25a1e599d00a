"""What keeping checkpoints costs, from the first of a task's leases to long after its last."""

from __future__ import annotations

import itertools
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.errors import LedgerError
from spillway.ledger import Ledger
from spillway.ledger.storage import HOURS_A_MONTH, usd_per_gib_month
from spillway.model import Heartbeat, JobEvent, Lease
from spillway.runtime.stored import note_stored
from spillway.testing.ledger_samples import NOON, sample_request, sample_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

PRICE = Decimal("0.0230")
HOUR = timedelta(hours=1)
NUMBERS = itertools.count()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    ledger = Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db")
    yield ledger
    ledger.close()


def granted(ledger: Ledger, name: str = "train", *, at: datetime = NOON) -> Lease:
    return ledger.grant(sample_request(sample_task(name)), slots=10_000, now=at)


def ended(ledger: Ledger, lease: Lease, *, at: datetime) -> None:
    ledger.record(lease.key, JobEvent.PREEMPTED, now=at)
    ledger.end(lease.key, now=at)


def test_storage_is_charged_between_leases_and_after_the_last(ledger: Ledger) -> None:
    first = granted(ledger)
    ledger.note_storage(first.key, gib=2.0, since=NOON + HOUR, usd_per_gib_month=PRICE)
    ended(ledger, first, at=NOON + 2 * HOUR)
    second = granted(ledger, at=NOON + 5 * HOUR)
    ledger.note_storage(second.key, gib=3.0, since=NOON + 6 * HOUR, usd_per_gib_month=PRICE)
    ended(ledger, second, at=NOON + 7 * HOUR)
    one, two = ledger.storage_charges(now=NOON + 106 * HOUR)
    assert (one.lease_key, one.gib_hours) == (first.key, 10.0)
    assert (two.lease_key, two.gib_hours) == (second.key, 300.0)
    assert one.charge_period_end == two.charge_period_start
    expected = Decimal(310) * PRICE / HOURS_A_MONTH
    assert one.cost + two.cost == pytest.approx(expected, abs=Decimal("1e-9"))


def test_what_a_heartbeat_says_is_charged_from_the_first_checkpoint_on(ledger: Ledger) -> None:
    lease = granted(ledger)
    said = Heartbeat(token=lease.token, written_at=NOON + 9 * HOUR)
    for hour, gib in ((1, 1), (2, 2), (4, 3)):
        said = note_stored(said, gib * 2**30, now=NOON + hour * HOUR)
    for _ in range(2):
        ledger.note_stored(lease.key, said, usd_per_gib_month=PRICE)
    mean, now = ledger.storage_charges(now=NOON + 10 * HOUR)
    assert mean.charge_period_start == NOON + HOUR
    assert mean.gib_hours == pytest.approx(1 + 2 * 2)
    assert now.gib_hours == pytest.approx(3 * 6)


def test_nothing_is_charged_once_nothing_is_stored(ledger: Ledger) -> None:
    lease = granted(ledger)
    ledger.note_storage(lease.key, gib=1.0, since=NOON, usd_per_gib_month=PRICE)
    ledger.note_storage(lease.key, gib=0.0, since=NOON + HOUR, usd_per_gib_month=PRICE)
    (charge,) = ledger.storage_charges(now=NOON + 100 * HOUR)
    assert charge.gib_hours == 1.0


def test_a_run_and_a_dag_are_charged_for_their_own(ledger: Ledger) -> None:
    for name in ("train", "sweep"):
        lease = granted(ledger, name)
        ledger.note_storage(lease.key, gib=1.0, since=NOON, usd_per_gib_month=PRICE)
    later = NOON + HOUR
    assert len(ledger.storage_charges(now=later)) == 2
    assert len(ledger.storage_charges(now=later, dag_id="nightly", run_id="manual__2026")) == 2
    assert ledger.storage_charges(now=later, run_id="another") == []
    assert ledger.storage_charges(now=NOON) == []


def test_storage_of_an_unknown_lease_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerError):
        ledger.note_storage("a/b", gib=1.0, since=NOON, usd_per_gib_month=PRICE)


@given(
    notes=st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from([0.0, 0.5, 2.0])), min_size=1, max_size=6
    )
)
@settings(max_examples=30)
def test_any_notes_in_any_order_charge_each_hour_once(
    shared: Ledger, notes: list[tuple[int, float]]
) -> None:
    """Against an oracle that walks through the hours; each note said twice."""
    lease = granted(shared, f"task-{next(NUMBERS)}")
    last: dict[int, float] = {}
    for hour, gib in notes:
        since = NOON + hour * HOUR
        for _ in range(2):
            shared.note_storage(lease.key, gib=gib, since=since, usd_per_gib_month=PRICE)
        last.setdefault(hour, gib)
    stored, expected = 0.0, 0.0
    for hour in range(60):
        stored = last.get(hour, stored)
        expected += stored
    found = [
        charge
        for charge in shared.storage_charges(now=NOON + 60 * HOUR)
        if charge.lease_key == lease.key
    ]
    assert sum(charge.gib_hours for charge in found) == pytest.approx(expected)
    ended(shared, lease, at=NOON)


def test_a_folder_of_ones_own_costs_nothing_and_a_cloud_what_its_page_says() -> None:
    assert usd_per_gib_month(None) == usd_per_gib_month("local") == 0
    assert usd_per_gib_month("aws") == Decimal("0.023")
