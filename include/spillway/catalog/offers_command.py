"""`spillway offers`: what providers' price lists have for a task, cheapest first, before any of it is a pool."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from spillway.catalog.catalogue import Terms, make_catalogue
from spillway.catalog.numbers import TEN_YEARS, above_zero, from_zero, whole
from spillway.catalog.price_list import read_price_list
from spillway.errors import SpecError, SpillwayError
from spillway.model import ALL_MARKETS, Estimate, Market, Offer, Placement, Resources, TaskSpec
from spillway.placement.table_choice import choose_from

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from decimal import Decimal

    from spillway.placement.offer_table import OfferTable
    from spillway.placement.table_choice import TableChoice

_HEADER: Final = ("expected $", "hours", "$/hour", "market", "provider", "machine", "place")
_REASONS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """An offer that would do, and what completing the task on it is expected to take.

    Attributes:
        tasks: How many go there.
    """

    offer: Offer
    estimate: Estimate
    tasks: int = 1

    @property
    def machine(self) -> str:
        """The machine as its provider names it; the accelerators it is sold as where it has no name."""
        named = self.offer.pool.split(":")[1]
        return named.partition("+")[0] or named.lstrip("+")

    @property
    def place(self) -> str:
        """The zone, or the region where the list has none."""
        return self.offer.pool.split(":")[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of the command."""
    parser.add_argument("lists", nargs="+", metavar="PROVIDER=FILE",
                        help="price lists in SkyPilot's catalogue schema")  # fmt: skip
    parser.add_argument("--cpus", type=from_zero, default=1, help="default 1")
    parser.add_argument("--memory-gib", type=from_zero, default=0, help="default 0")
    parser.add_argument("--accelerator", metavar="MODEL", help="such as H100")
    parser.add_argument("--count", type=whole(1), help="of accelerators; default 1")
    parser.add_argument("--hours", type=above_zero(TEN_YEARS), default=1,
                        help="of work, undisturbed; default 1")  # fmt: skip
    parser.add_argument("--deadline-hours", type=above_zero(TEN_YEARS),
                        help="until it must be complete")  # fmt: skip
    parser.add_argument("--no-checkpoints", action="store_true", help="it starts over if preempted")
    parser.add_argument("--tasks", type=whole(1), default=1, help="alike, all at once; default 1")
    parser.add_argument("--machines", type=whole(1), metavar="N",
                        help="how many of a kind can be had in one place; default as many as one task takes")  # fmt: skip
    parser.add_argument("--nodes", type=whole(1), default=1, help="machines at once; default 1")
    parser.add_argument("--markets", help="such as spot,on_demand; by default all")
    parser.add_argument("--regions", help="shell patterns, such as europe-*,eu-*")
    parser.add_argument("--architecture", help="amd64 or arm64")
    parser.add_argument("--preemptions-per-hour", type=from_zero, metavar="RATE",
                        help="of spot; by default a cautious guess")  # fmt: skip
    parser.add_argument("--top", type=whole(1), default=10, help="how many to print; default 10")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument(
        "--pools", action="store_true", help="print pools of SkyPilot for a pools file"
    )


def run(options: argparse.Namespace) -> int:
    """Print the best offers, and return the exit status: 1 where none would do."""
    try:
        files = _files(options.lists)
        task = _task(options, datetime.now(UTC))
        terms = Terms(
            spot_preemptions_per_hour=options.preemptions_per_hour,
            slots=task.nodes if options.machines is None else options.machines,
        )
        table = make_catalogue([read_price_list(path, name) for name, path in files.items()], terms)
        if options.tasks > 1:
            ranked = _spread(table, task, options.tasks)
        else:
            ranked = _ranked(choose_from(table, task, datetime.now(UTC)), options.top)
    except SpillwayError as error:
        sys.stderr.write(f"spillway offers: {error}\n")
        return 1
    if options.json:
        text = json.dumps([_as_json(one) for one in ranked], indent=2) + "\n"
    elif options.pools:
        text = yaml.safe_dump(
            {"pools": [_as_pool(one, files, task.nodes) for one in ranked]},
            sort_keys=False,
            width=120,
        )
    else:
        text = _as_text(ranked, table, counts=options.tasks > 1)
    sys.stdout.write(text)
    return 0


def _files(texts: Sequence[str]) -> dict[str, Path]:
    files = {}
    for text in texts:
        provider, is_pair, path = text.partition("=")
        if not is_pair or not provider:
            raise SpecError(f"{text}: write PROVIDER=FILE, such as aws=prices/aws.csv")
        files[provider] = Path(path)
    return files


def _task(options: argparse.Namespace, now: datetime) -> TaskSpec:
    deadline = options.deadline_hours
    if options.count is not None and not options.accelerator:
        raise SpecError(
            f"--count {options.count}: of what? name it too, such as --accelerator H100"
        )
    return TaskSpec(
        entry_point="package.module:function",
        resources=Resources(
            cpus=options.cpus,
            memory_gib=options.memory_gib,
            accelerator=options.accelerator,
            accelerator_count=(options.count or 1) if options.accelerator else 0,
        ),
        work=timedelta(hours=options.hours),
        deadline=None if deadline is None else now + timedelta(hours=deadline),
        checkpoints=not options.no_checkpoints,
        nodes=options.nodes,
        markets=_markets(options.markets),
        regions=frozenset(_words(options.regions)),
        architectures=frozenset(_words(options.architecture)),
    )


def _markets(text: str | None) -> frozenset[Market]:
    try:
        return frozenset(map(Market, _words(text))) or ALL_MARKETS
    except ValueError:
        raise SpecError(
            f"--markets {text}: there is {', '.join(Market)}; a price list has on_demand and spot"
        ) from None


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _ranked(choice: TableChoice, count: int) -> list[Ranked]:
    """Return the best offers, in the order in which placement would take them.

    Raises:
        SpecError: None would do.
    """
    decision = choice.to_record(others=count - 1)
    if not isinstance(decision, Placement):
        raise SpecError(_why_none(choice))
    others = [
        Ranked(offer=one.offer, estimate=one.estimate)
        for one in decision.passed_over
        if one.estimate is not None
    ]
    deadline, now = choice.task.deadline, choice.now
    late = timedelta(0)

    def rank(one: Ranked) -> tuple[timedelta, Decimal, str]:
        over = late if deadline is None else max(now + one.estimate.leased - deadline, late)
        return over, one.estimate.cost_usd, one.offer.pool

    best = Ranked(offer=decision.offer, estimate=decision.estimate)
    return [best, *sorted(others, key=rank)][:count]


def _spread(table: OfferTable, task: TaskSpec, count: int) -> list[Ranked]:
    """Return the offers that `count` tasks alike take together, the cheapest first.

    Raises:
        SpecError: There are too few of them, or SciPy is not installed.
    """
    if importlib.util.find_spec("scipy") is None:
        raise SpecError("several tasks need SciPy; pip install 'spillway[planning]'")
    from spillway.placement.plan import plan_from

    choices = plan_from(table, [task] * count, datetime.now(UTC))
    taken = Counter(choice.row for choice in choices)
    if len(taken) == 1 and None in taken:
        raise SpecError(_why_none(choices[0]))
    if missing := taken[None]:
        raise SpecError(
            f"{missing} of {count} tasks find no machine; raise --machines, ask for less, or give other lists"
        )
    found = {choice.row: choice.decision for choice in choices}
    ranked = [
        Ranked(offer=decision.offer, estimate=decision.estimate, tasks=taken[row])
        for row, decision in found.items()
        if isinstance(decision, Placement)
    ]
    return sorted(ranked, key=lambda one: (one.estimate.cost_usd, one.offer.pool))


def _why_none(choice: TableChoice) -> str:
    """Return the most frequent reasons against all the offers."""
    reasons = Counter(one.reason for one in choice.passed_over)
    listed = "".join(f"\n  {many:,} times: {why}" for why, many in reasons.most_common(_REASONS))
    return (
        f"none of {len(choice.table):,} offers would do; ask for less, or give other lists{listed}"
    )


def _as_text(ranked: Sequence[Ranked], table: OfferTable, *, counts: bool) -> str:
    rows = [_HEADER, *map(_row, ranked)]
    if counts:
        counted = ["tasks", *(str(one.tasks) for one in ranked)]
        rows = [(count, *row) for count, row in zip(counted, rows, strict=True)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if place < rows[0].index("market") else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    doubted = int(table.columns.doubted.sum())
    lines.append(
        f"\n{len(ranked)} of {len(table):,} offers. {doubted:,} cannot win, for their price looks wrong beside the others."
    )
    return "\n".join(lines) + "\n"


def _row(one: Ranked) -> tuple[str, ...]:
    offer, estimate = one.offer, one.estimate
    return (
        f"{estimate.cost_usd:,.2f}",
        f"{estimate.leased / timedelta(hours=1):.2f}",
        f"{offer.marginal_usd_per_hour:,.4f}",
        offer.market,
        str(offer.provider),
        one.machine,
        one.place,
    )


def _as_json(one: Ranked) -> dict[str, Any]:
    offer, estimate = one.offer, one.estimate
    return {
        "tasks": one.tasks,
        "expected_usd": float(estimate.cost_usd),
        "leased_hours": estimate.leased / timedelta(hours=1),
        "usd_per_hour": float(offer.marginal_usd_per_hour),
        "market": offer.market,
        "provider": offer.provider,
        "machine": one.machine,
        "region": offer.region,
        "zone": one.place,
    }


def _as_pool(one: Ranked, files: dict[str, Path], nodes: int) -> dict[str, Any]:
    """Return the offer as a pools file has it: its price read from the list, so that a newer list is a newer price."""
    offer, shape = one.offer, one.offer.shape
    accelerators = {
        "accelerator": shape.accelerator,
        "accelerator_count": shape.accelerator_count,
    }
    zone = {} if one.place == offer.region else {"zone": one.place}
    return {
        "name": "-".join((str(offer.provider), one.machine, one.place, offer.market)),
        "backend": offer.backend,
        "market": str(offer.market),
        "provider": offer.provider,
        "region": offer.region,
        **zone,
        "slots": one.tasks * nodes,
        "shape": {
            "cpus": shape.cpus,
            "memory_gib": shape.memory_gib,
            **(accelerators if shape.accelerator else {}),
        },
        "price_list": {"file": str(files[str(offer.provider)].resolve()), "instance": one.machine},
        "connection": "skypilot",
        "options": {
            "cloud": offer.provider,
            "region": offer.region,
            **zone,
            "instance_type": one.machine,
        },
    }
