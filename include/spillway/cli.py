"""The command `spillway`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from spillway.catalog import offers_command as offers
from spillway.sim import command as simulate

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="spillway", description="Sends ML tasks to the cheapest pool."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    simulated = commands.add_parser(
        "simulate",
        help="what a month of jobs would have cost",
        description="Simulate a month of jobs on the pools of a file, and compare what policies would have cost.",
    )
    simulate.add_arguments(simulated)
    simulated.set_defaults(run=simulate.run)
    offered = commands.add_parser(
        "offers",
        help="what price lists have for a task",
        description="Print the offers of price lists that would complete a task for the least, preemptions reckoned with.",
    )
    offers.add_arguments(offered)
    offered.set_defaults(run=offers.run)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status
