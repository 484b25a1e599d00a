"""Decisions in words and as a table, for error messages, logs and pages."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from spillway.model import Estimate, Move, Offer, Placement, Unplaced

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

_HEADER = ("pool", "market", "$/h", "expected", "cost", "reason")


def reasons_table(decision: Placement | Unplaced | Move) -> str:
    """Return one line an offer, the one taken first: pool, market, price, expected time and cost, and the reason."""
    rows: list[tuple[str, ...]] = [_HEADER]
    if isinstance(decision, Placement):
        rows.append(_row(decision.offer, decision.estimate, f"taken: {decision.reason}"))
    rows += [_row(p.offer, p.estimate, p.reason) for p in decision.passed_over]
    return aligned(rows)


def usd(amount: Decimal | float) -> str:
    """Return `amount` in dollars, with as many decimals as a small one needs to be told from nothing."""
    amount = Decimal(str(amount))
    if abs(amount) >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if amount == 0 or abs(amount) >= Decimal("0.001") else f"${amount:.6f}"


def span(duration: timedelta) -> str:
    """Return `duration` in the unit that suits it: `45 s`, `12 min`, `54.1 h`."""
    seconds = duration.total_seconds()
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:,.1f} h"


def _row(offer: Offer, estimate: Estimate | None, reason: str) -> tuple[str, ...]:
    leased, cost = (
        ("-", "-") if estimate is None else (span(estimate.leased), usd(estimate.cost_usd))
    )
    return (offer.pool, offer.market, usd(offer.marginal_usd_per_hour), leased, cost, reason)


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Return the rows as lines with columns of one width each."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
