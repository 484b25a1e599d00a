"""A saved state whose manifest is committed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ConfigDict, JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One object of a checkpoint.

    Attributes:
        name: The part's name inside the checkpoint, such as `model`.
        path: Where it is, below the task's prefix.
        size: In bytes.
        checksum: `algorithm:hex` over its bytes.
    """

    name: str
    path: str
    size: int
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A checkpoint: it exists once this is written.

    Attributes:
        token: Fencing token of the lease that wrote it.
        step: Steps done when it was taken.
        metadata: What the writer wants to remember with it, JSON.
        metrics: Latest value of each metric that was reported when it was taken.
        entry_point: What was running when it was taken; empty when that was not said.
    """

    # JSON has no NaN, and a loss that diverged must not make the manifest unreadable.
    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    token: int
    step: int
    created_at: datetime
    parts: tuple[Part, ...]
    metadata: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    entry_point: str = ""

    @property
    def size(self) -> int:
        """Bytes of all parts together."""
        return sum(part.size for part in self.parts)
