"""Azure: scheduled events of the instance metadata service.

Source: Azure documentation, "Scheduled Events for Linux VMs"
(learn.microsoft.com/azure/virtual-machines/linux/scheduled-events).

Events are not acknowledged: that would let them begin at once, for everything else on the machine too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from spillway.errors import NoticeSourceError
from spillway.runtime.clock import Clock, SystemClock
from spillway.runtime.notice.metadata import (
    Answer,
    ask,
    endpoint,
    parse_http_date,
    refused,
    seconds_until,
)
from spillway.runtime.notice.notice import NoticeSeen

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDPOINT: Final = "http://169.254.169.254"
ENDPOINT_VARIABLE: Final = "SPILLWAY_AZURE_METADATA_ENDPOINT"
TAKES_AWAY: Final = frozenset({"Preempt", "Terminate", "Reboot", "Redeploy"})
"""Events after which the machine's memory is gone; Freeze only pauses it for some seconds."""

_LONGEST_SECONDS = 24 * 60 * 60.0
_FIRST_ANSWER_SECONDS = (
    130.0  # the first call may take two minutes, in which the service is switched on
)
_REMEDY = "if this is no machine of Azure's, leave azure out of SPILLWAY_NOTICE"


class AzureWatcher:
    """Asks for the events that are scheduled for this machine."""

    name = "azure"
    period_seconds = 1.0

    def __init__(self, environment: Mapping[str, str], clock: Clock | None = None) -> None:
        self._endpoint = endpoint(environment, ENDPOINT_VARIABLE, ENDPOINT)
        self._clock = clock or SystemClock()
        self._machine: str | None = None

    def look(self) -> NoticeSeen | None:
        """Return the event that takes this machine away first, or None.

        Raises:
            NoticeSourceError: The service could not be asked.
        """
        # Everybody of the scale set sees the events of all; without its name no machine knows which are its own.
        self._machine = self._machine or self._ask_name()
        answer = self._get("/metadata/scheduledevents?api-version=2020-07-01")
        document = answer.json(self._endpoint)
        events = document.get("Events") if isinstance(document, dict) else None
        if not isinstance(events, list):
            raise NoticeSourceError(
                f"{self._endpoint} answered without a list of events: {answer.body[:100]!r}"
            )
        ours = [event for event in events if isinstance(event, dict) and self._is_ours(event)]
        return min((self._notice(event, answer) for event in ours), key=_nearest, default=None)

    def _is_ours(self, event: Mapping[str, Any]) -> bool:
        machines = event.get("Resources")
        is_here = isinstance(machines, list) and self._machine in machines
        return is_here and event.get("EventType") in TAKES_AWAY

    def _notice(self, event: Mapping[str, Any], answer: Answer) -> NoticeSeen:
        not_before = str(event.get("NotBefore") or "")
        when = parse_http_date(not_before)
        left: float | None = None
        if event.get("EventStatus") == "Started":
            left = 0.0
        elif when is not None:
            left = seconds_until(
                when, by_service=answer.date, by_us=self._clock.now(), longest=_LONGEST_SECONDS
            )
        words = f"Azure: {event['EventType']} not before {not_before or 'now'} (event {event.get('EventId')})"
        return NoticeSeen(source=self.name, reason=words, seconds_left=left)

    def _ask_name(self) -> str:
        return self._get(
            "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
        ).body.strip()

    def _get(self, path: str) -> Answer:
        url = self._endpoint + path
        answer = ask(url, {"Metadata": "true"}, timeout_seconds=_FIRST_ANSWER_SECONDS)
        if answer.status != 200:
            raise refused(url, answer, _REMEDY)
        return answer


def _nearest(seen: NoticeSeen) -> float:
    return -1.0 if seen.seconds_left is None else seen.seconds_left
