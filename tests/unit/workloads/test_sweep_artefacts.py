from __future__ import annotations

import csv
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.workloads.sweeping.artefacts import as_csv, write_artefacts
from spillway.workloads.sweeping.plots import learning_curves, make_axis, parallel_coordinates
from spillway.workloads.sweeping.rows import Row, TrialStatus, best_of

if TYPE_CHECKING:
    from pathlib import Path

numbers = st.floats(-1e300, 1e300) | st.integers(-(2**53), 2**53)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=30)
NAMES = ["rate", "width", "<b>&"]


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    rows = []
    for trial in range(draw(st.integers(1, 6))):
        params = draw(st.dictionaries(st.sampled_from(NAMES), scalars, max_size=3))
        curve = draw(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=4))
        row = Row(trial=trial, params=params)
        for step, value in enumerate(curve, start=1):
            row = row.reported(step, value)
        rows.append(row.ended(max_steps=4, error=None, metric_name="loss"))
    return rows


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(["min", "max"]))
def test_any_table_gives_plots_that_are_whole_and_stay_in_their_frame(
    rows: list[Row], mode: str
) -> None:
    best = best_of(rows, mode=mode)
    assert best is not None
    for svg in (
        learning_curves(rows, best=best, metric="loss"),
        parallel_coordinates(rows, best=best, metric="loss", mode=mode),
    ):
        root = ET.fromstring(svg)
        lines = [each for each in root if each.tag.endswith(("polyline", "circle"))]
        assert len(lines) == len(rows)
        for line in lines:
            for point in line.get("points", "").split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= 860
                assert 0 <= y <= 440


@given(st.lists(scalars, min_size=1, max_size=8))
def test_an_axis_has_a_place_for_each_value(values: list[object]) -> None:
    axis = make_axis(values)
    assert all(0 <= axis.place(value) <= 1 for value in values)


@given(st.lists(st.floats(1e-9, 1e9), min_size=2, max_size=8, unique=True))
def test_larger_numbers_are_higher(values: list[float]) -> None:
    axis = make_axis(values)
    places = [axis.place(value) for value in sorted(values)]
    assert places == sorted(places)


@pytest.fixture
def rows() -> list[Row]:
    return [
        Row(trial=0, params={"rate": 0.1, "kind": "a"}, marginal_usd=0.5, pools=("spot", "lab"))
        .reported(1, 3.0)
        .reported(4, 2.0)
        .ended(max_steps=4, error=None, metric_name="loss"),
        Row(trial=1, params={"rate": 0.2}).ended(
            max_steps=4, error="Traceback\nBoom", metric_name="loss"
        ),
    ]


def test_the_table_has_a_line_a_trial_and_a_column_a_parameter(rows: list[Row]) -> None:
    first, second = csv.DictReader(as_csv(rows, metric="loss").splitlines())
    assert (first["kind"], first["rate"], first["loss"]) == ("a", "0.1", "2.0")
    assert (first["pools"], first["marginal_usd"]) == ("spot lab", "0.500000")
    assert (second["kind"], second["loss"], second["status"]) == ("", "", TrialStatus.FAILED)


def test_files_are_written_again_over_those_before(tmp_path: Path, rows: list[Row]) -> None:
    for _ in range(2):
        written = write_artefacts(
            str(tmp_path / "a"), rows, table=[1], best=rows[0], metric="loss", mode="min"
        )
    shown = [each.name for each in (tmp_path / "a").iterdir() if not each.name.startswith(".")]
    assert sorted(shown) == sorted(path.rpartition("/")[2] for path in written.values())


def test_the_best_is_of_those_that_ran_longest(rows: list[Row]) -> None:
    early = (
        Row(trial=2, params={}).reported(1, 0.5).ended(max_steps=4, error=None, metric_name="loss")
    )
    assert best_of([*rows, early], mode="min") == rows[0]
    assert best_of([rows[1]], mode="min") is None


def test_a_trial_that_goes_on_has_forgotten_what_was_not_saved(rows: list[Row]) -> None:
    assert rows[0].rewound().curve == ()
    assert rows[0].rewound().steps == 0
