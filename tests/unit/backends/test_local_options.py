from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from spillway.backends.local.options import Hazard, Lifetimes, Trace, read_options
from spillway.errors import SpecError
from spillway.model import Market, Pool, Resources

if TYPE_CHECKING:
    from spillway.backends.local.options import LocalOptions


def read(options: dict[str, Any], home: Path = Path("/nowhere")) -> LocalOptions:
    pool = Pool(
        name="cheap",
        backend="local",
        market=Market.SPOT,
        slots=1,
        shape=Resources(),
        list_usd_per_hour=Decimal(1),
        options=options,
    )
    return read_options(pool, home)


def test_no_options_are_fine() -> None:
    assert read({}).interruptions is None


def test_every_kind_of_interruptions_is_read() -> None:
    assert read({"interruptions": {"trace": [[1, 2]], "speed": 3}}).interruptions == Trace(
        trace=((1.0, 2.0),), speed=3.0
    )
    assert read({"interruptions": {"preemptions_per_hour": 2, "seed": 1}}).interruptions == Hazard(
        preemptions_per_hour=2.0, seed=1
    )
    assert read({"interruptions": {"lifetimes": [9, 15]}}).interruptions == Lifetimes(
        lifetimes=(9.0, 15.0)
    )


def test_a_trace_may_be_in_a_file_below_home(tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text(json.dumps([[1, 2], [3, 4]]))
    options = read({"interruptions": {"trace": "trace.json", "speed": 2}}, tmp_path)
    assert options.interruptions == Trace(trace=((1.0, 2.0), (3.0, 4.0)), speed=2.0)


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"intervals": {}}, "intervals"),
        ({"interruptions": {}}, "interruptions"),
        ({"interruptions": {"trace": []}}, "interruptions.trace"),
        ({"interruptions": {"trace": [[1, -2]]}}, "interruptions.trace"),
        ({"interruptions": {"trace": [[1, 2]], "speed": 0}}, "interruptions.speed"),
        ({"interruptions": {"trace": [[1, 2]], "seed": 1}}, "interruptions.seed"),
        ({"interruptions": {"lifetimes": []}}, "interruptions.lifetimes"),
        ({"interruptions": {"lifetimes": [1, 0]}}, "interruptions.lifetimes"),
        ({"interruptions": {"lifetimes": [1], "trace": [[1, 1]]}}, "interruptions"),
        ({"interruptions": {"trace": "missing.json"}}, "interruptions.trace"),
        ({"interruptions": {"preemptions_per_hour": 1}}, "interruptions.seed"),
        (
            {"interruptions": {"preemptions_per_hour": 1, "seed": 1, "trace": [[1, 1]]}},
            "interruptions",
        ),
        ({"env": {"A": 1}}, "env.A"),
        ({"python_path": "folder"}, "python_path"),
    ],
)
def test_a_mistake_names_pool_and_option(options: dict[str, Any], place: str) -> None:
    with pytest.raises(SpecError) as mistake:
        read(options)
    assert "'cheap'" in str(mistake.value)
    assert f"option {place}" in str(mistake.value)


def test_a_trace_file_with_something_else_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "trace.json").write_text('{"up": 1}')
    with pytest.raises(SpecError, match=r"option interruptions\.trace"):
        read({"interruptions": {"trace": "trace.json"}}, tmp_path)
