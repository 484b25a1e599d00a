"""What a provider says of its room, and when it said so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # read from the dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a provider said, and when.

    Attributes:
        instances: How many more it would start; None when it says nothing of that.
        ends_at: When the last of the reservations ends, for new jobs; None when none does.
        detail: Why, for people.
    """

    instances: int | None
    asked_at: datetime
    ends_at: datetime | None = None
    detail: str = ""
