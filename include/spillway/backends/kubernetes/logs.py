"""A pod's output by byte offset, which Kubernetes does not have: it gives lines since a time. Pure.

The nodes throw the beginning of long output away, so an offset is counted from what was handed out, and what comes after
it is found by the time of the last line.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far output was read.

    Attributes:
        offset: Bytes handed out so far.
        stamp: When the last of these lines was printed, as the node wrote it.
    """

    offset: int
    stamp: str

    @property
    def since(self) -> str:
        """The time from which on there may be more, as the query `sinceTime` takes it, in whole seconds."""
        return f"{_when(self.stamp)[0]:%Y-%m-%dT%H:%M:%S}Z"


def lines_after(raw: bytes, stamp: str, *, is_over: bool) -> tuple[bytes, str]:
    """Return the output without its times from after `stamp` on, and the time of its last line.

    Args:
        raw: Lines, each with its time and a blank before it.
        stamp: Time of the last line that is not wanted; empty for all.
        is_over: Whether a last line that has no end is all there will be of it.
    """
    *lines, rest = raw.split(b"\n")
    whole = [line + b"\n" for line in lines] + ([rest] if rest and is_over else [])
    after = _when(stamp) if stamp else None
    text, last = b"", stamp
    for line in whole:
        said, _, words = line.partition(b" ")
        when = said.decode(errors="replace").strip()
        if not _is_time(when):
            text += line  # the node's own words, such as that it rotated the output
        elif after is None or _when(when) > after:
            text, last = text + words, when
    return text, last


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return "T" in text


def _when(text: str) -> tuple[datetime, str]:
    """Return the time to the second, in UTC, and its fraction, of which nodes leave out zeros at the end."""
    whole, _, rest = text.partition(".")
    digits = rest.rstrip("Z").partition("+")[0].partition("-")[0]
    zone = rest[len(digits) :] or ("" if whole.endswith("Z") or "+" in whole else "Z")
    moment = datetime.fromisoformat(whole + zone).astimezone(UTC)
    return moment.replace(microsecond=0), digits.ljust(9, "0")
