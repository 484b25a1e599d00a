"""Clusters of EKS, by a connection to AWS."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Final

from spillway.backends.aws.session import Aws
from spillway.backends.kubernetes.failures import LATER, NAME
from spillway.backends.kubernetes.managed import ApiServer, ManagedCluster
from spillway.errors import SpecError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from spillway.backends.kubernetes.options import Eks
    from spillway.backends.protocol import Connection

# Source: github.com/kubernetes-sigs/aws-iam-authenticator, "API Authorization from Outside a Cluster": a token is a signed
# question to STS, who we are, for this one cluster. EKS asks it, and takes it for as long as 15 minutes after it was signed.
_PREFIX: Final = "k8s-aws-v1."
_CLUSTER_HEADER: Final = "x-k8s-aws-id"
_SIGNED_FOR_SECONDS: Final = 60
TOKEN_SECONDS: Final = 600.0
"""How long one token is used; that of one who asks often is then not looked up at STS each time."""


def eks_cluster(pool: str, options: Eks, connection: Connection | None) -> ManagedCluster:
    """Return the cluster, as the connection's role reaches it.

    Raises:
        SpecError: The connection is none to AWS, or nothing says in which region the cluster is.
    """
    if connection is not None and not hasattr(connection.client, "get_credentials"):
        raise SpecError(
            f"pool {pool!r} is on EKS: its `connection:` must name an Airflow connection of the type aws"
        )
    aws = Aws(f"pool {pool!r}", connection, backend=NAME, region=options.region)
    return ManagedCluster(lambda: _locate(aws, options.cluster), Tokens(aws, options.cluster))


class Tokens:
    """Makes tokens for one cluster."""

    def __init__(self, aws: Aws, cluster: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._aws = aws
        self._cluster = cluster
        self._clock = clock
        self._made: tuple[float, str] | None = None

    def __call__(self) -> str:
        """Return one that EKS takes for a few minutes more.

        Raises:
            BackendError: There are no credentials to sign it with.
        """
        now = self._clock()
        if self._made is None or now - self._made[0] > TOKEN_SECONDS:
            url = self._aws.signed_url(
                "sts",
                "GetCallerIdentity",
                headers={_CLUSTER_HEADER: self._cluster},
                seconds=_SIGNED_FOR_SECONDS,
            )
            text = base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
            self._made = (now, f"{_PREFIX}{text}")
        return self._made[1]


def _locate(aws: Aws, name: str) -> ApiServer:
    found = aws.call("eks", "DescribeCluster", name=name)["cluster"]
    if "endpoint" not in found:
        raise TransientError(
            f"the EKS cluster {name} is {found['status']} and has no API server yet; {LATER}",
            backend=NAME,
        )
    return ApiServer(url=found["endpoint"], authority=found["certificateAuthority"]["data"])
