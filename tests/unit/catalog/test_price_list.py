"""Price lists as text: what is read, what is put together, and which mistake is named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import numpy as np
import pytest

from spillway.catalog.catalogue import Terms, make_catalogue
from spillway.catalog.google_nodes import HOSTS, to_nodes
from spillway.catalog.price_list import parse_price_list, read_price_list
from spillway.errors import SpecError
from spillway.model import Market, Offer, Resources, TaskSpec
from spillway.placement.table_choice import choose_from, table_of

if TYPE_CHECKING:
    from pathlib import Path

    from spillway.placement.offer_table import OfferTable

NOW = datetime(2026, 5, 21, tzinfo=UTC)
HEADER = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region"
GOOGLE = f"{HEADER},AvailabilityZone"


def small_table(**terms: object) -> OfferTable:
    lines = [
        GOOGLE,
        "n2-standard-8,,,8,32,0.40,0.10,us-east1,us-east1-b",
        "t2a-standard-8,,,8,32,0.30,,us-east1,us-east1-b",
        "a3-highgpu-8g,,,208,1872,9,3,us-east1,us-east1-b",
        "a4-highgpu-8g,,,224,3968,0,0,us-east1,us-east1-b",
        ",H100,8,,,80,24,us-east1,us-east1-b",
        ",B200,8,,,64,34,us-east1,us-east1-b",
        ",H100,8,,,80,24,us-west1,us-west1-a",
        ",tpu-v5p-8,1,,,16.8,5,us-east5,us-east5-a",
    ]
    return make_catalogue([parse_price_list(lines, "gcp")], Terms(**terms))  # type: ignore[arg-type]


def named(table: OfferTable) -> dict[str, Offer]:
    return {offer.pool: offer for offer in table.offers()}


def test_each_price_there_is_makes_an_offer() -> None:
    assert set(named(small_table())) == {
        "gcp:n2-standard-8:us-east1-b:on_demand",
        "gcp:n2-standard-8:us-east1-b:spot",
        "gcp:t2a-standard-8:us-east1-b:on_demand",
        "gcp:a3-highgpu-8g+8xH100:us-east1-b:on_demand",
        "gcp:a3-highgpu-8g+8xH100:us-east1-b:spot",
        "gcp:a4-highgpu-8g+8xB200:us-east1-b:on_demand",
        "gcp:a4-highgpu-8g+8xB200:us-east1-b:spot",
        "gcp:tpu-v5p-8+4xtpu-v5p:us-east5-a:on_demand",
        "gcp:tpu-v5p-8+4xtpu-v5p:us-east5-a:spot",
    }


def test_a_node_of_google_costs_its_accelerators_and_its_machine() -> None:
    node = named(small_table())["gcp:a3-highgpu-8g+8xH100:us-east1-b:spot"]
    assert node.marginal_usd_per_hour == Decimal(27)
    assert node.list_usd_per_hour == Decimal(89)
    assert node.shape == Resources(
        cpus=208, memory_gib=1872, accelerator="H100", accelerator_count=8
    )


def test_a_node_has_the_doubts_about_its_parts() -> None:
    node = named(small_table())["gcp:a4-highgpu-8g+8xB200:us-east1-b:on_demand"]
    assert node.price_doubts == ("it is zero",)


def test_a_slice_is_counted_in_chips() -> None:
    slice_ = named(small_table())["gcp:tpu-v5p-8+4xtpu-v5p:us-east5-a:spot"]
    assert (slice_.shape.accelerator, slice_.shape.accelerator_count) == ("tpu-v5p", 4)
    assert slice_.shape.cpus > 0


def test_the_architecture_is_told_by_the_name_of_the_machine() -> None:
    offers = named(small_table())
    assert offers["gcp:t2a-standard-8:us-east1-b:on_demand"].architecture == "arm64"
    assert offers["gcp:n2-standard-8:us-east1-b:spot"].architecture == "amd64"


def test_the_terms_say_what_price_lists_do_not() -> None:
    pool = "gcp:a4-highgpu-8g+8xB200:us-east1-b:spot"
    table = small_table(
        jurisdictions={"us-*": "US"},
        store_jurisdiction="EU",
        speeds={"H100": 4.0},
        priced_at=NOW,
        last_launches={pool: NOW},
        slots=3,
    )
    offers = named(table)
    assert {(o.jurisdiction, o.store_jurisdiction) for o in offers.values()} == {("US", "EU")}
    assert offers["gcp:a3-highgpu-8g+8xH100:us-east1-b:spot"].speed == 4.0
    assert offers[pool].last_launch_at == NOW
    assert {o.free_slots for o in offers.values()} == {3}


@pytest.mark.parametrize("terms", [{}, {"speeds": {"H100": 4.0}, "priced_at": NOW, "slots": 0,
                                        "jurisdictions": {"us-*": "US"}, "store_jurisdiction": "EU",
                                        "spot_preemptions_per_hour": 0.3}])  # fmt: skip
def test_the_columns_of_a_catalogue_are_those_of_its_offers(terms: dict[str, object]) -> None:
    made, told = small_table(**terms), table_of(small_table(**terms).offers())
    assert len(made) == len(told)
    for name in ("marginal", "cpus", "accelerator_count", "accelerator_fraction", "speed", "room",
                 "doubted", "priced_us", "launched_us", "restart_us", "market"):  # fmt: skip
        assert np.array_equal(_by_row(made, name), _by_row(told, name)), name
    for name, words in (("region", "region"), ("provider", "provider"),
                        ("accelerator", "accelerator"), ("architecture", "architecture"),
                        ("jurisdiction", "jurisdiction"),
                        ("store_jurisdiction", "jurisdiction")):  # fmt: skip
        assert _words(made, name, words) == _words(told, name, words), name


def _by_row(table: OfferTable, name: str) -> object:
    column = np.empty_like(getattr(table.columns, name))
    column[table.rows] = getattr(table.columns, name)
    return column


def _words(table: OfferTable, name: str, vocabulary: str) -> list[str]:
    names = [*table.names[vocabulary], ""]
    return [names[number] for number in np.asarray(_by_row(table, name)).tolist()]


def test_a_part_of_an_accelerator_is_a_fraction_of_one() -> None:
    lines = [HEADER, "Standard_NV12,A10,0.333,12,110,0.9,0.2,eastus"]
    (offer, _) = make_catalogue([parse_price_list(lines, "azure")]).offers()
    assert (offer.shape.accelerator_count, offer.shape.accelerator_fraction) == (1, 0.333)


def test_a_field_too_many_does_no_harm() -> None:
    listed = parse_price_list([f"{HEADER},Generation", "D2,,,2,8,0.1,0.02,eastus,V1,V2"], "azure")
    assert listed.region.tolist() == ["eastus"]
    assert listed.spot.tolist() == [0.02]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "line 1 has no column InstanceType"),
        (["InstanceType,Price"], "no column AcceleratorName, AcceleratorCount, Region"),
        ([HEADER, "D2,,,2,8,0.1"], "line 2 has fewer fields"),
        ([HEADER, "D2,,,2,8,a tenth,0.02,eastus"], "line 2: Price is 'a tenth'"),
    ],
)
def test_a_mistake_names_its_line(lines: list[str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse_price_list(lines, "azure")


def test_a_file_that_is_wrong_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vms.csv"
    path.write_text(HEADER + "\nD2\n")
    with pytest.raises(SpecError, match=r"vms\.csv: line 2"):
        read_price_list(path, "azure")


def test_every_machine_that_holds_accelerators_has_room_for_no_other_kind() -> None:
    kinds = {host: {name for (name, _), h in HOSTS.items() if h == host} for host in HOSTS.values()}
    assert all(len(names) == 1 or host.startswith("n1-") for host, names in kinds.items())


def test_an_accelerator_without_a_host_in_its_zone_is_no_node() -> None:
    lines = [GOOGLE, ",H100,8,,,80,24,us-west1,us-west1-a", ",A7,1,,,8,2,us-west1,us-west1-a"]
    nodes, _, _ = to_nodes(parse_price_list(lines, "gcp"))
    assert len(nodes) == 0


def test_a_catalogue_of_nothing_has_no_choice() -> None:
    task = TaskSpec(entry_point="a:b", markets=frozenset({Market.SPOT}), work=timedelta(hours=1))
    assert choose_from(make_catalogue([]), task, NOW).offer is None
