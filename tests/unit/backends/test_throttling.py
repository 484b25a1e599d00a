"""Throttling answers: how long the provider wants to be left alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from spillway.backends.throttling import retry_after


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("120", timedelta(minutes=2)),
        (" 0 ", timedelta(0)),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ("-1", None),
        ("1.5", None),
        ("\u0663", None),
        ("9" * 20, None),
        ("", None),
        (None, None),
    ],
)
def test_a_wait_is_read_where_the_provider_names_one(
    header: str | None, expected: timedelta | None
) -> None:
    assert retry_after(header) == expected
