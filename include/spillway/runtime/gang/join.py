"""Come together as a gang: the head opens its door, the others knock."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Final

from spillway.errors import GangError
from spillway.model import Launcher
from spillway.runtime.gang.follower import Follower
from spillway.runtime.gang.head import Head
from spillway.runtime.gang.membership import LOOPBACK
from spillway.runtime.gang.watch import GangTerms
from spillway.runtime.gang.wire import SILENCE_SECONDS, call_head
from spillway.runtime.variables import seconds_above_zero

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.model import Submission
    from spillway.runtime.gang.membership import Member
    from spillway.runtime.gang.watch import Gang
    from spillway.runtime.notice import Notice

START_SECONDS: Final = 600.0

_LOCAL_SOURCES: Final = frozenset({"SPILLWAY_GANG_RANK", "torchrun"})


def terms_of(submission: Submission, environment: Mapping[str, str]) -> GangTerms:
    """Return what the members of a submission's gang agree on.

    Where no `SPILLWAY_GANG_SECRET` is set, the secret is what only members of this attempt should know: it keeps attempts
    apart, and is none towards whoever can read the submission.

    Raises:
        SpecError: A variable is no number of seconds.
    """
    words = f"{submission.key} {submission.token} {submission.prefix}"
    return GangTerms(
        secret=environment.get("SPILLWAY_GANG_SECRET", words).encode(),
        grace_seconds=submission.grace_period.total_seconds(),
        silence_seconds=seconds_above_zero(
            environment, "SPILLWAY_GANG_SILENCE_SECONDS", usual=SILENCE_SECONDS
        ),
        can_shrink=submission.launcher is Launcher.RAY,
        start_seconds=seconds_above_zero(
            environment, "SPILLWAY_GANG_START_SECONDS", usual=START_SECONDS
        ),
    )


def join(
    member: Member,
    terms: GangTerms,
    machine: Notice,
    *,
    shared: Mapping[str, str] | None = None,
    **options: Any,
) -> Gang:
    """Return the gang once all its members are there; blocks until then.

    Args:
        member: Who this is.
        terms: What all agree on.
        machine: What is known of the end of this machine.
        shared: What the head gives to all others.
        options: For `Gang`.

    Raises:
        GangError: They did not all come in time, or this machine is about to be taken back.
    """
    if member.is_head:
        head = Head(member, terms, machine, shared=shared, **options)
        with _door(member) as server:
            head.gather(server)
        return head
    line = call_head(
        member,
        terms.secret,
        silence_seconds=terms.silence_seconds,
        limit_seconds=terms.start_seconds,
        is_given_up=lambda: machine.received,
    )
    follower = Follower(member, terms, machine, line=line, **options)
    follower.enter()
    return follower


def own_addresses() -> frozenset[str]:
    """Return the names and addresses of this machine that can be told without asking a network."""
    name = socket.gethostname()
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(name, None)}
    except OSError:
        found = set()
    return frozenset({name, name.partition(".")[0], *found})


def _door(member: Member) -> socket.socket:
    """Return the socket that the head listens on: to everybody, unless all members are on this machine."""
    is_local = member.head_address == LOOPBACK and member.source in _LOCAL_SOURCES
    try:
        return socket.create_server(
            (LOOPBACK if is_local else "", member.port), backlog=max(member.nodes, 1)
        )
    except OSError as error:
        raise GangError(
            f"the head cannot listen on port {member.port}: {os.strerror(error.errno or 0)}; "
            "set SPILLWAY_GANG_PORT to a free one, on all nodes"
        ) from error
