"""How clusters carry our keys: a name to find them by, and the whole key among their job's environment variables."""

from __future__ import annotations

import hashlib
from typing import Final

KEY_VARIABLE: Final = "SPILLWAY_KEY"
POOL_VARIABLE: Final = "SPILLWAY_POOL"
NODES_VARIABLE: Final = "SPILLWAY_NODES"
LABEL: Final = "spillway-job"
"""Label of the machines whose value is the cluster's name; clouds differ in what else a label may hold."""


def prefix(pool: str) -> str:
    """Return what the names of the pool's clusters begin with."""
    return f"sw-{_digest(pool, 8)}-"


def cluster_name(pool: str, key: str) -> str:
    """Return the cluster's name, no two alike: letters, digits and dashes, as SkyPilot wants them."""
    return f"{prefix(pool)}{_digest(key, 24)}"


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
