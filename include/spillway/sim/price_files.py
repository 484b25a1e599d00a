"""Price history from files: what `aws ec2 describe-spot-price-history` prints, and tables of changes."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from spillway.errors import ScenarioError
from spillway.model import Market
from spillway.placement.fractions import slot_price
from spillway.sim.rows import Row, read_rows, read_text
from spillway.sim.scenario import PriceChange, unknown_pool
from spillway.sim.trace_files import row_instant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from spillway.model import Pool

# What a fact is called: by the AWS command, in its tables, and in tables of changes.
_NAMES: Final[Mapping[str, Sequence[str]]] = {
    "at": ("at", "Timestamp", "timestamp"),
    "type": ("instance_type", "InstanceType"),
    "place": ("zone", "region", "AvailabilityZone", "availability_zone"),
    "price": ("usd_per_hour", "spot_usd_h", "SpotPrice", "spot_price"),
}
_ON_DEMAND: Final = ("on_demand_usd_h", "on_demand_usd_per_hour")
_SYSTEMS: Final = frozenset({"Linux/UNIX", "Linux/UNIX (Amazon VPC)"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """One line of a price history.

    Attributes:
        series: The pool, or `type/place` of a machine.
    """

    series: str
    at: datetime
    usd_per_hour: Decimal


def read_prices(
    paths: Iterable[Path], pools: Sequence[Pool], choices: Mapping[str, str], start: datetime
) -> tuple[PriceChange, ...]:
    """Return the changes of the pools' prices, oldest first.

    A table with a column `pool` names pools. Any other names machines, or accelerators sold without one (`A100 x1`): a pool follows
    the series that `choices` gives it as `type/place`, or the sum of several with a plus between them; or else, a spot pool with the option `instance_type` follows that type in its region, if the file has one
    such series. Prices are of a slot as the pools file says it: those of a pool with a `mig_profile` are of the whole accelerator.
    A history that is over before `start` is moved there, so that its first price holds from `start` on.

    Raises:
        ScenarioError: A file cannot be read or has a mistake, a choice names nothing in it, or no pool follows anything.
    """
    quotes: dict[str, list[Quote]] = defaultdict(list)
    for path in paths:
        for quote in _quotes(path, {pool.name for pool in pools}):
            quotes[quote.series].append(quote)
    followed = _followed(pools, quotes, choices)
    if quotes and not followed:
        raise ScenarioError(
            f"no pool follows a price of the files, which have {_some(quotes)}; "
            "say which one does with --series POOL=TYPE/PLACE"
        )
    changes = [
        change
        for pool in pools
        if pool.name in followed
        for change in _changes(
            pool, [quotes[part] for part in followed[pool.name].split("+")], start
        )
    ]
    return tuple(sorted(changes, key=lambda change: (change.at, change.pool)))


def _followed(
    pools: Sequence[Pool], series: Mapping[str, object], choices: Mapping[str, str]
) -> dict[str, str]:
    """Return which series each pool follows."""
    found = dict(choices)
    _check_choices({pool.name for pool in pools}, series, choices)
    for pool in pools:
        if pool.name in found:
            continue
        if pool.name in series:
            found[pool.name] = pool.name
        elif pool.market is Market.SPOT and isinstance(pool.options.get("instance_type"), str):
            beginning = f"{pool.options['instance_type']}/{pool.region}"
            matching = [name for name in series if name.startswith(beginning)]
            exact = beginning if beginning in series else None
            if exact or len(matching) == 1:
                found[pool.name] = exact or matching[0]
            elif matching:
                raise ScenarioError(
                    f"pool {pool.name} could follow {', '.join(sorted(matching))}; "
                    f"choose with --series {pool.name}={min(matching)}"
                )
    return found


def _check_choices(
    names: set[str], series: Mapping[str, object], choices: Mapping[str, str]
) -> None:
    for name, chosen in choices.items():
        if name not in names:
            raise ScenarioError(f"--series {name}={chosen}: {unknown_pool(name, names)}")
        for part in chosen.split("+"):
            if part not in series:
                raise ScenarioError(
                    f"--series {name}={chosen}: there is no {part}; the files have {_some(series)}"
                )


def _added(parts: Sequence[Sequence[Quote]]) -> list[Quote]:
    """Return what several things together cost, from when on each of them has a price."""
    latest: dict[str, Decimal] = {}
    total: list[Quote] = []
    for quote in sorted((one for part in parts for one in part), key=lambda one: one.at):
        latest[quote.series] = quote.usd_per_hour
        if len(latest) == len(parts):
            total.append(replace(quote, usd_per_hour=sum(latest.values(), Decimal(0))))
    return total


def _changes(pool: Pool, parts: Sequence[Sequence[Quote]], start: datetime) -> list[PriceChange]:
    ordered = sorted(_added(parts), key=lambda quote: quote.at)
    by_instant = {quote.at: quote.usd_per_hour for quote in ordered}
    shift = start - ordered[0].at if ordered[-1].at < start else start - start
    return [
        PriceChange(at=at + shift, pool=pool.name, usd_per_hour=slot_price(pool, usd))
        for at, usd in by_instant.items()
    ]


def _quotes(path: Path, pools: set[str]) -> list[Quote]:
    rows = list(_aws_rows(path)) if path.suffix == ".json" else list(read_rows(path, ()))
    return [_quote(row, pools) for row in rows if _is_linux(row) and _is_sold(row)]


def _aws_rows(path: Path) -> list[Row]:
    try:
        said = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ScenarioError(
            f"{path}:{error.lineno}: not JSON: {error.msg}; mend the file"
        ) from error
    listed = said.get("SpotPriceHistory") if isinstance(said, dict) else said
    if (
        not isinstance(listed, list)
        or not listed
        or not all(isinstance(one, dict) for one in listed)
    ):
        raise ScenarioError(
            f"{path}: has no list SpotPriceHistory; write it with `aws ec2 describe-spot-price-history --output json`"
        )
    return [Row(place=f"{path}[{place}]", cells=one) for place, one in enumerate(listed)]


def _is_linux(row: Row) -> bool:
    return row.cells.get("ProductDescription", "Linux/UNIX") in _SYSTEMS


def _is_sold(row: Row) -> bool:
    """Whether a row about a machine has a price: where it has none, or nothing, the machine is not sold, or the feed is wrong."""
    if "pool" in row.cells:
        return True
    told = [row.cells[name] for name in _NAMES["price"] if name in row.cells]
    if not told:
        return not any(name in row.cells for name in _ON_DEMAND)
    try:
        return Decimal(str(told[0])) != 0
    except InvalidOperation:
        return True


def _quote(row: Row, pools: set[str]) -> Quote:
    pool = row.cells.get("pool")
    if pool is not None and pool not in pools:
        raise ScenarioError(f"{row.place}: {unknown_pool(str(pool), pools)}")
    series = str(pool) if pool is not None else f"{_kind(row)}/{_cell(row, 'place')[1]}"
    at_column, _ = _cell(row, "at")
    column, text = _cell(row, "price")
    try:
        usd = Decimal(str(text))
    except InvalidOperation as error:
        raise ScenarioError(f"{row.place}: {column} {text!r} is not a number of dollars") from error
    if not usd.is_finite() or usd <= 0:
        raise ScenarioError(f"{row.place}: {column} {text} is not a price; leave the row out")
    return Quote(series=series, at=row_instant(row, at_column), usd_per_hour=usd)


def _kind(row: Row) -> str:
    """Return what is sold: a machine, or how many of which accelerator where that is sold by itself."""
    if "accelerator" in row.cells and not any(name in row.cells for name in _NAMES["type"]):
        return f"{row.cells['accelerator']} x{row.cells.get('count', 1)}"
    return str(_cell(row, "type")[1])


def _cell(row: Row, fact: str) -> tuple[str, Any]:
    for name in _NAMES[fact]:
        if name in row.cells:
            return name, row.cells[name]
    raise ScenarioError(f"{row.place}: has none of the columns {', '.join(_NAMES[fact])}; add one")


def _some(series: Iterable[str]) -> str:
    names = sorted(series)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
