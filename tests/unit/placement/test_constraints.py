"""Constraints of a task beside its shape: where, whose, on what, for how much, and what is left of a quota."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from spillway.model import Market, Offer, Placement, Resources, TaskSpec, Unplaced
from spillway.model.codec import decode, encode
from spillway.placement.again import recompute
from spillway.placement.choose import choose
from spillway.placement.feasible import refusal

ONE_H100 = Resources(cpus=2, memory_gib=8, accelerator="H100", accelerator_count=1)
HALF_H100 = replace(ONE_H100, accelerator_fraction=0.5, accelerator_memory_gib=40)


def reason(task: TaskSpec, offer: Offer, now: datetime) -> str:
    no = refusal(task, offer, now)
    return "" if no is None else no.reason


@pytest.mark.parametrize(
    ("wants", "there", "said"),
    [
        ({"regions": {"europe-*"}}, {"region": "europe-west4"}, ""),
        ({"regions": {"europe-*"}}, {"region": "us-east1"},
         "is in us-east1; the task allows europe-*"),
        ({"providers": {"gcp"}}, {"provider": "gcp"}, ""),
        ({"providers": {"gcp", "aws"}}, {"provider": "azure"},
         "belongs to azure; the task allows aws, gcp"),
        ({"providers": {"local"}}, {}, ""),  # a backend that names no provider is one
        ({"architectures": {"arm64"}}, {"architecture": "arm64"}, ""),
        ({"architectures": {"amd64"}}, {"architecture": "arm64"},
         "runs arm64; the image is built for amd64"),
        ({"architectures": {"amd64"}}, {}, "runs an unknown architecture"),
        ({"residency": {"EU"}}, {"jurisdiction": "EU", "store_jurisdiction": "EU"}, ""),
        ({"residency": {"EU"}}, {"jurisdiction": "US", "store_jurisdiction": "EU"},
         "runs in US; the task's data must stay in EU"),
        ({"residency": {"EU"}}, {"jurisdiction": "EU", "store_jurisdiction": "US"},
         "leaves checkpoints and outputs in US; the task's data must stay in EU"),
        ({"residency": {"EU"}}, {"jurisdiction": "EU"},
         "leaves checkpoints and outputs in an unknown jurisdiction"),
        ({"max_cost_usd": Decimal("0.20")}, {}, ""),
        ({"max_cost_usd": Decimal("0.19")}, {},
         "is expected to cost $0.2000; the budget is $0.1900"),
        ({"max_cost_usd": Decimal(5), "spent_usd": Decimal("4.80")}, {}, ""),
        ({"max_cost_usd": Decimal(5), "spent_usd": Decimal("4.81")}, {},
         "is expected to cost $0.2000 more; $4.81 of the budget of $5.00 is spent"),
        ({"max_cost_usd": Decimal(5), "spent_usd": Decimal(6)}, {"marginal_usd_per_hour": Decimal(0)}, ""),
    ],
)  # fmt: skip
def test_a_constraint_lets_pass_or_says_why_not(
    wants: dict[str, Any],
    there: dict[str, Any],
    said: str,
    task: TaskSpec,
    offer: Offer,
    now: datetime,
) -> None:
    sets = {key: frozenset(v) if isinstance(v, set) else v for key, v in wants.items()}
    found = reason(replace(task, **sets), replace(offer, **there), now)
    assert found == "" if said == "" else said in found


def test_any_of_several_shapes_will_do(task: TaskSpec, offer: Offer, now: datetime) -> None:
    either = replace(
        task,
        resources=replace(ONE_H100, accelerator="A100", accelerator_count=8),
        alternatives=(replace(ONE_H100, accelerator_count=4),),
    )
    four = replace(offer, shape=replace(ONE_H100, accelerator_count=4))
    assert reason(either, four, now) == ""
    two = replace(offer, shape=replace(ONE_H100, accelerator_count=2))
    assert reason(either, two, now) == "has H100, not A100; or has 2 accelerators of 4 needed"


def test_a_slice_does_for_a_task_that_needs_no_more(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    half = replace(offer, shape=HALF_H100)
    assert reason(replace(task, resources=HALF_H100), half, now) == ""
    assert "0.5 of an accelerator of 1 needed" in reason(
        replace(task, resources=ONE_H100), half, now
    )
    big = replace(HALF_H100, accelerator_memory_gib=80)
    assert "40 GiB on an accelerator of 80 needed" in reason(
        replace(task, resources=big), half, now
    )


def test_a_used_up_quota_can_be_waited_for(task: TaskSpec, offer: Offer, now: datetime) -> None:
    no = refusal(task, replace(offer, quota_slots=0), now)
    assert no is not None
    assert no.can_wait
    assert "quota" in no.reason
    assert refusal(task, replace(offer, quota_slots=1), now) is None


def test_a_doubted_price_cannot_win_however_low(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    odd = replace(
        offer, pool="odd", marginal_usd_per_hour=Decimal("0.01"), price_doubts=("it is odd",)
    )
    decision = choose(task, [odd, offer], now)
    assert isinstance(decision, Placement)
    assert decision.offer.pool == offer.pool
    assert decision.passed_over[0].reason == "its price is not trusted: it is odd"
    alone = choose(task, [odd], now)
    assert isinstance(alone, Unplaced)
    assert not alone.can_wait


@pytest.mark.parametrize(("days", "fits"), [(7, True), (8, False)])
def test_a_recent_launch_outweighs_what_is_odd_about_a_price(
    days: int, fits: bool, task: TaskSpec, offer: Offer, now: datetime
) -> None:
    odd = replace(offer, price_doubts=("it is odd",), last_launch_at=now - timedelta(days=days))
    assert (refusal(task, odd, now) is None) == fits


@pytest.mark.parametrize(
    ("market", "days", "fits"),
    [
        (Market.SPOT, 2, True),
        (Market.SPOT, 3, False),
        (Market.ON_DEMAND, 60, True),
        (Market.ON_DEMAND, 61, False),
    ],
)
def test_a_price_grows_too_old(
    market: Market, days: int, fits: bool, task: TaskSpec, offer: Offer, now: datetime
) -> None:
    aged = replace(offer, market=market, priced_at=now - timedelta(days=days), last_launch_at=now)
    assert (refusal(task, aged, now) is None) == fits


def test_a_placement_carries_the_evidence_of_its_residency(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    stays = replace(task, residency=frozenset({"EU", "CH"}))
    there = replace(offer, region="zrh", jurisdiction="CH", store_jurisdiction="EU")
    decision = choose(stays, [there], now)
    assert isinstance(decision, Placement)
    assert decision.residency is not None
    assert (decision.residency.region, decision.residency.runs_in) == ("zrh", "CH")
    assert decision.residency.stores_in == "EU"
    stored = decode(encode(decision), Placement)
    assert recompute(stored) == decision


def test_a_task_that_asks_for_no_residency_has_no_evidence(
    task: TaskSpec, offer: Offer, now: datetime
) -> None:
    decision = choose(task, [offer], now)
    assert isinstance(decision, Placement)
    assert decision.residency is None
