"""Value tables that are made aside: nobody who looks at jobs waits for one."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from spillway.catalog.value_tables import ValueTables, content_key
from spillway.placement.availability_prior import LEARNED
from spillway.placement.value_table import TableSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPEC = TableSpec(
    look_hours=1 / 6,
    looks_per_step=2,
    work_hours=2.0,
    slack_hours=1.0,
    restart_hours=0.1,
    spot_price=0.33,
)
OTHER = replace(SPEC, spot_price=0.5)


def test_a_table_is_at_hand_once_it_was_made_aside() -> None:
    with ThreadPoolExecutor(1) as aside:
        tables = ValueTables(aside=aside.submit)
        may_begin = Event()
        aside.submit(may_begin.wait)
        assert tables.at_hand(SPEC, LEARNED) is None
        may_begin.set()
        aside.submit(int).result()
        made = tables.at_hand(SPEC, LEARNED)
    assert made is not None
    assert made is tables.get(SPEC, LEARNED)
    assert np.array_equal(made.spot, ValueTables().get(SPEC, LEARNED).spot)


def test_a_table_is_at_hand_while_another_is_made(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as aside:
        tables = ValueTables(tmp_path, aside=aside.submit)
        made = tables.get(SPEC, LEARNED)
        slow = tmp_path / f"{content_key(OTHER, LEARNED)}.npz"
        os.mkfifo(slow)
        assert tables.at_hand(OTHER, LEARNED) is None
        with slow.open("wb") as file:  # opens once it is read at the other end, which then waits
            assert tables.at_hand(SPEC, LEARNED) is made
            assert tables.at_hand(OTHER, LEARNED) is None
            file.write(b"torn")
        aside.submit(int).result()
        assert tables.at_hand(OTHER, LEARNED) is not None


def test_no_more_than_a_few_tables_are_on_their_way() -> None:
    left_aside: list[Callable[[], object]] = []
    tables = ValueTables(aside=left_aside.append)
    specs = [replace(SPEC, spot_price=0.01 * (1 + number)) for number in range(50)]
    for spec in specs:
        assert tables.at_hand(spec, LEARNED) is None
    assert len(left_aside) < 10
    left_aside.pop(0)()
    assert tables.at_hand(specs[0], LEARNED) is not None
