"""`python -m spillway.backends.skypilot.inventory URL OUT --cloud lambda`: a cloud's machines and prices, as a price list.

What SkyPilot knows of a cloud becomes a list that pools name for their prices, and what it reckons that clusters have cost is
compared with our own books.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from spillway.backends.protocol import Connection
from spillway.backends.skypilot.client import ApiServer
from spillway.backends.skypilot.failures import readable
from spillway.errors import SpillwayError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLUMNS: Final = (
    "InstanceType",
    "AcceleratorName",
    "AcceleratorCount",
    "vCPUs",
    "MemoryGiB",
    "Price",
    "Region",
    "SpotPrice",
)
TOKEN_VARIABLE: Final = "SPILLWAY_SKYPILOT_TOKEN"  # noqa: S105  # its name, not a token
HISTORY_DAYS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One kind of machine in one region.

    Attributes:
        accelerator_count: May be part of one.
        usd_per_hour, spot_usd_per_hour: None where the cloud does not offer it so.
    """

    cloud: str
    instance_type: str
    accelerator: str | None
    accelerator_count: float
    cpus: float | None
    memory_gib: float | None
    usd_per_hour: Decimal | None
    spot_usd_per_hour: Decimal | None
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedCost:
    """What SkyPilot reckons that a cluster has cost, by its price list and the time it was up.

    Attributes:
        seconds: How long it was up.
    """

    usd: Decimal
    seconds: float
    launched_at: datetime


def machines(server: ApiServer, cloud: str) -> list[Machine]:
    """Return every machine that SkyPilot knows of a cloud.

    Raises:
        BackendError: SkyPilot could not be asked, or does not know the cloud.
    """
    wanted = {"clouds": [cloud], "gpus_only": False, "all_regions": True, "require_price": False}
    answer = server.call("/list_accelerators", wanted)
    with readable(server.where):
        rows = [row for offered in cast("dict[str, Any]", answer).values() for row in offered]
        return [_machine(row) for row in rows]


def costs(server: ApiServer, clusters: Sequence[str]) -> dict[str, ReportedCost]:
    """Return what clusters of these names have cost within the last 30 days, by name.

    Raises:
        BackendError: SkyPilot could not be asked.
    """
    wanted = {"days": HISTORY_DAYS, "cluster_names": list(clusters)}
    answer = server.call("/cost_report", wanted)
    found: dict[str, ReportedCost] = {}
    with readable(server.where):
        for one in answer:
            cost = ReportedCost(
                usd=Decimal(str(one["total_cost"])),
                seconds=float(one["duration"] or 0),
                launched_at=datetime.fromtimestamp(float(one["launched_at"]), UTC),
            )
            before = found.get(one["name"])
            found[one["name"]] = cost if before is None else _together(before, cost)
    return found


def write(rows: Iterable[Machine], file: TextIO) -> None:
    """Write a price list, in the columns of SkyPilot's catalogue."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(rows, key=lambda one: (one.instance_type, one.region)):
        told = (
            row.instance_type,
            row.accelerator,
            row.accelerator_count or None,
            row.cpus,
            row.memory_gib,
            row.usd_per_hour,
            row.region,
            row.spot_usd_per_hour,
        )
        writer.writerow("" if value is None else value for value in told)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write a cloud's price list; return the process's exit code."""
    parser = argparse.ArgumentParser(prog="spillway.backends.skypilot.inventory")
    parser.add_argument("url", help="of SkyPilot's API server")
    parser.add_argument("out", type=Path, help="the price list to write")
    parser.add_argument("--cloud", required=True, help="as SkyPilot names it")
    given = parser.parse_args(arguments)
    try:
        server = ApiServer(Connection(host=given.url, password=os.environ.get(TOKEN_VARIABLE)))
        rows = machines(server, given.cloud)
        new = given.out.with_name(f"{given.out.name}.new")
        with new.open("w", newline="") as file:
            write(rows, file)
        new.replace(given.out)
    except (SpillwayError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{given.out}: {len(rows)} machines of {given.cloud}\n")
    return 0


def _machine(row: Sequence[Any]) -> Machine:
    """Read one entry. Source: SkyPilot, sky/catalog/common.py, InstanceTypeInfo."""
    cloud, instance, accelerator, count, cpus, _, memory, price, spot, region = row
    return Machine(
        cloud=str(cloud),
        instance_type=str(instance or ""),
        accelerator=accelerator or None,
        accelerator_count=float(count or 0),
        cpus=_number(cpus),
        memory_gib=_number(memory),
        usd_per_hour=_price(price),
        spot_usd_per_hour=_price(spot),
        region=str(region),
    )


def _number(value: object) -> float | None:
    number = float(str(value)) if value is not None else None
    return None if number is None or number != number else number  # noqa: PLR0124  # NaN


def _price(value: object) -> Decimal | None:
    number = _number(value)
    return None if number is None else Decimal(str(number))


def _together(one: ReportedCost, other: ReportedCost) -> ReportedCost:
    return ReportedCost(
        usd=one.usd + other.usd,
        seconds=one.seconds + other.seconds,
        launched_at=min(one.launched_at, other.launched_at),
    )


if __name__ == "__main__":
    sys.exit(main())
