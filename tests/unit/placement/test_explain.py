"""Decisions as text that people read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given

from spillway.model import Market, Offer, Placement, Resources, TaskSpec, Unplaced
from spillway.placement.choose import choose
from spillway.placement.explain import reasons_table, span, usd
from spillway.testing.strategies import placements, unplaced


def test_the_table_of_a_placement(task: TaskSpec, offer: Offer, now: datetime) -> None:
    dear = replace(offer, pool="dear", marginal_usd_per_hour=Decimal("0.12"))
    small = replace(offer, pool="small", market=Market.SPOT, shape=Resources(cpus=1, memory_gib=8))
    assert reasons_table(choose(task, [small, dear, offer], now)).splitlines() == [
        "pool       market     $/h      expected  cost     reason",
        "on_demand  on_demand  $0.1000  2.0 h     $0.2000  taken: lowest expected cost: $0.2000 for 2.0 h (list price)",
        "dear       on_demand  $0.1200  2.0 h     $0.2400  costs $0.0400 more: $0.1200/h for 2.0 h",
        "small      spot       $0.1000  -         -        has 1 CPUs of 2 needed",
    ]


def test_a_decision_says_of_when_price_and_room_are(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    told = replace(offer, priced_at=datetime(2026, 2, 27, tzinfo=UTC))
    full = replace(offer, pool="full", free_slots=0, room_at=now - timedelta(seconds=40))
    decision = choose(task, [told, full], now)
    assert isinstance(decision, Placement)
    assert decision.reason.endswith("(list price, as of 2026-02-27)")
    assert [one.reason for one in decision.passed_over] == ["has no free slot, asked 40 s ago"]


@given(placements())
def test_every_offer_of_a_placement_has_its_line(placement: Placement) -> None:
    lines = len(placement.passed_over) + 2
    assert len(reasons_table(placement).split("\n")) >= lines


@given(unplaced())
def test_every_offer_of_a_refusal_has_its_line(decision: Unplaced) -> None:
    table = reasons_table(decision)
    assert all(passed.offer.pool in table for passed in decision.passed_over)


@pytest.mark.parametrize(
    ("amount", "said"),
    [
        ("0", "$0.0000"),
        ("0.000004", "$0.000004"),
        ("0.031", "$0.0310"),
        ("1.5", "$1.50"),
        ("12345.678", "$12,345.68"),
    ],
)
def test_small_amounts_keep_enough_decimals(amount: str, said: str) -> None:
    assert usd(Decimal(amount)) == said


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        (timedelta(0), "0 s"),
        (timedelta(seconds=4.25), "4.25 s"),
        (timedelta(seconds=119.9), "120 s"),
        (timedelta(minutes=12), "12 min"),
        (timedelta(hours=54, minutes=6), "54.1 h"),
    ],
)
def test_durations_come_in_the_unit_that_suits_them(duration: timedelta, said: str) -> None:
    assert span(duration) == said
