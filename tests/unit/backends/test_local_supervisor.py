from __future__ import annotations

from datetime import UTC, datetime, timedelta
from signal import SIGKILL, SIGTERM, Signals

import pytest

from spillway.backends.local.processes import RELEASE_GRACE
from spillway.backends.local.supervisor import judge, next_signal
from spillway.model import JobEvent
from spillway.runtime.exit_codes import PREEMPTED

NOTICE = datetime(2026, 1, 1, tzinfo=UTC)
GRACE = timedelta(seconds=30)
SECOND = timedelta(seconds=1)


def due(
    now: datetime,
    *,
    taken_back_at: datetime | None = None,
    released_at: datetime | None = None,
    sent: Signals | None = None,
) -> Signals | None:
    return next_signal(
        now=now, taken_back_at=taken_back_at, released_at=released_at, grace_period=GRACE, sent=sent
    )


def test_a_job_that_nobody_wants_back_is_left_alone() -> None:
    assert due(NOTICE) is None
    assert due(NOTICE - SECOND, taken_back_at=NOTICE) is None


def test_taking_back_is_a_notice_then_the_grace_period_then_the_end() -> None:
    assert due(NOTICE, taken_back_at=NOTICE) is SIGTERM
    assert due(NOTICE + GRACE - SECOND, taken_back_at=NOTICE, sent=SIGTERM) is None
    assert due(NOTICE + GRACE, taken_back_at=NOTICE, sent=SIGTERM) is SIGKILL
    assert due(NOTICE + 2 * GRACE, taken_back_at=NOTICE, sent=SIGKILL) is None


def test_a_release_has_a_short_grace_of_its_own() -> None:
    assert due(NOTICE, released_at=NOTICE) is SIGTERM
    assert due(NOTICE + RELEASE_GRACE, released_at=NOTICE, sent=SIGTERM) is SIGKILL


def test_a_release_during_the_grace_period_ends_it() -> None:
    released = NOTICE + SECOND
    assert due(released, taken_back_at=NOTICE, released_at=released, sent=SIGTERM) is None
    assert (
        due(released + RELEASE_GRACE, taken_back_at=NOTICE, released_at=released, sent=SIGTERM)
        is SIGKILL
    )


@pytest.mark.parametrize(
    ("exit_code", "taken_back", "released", "event"),
    [
        (0, False, False, JobEvent.SUCCEEDED),
        (0, True, True, JobEvent.SUCCEEDED),
        (1, False, False, JobEvent.FAILED),
        (-11, False, False, JobEvent.FAILED),
        (1, True, False, JobEvent.PREEMPTED),
        (-9, True, False, JobEvent.PREEMPTED),
        (PREEMPTED, False, False, JobEvent.PREEMPTED),
        (PREEMPTED, True, True, JobEvent.CANCELLED),
        (-9, False, True, JobEvent.CANCELLED),
    ],
)
def test_an_end_is_judged_by_who_wanted_it(
    exit_code: int, taken_back: bool, released: bool, event: JobEvent
) -> None:
    assert judge(exit_code=exit_code, taken_back=taken_back, released=released)[0] is event
