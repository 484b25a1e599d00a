"""How jobs carry our keys: a name to find them by, and the whole key in tags."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

_READABLE_LENGTH: Final = 24
KEY_TAG: Final = "spillway:key"
POOL_TAG: Final = "spillway:pool"

MAX_TAG_VALUE: Final = 256
"""Source: AWS, "Tag naming limits and requirements", docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html."""


def pool_prefix(pool: str) -> str:
    """Return what the names of all jobs of the pool begin with."""
    return f"sw-{_digest(pool, 8)}-"


def job_name(pool: str, key: str) -> str:
    """Return the job's name: small letters, digits and dashes, 63 at most, and no two keys alike."""
    readable = re.sub(r"[^a-z0-9]+", "-", key.lower().rpartition("/")[0])[-_READABLE_LENGTH:]
    return f"{pool_prefix(pool)}{_digest(key, 24)}-{readable.strip('-')}".rstrip("-")


def tags(pool: str, key: str, own: Mapping[str, str]) -> dict[str, str]:
    """Return the job's tags; a key that is too long for one goes on in the next."""
    coded = encode(key)
    parts = [
        coded[start : start + MAX_TAG_VALUE] for start in range(0, len(coded) or 1, MAX_TAG_VALUE)
    ]
    keys = {_key_tag(number): part for number, part in enumerate(parts, start=1)}
    return {**own, POOL_TAG: encode(pool)[:MAX_TAG_VALUE], **keys}


def key_of(found: Mapping[str, str]) -> str | None:
    """Return the key in a job's tags, or None where it is not ours."""
    parts: list[str] = []
    while (part := found.get(_key_tag(len(parts) + 1))) is not None:
        parts.append(part)
    return decode("".join(parts)) if parts else None


def encode(text: str) -> str:
    """Return the text in characters that tags may have, with `=` and two digits for others."""
    return quote(text, safe="/:@+ ").replace("~", "%7E").replace("%", "=")


def decode(text: str) -> str:
    """Return what was encoded."""
    return unquote(text.replace("=", "%"))


def _key_tag(number: int) -> str:
    return KEY_TAG if number == 1 else f"{KEY_TAG}-{number}"


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
