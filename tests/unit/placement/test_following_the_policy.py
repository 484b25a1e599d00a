"""When what the policy prefers is worth following: waiting and leaving have to save what shows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from spillway.model import Market, Offer, TaskSpec
from spillway.placement.over_time import Situation, Weighed, goes_on_in, queue_before, to_follow
from spillway.placement.policy_values import (
    Action,
    Decision,
    Held,
    JobProgress,
    Option,
    PolicyState,
    PoolView,
)
from spillway.placement.value_table import TableSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SPEC = TableSpec(
    look_hours=1 / 60,
    looks_per_step=1,
    work_hours=1.0,
    slack_hours=1.0,
    restart_hours=0.0,
    spot_price=0.3,
)


def option(pool: str | None, usd: float, *, in_time: bool = True) -> Option:
    return Option(pool=pool, expected_usd=usd, in_time=in_time)


def weighed(
    *options: Option, held: str | None = None, hours: float = 10.0, room: bool = True
) -> Weighed:
    """What the policy says of `hours` of work, with on-demand capacity at 1 USD an hour and spot at 0.30 USD."""
    views = (
        PoolView(name="on_demand", market=Market.ON_DEMAND, usd_per_hour=1.0, available=room),
        PoolView(name="spot", market=Market.SPOT, usd_per_hour=0.3),
    )
    job = JobProgress(
        work_left=timedelta(hours=hours),
        deadline=NOW + timedelta(days=2),
        restart_overhead=timedelta(0),
        next_look=MINUTE,
        held=None if held is None else Held(pool=held),
    )
    decision = Decision(
        action=Action.RUN, pool=options[0].pool, reason="as the policy says", options=options
    )
    situation = Situation(job=job, pools=views, now=NOW, state=PolicyState(), spec=SPEC)
    return Weighed(situation=situation, decision=decision, state=PolicyState())


@pytest.mark.parametrize(
    ("said", "follows"),
    [
        # Nothing is held, and running is best anyway.
        (weighed(option("spot", 3.0), option("on_demand", 5.0)), "spot"),
        # Waiting saves what shows, 5 USD of 10 in all, if nearly nothing at this one look.
        (weighed(option(None, 5.0), option("on_demand", 5.01)), None),
        (weighed(option(None, 5.0), option("on_demand", 5.001)), None),
        # The whole job costs less than a tenth of a cent.
        (weighed(option(None, 0.0002), option("on_demand", 0.0008), hours=0.0008), "on_demand"),
        # It saves a cent, but less than 2 %.
        (weighed(option(None, 9.9), option("on_demand", 9.95)), "on_demand"),
        # Leaving what is held is like waiting.
        (weighed(option("spot", 3.0), option("on_demand", 3.001), held="on_demand"), "spot"),
        (
            weighed(
                option("spot", 0.0001), option("on_demand", 0.0009), held="on_demand", hours=0.0009
            ),
            "on_demand",
        ),
        # What would be late is left, whatever it saves.
        (
            weighed(option("on_demand", 10.0), option("spot", 3.0, in_time=False), held="spot"),
            "on_demand",
        ),
        # What is held and no option any more is left.
        (weighed(option("on_demand", 10.0), option(None, 11.0), held="gone"), "on_demand"),
    ],
)
def test_what_saves_too_little_is_not_followed(said: Weighed, follows: str | None) -> None:
    assert to_follow(said).pool == follows


@pytest.mark.parametrize(
    ("held", "room", "there"),
    [
        ("spot", True, "on_demand"),
        ("spot", False, "spot"),  # nobody gives up what is held for a place in a queue
        (None, True, "on_demand"),
        (None, False, "spot"),  # nor is a job in time sooner for holding nothing meanwhile
    ],
)
def test_what_can_be_had_is_taken_while_the_last_resort_is_full(
    held: str | None, room: bool, there: str
) -> None:
    late = option("spot", 3.0, in_time=False)
    assert goes_on_in(weighed(option("on_demand", 10.0), late, held=held, room=room)) == there


@pytest.mark.parametrize(
    ("others", "follows"),
    [
        ([option("spot", 11.0), option(None, 12.0)], "spot"),
        (
            [option(None, 11.0), option("spot", 12.0)],
            None,
        ),  # there is time to wait for what is cheap
        ([option(None, 11.0), option("spot", 11.05)], "spot"),  # but it would not show
        ([option("spot", 12.0, in_time=False), option(None, 11.0)], None),
        ([option(None, 1.0, in_time=False), option("spot", 12.0, in_time=False)], "spot"),
        ([option(None, 1.0, in_time=False)], None),
    ],
)
def test_a_job_that_holds_nothing_takes_the_best_of_the_rest_while_the_last_resort_is_full(
    others: list[Option], follows: str | None
) -> None:
    others.sort(key=lambda one: not one.in_time)  # as the policy does
    assert to_follow(weighed(option("on_demand", 10.0), *others, room=False)).pool == follows


def test_who_comes_before_takes_the_steady_slots_in_turn(task: TaskSpec, offer: Offer) -> None:
    two, spot = replace(offer, free_slots=2), replace(offer, market=Market.SPOT, pool="spot")
    usable = [(two, True), (replace(spot, free_slots=9), True)]
    each = task.work + 2 * MINUTE  # to see its end, and to ask again
    queues = [queue_before([task] * count, task, usable, NOW) for count in range(5)]
    assert queues == [each * count / 2 for count in (0, 0, 2, 3, 4)]


def test_who_can_do_without_steady_slots_is_not_waited_for(task: TaskSpec, offer: Offer) -> None:
    larger = replace(task, resources=replace(task.resources, cpus=64))
    assert queue_before([larger] * 5, task, [(offer, True)], NOW) == timedelta(0)
    full = [(replace(offer, free_slots=0), False)]
    assert queue_before([task], task, full, NOW) == task.work + 2 * MINUTE
    assert queue_before([], task, full, NOW) == timedelta(0)


def test_a_slow_slot_more_makes_no_line_longer(task: TaskSpec, offer: Offer) -> None:
    slow = replace(offer, pool="slow", speed=0.25)
    alone, beside = (
        queue_before([task] * 3, task, usable, NOW)
        for usable in ([(offer, True)], [(offer, True), (slow, True)])
    )
    assert beside < alone
    assert queue_before([task] * 3, task, [(offer, True), (slow, False)], NOW) == alone
