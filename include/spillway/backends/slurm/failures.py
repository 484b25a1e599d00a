"""Slurm's errors, sorted by what the caller can do: by number from the REST API, by text from the commands."""

from __future__ import annotations

from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from spillway.errors import AccessError, BackendError, CapacityError, RejectedError, TransientError

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

NAME: Final = "slurm"

LATER: Final = "the same request may succeed later"
_LIMIT: Final = "a limit of the account or QOS is reached, or the pool asks for more than it allows"
_SHAPE: Final = "no node has that much; correct resources, gres or constraint, or the pool's shape"

# Source: SchedMD, slurm/slurm_errno.h of Slurm 22.05. What is not here is refused for good when it comes of a submission,
# and may pass when it comes of a question.
ERRORS: Final[Mapping[int, tuple[str, type[BackendError], str]]] = MappingProxyType(
    {
        1001: ("Communication connection failure", TransientError, LATER),
        1007: (
            "Protocol authentication error",
            AccessError,
            "renew the token, or have munge run with the cluster's key",
        ),
        1800: ("Unable to contact slurm controller (connect failure)", TransientError, LATER),
        1801: ("Unable to contact slurm controller (send failure)", TransientError, LATER),
        1802: ("Unable to contact slurm controller (receive failure)", TransientError, LATER),
        1803: ("Unable to contact slurm controller (shutdown failure)", TransientError, LATER),
        2000: ("Invalid partition name specified", RejectedError, "correct the option partition"),
        2001: (
            "No partition specified or system default partition",
            RejectedError,
            "set the option partition",
        ),
        2002: (
            "Access/permission denied",
            AccessError,
            "the connection's user needs to be allowed that",
        ),
        2003: (
            "User's group not permitted to use this partition",
            AccessError,
            "have the connection's user put into a group of the partition's AllowGroups",
        ),
        2004: ("Requested nodes not in this partition", RejectedError, _SHAPE),
        2005: ("More processors requested than permitted", RejectedError, _SHAPE),
        2006: ("Node count specification invalid", RejectedError, _SHAPE),
        2007: ("Unable to create job record, try again", TransientError, LATER),
        2010: (
            "Invalid user id",
            AccessError,
            "the cluster does not know the connection's user",
        ),
        2013: (
            "Immediate execution impossible, insufficient priority",
            CapacityError,
            "another pool may do",
        ),
        2014: ("Requested node configuration is not available", RejectedError, _SHAPE),
        2015: (
            "Requested partition configuration not available now",
            CapacityError,
            "its nodes are down or its limits are reached; another pool may do",
        ),
        2016: ("Requested nodes are busy", CapacityError, "another pool may do"),
        2017: ("Invalid job id specified", RejectedError, "the cluster does not know the job"),
        2021: ("Job/step already completing or completed", RejectedError, "the job is over"),
        2027: ("Slurm backup controller in standby mode", TransientError, LATER),
        2029: ("Invalid feature specification", RejectedError, "correct the option constraint"),
        2044: ("Memory required by task is not available", RejectedError, _SHAPE),
        2045: (
            "Invalid account or account/partition combination specified",
            AccessError,
            "correct the option account, or have the connection's user associated with it",
        ),
        2050: (
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            CapacityError,
            _LIMIT,
        ),
        2051: (
            "Requested time limit is invalid (missing or exceeds some limit)",
            RejectedError,
            "correct the option time_limit",
        ),
        2052: (
            "Access denied to requested reservation",
            AccessError,
            "have the connection's user or account named in the reservation",
        ),
        2053: (
            "Requested reservation is invalid",
            RejectedError,
            "correct the option reservation; perhaps it has ended",
        ),
        2056: ("Requested reservation not usable now", CapacityError, "another pool may do"),
        2066: (
            "Invalid qos specification",
            AccessError,
            "correct the option qos, or have the connection's user allowed to use it",
        ),
        2068: (
            "Required node not available (down, drained or reserved)",
            CapacityError,
            "another pool may do",
        ),
        2070: (
            "Required partition not available (inactive or drain)",
            CapacityError,
            "another pool may do",
        ),
        2072: (
            "Invalid generic resource (gres) specification",
            RejectedError,
            "correct the options gres or accelerators; `sinfo -o %G` shows what there is",
        ),
        2074: (
            "Requested account has breached requested QOS usage threshold",
            CapacityError,
            _LIMIT,
        ),
        2090: ("Slurm internal error, contact system administrator", TransientError, LATER),
        2101: ("Partition in DOWN state", CapacityError, "another pool may do"),
        2131: (
            "Controller is in standby mode, try a different controller",
            TransientError,
            LATER,
        ),
        5000: ("Received zero length message", TransientError, LATER),
        5004: ("Socket timed out on send/recv operation", TransientError, LATER),
        # What the controller sends to whoever it does not believe.
        5005: (
            "Zero Bytes were transmitted or received",
            AccessError,
            "the controller does not accept who asks: renew the token, or have munge run with the cluster's key",
        ),
        7000: ("Unable to connect to database", TransientError, LATER),
    }
)

# What the commands say of themselves, before they ask the controller.
_SAID: Final[tuple[tuple[str, type[BackendError], str], ...]] = (
    ("command not found", AccessError, "put Slurm's commands on the PATH of the connection's user"),
    ("No such file or directory", AccessError, "install Slurm's commands, or correct slurm_conf"),
    ("Invalid --time specification", RejectedError, "correct the option time_limit"),
    ("Memory specification can not be satisfied", RejectedError, _SHAPE),
    ("temporarily unable to accept job", TransientError, LATER),
    ("Invalid authentication credential", AccessError, "have munge run with the cluster's key"),
    ("Munge encode failed", AccessError, "have munge run on the machine with Slurm's commands"),
    ("No space left on device", TransientError, "make room in the option folder"),
    ("Permission denied", AccessError, "let the connection's user write to the option folder"),
)


def by_number(
    code: int, text: str, *, otherwise: type[BackendError], key: str | None = None
) -> BackendError:
    """Return the exception for an error of the REST API; `otherwise` is for a number that is not listed."""
    _, kind, remedy = ERRORS.get(code, ("", otherwise, ""))
    return _error(kind, f"{text} (error {code})", remedy, key)


def by_text(text: str, *, otherwise: type[BackendError], key: str | None = None) -> BackendError:
    """Return the exception for what a command printed; `otherwise` is for a text that is not listed."""
    known = [*ERRORS.values(), *_SAID]
    for known_text, kind, remedy in known:
        if known_text in text:
            return _error(kind, text, remedy, key)
    return _error(otherwise, text, "", key)


@contextmanager
def readable(what: str) -> Generator[None]:
    """Make of an answer that is not what was asked for a `TransientError`: it says nothing of any job."""
    try:
        yield
    except (ValueError, LookupError, TypeError) as error:
        raise TransientError(
            f"the answer of {what} cannot be read ({error!r}); is there something beside Slurm that prints?",
            backend=NAME,
        ) from error


def _error(kind: type[BackendError], text: str, remedy: str, key: str | None) -> BackendError:
    said = " ".join(text.split())[:500] or "nothing"
    return kind(f"Slurm says: {said}{f'; {remedy}' if remedy else ''}", backend=NAME, key=key)
