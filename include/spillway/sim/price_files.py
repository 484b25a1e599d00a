"""Price history from files: what `aws ec2 describe-spot-price-history` prints, and tables of changes."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from spillway.errors import ScenarioError
from spillway.model import Market
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

    A table with a column `pool` names pools. Any other names machines: a pool follows the series that `choices` gives it as
    `type/place`; or else, a spot pool with the option `instance_type` follows that type in its region, if the file has one
    such series. A history that is over before `start` is moved there, so that its first price holds from `start` on.

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
        change for pool, name in followed.items() for change in _moved(pool, quotes[name], start)
    ]
    return tuple(sorted(changes, key=lambda change: (change.at, change.pool)))


def _followed(
    pools: Sequence[Pool], series: Mapping[str, object], choices: Mapping[str, str]
) -> dict[str, str]:
    """Return which series each pool follows."""
    found = dict(choices)
    names = {pool.name for pool in pools}
    for name, chosen in choices.items():
        if name not in names:
            raise ScenarioError(f"--series {name}={chosen}: {unknown_pool(name, names)}")
        if chosen not in series:
            raise ScenarioError(f"--series {name}={chosen}: the files have {_some(series)}")
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


def _moved(pool: str, quotes: Sequence[Quote], start: datetime) -> list[PriceChange]:
    ordered = sorted(quotes, key=lambda quote: quote.at)
    by_instant = {quote.at: quote.usd_per_hour for quote in ordered}
    shift = start - ordered[0].at if ordered[-1].at < start else start - start
    return [
        PriceChange(at=at + shift, pool=pool, usd_per_hour=usd) for at, usd in by_instant.items()
    ]


def _quotes(path: Path, pools: set[str]) -> list[Quote]:
    rows = list(_aws_rows(path)) if path.suffix == ".json" else list(read_rows(path, ()))
    return [_quote(row, pools) for row in rows if _is_linux(row)]


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


def _quote(row: Row, pools: set[str]) -> Quote:
    pool = row.cells.get("pool")
    if pool is not None and pool not in pools:
        raise ScenarioError(f"{row.place}: {unknown_pool(str(pool), pools)}")
    series = str(pool) if pool is not None else f"{_cell(row, 'type')[1]}/{_cell(row, 'place')[1]}"
    at_column, _ = _cell(row, "at")
    column, text = _cell(row, "price")
    try:
        usd = Decimal(str(text))
    except InvalidOperation as error:
        raise ScenarioError(f"{row.place}: {column} {text!r} is not a number of dollars") from error
    if not usd.is_finite() or usd <= 0:
        raise ScenarioError(f"{row.place}: {column} {text} is not a price; leave the row out")
    return Quote(series=series, at=row_instant(row, at_column), usd_per_hour=usd)


def _cell(row: Row, fact: str) -> tuple[str, Any]:
    for name in _NAMES[fact]:
        if name in row.cells:
            return name, row.cells[name]
    raise ScenarioError(f"{row.place}: has none of the columns {', '.join(_NAMES[fact])}; add one")


def _some(series: Iterable[str]) -> str:
    names = sorted(series)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
