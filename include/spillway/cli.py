"""The command `spillway`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from spillway.catalog import offers_command as offers
from spillway.sim import command as simulate
from spillway.sim import plan_command as plan

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
    planned = commands.add_parser(
        "plan",
        help="where a set of jobs would go together",
        description="Print where jobs that could all start now add least to the bill, commitments reckoned with.",
    )
    plan.add_arguments(planned)
    planned.set_defaults(run=plan.run)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status
