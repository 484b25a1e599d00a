"""Runs the benchmarks of this folder, prints a table and writes `build/bench.json`.

A benchmark is a module `bench_*.py` with a function `run() -> list[Measurement]`. One that cannot run on this machine
raises `NotHere` with the reason.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from measurement import Measurement, NotHere
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RESULTS = HERE.parents[1] / "build" / "bench.json"


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the benchmarks, all or those named.")
    parser.add_argument("names", nargs="*", help="such as `ledger` for bench_ledger.py")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    arguments = parser.parse_args()
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    unknown = set(arguments.names) - set(known)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there is {', '.join(known)}")
    console = Console()
    if arguments.list:
        console.print("\n".join(known))
        return 0
    measurements = []
    for name in arguments.names or known:
        console.print(f"[dim]{name} ...[/dim]")
        try:
            measurements += importlib.import_module(f"bench_{name}").run()
        except NotHere as reason:
            console.print(f"[yellow]{name} left out: {reason}[/yellow]")
    console.print(table(measurements))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([as_json(one) for one in measurements], indent=2) + "\n")
    return 0


def table(measurements: list[Measurement]) -> Table:
    """Return the measurements for people."""
    rows = Table("what", "value", "unit", "baseline", "its value", "ratio")
    for column in rows.columns[1::2]:
        column.justify = "right"
    for one in measurements:
        baseline = one.baseline
        rows.add_row(
            one.name,
            f"{one.value:,.4g}",
            one.unit,
            baseline.name if baseline else "",
            f"{baseline.value:,.4g}" if baseline else "",
            f"{one.ratio:.3g}" if one.ratio is not None else "",
        )
    return rows


def as_json(one: Measurement) -> dict[str, object]:
    """Return the measurement for programs."""
    baseline = one.baseline and {"name": one.baseline.name, "value": one.baseline.value}
    return {
        "name": one.name,
        "value": one.value,
        "unit": one.unit,
        "baseline": baseline,
        "ratio": one.ratio,
    }


if __name__ == "__main__":
    sys.exit(main())
