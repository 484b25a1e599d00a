"""A saved state whose manifest is committed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, JsonValue, PlainSerializer


def _tag(value: JsonValue) -> JsonValue:
    """Return `value` with what JSON has not, NaN and the infinities, as `{"$float": "nan"}`."""
    match value:
        case float() if not math.isfinite(value):
            return {"$float": repr(value)}
        case dict():
            return {key: _tag(each) for key, each in value.items()}
        case list():
            return [_tag(each) for each in value]
        case _:
            return value


def _untag(value: JsonValue) -> JsonValue:
    """Return what `_tag` was given."""
    match value:
        case {"$float": "nan" | "inf" | "-inf" as number, **others} if not others:
            return float(number)
        case dict():
            return {key: _untag(each) for key, each in value.items()}
        case list():
            return [_untag(each) for each in value]
        case _:
            return value


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
        metadata: What the writer wants to remember with it: JSON, and numbers that are none.
        metrics: Latest value of each metric that was reported when it was taken.
        entry_point: What was running when it was taken; empty when that was not said.
    """

    # JSON has no NaN, and a loss that diverged must not make the manifest unreadable.
    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    token: int
    step: int
    created_at: datetime
    parts: tuple[Part, ...]
    metadata: Annotated[Mapping[str, JsonValue], PlainSerializer(_tag), AfterValidator(_untag)] = (
        field(default_factory=dict[str, JsonValue])
    )
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    entry_point: str = ""

    @property
    def size(self) -> int:
        """Bytes of all parts together."""
        return sum(part.size for part in self.parts)
