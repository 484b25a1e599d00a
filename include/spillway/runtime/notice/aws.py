"""Amazon EC2: the interruption notice of spot instances, and the advice that comes before it.

Source: Amazon EC2 User Guide, "Spot Instance interruption notices", "EC2 instance rebalance recommendations",
"Use the Instance Metadata Service" (docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spillway.errors import NoticeSourceError
from spillway.runtime.clock import Clock, SystemClock
from spillway.runtime.notice.metadata import (
    Answer,
    ask,
    endpoint,
    parse_iso_time,
    refused,
    seconds_until,
)
from spillway.runtime.notice.notice import NoticeSeen

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDPOINT: Final = "http://169.254.169.254"
ENDPOINT_VARIABLE: Final = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
LONGEST_SECONDS: Final = 120.0
"""The notice is given two minutes before; one that seems to say more comes from another clock."""

_TOKEN_SECONDS = 6 * 60 * 60
_REMEDY = (
    "allow the instance metadata service, and in a container give it a hop limit of 2 "
    "(aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2)"
)


class AwsWatcher:
    """Asks the instance metadata service, version 2."""

    name = "aws"
    period_seconds = 5.0

    def __init__(self, environment: Mapping[str, str], clock: Clock | None = None) -> None:
        self._endpoint = endpoint(environment, ENDPOINT_VARIABLE, ENDPOINT)
        self._clock = clock or SystemClock()
        self._token: str | None = None

    def look(self) -> NoticeSeen | None:
        """Return the interruption notice, else the rebalance recommendation, else None.

        Raises:
            NoticeSourceError: The service could not be asked.
        """
        return self._interruption() or self._rebalance()

    def _interruption(self) -> NoticeSeen | None:
        answer = self._get("/latest/meta-data/spot/instance-action")
        if answer is None:
            return None
        said = answer.json(self._endpoint)
        if not isinstance(said, dict) or not isinstance(said.get("action"), str):
            raise NoticeSourceError(
                f"{self._endpoint} says of an interruption what we do not know: {answer.body[:100]!r}"
            )
        return NoticeSeen(
            source=self.name,
            reason=f"EC2 will {said['action']} this spot instance at {said.get('time')}",
            seconds_left=self._seconds_until(str(said.get("time")), answer),
        )

    def _seconds_until(self, time: str, answer: Answer) -> float | None:
        when = parse_iso_time(time)
        if when is None:
            return None
        return seconds_until(
            when, by_service=answer.date, by_us=self._clock.now(), longest=LONGEST_SECONDS
        )

    def _rebalance(self) -> NoticeSeen | None:
        answer = self._get("/latest/meta-data/events/recommendations/rebalance")
        if answer is None:
            return None
        return NoticeSeen(
            source=self.name,
            reason=f"EC2 sees a raised risk of interruption: {answer.body.strip()}",
            is_advice=True,
        )

    def _get(self, path: str) -> Answer | None:
        """Return the answer, or None when there is nothing at `path`."""
        answer = self._get_once(path)
        if answer.status == 401:  # the token is over, or the instance has moved
            self._token = None
            answer = self._get_once(path)
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise refused(self._endpoint + path, answer, _REMEDY)
        return answer

    def _get_once(self, path: str) -> Answer:
        self._token = self._token or self._new_token()
        return ask(self._endpoint + path, {"X-aws-ec2-metadata-token": self._token})

    def _new_token(self) -> str:
        url = f"{self._endpoint}/latest/api/token"
        try:
            answer = ask(
                url,
                {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)},
                method="PUT",
            )
        except NoticeSourceError as error:  # how a hop limit that is too low looks from inside
            raise NoticeSourceError(f"{error}; {_REMEDY}") from error
        if answer.status != 200:
            raise refused(url, answer, _REMEDY)
        return answer.body
