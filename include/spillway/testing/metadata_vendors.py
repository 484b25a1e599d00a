"""The metadata services of AWS, Google Cloud and Azure, as far as they speak of the end of a machine.

They behave as the vendors' pages say, refusals included:

- docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html and spot-instance-termination-notices.html
- cloud.google.com/compute/docs/metadata/querying-metadata and getting-live-migration-notice
- learn.microsoft.com/azure/virtual-machines/linux/scheduled-events and instance-metadata-service
"""

from __future__ import annotations

import json
import secrets
from datetime import datetime, timedelta
from email.utils import format_datetime
from threading import Condition
from typing import TYPE_CHECKING, Final

from spillway.testing.metadata_server import MetadataServer, Reply

if TYPE_CHECKING:
    from collections.abc import Sequence
    from email.message import Message

_ISO: Final = "%Y-%m-%dT%H:%M:%SZ"


class FakeAwsMetadata(MetadataServer):
    """Instance metadata service, version 2: nothing without a token, and 404 while nothing is said.

    Attributes:
        tokens: Until when each token counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tokens: dict[str, datetime] = {}
        self._said: dict[str, str] = {}

    def interrupt(self, after: timedelta, action: str = "terminate") -> None:
        """Give notice that the instance ends `after` from now, by the service's clock."""
        said = {"action": action, "time": (self.now() + after).strftime(_ISO)}
        self._said["/latest/meta-data/spot/instance-action"] = json.dumps(said)

    def rebalance(self) -> None:
        """Say that the risk of interruption has risen."""
        said = {"noticeTime": self.now().strftime(_ISO)}
        self._said["/latest/meta-data/events/recommendations/rebalance"] = json.dumps(said)

    def say(self, path: str, body: str) -> None:
        """Answer `body` at `path`."""
        self._said[path] = body

    def reply(self, method: str, path: str, query: dict[str, str], headers: Message) -> Reply:  # noqa: ARG002  # AWS has no query
        """Return the answer to one request."""
        if path == "/latest/api/token":
            return self._new_token(headers) if method == "PUT" else Reply(status=405)
        token = headers.get("X-aws-ec2-metadata-token", "")
        if self.tokens.get(token, datetime.min.replace(tzinfo=self.now().tzinfo)) <= self.now():
            return Reply(status=401)
        said = self._said.get(path)
        return Reply(status=404) if said is None else Reply(body=said)

    def _new_token(self, headers: Message) -> Reply:
        if "X-Forwarded-For" in headers:  # it came through a proxy
            return Reply(status=403)
        seconds = headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if not seconds.isdecimal() or not 1 <= int(seconds) <= 21600:
            return Reply(status=400)
        token = secrets.token_urlsafe(16)
        self.tokens[token] = self.now() + timedelta(seconds=int(seconds))
        return Reply(body=token, headers={"X-aws-ec2-metadata-token-ttl-seconds": seconds})


class FakeGoogleMetadata(MetadataServer):
    """Metadata server of Compute Engine: values with tags, and requests that wait for a change."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = Condition()
        self._values = {"instance/preempted": "FALSE", "instance/maintenance-event": "NONE"}
        self._tags = dict.fromkeys(self._values, secrets.token_hex(8))

    def set(self, key: str, value: str) -> None:
        """Change one value."""
        with self._changed:
            self._values[key] = value
            self._tags[key] = secrets.token_hex(8)
            self._changed.notify_all()

    def wake(self) -> None:
        """Let requests that wait look again."""
        with self._changed:
            self._changed.notify_all()

    def reply(self, method: str, path: str, query: dict[str, str], headers: Message) -> Reply:
        """Return the answer to one request."""
        if headers.get("Metadata-Flavor") != "Google" or "X-Forwarded-For" in headers:
            return Reply(status=403)
        key = path.removeprefix("/computeMetadata/v1/")
        ours = {"Metadata-Flavor": "Google"}
        if method != "GET" or key not in self._values:
            return Reply(status=404, headers=ours)
        with self._changed:
            if query.get("wait_for_change") == "true":
                last = query.get("last_etag", self._tags[key])
                seconds = float(query["timeout_sec"]) if "timeout_sec" in query else None
                self._changed.wait_for(
                    lambda: self._tags[key] != last or self.closing.is_set(), seconds
                )
            return Reply(body=self._values[key], headers={**ours, "ETag": self._tags[key]})


class FakeAzureMetadata(MetadataServer):
    """Instance metadata service of Azure, which tells each machine the events of all machines of its scale set.

    Attributes:
        machine: Name of the machine that asks.
        incarnation: Changes whenever the events do.
    """

    def __init__(self, machine: str = "pool_3") -> None:
        super().__init__()
        self.machine = machine
        self.incarnation = 1
        self._events: list[dict[str, object]] = []

    def schedule(
        self, kind: str, after: timedelta, *, machines: Sequence[str] | None = None
    ) -> None:
        """Schedule an event for the machine that asks, or for `machines`."""
        self.incarnation += 1
        self._events.append(
            {
                "EventId": secrets.token_hex(8).upper(),
                "EventStatus": "Scheduled",
                "EventType": kind,
                "ResourceType": "VirtualMachine",
                "Resources": [self.machine] if machines is None else list(machines),
                "NotBefore": format_datetime(self.now() + after, usegmt=True),
                "Description": "",
                "EventSource": "Platform",
                "DurationInSeconds": -1,
            }
        )

    def begin(self) -> None:
        """Let everything that is scheduled begin; from then on no time is told."""
        self.incarnation += 1
        for event in self._events:
            event.update(EventStatus="Started", NotBefore="")

    def reply(self, method: str, path: str, query: dict[str, str], headers: Message) -> Reply:
        """Return the answer to one request."""
        if headers.get("Metadata", "").lower() != "true" or "X-Forwarded-For" in headers:
            return Reply(status=400)
        if "api-version" not in query:
            return Reply(status=400, body='{"error": "api-version was not specified"}')
        if method == "GET" and path == "/metadata/instance/compute/name":
            return Reply(body=self.machine)
        if method == "GET" and path == "/metadata/scheduledevents":
            document = {"DocumentIncarnation": self.incarnation, "Events": self._events}
            return Reply(body=json.dumps(document))
        return Reply(status=404)
