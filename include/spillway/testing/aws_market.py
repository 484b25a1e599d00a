"""AWS on this machine, in front of moto: what moto has not, or has too simple, is answered here, and the rest by moto.

Here: jobs that run, capacity, prices, interruptions, throttling, missing permissions. From moto: everything else, such as logs.
"""

from __future__ import annotations

import http.client
import json
import re
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import boto3
from moto.backends import get_backend
from moto.server import ThreadedMotoServer

from spillway.testing.aws_batch_service import ACCOUNT, BatchService
from spillway.testing.aws_sagemaker_service import SageMakerService
from spillway.testing.aws_words import AwsError, error_body, service
from spillway.testing.http_server import QuietHandler, serving

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

REGION: Final = "us-east-1"
ACCESS_KEY: Final = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY: Final = "a secret of the tests"  # noqa: S105  # nobody's

_SCOPE: Final = re.compile(r"Credential=(?P<key>[^/]+)/\d+/[^/]+/(?P<service>[^/]+)/aws4_request")
_PROTOCOLS: Final = {"batch": "rest-json", "eks": "rest-json", "ec2": "ec2", "sts": "query"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A capacity reservation, or a capacity block, as EC2 describes it."""

    reservation_id: str
    available: int
    ends_at: datetime | None = None
    is_block: bool = False
    state: str = "active"


class AwsMarket:
    """What there is of AWS, and what goes wrong with it.

    Attributes:
        url: Where it answers.
        moto_url: Where moto does, as S3 among others.
        calls: Operations that it was asked for, such as `batch:SubmitJob`.
        received: All that came over the wire.
        spot_prices: What an hour of each instance type costs on spot, as EC2 writes it.
        scores: Spot placement score of each region.
        ahead: How far its clock is ahead of ours.
        meetings: Barriers at which calls of an operation wait for each other.
    """

    def __init__(self, folder: Path, moto_url: str) -> None:
        self.url = ""
        self.calls: list[str] = []
        self.received: list[bytes] = []
        self.ahead = timedelta(0)
        self.scores: dict[str, int] = {REGION: 9}
        self.spot_prices: dict[str, str] = {}
        self.reservations: list[Reservation] = []
        self.meetings: dict[str, threading.Barrier] = {}
        self.batch = BatchService(REGION, str(folder), self.client)
        self.sagemaker = SageMakerService(REGION, str(folder), self.client)
        self.moto_url = moto_url
        self._denied: set[str] = set()
        self._failures: dict[str, deque[AwsError]] = {}
        self._clients: dict[str, Any] = {}

    def session(self, access_key: str = ACCESS_KEY) -> Any:
        """Return a `boto3.Session`; the endpoint is to be had from `url`."""
        return boto3.Session(
            aws_access_key_id=access_key, aws_secret_access_key=SECRET_KEY, region_name=REGION
        )

    def add_cluster(self, name: str, url: str, authority: str) -> None:
        """Have a cluster of EKS, whose API server is at `url` and has a certificate of `authority`, in base64."""
        eks = self.client("eks")
        eks.create_cluster(
            name=name,
            roleArn=f"arn:aws:iam::{ACCOUNT}:role/cluster",
            resourcesVpcConfig={"subnetIds": ["subnet-1", "subnet-2"]},
        )
        (made,) = [
            clusters.clusters[name]
            for regions in get_backend("eks").values()
            for clusters in regions.values()
            if name in clusters.clusters
        ]
        made.endpoint, made.certificate_authority = url, {"data": authority}

    def deny(self, permission: str) -> None:
        """Take a permission such as `batch:SubmitJob` away."""
        self._denied.add(permission)

    def allow_all(self) -> None:
        """Give all permissions back, and forget what was to fail."""
        self._denied.clear()
        self._failures.clear()

    def fail(self, permission: str, error: AwsError, *, times: int = 1) -> None:
        """Have the next calls of an operation fail."""
        self._failures.setdefault(permission, deque()).extend([error] * times)

    def answer(self, handler: QuietHandler) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body for a request."""
        body = handler.body()
        self.received.append(f"{handler.path}\n{handler.headers}\n".encode() + body)
        scope = _SCOPE.search(handler.headers.get("Authorization", ""))
        name = scope["service"] if scope else "unsigned"
        operation = _operation(name, handler, body)
        try:
            self._admit(name, operation, scope["key"] if scope else "")
            own = self._own(name, operation)
            if own is None:
                return self._forward(handler, body)
            status, (kind, content) = 200, own(body)
            headers: Mapping[str, str] = {}
        except AwsError as error:
            kind, content = error_body(_PROTOCOLS.get(name, "json"), error)
            status, headers = error.status, {**error.headers, "x-amzn-errortype": error.code}
        return status, {**headers, "Content-Type": kind}, content

    def _admit(self, name: str, operation: str, key: str) -> None:
        permission = f"{name}:{operation}"
        self.calls.append(permission)
        if key != ACCESS_KEY:
            raise AwsError(
                code="AuthFailure" if name == "ec2" else "UnrecognizedClientException",
                message="The security token included in the request is invalid.",
                status=403,
            )
        if permission in self._denied:
            raise AwsError(
                code="UnauthorizedOperation" if name == "ec2" else "AccessDeniedException",
                message=f"User: arn:aws:iam::{ACCOUNT}:user/spillway is not authorized to perform: {permission} on resource:"
                f" arn:aws:{name}:{REGION}:{ACCOUNT}:something",
                status=403,
            )
        if self._failures.get(permission):
            raise self._failures[permission].popleft()
        meeting = self.meetings.get(permission)
        if meeting is not None:
            meeting.wait(timeout=30)

    def _own(self, name: str, operation: str) -> Callable[[bytes], tuple[str, bytes]] | None:
        if name == "batch":
            return lambda body: _as_json(self.batch.answer(operation, json.loads(body or b"{}")))
        if name == "sagemaker":
            return lambda body: _as_json(self.sagemaker.answer(operation, json.loads(body)))
        if name == "ec2" and operation in _EC2:
            return lambda _: ("text/xml", _EC2[operation](self).encode())
        return None

    def _forward(self, handler: QuietHandler, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        where = urlsplit(self.moto_url)
        moto = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        try:
            moto.request(handler.command, handler.path, body, dict(handler.headers.items()))
            answer = moto.getresponse()
            content = answer.read()
        finally:
            moto.close()
        kept = {"content-type", "x-amzn-requestid", "x-amzn-errortype"}
        headers = {name: value for name, value in answer.headers.items() if name.lower() in kept}
        return answer.status, headers, content

    def client(self, name: str) -> Any:
        """Return a boto3 client of one of moto's services, the same each time: making one takes long."""
        if name not in self._clients:
            self._clients[name] = self.session().client(name, endpoint_url=self.moto_url)
        return self._clients[name]

    def close(self) -> None:
        """Close the connections of the clients."""
        for client in self._clients.values():
            client.close()


@contextmanager
def aws_market(folder: Path) -> Iterator[AwsMarket]:
    """Have AWS on a free port of this machine until the block ends; jobs run in `folder`."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    market = AwsMarket(folder, f"http://{host}:{port}")

    class Handler(QuietHandler):
        def clock_ahead(self) -> timedelta:
            return market.ahead

        def _serve(self) -> None:
            status, headers, body = market.answer(self)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _serve  # noqa: N815  # the standard library's names

    try:
        with serving(Handler) as url:
            market.url = url
            yield market
            market.batch.stop_all()
            market.sagemaker.stop_all()
            market.close()
    finally:
        moto.stop()


def _operation(name: str, handler: QuietHandler, body: bytes) -> str:
    target = handler.headers.get("X-Amz-Target", "")
    if target:
        return target.rpartition(".")[2]
    path = urlsplit(handler.path).path
    if name == "batch":
        return _batch_paths().get(path, "?")
    if name == "eks":
        return "DescribeCluster" if re.fullmatch(r"/clusters/[^/]+", path) else "?"
    return dict(parse_qsl(body.decode(errors="replace"))).get("Action", "?")


def _batch_paths() -> dict[str, str]:
    model = service("batch")
    return {model.operation_model(name).http["requestUri"]: name for name in model.operation_names}


def _as_json(answer: Mapping[str, Any]) -> tuple[str, bytes]:
    return "application/json", json.dumps(answer).encode()


def _placement_scores(market: AwsMarket) -> str:
    items = "".join(
        f"<item><region>{region}</region><score>{score}</score></item>"
        for region, score in market.scores.items()
    )
    return _document(
        "GetSpotPlacementScores", f"<spotPlacementScoreSet>{items}</spotPlacementScoreSet>"
    )


def _capacity_reservations(market: AwsMarket) -> str:
    items = "".join(map(_reservation_item, market.reservations))
    return _document(
        "DescribeCapacityReservations",
        f"<capacityReservationSet>{items}</capacityReservationSet>",
    )


def _reservation_item(one: Reservation) -> str:
    end = f"<endDate>{_moment(one.ends_at)}</endDate>" if one.ends_at else ""
    kind = "capacity-block" if one.is_block else "default"
    return (
        f"<item><capacityReservationId>{one.reservation_id}</capacityReservationId><state>{one.state}</state>"
        f"<availableInstanceCount>{one.available}</availableInstanceCount>{end}"
        f"<reservationType>{kind}</reservationType></item>"
    )


def _spot_prices(market: AwsMarket) -> str:
    now = _moment(datetime.now(UTC))
    items = "".join(
        f"<item><instanceType>{kind}</instanceType><spotPrice>{price}</spotPrice><timestamp>{now}</timestamp>"
        f"<availabilityZone>{REGION}a</availabilityZone><productDescription>Linux/UNIX</productDescription></item>"
        for kind, price in market.spot_prices.items()
    )
    return _document(
        "DescribeSpotPriceHistory", f"<spotPriceHistorySet>{items}</spotPriceHistorySet>"
    )


def _document(operation: str, content: str) -> str:
    space = "http://ec2.amazonaws.com/doc/2016-11-15/"
    return f'<{operation}Response xmlns="{space}"><requestId>0</requestId>{content}</{operation}Response>'


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


_EC2: Final[Mapping[str, Callable[[AwsMarket], str]]] = {
    "DescribeCapacityReservations": _capacity_reservations,
    "DescribeSpotPriceHistory": _spot_prices,
    "GetSpotPlacementScores": _placement_scores,
}
