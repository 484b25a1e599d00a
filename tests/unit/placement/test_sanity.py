"""Odd prices: each rule on the rows it is for, and no rule on rows that are only dear or few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.placement.sanity import Doubt, Quotes, doubts


def quotes(
    on_demand: list[float],
    spot: list[float] | None = None,
    *,
    sku: list[int] | None = None,
    region: list[int] | None = None,
    accelerators: list[int] | None = None,
) -> Quotes:
    """Return quotes of one machine in as many regions as there are prices, unless told otherwise."""
    count = len(on_demand)
    number = np.array(accelerators or [0] * count)
    return Quotes(
        sku=np.array(sku or [0] * count),
        region=np.array(region or range(count)),
        accelerator=np.where(number > 0, 0, -1),
        accelerator_count=number.astype(float),
        on_demand=np.array(on_demand, dtype=float),
        spot=np.array(spot or [np.nan] * count, dtype=float),
    )


def found(one: Quotes, market: int) -> list[Doubt]:
    return [Doubt(int(number)) for number in doubts(one)[market]]


@pytest.mark.parametrize(
    ("on_demand", "spot", "doubt"),
    [
        (10.0, 0.0, Doubt.NO_PRICE),
        (10.0, 10.0, Doubt.SPOT_IS_LIST),
        (25.25174, 25.2517, Doubt.SPOT_IS_LIST),  # rounded by the feed
        (75.9552, 7.5955, Doubt.SPOT_IS_TENTH),
        (10.0, 12.0, Doubt.SPOT_ABOVE_LIST),
        (10.0, 0.4, Doubt.SPOT_TOO_LOW),
        (10.0, 0.91, Doubt(0)),
        (10.0, 1.1, Doubt(0)),
        (10.0, 9.0, Doubt(0)),
        (10.0, float("nan"), Doubt(0)),
    ],
)
def test_a_spot_price_is_held_against_the_list_price(
    on_demand: float, spot: float, doubt: Doubt
) -> None:
    assert found(quotes([on_demand], [spot]), 1) == [doubt]


def test_nothing_is_not_a_price() -> None:
    assert found(quotes([0.0]), 0) == [Doubt.NO_PRICE]


def test_a_price_far_from_the_same_machine_elsewhere_is_odd() -> None:
    prices = [10.0, 10.5, 11.0, 10.2, 4.0, 26.0]
    assert found(quotes(prices), 0) == [
        *[Doubt(0)] * 4,
        Doubt.LOW_FOR_ITS_KIND,
        Doubt.HIGH_FOR_ITS_KIND,
    ]


def test_a_low_price_is_odd_even_where_most_rows_have_it() -> None:
    prices = [4.0] * 5 + [10.0] * 4
    assert found(quotes(prices), 0) == [Doubt.LOW_FOR_ITS_KIND] * 5 + [Doubt(0)] * 4


def test_a_region_that_is_dear_throughout_is_not_odd() -> None:
    skus, regions = 10, 6
    level = [1.0, 1.1, 0.9, 1.0, 1.05, 2.4]
    table = quotes(
        [base * one for base in range(1, skus + 1) for one in level],
        sku=[sku for sku in range(skus) for _ in range(regions)],
        region=[region for _ in range(skus) for region in range(regions)],
    )
    assert not any(found(table, 0))


def test_two_quotes_of_a_machine_tell_nothing_of_each_other() -> None:
    assert not any(found(quotes([1.0, 100.0]), 0))


def test_an_accelerator_far_dearer_than_in_other_machines_is_odd() -> None:
    table = quotes(
        [5.0, 10.0, 20.0, 42.0, 80.0],
        sku=[0, 1, 2, 3, 4],
        accelerators=[1, 2, 4, 8, 8],
    )
    assert found(table, 0) == [*[Doubt(0)] * 4, Doubt.HIGH_PER_ACCELERATOR]


prices = st.lists(st.floats(0.01, 1000) | st.just(float("nan")), min_size=1, max_size=30)


# No two of them are at the edge of a rule, where rounding decides.
clear = st.lists(st.sampled_from([1.0, 1.1, 3.1, 7.3, float("nan")]), min_size=1, max_size=30)


@given(clear, st.floats(0.01, 100))
def test_the_currency_is_irrelevant(values: list[float], rate: float) -> None:
    assert found(quotes([value * rate for value in values]), 0) == found(quotes(values), 0)


@given(prices, st.randoms(use_true_random=False))
def test_the_order_of_rows_is_irrelevant(values: list[float], rng: object) -> None:
    order = list(range(len(values)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    before = found(quotes(values), 0)
    after = found(quotes([values[i] for i in order], region=order), 0)
    assert after == [before[i] for i in order]


def test_every_doubt_has_words() -> None:
    everything = Doubt(sum(Doubt))
    assert len(everything.words) == len(Doubt)
    assert Doubt(0).words == ()
