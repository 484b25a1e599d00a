"""What a sweep leaves in its output folder: the whole table, for people and for programs, and two plots."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from spillway.workloads.dataset import open_folder, put_once
from spillway.workloads.sweeping.plots import learning_curves, parallel_coordinates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import JsonValue

    from spillway.workloads.sweeping.rows import Row


def write_artefacts(
    output: str,
    rows: Sequence[Row],
    *,
    table: JsonValue,
    best: Row,
    metric: str,
    mode: str,
) -> dict[str, str]:
    """Write the files, each whole or not at all, and return where each is; those of a run before are replaced.

    Args:
        output: An absolute path or a URL.
        rows: The trials, in order.
        table: The same as JSON.
        best: The one to stand out.
        metric: Its name.
        mode: Which metric is better, `min` or `max`.

    Raises:
        SpecError: `output` is neither a path nor a URL.
        StoreError: It cannot be written.
    """
    store = open_folder(output)
    contents = {
        "trials.csv": as_csv(rows, metric=metric),
        "trials.json": json.dumps(table, indent=1) + "\n",
        "learning_curves.svg": learning_curves(rows, best=best, metric=metric),
        "parallel_coordinates.svg": parallel_coordinates(rows, best=best, metric=metric, mode=mode),
    }
    for name, text in contents.items():
        put_once(store, name, text.encode())
    return {name.replace(".", "_"): f"{output}/{name}" for name in contents}


def as_csv(rows: Sequence[Row], *, metric: str) -> str:
    """Return the table with a column for each parameter; one that a trial has not is left empty."""
    names = sorted({name for row in rows for name in row.params})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            "trial",
            "status",
            *names,
            metric,
            "steps",
            "seconds",
            "marginal_usd",
            "effective_usd",
            "pools",
        ]
    )
    for row in rows:
        parameters = [_cell(row.params[name]) if name in row.params else "" for name in names]
        writer.writerow(
            [
                row.trial,
                row.status,
                *parameters,
                "" if row.metric is None else row.metric,
                row.steps,
                round(row.seconds, 3),
                f"{row.marginal_usd:.6f}",
                f"{row.effective_usd:.6f}",
                " ".join(row.pools),
            ]
        )
    return text.getvalue()


def _cell(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value)
