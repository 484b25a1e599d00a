"""Numbers that are set by environment variables."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from spillway.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

_HIGHEST_PORT: Final = 65534
"""One below the highest there is, as `torchrun` and Ray take the port after that of the gang."""


def seconds(environment: Mapping[str, str], name: str) -> timedelta | None:
    """Return the time that a variable gives, zero for less than that; None where it is unset.

    Raises:
        SpecError: It is no number.
    """
    text = environment.get(name)
    if text is None:
        return None
    try:
        return timedelta(seconds=max(float(text), 0.0))
    except (ValueError, OverflowError) as error:
        raise SpecError(f"{name} is {text!r}; write a number of seconds") from error


def seconds_above_zero(environment: Mapping[str, str], name: str, *, usual: float) -> float:
    """Return the seconds that a variable gives, `usual` where it is unset.

    Raises:
        SpecError: It is no number above zero.
    """
    given = seconds(environment, name)
    if given is None:
        return usual
    if not given:
        raise SpecError(f"{name} is {environment[name]!r}; write a number of seconds above 0")
    return given.total_seconds()


def port(environment: Mapping[str, str], name: str, *, usual: int) -> int:
    """Return the port that a variable gives, `usual` where it is unset.

    Raises:
        SpecError: It is no port.
    """
    text = environment.get(name)
    if text is None:
        return usual
    with suppress(ValueError):
        if 0 < int(text) <= _HIGHEST_PORT:
            return int(text)
    raise SpecError(f"{name} is {text!r}; write a port from 1 to {_HIGHEST_PORT}")
