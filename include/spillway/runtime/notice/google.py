"""Google Compute Engine: preemption of spot machines, and maintenance that stops a machine.

Source: Compute Engine documentation, "Spot VMs: preemption process" (cloud.google.com/compute/docs/instances/spot), "Query
the metadata server for maintenance event notices" (cloud.google.com/compute/docs/metadata/getting-live-migration-notice),
"Query VM metadata: waiting for a change" (cloud.google.com/compute/docs/metadata/querying-metadata).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from spillway.runtime.notice.metadata import TIMEOUT_SECONDS, ask, check_url, refused
from spillway.runtime.notice.notice import NoticeSeen

if TYPE_CHECKING:
    from collections.abc import Mapping

HOST: Final = "metadata.google.internal"
HOST_VARIABLE: Final = "GCE_METADATA_HOST"
WAIT_SECONDS: Final = 60

_PREEMPTED = NoticeSeen(
    source="gcp", reason="Compute Engine preempts this machine", seconds_left=30.0
)
_MAINTENANCE = NoticeSeen(
    source="gcp", reason="Compute Engine stops this machine for maintenance", seconds_left=60.0
)

# Live migration (MIGRATE_ON_HOST_MAINTENANCE) pauses the machine and takes nothing away.
MEANINGS: Mapping[str, Mapping[str, NoticeSeen]] = MappingProxyType(
    {
        "instance/preempted": {"TRUE": _PREEMPTED},
        "instance/maintenance-event": {"TERMINATE_ON_HOST_MAINTENANCE": _MAINTENANCE},
    }
)
"""What each value of each key means; any other means nothing for the capacity."""


class GoogleWatcher:
    """Waits for one key of the metadata server to change.

    The first look answers at once; it also counts as the query without which no warning of maintenance is given.
    """

    period_seconds = 1.0  # the server holds the answer back; this bounds one that does not

    def __init__(
        self, key: str, environment: Mapping[str, str], *, wait_seconds: int = WAIT_SECONDS
    ) -> None:
        self.name = f"gcp {key.rpartition('/')[2]}"
        host = environment.get(HOST_VARIABLE, HOST)
        self._url = f"http://{host}/computeMetadata/v1/{key}"
        check_url(self._url, f"{HOST_VARIABLE} is {host!r}; write it as {HOST} or host:port")
        self._meanings = MEANINGS[key]
        self._wait_seconds = wait_seconds
        self._etag: str | None = None

    def look(self) -> NoticeSeen | None:
        """Return what the key's value means, after waiting for a change of it.

        Raises:
            NoticeSourceError: The server could not be asked.
        """
        query, timeout = "", TIMEOUT_SECONDS
        if (
            self._etag is not None
        ):  # without the last tag, a change between two looks would be missed
            waiting = {
                "wait_for_change": "true",
                "last_etag": self._etag,
                "timeout_sec": str(self._wait_seconds),
            }
            query, timeout = f"?{urlencode(waiting)}", timeout + self._wait_seconds
        answer = ask(self._url + query, {"Metadata-Flavor": "Google"}, timeout_seconds=timeout)
        if answer.status != 200 or answer.headers.get("metadata-flavor") != "Google":
            self._etag = None
            raise refused(
                self._url,
                answer,
                f"if this is no machine of Google's, unset {HOST_VARIABLE} or leave gcp out of SPILLWAY_NOTICE",
            )
        self._etag = answer.headers.get("etag")
        return self._meanings.get(answer.body.strip())
