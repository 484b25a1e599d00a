"""The command `spillway`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from spillway.catalog import offers_command as offers
from spillway.ledger import explain_command as explain
from spillway.sim import command as simulate
from spillway.sim import plan_command as plan

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    (
        "simulate",
        simulate,
        "what a month of jobs would have cost",
        "Simulate a month of jobs on the pools of a file, and compare what policies would have cost.",
    ),
    (
        "explain",
        explain,
        "why a lease ran where it ran, and why it left",
        "Print the stored decisions of a lease with every reason, and whether they follow from their records.",
    ),
    (
        "plan",
        plan,
        "where a set of jobs would go together",
        "Print where jobs that could all start now add least to the bill, commitments reckoned with.",
    ),
    (
        "offers",
        offers,
        "what price lists have for a task",
        "Print the offers of price lists that would complete a task for the least, preemptions reckoned with.",
    ),
)
"""Of each its name, the module with its `add_arguments` and `run`, and what it does, in short and at length."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="spillway", description="Sends ML tasks to the cheapest pool."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module, short, long in COMMANDS:
        command = commands.add_parser(name, help=short, description=long)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status
