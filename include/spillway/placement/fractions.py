"""Parts of one accelerator: what a MIG profile is of the whole, and what it costs of the price of the whole.

MIG divides a GPU into seven compute slices and eight memory slices. A profile names how many compute slices it has and how
much memory; the larger of its two shares is what it takes away from everybody else, so that is what it is charged.

Source: NVIDIA, "Multi-Instance GPU User Guide", supported profiles, docs.nvidia.com/datacenter/tesla/mig-user-guide.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final, assert_never

from spillway.errors import SpecError
from spillway.model import CapacityBlock, HourlyCommitment, MonthlyMinimum, PrepaidHours
from spillway.placement.price import MICRO_USD

if TYPE_CHECKING:
    from decimal import Decimal

    from spillway.model import Commitment, Pool, Resources

COMPUTE_SLICES: Final = 7

# Memory of the whole accelerator, in GiB as profiles count it, by model.
MIG_MEMORY_GIB: Final = {
    "A100": 40,
    "A100-80GB": 80,
    "H100": 80,
    "H100-80GB": 80,
    "H200": 141,
    "B200": 180,
}
_ROUNDING: Final = 1e-9
_PROFILE: Final = re.compile(r"^([1-7])g\.(\d+)gb$")


def mig_share(accelerator: str, profile: str) -> Fraction:
    """Return which part of an `accelerator` the profile takes: the larger of its compute and its memory.

    Raises:
        SpecError: The accelerator cannot be divided, or has no such profile.
    """
    compute, memory_gib = _parsed(accelerator, profile)
    eighths = round(Fraction(8 * memory_gib, MIG_MEMORY_GIB[accelerator]))
    return max(Fraction(compute, COMPUTE_SLICES), Fraction(max(eighths, 1), 8))


def compute_share(shape: Resources) -> float:
    """Return which part of an accelerator's arithmetic a slot of `shape` has; 1 for whole ones, or none.

    A slice has whole sevenths of it. Where it takes more than that, for its memory, it is less than one seventh more in every
    profile that there is: so its compute is the whole sevenths of what it takes.
    """
    part = shape.accelerator_fraction
    sevenths = math.floor(COMPUTE_SLICES * part + _ROUNDING)
    if shape.accelerator not in MIG_MEMORY_GIB or not sevenths:
        return part
    return sevenths / COMPUTE_SLICES


def in_slices(pool: Pool, profile: str) -> Pool:
    """Return `pool`, whose slots have one whole accelerator each, as the slices of `profile` that they divide into.

    CPUs, memory and the public price are pro rata, and a speed that is said follows the compute. What is owed is shared by
    the slices that fit, so that all of them together cost what the whole does, with what no slice can have of it.

    Raises:
        SpecError: The accelerator cannot be divided so, or a slot does not have exactly one.
    """
    shape = pool.shape
    if shape.accelerator is None or shape.accelerator_count != 1 or shape.accelerator_fraction < 1:
        raise SpecError("only slots of one whole accelerator can be divided")
    share = mig_share(shape.accelerator, profile)
    part, fit = float(share), int(1 / share)
    _, memory_gib = _parsed(shape.accelerator, profile)
    slice_shape = replace(
        shape,
        cpus=shape.cpus * part,
        memory_gib=shape.memory_gib * part,
        accelerator_fraction=part,
        accelerator_memory_gib=float(memory_gib),
    )
    return replace(
        pool,
        slots=pool.slots * fit,
        shape=slice_shape,
        speed=pool.speed * compute_share(slice_shape) if pool.speed != 1.0 else 1.0,
        mig_profile=profile,
        list_usd_per_hour=pro_rata(pool.list_usd_per_hour, share),
        commitment=None if pool.commitment is None else _shared(pool.commitment, fit),
    )


def _shared(owed: Commitment, fit: int) -> Commitment:
    """Return what is owed for whole slots as what is owed for the slices of them, `fit` to a slot."""
    each = Fraction(1, fit)
    match owed:
        case HourlyCommitment() | CapacityBlock():
            return replace(owed, usd_per_slot_hour=pro_rata(owed.usd_per_slot_hour, each))
        case MonthlyMinimum():
            return replace(
                owed,
                slot_hours=owed.slot_hours * fit,
                usd_per_slot_hour=pro_rata(owed.usd_per_slot_hour, each),
                overage_usd_per_slot_hour=pro_rata(owed.overage_usd_per_slot_hour, each),
                variable_usd_per_slot_hour=pro_rata(owed.variable_usd_per_slot_hour, each),
            )
        case PrepaidHours():
            return replace(
                owed,
                slot_hours=owed.slot_hours * fit,
                usd_per_slot_hour=pro_rata(owed.usd_per_slot_hour, each),
                overage_usd_per_slot_hour=pro_rata(owed.overage_usd_per_slot_hour, each),
            )
    assert_never(owed)


def slot_price(pool: Pool, usd_per_hour: Decimal) -> Decimal:
    """Return the public price of one slot of `pool`, where a whole one, as its provider rents it, costs `usd_per_hour`."""
    if pool.mig_profile is None:
        return usd_per_hour
    assert pool.shape.accelerator is not None  # it was divided
    return pro_rata(usd_per_hour, mig_share(pool.shape.accelerator, pool.mig_profile))


def pro_rata(usd_per_hour: Decimal, share: Fraction) -> Decimal:
    """Return the price of `share` of what costs `usd_per_hour`, to the micro-dollar."""
    return (usd_per_hour * share.numerator / share.denominator).quantize(MICRO_USD)


def _parsed(accelerator: str, profile: str) -> tuple[int, int]:
    """Return the compute slices and the GiB of memory of `profile`."""
    if accelerator not in MIG_MEMORY_GIB:
        known = ", ".join(MIG_MEMORY_GIB)
        raise SpecError(f"{accelerator} cannot be divided by MIG; accelerators that can: {known}")
    found = _PROFILE.match(profile)
    if found is None or int(found[2]) > MIG_MEMORY_GIB[accelerator]:
        raise SpecError(f"{profile} is not a MIG profile of {accelerator}; write it like 3g.40gb")
    return int(found[1]), int(found[2])
