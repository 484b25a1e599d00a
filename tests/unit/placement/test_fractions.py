"""Slices of an accelerator: what a profile takes of the whole, and what it is charged."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.errors import SpecError
from spillway.model import Offer, Resources
from spillway.placement.fractions import mig_share, pro_rata, slices_of
from spillway.testing.strategies import money

WHOLE = Resources(cpus=14, memory_gib=112, accelerator="H100", accelerator_count=1)


@pytest.mark.parametrize(
    ("accelerator", "profile", "share"),
    [
        ("A100", "1g.5gb", Fraction(1, 7)),
        ("A100", "1g.10gb", Fraction(1, 4)),  # the memory is what it takes most of
        ("A100", "3g.20gb", Fraction(1, 2)),
        ("H100", "2g.20gb", Fraction(2, 7)),
        ("H100", "4g.40gb", Fraction(4, 7)),
        ("H100", "7g.80gb", Fraction(1)),
        ("H200", "1g.18gb", Fraction(1, 7)),
        ("B200", "3g.90gb", Fraction(1, 2)),
    ],
)
def test_a_profile_takes_the_larger_of_its_compute_and_its_memory(
    accelerator: str, profile: str, share: Fraction
) -> None:
    assert mig_share(accelerator, profile) == share


@pytest.mark.parametrize(
    ("accelerator", "profile", "said"),
    [
        ("L4", "1g.5gb", "L4 cannot be divided by MIG"),
        ("H100", "8g.80gb", "not a MIG profile of H100"),
        ("A100", "1g.80gb", "not a MIG profile of A100"),
        ("A100", "half", "write it like 3g.40gb"),
    ],
)
def test_what_cannot_be_divided_so_is_refused(accelerator: str, profile: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        mig_share(accelerator, profile)


def test_slices_cost_their_part_and_are_as_many_as_fit(offer: Offer) -> None:
    whole = replace(
        offer,
        shape=WHOLE,
        free_slots=3,
        quota_slots=2,
        marginal_usd_per_hour=Decimal(10),
    )
    half = slices_of(whole, "3g.40gb")
    assert half.marginal_usd_per_hour == Decimal(5)
    assert (half.free_slots, half.quota_slots) == (6, 4)
    assert (half.shape.cpus, half.shape.memory_gib) == (7, 56)
    assert (half.shape.accelerator_fraction, half.shape.accelerator_memory_gib) == (0.5, 40)
    assert half.price_reason == "3g.40gb, 1/2 of H100: list price"


def test_a_slot_of_several_accelerators_is_not_divided(offer: Offer) -> None:
    with pytest.raises(SpecError, match="no slot of one whole accelerator"):
        slices_of(replace(offer, shape=replace(WHOLE, accelerator_count=8)), "1g.10gb")


@given(money(), st.sampled_from(["1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"]))
def test_all_slices_together_never_cost_more_than_the_whole(usd: Decimal, profile: str) -> None:
    share = mig_share("H100", profile)
    rounding = Decimal("0.000001") * int(1 / share)
    assert pro_rata(usd, share) * int(1 / share) <= usd + rounding
