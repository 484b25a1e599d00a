"""How jobs carry our keys: a submission id to find them by, and the whole key in the metadata."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY: Final = "spillway_key"
POOL: Final = "spillway_pool"
NODES: Final = "spillway_nodes"

_READABLE_LENGTH: Final = 40


def submission_id(pool: str, key: str) -> str:
    """Return the job's name at Ray, which is also in the name of a file: letters, digits and dashes, no two alike."""
    readable = re.sub(r"[^a-z0-9]+", "-", key.lower())[-_READABLE_LENGTH:].strip("-")
    return f"sw-{_digest(pool, 8)}-{_digest(key, 24)}-{readable}".rstrip("-")


def metadata(pool: str, key: str, nodes: int) -> dict[str, str]:
    """Return what the job is known by; Ray keeps text only."""
    return {KEY: key, POOL: pool, NODES: str(nodes)}


def key_of(metadata: Mapping[str, Any], pool: str) -> str | None:
    """Return the key in a job's metadata, or None where it is not one of the pool's."""
    key = metadata.get(KEY)
    return str(key) if key and metadata.get(POOL) == pool else None


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
