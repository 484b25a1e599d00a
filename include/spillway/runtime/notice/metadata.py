"""Asking a metadata service of this machine, and reckoning with its clock.

These services are a hop away on a link-local address: no proxy, no redirect, short timeouts, no name that is not theirs.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from spillway.errors import NoticeSourceError, SpecError

if TYPE_CHECKING:
    from pydantic import JsonValue

TIMEOUT_SECONDS = 2.0
_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a metadata service answered.

    Attributes:
        headers: By lower-case name.
        body: Its text.
    """

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def date(self) -> datetime | None:
        """What time it is by the service's own clock; None when it does not say."""
        return parse_http_date(self.headers.get("date", ""))

    def json(self, place: str) -> JsonValue:
        """Return the body as JSON.

        Raises:
            NoticeSourceError: It is something else.
        """
        try:
            value: JsonValue = json.loads(self.body)
        except ValueError as error:
            raise NoticeSourceError(
                f"{place} answered what is not JSON: {self.body[:100]!r}"
            ) from error
        return value


def ask(
    url: str,
    headers: Mapping[str, str],
    *,
    method: str = "GET",
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Answer:
    """Return what the service at `url` answers, whatever its status.

    Raises:
        NoticeSourceError: It did not answer.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port or 80, timeout=timeout_seconds
    )
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    try:
        connection.request(method, target, headers=dict(headers))
        response = connection.getresponse()
        body = response.read(_MAX_BYTES).decode("utf-8", errors="replace")
    except (OSError, http.client.HTTPException) as error:
        raise NoticeSourceError(
            f"{parts.netloc} does not answer ({type(error).__name__}: {error})"
        ) from error
    finally:
        connection.close()
    found = {name.lower(): value for name, value in response.getheaders()}
    return Answer(status=response.status, headers=found, body=body)


def endpoint(environment: Mapping[str, str], variable: str, usual: str) -> str:
    """Return the URL of a metadata service: what the variable says, else the usual one.

    Raises:
        SpecError: The variable says what is no such URL.
    """
    url = environment.get(variable, usual).rstrip("/")
    check_url(url, f"{variable} is {environment.get(variable)!r}; write it as {usual}")
    return url


def check_url(url: str, complaint: str) -> None:
    """Do nothing where `ask` can use the URL.

    Raises:
        SpecError: It cannot; the message is `complaint`.
    """
    try:
        parts = urlsplit(url)
        is_good = parts.scheme == "http" and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise SpecError(complaint) from error
    if not is_good:
        raise SpecError(complaint)


def refused(place: str, answer: Answer, remedy: str) -> NoticeSourceError:
    """Return the error that says that the service answered with a status that is no answer."""
    return NoticeSourceError(f"{place} answered with status {answer.status}; {remedy}")


def parse_http_date(text: str) -> datetime | None:
    """Return the instant of `Mon, 19 Sep 2016 18:29:47 GMT`, or None when `text` is no such date."""
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def parse_iso_time(text: str) -> datetime | None:
    """Return the instant of `2017-09-18T08:22:00Z`, or None when `text` is no such time."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)


def seconds_until(
    when: datetime, *, by_service: datetime | None, by_us: datetime, longest: float
) -> float | None:
    """Return the time until `when`, at most `longest` seconds; None when the clocks cannot be reconciled.

    What the service's own clock says goes before ours, which may be wrong by minutes on a machine that has just booted.
    Without it, a time that is over by our clock, while we still run, says only that the clocks differ.
    """
    left = (when - (by_service or by_us)).total_seconds()
    if left < 0 and by_service is None:
        return None
    return min(max(left, 0.0), longest)
