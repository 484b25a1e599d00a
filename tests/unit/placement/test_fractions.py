"""Slices of an accelerator: what a profile takes of the whole, and what it is charged."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway.errors import SpecError
from spillway.model import (
    CapacityBlock,
    Commitment,
    HourlyCommitment,
    Market,
    MonthlyMinimum,
    Pool,
    PrepaidHours,
    Resources,
)
from spillway.placement.fractions import compute_share, in_slices, mig_share, pro_rata
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
    ("accelerator", "profiles"),
    [
        ("A100", "1g.5gb 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb"),
        ("A100-80GB", "1g.10gb 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb"),
        ("H100", "1g.10gb 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb"),
        ("H200", "1g.18gb 1g.35gb 2g.35gb 3g.71gb 4g.71gb 7g.141gb"),
        ("B200", "1g.23gb 1g.45gb 2g.45gb 3g.90gb 4g.90gb 7g.180gb"),
    ],
)
def test_the_compute_of_a_slice_follows_from_what_it_takes(accelerator: str, profiles: str) -> None:
    whole = replace(POOL, shape=replace(WHOLE, accelerator=accelerator))
    for profile in profiles.split():
        shape = in_slices(whole, profile).shape
        assert compute_share(shape) == pytest.approx(int(profile[0]) / 7), profile


def test_a_part_of_what_mig_does_not_divide_is_that_part_of_its_compute() -> None:
    shape = replace(WHOLE, accelerator="A10", accelerator_fraction=0.333)
    assert compute_share(shape) == 0.333
    assert compute_share(WHOLE) == compute_share(Resources()) == 1


def test_a_speed_said_of_the_whole_is_shared_too() -> None:
    assert in_slices(replace(POOL, speed=2.1), "2g.20gb").speed == pytest.approx(0.6)
    assert in_slices(replace(POOL, speed=1.0), "2g.20gb").speed == 1.0, "nothing was said"


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


POOL = Pool(
    name="h100",
    backend="kubernetes",
    market=Market.ON_DEMAND,
    slots=3,
    shape=WHOLE,
    list_usd_per_hour=Decimal(10),
)


def test_slices_cost_their_part_and_are_as_many_as_fit() -> None:
    half = in_slices(POOL, "3g.40gb")
    assert (half.slots, half.list_usd_per_hour) == (6, Decimal(5))
    assert (half.shape.cpus, half.shape.memory_gib) == (7, 56)
    assert (half.shape.accelerator_fraction, half.shape.accelerator_memory_gib) == (0.5, 40)
    assert half.shape.accelerator_count == 1


def test_a_slot_of_several_accelerators_is_not_divided() -> None:
    eight = replace(POOL, shape=replace(WHOLE, accelerator_count=8))
    with pytest.raises(SpecError, match="slots of one whole accelerator"):
        in_slices(eight, "1g.10gb")


period = {
    "starts_at": datetime(2026, 3, 1, tzinfo=UTC),
    "ends_at": datetime(2026, 4, 1, tzinfo=UTC),
}
OWED: list[Commitment] = [
    HourlyCommitment(usd_per_slot_hour=Decimal(6)),
    CapacityBlock(usd_per_slot_hour=Decimal(6), **period),
    MonthlyMinimum(
        slot_hours=Decimal(100),
        usd_per_slot_hour=Decimal(6),
        overage_usd_per_slot_hour=Decimal(9),
        variable_usd_per_slot_hour=Decimal(3),
    ),
    PrepaidHours(
        slot_hours=Decimal(100),
        usd_per_slot_hour=Decimal(6),
        overage_usd_per_slot_hour=Decimal(9),
        **period,
    ),
]


@pytest.mark.parametrize("owed", OWED)
@pytest.mark.parametrize("profile", ["2g.20gb", "3g.40gb", "7g.80gb"])
def test_what_is_owed_for_the_whole_is_owed_for_its_slices(owed: Commitment, profile: str) -> None:
    """Three slices of two sevenths fit: the seventh that nobody can have is owed all the same."""
    whole = replace(POOL, market=Market.RESERVED, commitment=owed)
    slices = in_slices(whole, profile)
    shared = slices.commitment
    assert shared is not None
    if isinstance(owed, MonthlyMinimum | PrepaidHours):
        assert isinstance(shared, type(owed))
        assert shared.slot_hours * shared.usd_per_slot_hour == 600
        assert shared.overage_usd_per_slot_hour * slices.slots == 9 * whole.slots
    assert shared.usd_per_slot_hour * slices.slots == 6 * whole.slots


@given(money(), st.sampled_from(["1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"]))
def test_all_slices_together_never_cost_more_than_the_whole(usd: Decimal, profile: str) -> None:
    share = mig_share("H100", profile)
    rounding = Decimal("0.000001") * int(1 / share)
    assert pro_rata(usd, share) * int(1 / share) <= usd + rounding
