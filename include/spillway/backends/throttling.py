"""What a provider's throttling answer says of when to come back."""

from __future__ import annotations

from datetime import timedelta


def retry_after(header: str | None) -> timedelta | None:
    """Return the wait that a `Retry-After` header asks for; None where it asks for none, or names a date.

    A date would need the provider's clock, and few send one.

    Source: RFC 9110, HTTP Semantics, section 10.2.3.
    """
    text = (header or "").strip()
    # Nine digits are thirty years; more would be beyond a timedelta.
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        return None
    return timedelta(seconds=int(text))
