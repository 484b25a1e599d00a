"""One charge over `[start, end)`, in the words of the FinOps FOCUS specification."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from spillway.model.task import Market


class PricingCategory(StrEnum):
    """FOCUS `PricingCategory`. Source: FinOps Foundation, FOCUS specification 1.2, column PricingCategory."""

    STANDARD = "Standard"
    DYNAMIC = "Dynamic"
    COMMITTED = "Committed"

    @classmethod
    def of(cls, market: Market) -> PricingCategory:
        """Return the category that capacity of `market` is billed under."""
        return _CATEGORY[market]


_CATEGORY = {
    Market.ON_DEMAND: PricingCategory.STANDARD,
    Market.SPOT: PricingCategory.DYNAMIC,
    Market.RESERVED: PricingCategory.COMMITTED,
    Market.PARTNER: PricingCategory.COMMITTED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRecord:
    """What one lease cost over one charge period.

    Attributes:
        charge_period_start: First instant charged.
        charge_period_end: First instant not charged.
        marginal_cost: What the choice added to the bill, in US dollars.
        effective_cost: With commitments amortised.
        list_cost: At public price.
    """

    lease_key: str
    pool: str
    pricing_category: PricingCategory
    charge_period_start: datetime
    charge_period_end: datetime
    marginal_cost: Decimal
    effective_cost: Decimal
    list_cost: Decimal
