"""What a provider says of its room, and when it said so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime  # read from the dataclass

from spillway.model import SaidEnd


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a provider said, and when.

    Attributes:
        instances: How many more it would start; None when it says nothing of that.
        ends_at: When the reservation ends that a new job may be on; None when none does.
        detail: Why, for people.
    """

    instances: int | None
    asked_at: datetime
    ends_at: datetime | None = None
    detail: str = ""

    @property
    def end(self) -> SaidEnd | None:
        """When it ends and when the provider said so; None where it has no end."""
        return None if self.ends_at is None else SaidEnd(at=self.ends_at, said_at=self.asked_at)
