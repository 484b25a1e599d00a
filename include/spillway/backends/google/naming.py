"""How jobs carry our keys at Google: an id to find them by, labels to list them by, and the whole key in a variable."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Final

KEY_VARIABLE: Final = "SPILLWAY_KEY"
"""Environment variable of every job, with its whole key: labels have no room for one."""

POOL_LABEL: Final = "spillway_pool"
KEY_LABEL: Final = "spillway_key"

_READABLE_LENGTH = 24
_REQUESTS = uuid.UUID("7c1f1f43-7a2c-5f0e-9f63-4bb5a1f5f2a1")


def job_id(pool: str, key: str) -> str:
    """Return the job's id: small letters, digits and dashes, 63 at most, and no two keys alike."""
    readable = re.sub(r"[^a-z0-9]+", "-", key.lower().rpartition("/")[0])[-_READABLE_LENGTH:]
    return f"{pool_prefix(pool)}{_digest(key, 24)}-{readable.strip('-')}".rstrip("-")


def pool_prefix(pool: str) -> str:
    """Return what the ids of all jobs of the pool begin with."""
    return f"sw-{_digest(pool, 8)}-"


def request_id(pool: str, key: str) -> str:
    """Return the id that makes a repeated request the same one to Google."""
    return str(uuid.uuid5(_REQUESTS, f"{pool} {key}"))


def labels(pool: str, key: str) -> dict[str, str]:
    """Return the labels that jobs are listed by; labels allow 63 of few characters, so they hold digests."""
    return {POOL_LABEL: pool_value(pool), KEY_LABEL: key_value(key)}


def pool_value(pool: str) -> str:
    """Return the value of the pool's label."""
    return _digest(pool, 24)


def key_value(key: str) -> str:
    """Return the value of the key's label."""
    return _digest(key, 40)


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
