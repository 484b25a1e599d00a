"""The pools file: what is shipped loads, and every mistake names its file, line, key and remedy."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no stubs of its own
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spillway.catalog.pools_file import load_pools
from spillway.catalog.pools_schema import json_schema
from spillway.errors import PoolsFileError
from spillway.model import (
    CapacityBlock,
    HourlyCommitment,
    Market,
    MonthlyMinimum,
    Pool,
    PrepaidHours,
    Quota,
    Resources,
)

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "include" / "pools.yaml"

GOOD = """\
pools:
  - name: house
    backend: local
    market: reserved
    slots: 2
    shape: {cpus: 1, memory_gib: 2}
    list_usd_per_hour: 0.0446
    commitment: {kind: hourly, usd_per_slot_hour: "0.0281"}
  - name: cheap
    backend: local
    market: spot
    slots: 1
    shape: {cpus: 2, memory_gib: 8, accelerator: L4, accelerator_count: 1}
    list_usd_per_hour: 0.1
    grace_period: 5s
    restart_overhead: 1.5m
    connection: cloud
  - name: dear
    backend: local
    market: on_demand
    slots: 0
    shape: {cpus: 2, memory_gib: 8}
    list_usd_per_hour: 1
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pools.yaml"


def load(file: Path, text: str) -> tuple[Pool, ...]:
    file.write_text(text, encoding="utf-8")
    return load_pools(file, {"cloud"}, backends={"local", "slurm"})


def problems(file: Path, text: str) -> tuple[str, ...]:
    with pytest.raises(PoolsFileError) as caught:
        load(file, text)
    return caught.value.problems


def broken(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, f"{old!r} is in the example {GOOD.count(old)} times"
    return GOOD.replace(old, new)


def test_what_is_written_is_what_is_loaded(file: Path) -> None:
    house, cheap, dear = load(file, GOOD)
    assert house == Pool(
        name="house",
        backend="local",
        market=Market.RESERVED,
        slots=2,
        shape=Resources(cpus=1, memory_gib=2),
        list_usd_per_hour=Decimal("0.0446"),
        commitment=HourlyCommitment(usd_per_slot_hour=Decimal("0.0281")),
    )
    assert cheap.shape == Resources(cpus=2, memory_gib=8, accelerator="L4", accelerator_count=1)
    assert cheap.grace_period == timedelta(seconds=5)
    assert cheap.restart_overhead == timedelta(seconds=90)
    assert cheap.connection == "cloud"
    assert dear.slots == 0


def test_prepaid_hours_and_blocks_have_a_period_in_utc(file: Path) -> None:
    hourly = '{kind: hourly, usd_per_slot_hour: "0.0281"}'
    period = "starts_at: 2026-03-01, ends_at: 2026-03-15T13:30+02:00"
    start, end = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 15, 11, 30, tzinfo=UTC)
    terms = "kind: prepaid, slot_hours: 9000, usd_per_slot_hour: 2, overage_usd_per_slot_hour: 3"
    (prepaid, *_) = load(file, broken(hourly, f"{{{terms}, {period}}}"))
    assert prepaid.commitment == PrepaidHours(
        slot_hours=Decimal(9000),
        usd_per_slot_hour=Decimal(2),
        overage_usd_per_slot_hour=Decimal(3),
        starts_at=start,
        ends_at=end,
    )
    terms = "kind: capacity_block, usd_per_slot_hour: 2"
    (block, *_) = load(file, broken(hourly, f"{{{terms}, {period}}}"))
    assert block.commitment == CapacityBlock(
        usd_per_slot_hour=Decimal(2), starts_at=start, ends_at=end
    )


def test_a_pool_may_be_divided_by_a_mig_profile(file: Path) -> None:
    whole = "cpus: 2, memory_gib: 8, accelerator: L4, accelerator_count: 1"
    sliced = (
        "cpus: 14, memory_gib: 112, accelerator: H100, accelerator_count: 1, mig_profile: 3g.40gb"
    )
    _, cheap, _ = load(file, broken(whole, sliced))
    assert (cheap.slots, cheap.list_usd_per_hour) == (2, Decimal("0.05"))
    assert cheap.shape.accelerator_fraction == 0.5


def test_a_pool_says_its_zone_and_the_band_it_begins_in(file: Path) -> None:
    more = 'grace_period: 5s\n    zone: us-east-1a\n    interruption_band: "<5%"'
    house, cheap, _ = load(file, broken("grace_period: 5s", more))
    assert (cheap.zone, cheap.interruption_band) == ("us-east-1a", "<5%")
    assert (house.zone, house.interruption_band) == (None, None)


def test_money_is_exactly_what_is_written(file: Path) -> None:
    _, cheap, _ = load(file, GOOD)
    assert cheap.list_usd_per_hour == Decimal("0.1") != Decimal(0.1)  # noqa: RUF032 - the float is the point


def test_a_hazard_left_out_is_unknown_on_spot_and_none_elsewhere(file: Path) -> None:
    house, cheap, dear = load(file, GOOD)
    assert (house.preemptions_per_hour, dear.preemptions_per_hour) == (0.0, 0.0)
    assert cheap.preemptions_per_hour is None


def test_names_are_left_unchecked_where_nobody_says_which_there_are(file: Path) -> None:
    file.write_text(broken("connection: cloud", "connection: moon"), encoding="utf-8")
    assert load_pools(file)[1].connection == "moon"


# One mistake a row: what is changed in the good file, the line and key it is at, what is said, and the remedy.
MISTAKES = [
    pytest.param("market: spot", "markett: spot", 11, "pools[1].markett", "not a key",
                 "did you mean market?", id="unknown key"),
    pytest.param("market: spot", "colour: blue\n    market: spot", 11, "pools[1].colour",
                 "not a key", "use one of: architecture, backend", id="unknown key like no other"),
    pytest.param("cpus: 2, memory_gib: 8, acc", "cpus: 2, memory: 8, acc", 13,
                 "pools[1].shape.memory", "not a key", "did you mean memory_gib?",
                 id="unknown key in a shape"),
    pytest.param("kind: hourly,", "kind: hourly, slot_hour: 3,", 8, "pools[0].commitment.slot_hour",
                 "not a key", "did you mean slot_hours?", id="unknown key in a commitment"),
    pytest.param("pools:", "version: 1\npools:", 1, "version", "not a key", "use one of: pools",
                 id="unknown key at the top"),
    pytest.param("name: dear", "name: cheap", 18, "pools[2].name", "name of pools[1] too",
                 "a name of its own", id="duplicate name"),
    pytest.param("name: dear", "name: Dear", 18, "pools[2].name", "'Dear' will not do",
                 "lower case letters", id="name with a capital"),
    pytest.param("slots: 1", "slots: 1\n    slots: 1", 13, "pools[1].slots", "written twice",
                 "keep one", id="duplicate key"),
    pytest.param("slots: 1", "slots: -1", 12, "pools[1].slots", "-1 will not do",
                 "greater than or equal to 0", id="negative slots"),
    pytest.param("slots: 1", "slots: 1.5", 12, "pools[1].slots", "1.5 will not do",
                 "valid integer", id="half a slot"),
    pytest.param("slots: 1", "slots: yes", 12, "pools[1].slots", "True will not do",
                 "valid integer", id="a switch for a number"),
    pytest.param("slots: 1", "", 9, "pools[1]", "has no slots", "add `slots:`", id="missing key"),
    pytest.param("list_usd_per_hour: 0.1\n", "list_usd_per_hour: -0.1\n", 14,
                 "pools[1].list_usd_per_hour", "-0.1 will not do", "greater than or equal to 0",
                 id="negative price"),
    pytest.param("list_usd_per_hour: 0.1\n", "list_usd_per_hour: a dime\n", 14,
                 "pools[1].list_usd_per_hour", "'a dime' is not a number", "write it like 0.12",
                 id="price in words"),
    pytest.param("list_usd_per_hour: 0.1\n", "list_usd_per_hour: .nan\n", 14,
                 "pools[1].list_usd_per_hour", "nan is not a number", "write it like 0.12",
                 id="price that is no number"),
    pytest.param("grace_period: 5s", "speed: 0", 15, "pools[1].speed", "0 will not do",
                 "greater than 0", id="no speed"),
    pytest.param("grace_period: 5s", "speed: -1", 15, "pools[1].speed", "-1 will not do",
                 "greater than 0", id="negative speed"),
    pytest.param("grace_period: 5s", "preemptions_per_hour: -2", 15,
                 "pools[1].preemptions_per_hour", "-2 will not do", "greater than or equal to 0",
                 id="negative hazard"),
    pytest.param("grace_period: 5s", "preemptions_per_hour: .inf", 15,
                 "pools[1].preemptions_per_hour", "inf will not do", "finite", id="endless hazard"),
    pytest.param("grace_period: 5s", "grace_period: 5", 15, "pools[1].grace_period",
                 "5 is not a duration", "30s, 15m, 2h", id="duration without a unit"),
    pytest.param("grace_period: 5s", "grace_period: -5s", 15, "pools[1].grace_period",
                 "'-5s' is not a duration", "30s, 15m, 2h", id="negative duration"),
    pytest.param("accelerator: L4, accelerator_count: 1", "accelerator: L4, accelerator_count: 1, mig_profile: 1g.5gb", 13,
                 "pools[1].shape.mig_profile", "L4 cannot be divided by MIG", "correct the profile",
                 id="an accelerator that MIG cannot divide"),
    pytest.param("accelerator: L4, accelerator_count: 1", "accelerator: H100, accelerator_count: 8, mig_profile: 1g.10gb", 13,
                 "pools[1].shape.mig_profile", "do not have one whole accelerator", "give each slot one",
                 id="slices of several accelerators"),
    pytest.param("grace_period: 5s", "interruption_band: 3%", 15, "pools[1].interruption_band",
                 "'3%' will not do", "it should be '<5%'", id="unknown band"),
    pytest.param("market: spot", "market: sopt", 11, "pools[1].market", "'sopt' is not known",
                 "did you mean spot?", id="misspelt market"),
    pytest.param("market: spot", "market: 7", 11, "pools[1].market", "7 is not known",
                 "use one of: on_demand, partner, reserved, spot", id="unknown market"),
    pytest.param("market: spot", "market: partner", 9, "pools[1]", "a partner pool has no commitment",
                 "say what is owed", id="partner without commitment"),
    pytest.param("market: reserved", "market: on_demand", 8, "pools[0].commitment",
                 "nothing is owed for on_demand", "take it out", id="on_demand with commitment"),
    pytest.param("kind: hourly", "kind: hurly", 8, "pools[0].commitment.kind",
                 "'hurly' is not known", "did you mean hourly?", id="unknown commitment"),
    pytest.param("kind: hourly, ", "", 8, "pools[0].commitment", "has no kind",
                 "one of: capacity_block, hourly, monthly_minimum, prepaid", id="commitment without kind"),
    pytest.param('"0.0281"', "-0.01", 8, "pools[0].commitment.usd_per_slot_hour", "-0.01 will not do",
                 "greater than or equal to 0", id="negative commitment"),
    pytest.param('kind: hourly, usd_per_slot_hour: "0.0281"',
                 "kind: monthly_minimum, slot_hours: 1489, usd_per_slot_hour: 1, overage_usd_per_slot_hour: 1",
                 8, "pools[0].commitment.slot_hours", "more than 2 slot(s) have in a month (1488)",
                 "raise slots", id="minimum out of reach"),
    pytest.param('kind: hourly, usd_per_slot_hour: "0.0281"',
                 "kind: capacity_block, usd_per_slot_hour: 1, starts_at: 2026-03-02, ends_at: 2026-03-02",
                 8, "pools[0].commitment.ends_at", "is not after starts_at",
                 "the first instant on which nothing", id="block that ends as it begins"),
    pytest.param('kind: hourly, usd_per_slot_hour: "0.0281"',
                 "kind: capacity_block, usd_per_slot_hour: 1, starts_at: soon, ends_at: 2026-03-02",
                 8, "pools[0].commitment.starts_at", "'soon' is not a time", "2026-03-01T12:00Z",
                 id="block that begins soon"),
    pytest.param("backend: local\n    market: spot", "backend: slrm\n    market: spot", 10,
                 "pools[1].backend", "there is no backend 'slrm'", "did you mean slurm?",
                 id="unknown backend"),
    pytest.param("connection: cloud", "connection: moon", 17, "pools[1].connection",
                 "there is no connection 'moon'", "use one of: cloud", id="missing connection"),
    pytest.param(", accelerator: L4", "", 13, "pools[1].shape.accelerator_count",
                 "accelerators of no model", "add `accelerator:`", id="count without accelerator"),
    pytest.param(", accelerator_count: 1", "", 13, "pools[1].shape.accelerator",
                 "of which there is none", "add `accelerator_count: 1`", id="accelerator of no count"),
    pytest.param("{cpus: 2, memory_gib: 8, accelerator: L4, accelerator_count: 1}", "large", 13,
                 "pools[1].shape", "'large' will not do", "write a mapping", id="shape in a word"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line", "key", "what", "remedy"), MISTAKES)
def test_a_mistake_names_file_line_key_and_remedy(
    old: str, new: str, line: int, key: str, what: str, remedy: str, file: Path
) -> None:
    (problem,) = problems(file, broken(old, new))
    assert problem.startswith(f"{file}:{line}: {key}: ")
    said, advice = problem.removeprefix(f"{file}:{line}: {key}: ").split("; ", 1)
    assert what in said
    assert remedy in advice


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "is empty"),
        ("# only a comment\n", 1, "is empty"),
        ("- name: spot\n", 1, "is not a mapping"),
        ("pools\n", 1, "is not a mapping"),
        ("pools:\n  - name: a\n   market: b\n", 3, "not YAML"),
        ("pools: [\n", 2, "not YAML"),
        ("pools: !!python/name:os.system\n", 1, "not YAML"),
        ("? [a]\n: b\n", 1, "not YAML"),
        ("pools: 2026-99-99\n", 1, "not YAML"),
        ("pools: []\n---\npools: []\n", 2, "not YAML"),
        ("pools:\n", 1, "pools: None will not do; write a list"),
        ("pools: []\n", 1, "pools: [] will not do; list at least one pool"),
        ("pools: [3]\n", 1, "pools[0]: 3 will not do; write a mapping"),
        ("{}\n", 1, "the file: has no pools; add `pools:`"),
    ],
)
def test_a_file_of_the_wrong_shape_says_so(text: str, line: int, what: str, file: Path) -> None:
    (problem,) = problems(file, text)
    assert problem.startswith(f"{file}:{line}: ")
    assert what in problem
    assert "; " in problem


def test_a_missing_file_says_what_to_do(file: Path) -> None:
    with pytest.raises(PoolsFileError, match="no such file; copy"):
        load_pools(file)


def test_a_file_that_is_not_text_says_so(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00pools")
    with pytest.raises(PoolsFileError, match="make it a readable UTF-8 file"):
        load_pools(file)


def test_a_folder_in_its_place_says_so(file: Path) -> None:
    file.mkdir()
    with pytest.raises(PoolsFileError, match="cannot be read"):
        load_pools(file)


def test_all_mistakes_are_named_at_once_in_the_order_of_the_file(file: Path) -> None:
    text = GOOD.replace("slots: 2", "slots: -2").replace("market: spot", "market: sopt")
    text = text.replace("name: dear", "name: house").replace("list_usd_per_hour: 1\n", "")
    found = problems(file, text)
    assert [problem.split(": ")[1] for problem in found] == [
        "pools[0].slots",
        "pools[1].market",
        "pools[2]",
        "pools[2].name",
    ]


def test_anchors_and_merge_keys_may_be_used(file: Path) -> None:
    text = GOOD.replace("  - name: cheap", "  - &cheap\n    name: cheap")
    text += "  - {<<: *cheap, name: cheaper, list_usd_per_hour: 0.05}\n"
    assert load(file, text)[3].list_usd_per_hour == Decimal("0.05")


words = st.sampled_from(["pools", "name", "market", "spot", "-1", "1", "[", "{", "}", "]", ":", "- ",
                         "\n", "  ", ",", "shape", "&a", "*a", "? ", "<<", "null", "commitment", "kind"])  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(words, max_size=15).map("".join) | st.text(max_size=20))
def test_whatever_stands_in_the_file_is_loaded_or_explained(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    try:
        load_pools(file)
    except PoolsFileError as error:
        found = error.problems
    else:
        return
    assert found
    assert all(problem.startswith(str(file)) for problem in found)


def test_the_shipped_file_has_a_pool_of_every_market() -> None:
    pools = load_pools(SHIPPED, connections=(), backends={"local"})
    assert [pool.market for pool in pools] == list(Market)
    assert isinstance(pools[-1].commitment, MonthlyMinimum)


def test_the_shipped_prices_are_in_the_order_that_people_expect() -> None:
    by_name = {pool.name: pool for pool in load_pools(SHIPPED)}
    partner = by_name["partner"].commitment
    assert isinstance(partner, MonthlyMinimum)
    overage = partner.overage_usd_per_slot_hour + partner.variable_usd_per_slot_hour
    spot, dear = by_name["spot"].list_usd_per_hour, by_name["on_demand"].list_usd_per_hour
    assert spot < overage < dear


def test_the_shipped_spot_pool_does_what_placement_reckons_with() -> None:
    (spot,) = [pool for pool in load_pools(SHIPPED) if pool.market is Market.SPOT]
    options: Any = spot.options
    assert options["interruptions"]["preemptions_per_hour"] == spot.preemptions_per_hour


def test_the_schema_in_the_docs_is_current() -> None:
    text = (ROOT / "docs" / "pools.schema.json").read_text(encoding="utf-8")
    remedy = "run python -m spillway.catalog.pools_file > docs/pools.schema.json"
    assert json.loads(text) == json_schema(), remedy


def test_the_schema_takes_the_shipped_file_and_names_itself_in_it() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    jsonschema.validate(yaml.safe_load(text), json_schema())
    reference = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    assert (SHIPPED.parent / reference).resolve() == ROOT / "docs" / "pools.schema.json"


def test_the_schema_takes_what_loads(file: Path) -> None:
    load(file, GOOD)
    jsonschema.validate(yaml.safe_load(GOOD), json_schema())


# ---- prices from a list, and quotas ---------------------------------------------------------------------------

PRICES = """\
InstanceType,vCPUs,MemoryGiB,AcceleratorName,AcceleratorCount,Price,SpotPrice,Region,AvailabilityZone
g6.xlarge,4,16,L4,1,0.80,0.32,us-east-1,us-east-1a
g6.xlarge,4,16,L4,1,0.80,0.29,us-east-1,us-east-1b
g6.xlarge,4,16,L4,1,0.88,0.88,eu-west-1,eu-west-1a
"""

LISTED = """\
pools:
  - name: spot
    backend: local
    provider: aws
    market: spot
    region: us-east-1
    slots: 4
    shape: {cpus: 4, memory_gib: 16}
    price_list: {file: prices.csv, instance: g6.xlarge}
    quota: aws-g
  - name: dear
    backend: local
    provider: aws
    market: on_demand
    region: us-east-1
    slots: 4
    shape: {cpus: 4, memory_gib: 16}
    price_list: {file: prices.csv, instance: g6.xlarge, zone: us-east-1a}
    quota: aws-g
quotas: {aws-g: 5}
"""


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.csv"
    path.write_text(PRICES, encoding="utf-8")
    return path


def test_a_price_is_read_from_a_list(file: Path, prices: Path) -> None:
    spot, dear = load(file, LISTED)
    assert (spot.list_usd_per_hour, dear.list_usd_per_hour) == (Decimal("0.29"), Decimal("0.8"))
    assert spot.priced_at == datetime.fromtimestamp(prices.stat().st_mtime, UTC)
    assert spot.price_doubts == ()
    assert spot.quota == dear.quota == Quota(name="aws-g", slots=5)


def test_a_price_of_a_list_that_was_written_again_is_read_again(file: Path, prices: Path) -> None:
    load(file, LISTED)
    prices.write_text(PRICES.replace("0.29", "0.27"), encoding="utf-8")
    os.utime(prices, (1, 1_800_000_000))
    assert load(file, LISTED)[0].list_usd_per_hour == Decimal("0.27")


def test_a_price_that_looks_wrong_keeps_its_doubts(file: Path, prices: Path) -> None:
    spot, _ = load(file, LISTED.replace("region: us-east-1", "region: eu-west-1", 1))
    assert "spot costs what on-demand does" in spot.price_doubts


@pytest.mark.parametrize("wrong", ["0", "0.01", "0.8", "0.08"])
def test_one_zone_that_is_priced_wrong_does_not_stand_for_its_region(
    file: Path, prices: Path, wrong: str
) -> None:
    zone = f"g6.xlarge,4,16,L4,1,0.8,{wrong},us-east-1,us-east-1c\n"
    prices.write_text(PRICES + zone, encoding="utf-8")
    spot, _ = load(file, LISTED)
    assert (spot.list_usd_per_hour, spot.price_doubts) == (Decimal("0.29"), ())
    there = LISTED.replace("instance: g6.xlarge}", "instance: g6.xlarge, zone: us-east-1c}", 1)
    spot, _ = load(file, there)
    assert spot.list_usd_per_hour == Decimal(wrong)
    assert spot.price_doubts != ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "file: prices.csv, instance: g6.xlarge}",
            "file: none.csv, instance: g6.xlarge}",
            "cannot read the price list",
        ),
        ("instance: g6.xlarge}", "instance: g7.xlarge}", "has no machine 'g7.xlarge'"),
        ("zone: us-east-1a", "zone: us-east-1z", "but in eu-west-1, us-east-1"),
        (
            "quotas: {aws-g: 5}",
            "quotas: {aws-p: 5}",
            "there is no quota 'aws-g'; did you mean aws-p",
        ),
        ("quotas: {aws-g: 5}", "quotas: {aws-g: -5}", "greater than or equal to 0"),
        (
            "    price_list: {file: prices.csv, instance: g6.xlarge}\n",
            "",
            "has no list_usd_per_hour",
        ),
        (
            "    price_list: {file: prices.csv, instance: g6.xlarge}\n",
            "    price_list: {file: prices.csv, instance: g6.xlarge}\n    list_usd_per_hour: 1\n",
            "is beside list_usd_per_hour; keep one of the two",
        ),
        ("instance: g6.xlarge}", "instancy: g6.xlarge}", "did you mean instance?"),
    ],
)
def test_a_price_list_or_a_quota_that_is_not_there_is_named(
    file: Path, prices: Path, old: str, new: str, message: str
) -> None:
    found = problems(file, LISTED.replace(old, new, 1))
    assert any(message in problem for problem in found), found
