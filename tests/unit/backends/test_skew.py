from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from spillway.backends.skew import clock_ahead

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("date", "ahead"),
    [
        ("Fri, 20 Nov 2026 13:00:00 GMT", timedelta(hours=1)),
        ("Fri, 20 Nov 2026 11:00:00 GMT", timedelta(hours=-1)),
        ("Fri, 20 Nov 2026 12:00:09 GMT", timedelta(0)),  # the way of the answer
        ("some day", timedelta(0)),
        (None, timedelta(0)),
    ],
)
def test_an_answer_tells_how_far_a_clock_is_ahead(date: str | None, ahead: timedelta) -> None:
    assert clock_ahead(date, NOW) == ahead
