"""`python -m spillway.backends.aws.spot_prices LIST OUT --region us-east-2`: a price list with the spot prices of now.

The list is one that pools name for their prices. What it says of other regions is left out, so that its date is true of all of it.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from spillway.backends.aws.session import Aws
from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NAME: Final = "spot_prices"
PRODUCT: Final = "Linux/UNIX"
_NEEDED: Final = ("InstanceType", "Region", "AvailabilityZone", "SpotPrice")

Prices = dict[tuple[str, str], str]
"""US dollars an hour, by instance type and zone."""


def current_prices(aws: Aws, instance_types: Sequence[str], now: datetime) -> Prices:
    """Return what EC2 asks for spot instances now in the zones of `aws`'s region.

    Raises:
        BackendError: EC2 could not be asked.
    """
    newest: dict[tuple[str, str], tuple[datetime, str]] = {}
    more: dict[str, str] = {}
    while True:
        answer = aws.call(
            "ec2",
            "DescribeSpotPriceHistory",
            InstanceTypes=list(instance_types),
            ProductDescriptions=[PRODUCT],
            StartTime=now,  # with no end, EC2 tells the prices that hold at the start
            **more,
        )
        for one in cast("list[dict[str, Any]]", answer.get("SpotPriceHistory", [])):
            place = one["InstanceType"], one["AvailabilityZone"]
            said = one["Timestamp"], one["SpotPrice"]
            newest[place] = max(newest.get(place, said), said)
        if not answer.get("NextToken"):
            return {place: price for place, (_, price) in newest.items()}
        more = {"NextToken": str(answer["NextToken"])}


def instances_by_region(lines: Iterable[str], regions: Iterable[str]) -> dict[str, list[str]]:
    """Return the instance types that a list has in each of the regions.

    Raises:
        SpecError: A column is missing, or the list has nothing of a region.
    """
    reader = csv.DictReader(lines)
    missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise SpecError(f"the price list has no column {', '.join(missing)}")
    found: dict[str, set[str]] = {region: set() for region in regions}
    for row in reader:
        if row["Region"] in found and row["InstanceType"]:
            found[row["Region"]].add(row["InstanceType"])
    for region, types in found.items():
        if not types:
            raise SpecError(f"the price list has nothing of {region}; correct --region")
    return {region: sorted(types) for region, types in found.items()}


def with_prices(lines: Iterable[str], prices: Mapping[str, Prices]) -> str:
    """Return the rows of the regions in `prices`, with their spot prices; without one where EC2 has none."""
    reader = csv.DictReader(lines)
    text = io.StringIO()
    writer = csv.DictWriter(text, reader.fieldnames or (), extrasaction="ignore")
    writer.writeheader()
    for row in reader:
        if row["Region"] in prices:
            place = row["InstanceType"], row["AvailabilityZone"]
            writer.writerow({**row, "SpotPrice": prices[row["Region"]].get(place, "")})
    return text.getvalue()


def main(arguments: Sequence[str]) -> int:
    """Read a price list, and write another with the prices of now; readers see the old or the new one whole."""
    parser = argparse.ArgumentParser(prog="spot_prices", description=__doc__)
    parser.add_argument("list", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--region", action="append", required=True)
    asked = parser.parse_args(arguments)
    lines = asked.list.read_text(encoding="utf-8").splitlines()
    now = datetime.now(UTC)
    prices = {
        region: current_prices(_aws(region), types, now)
        for region, types in instances_by_region(lines, asked.region).items()
    }
    new = asked.out.with_name(f"{asked.out.name}.new")
    new.write_text(with_prices(lines, prices), encoding="utf-8", newline="")
    new.replace(asked.out)
    return 0


def _aws(region: str) -> Aws:
    return Aws("the price list", None, backend=NAME, region=region)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
