"""How much room Google says that there is: what is left of a reservation and of a region's quotas, as Compute Engine has them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.transport import requests

from spillway.backends.google.access import TIMEOUT_SECONDS, Access
from spillway.backends.google.failures import question, translated
from spillway.backends.room import Room
from spillway.backends.skew import clock_ahead
from spillway.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ROOM_AGE: Final = timedelta(seconds=30)
"""How old what Google said may be."""

_SERVICE: Final = "Compute Engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What of Compute Engine's reservations a pool stands for.

    Attributes:
        name: Its name or its path, which names its project.
        places: Zones and regions where the pool's machines may be.
        unlisted: Machines in one that Compute Engine does not list; None where that says nothing.
        chips: Accelerators of a machine; reservations of TPUs are counted in those.
    """

    name: str
    places: tuple[str, ...]
    unlisted: int | None = 0
    chips: int = 1


class ComputeCapacity:
    """Asks Compute Engine about the capacity behind one pool, and not more often than its answers are worth.

    Source: Google Cloud, Compute Engine API, `reservations.aggregatedList` and `regions.get`,
    cloud.google.com/compute/docs/reference/rest/v1.
    """

    def __init__(
        self,
        access: Access,
        *,
        backend: str,
        region: str,
        reservation: Reservation | None = None,
        quotas: Mapping[str, float] | None = None,
        endpoint: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        endpoint = endpoint or "compute.googleapis.com"
        is_open = endpoint.startswith("http://")  # an emulator's; credentials do not travel there
        credentials: Any = AnonymousCredentials
        library: Any = requests  # it has no types
        self._http = library.AuthorizedSession(credentials() if is_open else access.credentials)
        self._base = endpoint if "://" in endpoint else f"https://{endpoint}"
        self._project = access.project
        self._backend = backend
        self._region = region
        self._reservation = reservation
        self._quotas = dict(quotas or {})
        self._clock = clock
        self._ahead = timedelta(0)
        self._room: Room | None = None
        self._lock = threading.Lock()

    def room(self) -> Room:
        """Return what Google says of more machines, as of a short while ago.

        Raises:
            BackendError: It could not be asked.
        """
        now = self._clock()
        with self._lock:
            if self._room is None or now - self._room.asked_at > ROOM_AGE:
                with question():
                    self._room = self._ask(now).by_our_clock(now, self._ahead)
            return self._room

    def _ask(self, now: datetime) -> Room:
        rooms = [Room(instances=None, asked_at=now)]
        if self._reservation is not None:
            parts = self._reservation.name.split("/")
            project = parts[1] if parts[0] == "projects" else self._project
            query = {"filter": f"name = {parts[-1]}"}
            answer = self._get(f"projects/{project}/aggregated/reservations", query)
            rooms.append(reserved_room(answer, self._reservation, now + self._ahead))
        if self._quotas:
            answer = self._get(f"projects/{self._project}/regions/{self._region}")
            rooms.append(quota_room(answer, self._quotas, now))
        return least(rooms)

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        with translated(self._backend, _SERVICE):
            answer = self._http.get(
                f"{self._base}/compute/v1/{path}", params=query, timeout=TIMEOUT_SECONDS
            )
            if not answer.ok:
                library: Any = exceptions  # it has no types
                raise library.from_http_response(answer)
        self._ahead = clock_ahead(answer.headers.get("Date"), datetime.now(UTC))
        try:
            return cast("Mapping[str, Any]", answer.json())
        except ValueError as error:
            raise TransientError(
                f"the answer of {_SERVICE} cannot be read: {error}", backend=self._backend
            ) from error


def reserved_room(answer: Mapping[str, Any], reservation: Reservation, now: datetime) -> Room:
    """Return what is left of the reservations of this name that are ready, in the zones or the region that are named."""
    name = reservation.name.rpartition("/")[2]
    found = [
        one
        for scope in cast("Mapping[str, Mapping[str, Any]]", answer.get("items", {})).values()
        for one in cast("Iterable[Mapping[str, Any]]", scope.get("reservations", ()))
        if one.get("name") == name and _is_in(str(one.get("zone", "")), reservation.places)
    ]
    if not found:
        detail = f"Compute Engine lists no reservation {name} there"
        return Room(instances=reservation.unlisted, asked_at=now, detail=detail)
    usable = [one for one in found if one.get("status") == "READY" and not _is_over(one, now)]
    left = [_left(one, reservation.chips) for one in usable]
    free = sum(left)
    # A job goes to one that has room; which one of several is not ours to say.
    open_ones = (one for one, room in zip(usable, left, strict=True) if room or not free)
    ends = [end for end in map(_end, open_ones) if end is not None]
    said = f"{free} machines are free in {len(usable)} of {len(found)} reservations {name}"
    return Room(
        instances=free,
        asked_at=now,
        ends_at=min(ends, default=None),
        detail=said,
    )


def quota_room(answer: Mapping[str, Any], needs: Mapping[str, float], now: datetime) -> Room:
    """Return how many slots the region's quotas leave room for; nothing is said of a quota that it does not have.

    Args:
        answer: What Compute Engine says of the region.
        needs: By name of a quota, how much of it one slot takes.
        now: When it was asked.
    """
    quotas = {one.get("metric"): one for one in answer.get("quotas", ())}
    rooms = [Room(instances=None, asked_at=now)]
    for metric, need in needs.items():
        if metric in quotas:
            left = float(quotas[metric]["limit"]) - float(quotas[metric]["usage"])
            said = f"{left:g} of the quota {metric} are left, and a slot takes {need:g}"
            slots = max(int(left // need), 0)
            rooms.append(Room(instances=slots, asked_at=now, is_limit=True, detail=said))
    return least(rooms)


def least(rooms: Sequence[Room]) -> Room:
    """Return the room that all of these leave."""
    told = [(room.instances, room) for room in rooms if room.instances is not None]
    if not told:
        return rooms[0]
    ends = [room.ends_at for _, room in told if room.ends_at is not None]
    return replace(
        min(told, key=lambda one: one[0])[1],
        is_limit=all(room.is_limit for _, room in told),
        ends_at=min(ends, default=None),
    )


def _is_in(zone: str, places: Sequence[str]) -> bool:
    """Return whether a zone, which is told as a URL, is one of the zones or in one of the regions."""
    short = zone.rpartition("/")[2]
    return any(short == place or short.rpartition("-")[0] == place for place in places)


def _left(reservation: Mapping[str, Any], chips: int) -> int:
    """Return how many machines are left of it; one of TPUs is counted in chips."""
    aggregate = cast("Mapping[str, Any] | None", reservation.get("aggregateReservation"))
    if aggregate is not None:
        free = _chips(aggregate, "reservedResources") - _chips(aggregate, "inUseResources")
        return max(free // chips, 0)
    specific = cast("Mapping[str, Any]", reservation.get("specificReservation", {}))
    return max(int(specific.get("count", 0)) - int(specific.get("inUseCount", 0)), 0)


def _chips(aggregate: Mapping[str, Any], which: str) -> int:
    resources = cast("Iterable[Mapping[str, Any]]", aggregate.get(which, ()))
    return sum(int(one.get("accelerator", {}).get("acceleratorCount", 0)) for one in resources)


def _end(reservation: Mapping[str, Any]) -> datetime | None:
    told = reservation.get("deleteAtTime")
    return None if not told else datetime.fromisoformat(str(told))


def _is_over(reservation: Mapping[str, Any], now: datetime) -> bool:
    end = _end(reservation)
    return end is not None and end <= now
