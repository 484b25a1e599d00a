"""What an outcome comes to, in the few numbers by which policies are compared."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from spillway.sim.bill import PoolBill, bills
from spillway.sim.outcome import End

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from spillway.sim.outcome import Attempt, Outcome

_ZERO: Final = Decimal(0)
_HOUR: Final = timedelta(hours=1)
_MICRO_USD: Final = Decimal("0.000001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One policy's line of the table.

    Attributes:
        added_usd: What the jobs added to the bill: its marginal cost, by the terms of each pool.
        recorded_usd: The same as the ledger's records have it, at the prices of each launch.
        owed_usd: What is owed for commitments whether used or not; the same for every policy.
        unused_usd: The part of it for hours that nobody used.
        effective_usd: Cost records with commitments amortised; what is unused comes on top of it.
        list_usd: Cost records at public price.
        on_time: Share of the jobs with a deadline that met it; None where none had one.
        unfinished: Jobs that were still open when the simulation was given up.
        goodput: Useful work over leased time; None where nothing was leased.
        utilisation: Share of the committed hours that were used, weighed by what they cost; None without commitments.
        waiting_hours: Mean time that a job held nothing.
    """

    policy: str
    jobs: int
    added_usd: Decimal
    recorded_usd: Decimal
    owed_usd: Decimal
    unused_usd: Decimal
    effective_usd: Decimal
    list_usd: Decimal
    on_time: float | None
    late: int
    unfinished: int
    goodput: float | None
    utilisation: float | None
    preemptions: int
    leases: int
    waiting_hours: float
    questions: int
    pools: tuple[PoolBill, ...]

    @property
    def bill_usd(self) -> Decimal:
        """The whole bill: what is owed anyway, and what was added."""
        return self.owed_usd + self.added_usd


def summarise(outcome: Outcome) -> Summary:
    """Return what `outcome` comes to."""
    pools = bills(outcome)
    due = [job.is_on_time for job in outcome.jobs if job.is_on_time is not None]
    attempts = outcome.attempts
    leased = sum((a.leased for a in attempts), timedelta(0))
    useful = sum((a.useful for a in attempts), timedelta(0))
    waited = sum((job.waiting for job in outcome.jobs), timedelta(0))
    owed = sum((pool.owed_usd for pool in pools), _ZERO)
    unused = sum((pool.unused_usd for pool in pools), _ZERO)
    return Summary(
        policy=outcome.policy,
        jobs=len(outcome.jobs),
        added_usd=sum((pool.added_usd for pool in pools), _ZERO),
        recorded_usd=_recorded(attempts, "marginal_usd_per_hour"),
        owed_usd=owed,
        unused_usd=unused,
        effective_usd=_recorded(attempts, "effective_usd_per_hour"),
        list_usd=_recorded(attempts, "list_usd_per_hour"),
        on_time=sum(due) / len(due) if due else None,
        late=len(due) - sum(due),
        unfinished=sum(job.finished_at is None for job in outcome.jobs),
        goodput=useful / leased if leased else None,
        utilisation=float(1 - unused / owed) if owed else None,
        preemptions=sum(a.end is End.PREEMPTED for a in attempts),
        leases=len(attempts),
        waiting_hours=waited / _HOUR / len(outcome.jobs),
        questions=outcome.questions,
        pools=pools,
    )


def as_json(summary: Summary) -> dict[str, JsonValue]:
    """Return a summary for programs; money as text, exact to the micro-dollar."""
    return {
        "policy": summary.policy,
        "jobs": summary.jobs,
        "added_usd": _usd(summary.added_usd),
        "recorded_usd": _usd(summary.recorded_usd),
        "owed_usd": _usd(summary.owed_usd),
        "unused_usd": _usd(summary.unused_usd),
        "bill_usd": _usd(summary.bill_usd),
        "effective_usd": _usd(summary.effective_usd),
        "list_usd": _usd(summary.list_usd),
        "on_time": summary.on_time,
        "late": summary.late,
        "unfinished": summary.unfinished,
        "goodput": summary.goodput,
        "utilisation": summary.utilisation,
        "preemptions": summary.preemptions,
        "leases": summary.leases,
        "waiting_hours": summary.waiting_hours,
        "questions": summary.questions,
        "pools": [_pool_json(pool) for pool in summary.pools],
    }


def table(summaries: Sequence[Summary]) -> str:
    """Return one line a policy, for people."""
    rows = [_HEADER, *(_row(summary) for summary in summaries)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


_HEADER = (
    "policy",
    "added $",
    "bill $",
    "effective $",
    "list $",
    "on time",
    "goodput",
    "committed used",
    "preempted",
    "waited h",
    "unfinished",
)


def _row(summary: Summary) -> tuple[str, ...]:
    return (
        summary.policy,
        f"{summary.added_usd:,.2f}",
        f"{summary.bill_usd:,.2f}",
        f"{summary.effective_usd:,.2f}",
        f"{summary.list_usd:,.2f}",
        _share(summary.on_time),
        _share(summary.goodput),
        _share(summary.utilisation),
        f"{summary.preemptions:,}",
        f"{summary.waiting_hours:.1f}",
        f"{summary.unfinished:,}",
    )


def _recorded(attempts: Sequence[Attempt], price: str) -> Decimal:
    return sum((attempt.usd(getattr(attempt, price)) for attempt in attempts), _ZERO)


def _pool_json(pool: PoolBill) -> dict[str, JsonValue]:
    return {
        "pool": pool.pool,
        "market": pool.market.value,
        "leases": pool.leases,
        "slot_hours": round(float(pool.slot_hours), 6),
        "added_usd": _usd(pool.added_usd),
        "owed_usd": _usd(pool.owed_usd),
        "unused_usd": _usd(pool.unused_usd),
        "utilisation": pool.utilisation,
    }


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _usd(amount: Decimal) -> str:
    return str(amount.quantize(_MICRO_USD))
