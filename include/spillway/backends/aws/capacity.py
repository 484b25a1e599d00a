"""How much room AWS says that there is: spot placement scores, and what is left of reservations, blocks and plans."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from spillway.backends.room import Room
from spillway.model import Market

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from spillway.backends.aws.session import Aws

SCORE_AGE: Final = timedelta(minutes=15)
"""How old a spot placement score may be. AWS allows few different questions a day, and scores change slowly."""

RESERVATION_AGE: Final = timedelta(seconds=30)

BLOCK_ENDS_EARLY: Final = timedelta(minutes=30)
"""How long before the end of a capacity block its instances are taken away.

Source: Amazon EC2, "Capacity Blocks for ML", docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-capacity-blocks.html.
"""


class CapacitySource:
    """Asks AWS about the capacity behind one pool, and not more often than its answers change."""

    def __init__(
        self,
        aws: Aws,
        *,
        market: Market,
        instance_types: Sequence[str],
        min_score: int | None,
        reservations: Sequence[str] = (),
        training_plan: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._aws = aws
        self._scored = market is Market.SPOT and bool(instance_types) and min_score is not None
        self._types = list(instance_types)
        self._min_score = min_score or 1
        self._reservations = list(reservations)
        self._plan = training_plan
        self._clock = clock
        self._room: Room | None = None
        self._lock = threading.Lock()

    def room(self, slots: int) -> Room:
        """Return what AWS says of `slots` more instances, as of a short while ago.

        Raises:
            BackendError: It could not be asked.
        """
        age = RESERVATION_AGE if self._reservations or self._plan else SCORE_AGE
        now = self._clock()
        with self._lock:
            if self._room is None or now - self._room.asked_at > age:
                said = self._ask(max(slots, 1), now)
                self._room = said.by_our_clock(now, self._aws.ahead)
            return self._room

    def _ask(self, slots: int, now: datetime) -> Room:
        if self._reservations:
            answer = self._aws.call(
                "ec2", "DescribeCapacityReservations", CapacityReservationIds=self._reservations
            )
            return reserved_room(answer, now + self._aws.ahead)
        if self._plan is not None:
            answer = self._aws.call(
                "sagemaker", "DescribeTrainingPlan", TrainingPlanName=self._plan
            )
            return plan_room(answer, now + self._aws.ahead)
        if self._scored:
            answer = self._aws.call(
                "ec2",
                "GetSpotPlacementScores",
                InstanceTypes=self._types,
                TargetCapacity=slots,
                RegionNames=[self._aws.region],
            )
            return spot_room(answer, self._aws.region, self._min_score, now)
        return Room(instances=None, asked_at=now)


def spot_room(answer: Mapping[str, Any], region: str, min_score: int, now: datetime) -> Room:
    """Return the room that a placement score stands for: none below `min_score`, of 10; else as much as one asked for."""
    scores = [
        one["Score"] for one in _items(answer, "SpotPlacementScores") if one.get("Region") == region
    ]
    if not scores:
        return Room(instances=None, asked_at=now, detail=f"EC2 has no score for {region}")
    best = max(scores)
    said = f"spot placement score {best} of 10 in {region}, {min_score} wanted"
    return Room(instances=None if best >= min_score else 0, asked_at=now, detail=said)


def reserved_room(answer: Mapping[str, Any], now: datetime) -> Room:
    """Return what is left of the reservations that are active, and not about to end."""
    usable = [one for one in _items(answer, "CapacityReservations") if _is_usable(one, now)]
    free = sum(map(_free, usable))
    # A job goes to one that has room; which one of several is not ours to say.
    ends = [end for one in usable if _free(one) or not free if (end := _end(one)) is not None]
    return Room(
        instances=free,
        asked_at=now,
        ends_at=min(ends, default=None),
        detail=f"{free} instances are free in {len(usable)} active reservations",
    )


def plan_room(answer: Mapping[str, Any], now: datetime) -> Room:
    """Return what is left of a training plan."""
    end = cast("datetime | None", answer.get("EndTime"))
    is_on = answer.get("Status") == "Active" and (end is None or now < end)
    free = int(answer.get("AvailableInstanceCount", 0)) if is_on else 0
    said = f"{free} instances are free in a training plan that is {answer.get('Status')}"
    return Room(instances=free, asked_at=now, ends_at=end, detail=said)


def _free(reservation: Mapping[str, Any]) -> int:
    return int(reservation.get("AvailableInstanceCount", 0))


def _is_usable(reservation: Mapping[str, Any], now: datetime) -> bool:
    start, end = reservation.get("StartDate"), _end(reservation)
    return (
        reservation.get("State") == "active"
        and (start is None or start <= now)
        and (end is None or now < end)
    )


def _end(reservation: Mapping[str, Any]) -> datetime | None:
    """Return when the reservation's instances are taken away."""
    end = cast("datetime | None", reservation.get("EndDate"))
    if end is not None and reservation.get("ReservationType") == "capacity-block":
        return end - BLOCK_ENDS_EARLY
    return end


def _items(answer: Mapping[str, Any], name: str) -> Iterable[Mapping[str, Any]]:
    return cast("Iterable[Mapping[str, Any]]", answer.get(name, ()))
