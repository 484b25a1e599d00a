"""What a run allows: params, checked again."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from spillway.airflow.run_options import BACKFILL_MARKETS, RunOptions, read_run_options
from spillway.errors import SpecError
from spillway.model import ALL_MARKETS, Market


def test_an_empty_form_allows_everything() -> None:
    assert read_run_options({}, conf={}, run_type="manual") == RunOptions(markets=ALL_MARKETS)


def test_a_form_is_read_by_name() -> None:
    params = {
        "markets": ["spot", "reserved"],
        "deadline_minutes": 90,
        "max_usd_per_hour": 1.25,
        "max_cost_usd": 40,
        "fresh_start": True,
        "size": "small",
    }
    assert read_run_options(params, conf={"size": "small"}, run_type="manual") == RunOptions(
        markets=frozenset({Market.SPOT, Market.RESERVED}),
        deadline=timedelta(minutes=90),
        max_usd_per_hour=Decimal("1.25"),
        max_cost_usd=Decimal(40),
        fresh_start=True,
    )


def test_a_backfill_takes_only_what_is_committed_or_cheap() -> None:
    assert read_run_options({}, conf={}, run_type="backfill").markets == BACKFILL_MARKETS
    assert Market.ON_DEMAND not in BACKFILL_MARKETS


def test_no_market_chosen_is_every_market() -> None:
    """The form sends an empty list where nothing is chosen."""
    assert read_run_options({"markets": []}, conf={}, run_type="manual").markets == ALL_MARKETS


def test_a_backfill_takes_what_it_is_told_to() -> None:
    options = read_run_options({"markets": ["on_demand"]}, conf={}, run_type="backfill")
    assert options.markets == {Market.ON_DEMAND}


def test_an_unknown_key_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(SpecError, match=r"'market'.*did you mean 'markets'"):
        read_run_options({"markets": None}, conf={"market": ["spot"]}, run_type="manual")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("markets", ["cheap"]),
        ("deadline_minutes", 0),
        ("deadline_minutes", "soon"),
        ("max_usd_per_hour", 0),
        ("max_cost_usd", -1),
        ("fresh_start", "perhaps"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(SpecError, match=f"param {name}"):
        read_run_options({name: value}, conf={}, run_type="manual")
