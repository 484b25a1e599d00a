"""`spillway explain`: why a lease ran where it ran, and why it left, from the books alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from spillway.errors import SpillwayError
from spillway.ledger.store import Ledger
from spillway.placement.again import recompute, recompute_move
from spillway.placement.explain import reasons_table

if TYPE_CHECKING:
    import argparse
    from datetime import datetime

    from spillway.model import Move, Placement


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of the command."""
    parser.add_argument("lease", metavar="LEASE", help="its key: dag/run/task/map index/attempt")
    parser.add_argument("--ledger", metavar="URL", required=True, help="the ledger")


def run(options: argparse.Namespace) -> int:
    """Print the lease's decisions, and whether they follow from their records; return 1 where one does not."""
    try:
        ledger = Ledger.open_to_read(options.ledger)
        placement, move = ledger.placement(options.lease), ledger.move(options.lease)
        parts = [_placed(placement)]
        if move is not None:
            parts.append(_moved(move))
    except SpillwayError as error:
        sys.stderr.write(f"spillway explain: {error}\n")
        return 1
    sys.stdout.write("\n".join(text for text, _ in parts))
    return 0 if all(is_equal for _, is_equal in parts) else 1


def _placed(placement: Placement) -> tuple[str, bool]:
    when = "" if placement.decided_at is None else f" at {_time(placement.decided_at)}"
    head = f"Placed{when} on {placement.offer.pool}."
    if placement.task is None or placement.decided_at is None:
        said = "It was stored without its task and time, so it cannot be made again."
        return f"{head}\n\n{reasons_table(placement)}\n\n{said}\n", True
    is_equal = recompute(placement) == placement
    return f"{head}\n\n{reasons_table(placement)}\n\n{_verdict(is_equal=is_equal)}\n", is_equal


def _moved(move: Move) -> tuple[str, bool]:
    where = "to wait" if move.to is None else f"to go on on {move.to}"
    head = f"Asked at {_time(move.decided_at)} to leave {move.held}, {where}.\n{move.reason}"
    is_equal = recompute_move(move) == move
    return f"{head}\n\n{reasons_table(move)}\n\n{_verdict(is_equal=is_equal)}\n", is_equal


def _verdict(*, is_equal: bool) -> str:
    if is_equal:
        return "Made again from what was stored with it, it is equal."
    return "Made again from what was stored with it, it DIFFERS: the rules or the record have changed since."


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
