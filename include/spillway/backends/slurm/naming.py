"""How jobs carry our keys: a name to find them by, and the whole key in the comment."""

from __future__ import annotations

import hashlib
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

_READABLE_LENGTH = 24
_COMMENT = re.compile(r"spillway pool=(?P<pool>\S+) key=(?P<key>\S+)(?: \S+=\S*)*")
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


def pool_prefix(pool: str) -> str:
    """Return what the names of all jobs of the pool begin with."""
    return f"sw-{_digest(pool, 8)}-"


def job_name(pool: str, key: str) -> str:
    """Return the job's name: small letters, digits and dashes, 80 at most, and no two keys alike."""
    readable = re.sub(r"[^a-z0-9]+", "-", key.lower().rpartition("/")[0])[-_READABLE_LENGTH:]
    return f"{pool_prefix(pool)}{_digest(key, 24)}-{readable.strip('-')}".rstrip("-")


def comment(pool: str, key: str, labels: Mapping[str, str] = _NONE) -> str:
    """Return the comment of the job: ASCII without blanks in a value, whatever the key; `labels` come last."""
    own = f"spillway pool={quote(pool, safe='')} key={quote(key, safe='/')}"
    more = (f"{quote(name, safe='')}={quote(value, safe='/')}" for name, value in labels.items())
    return " ".join([own, *more])


def key_of(text: str) -> str | None:
    """Return the key in a job's comment, or None where it is not ours."""
    match = _COMMENT.fullmatch(text.strip())
    return unquote(match["key"]) if match else None


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
