"""Pools on EKS and GKE by an Airflow connection to the cloud: no kubeconfig, and no token that lasts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import container_v1

from contract.kubernetes_world import TOKEN, KubernetesWorld
from spillway.airflow.clients import client_of
from spillway.backends.aws.session import Aws
from spillway.backends.kubernetes import managed
from spillway.backends.kubernetes.backend import KubernetesBackend
from spillway.backends.kubernetes.eks import TOKEN_SECONDS, Tokens
from spillway.backends.kubernetes.gke import gke_cluster
from spillway.backends.kubernetes.options import Gke
from spillway.backends.protocol import Connection
from spillway.errors import AccessError, RejectedError, SpecError, TransientError
from spillway.model import JobEvent
from spillway.testing.aws_market import ACCESS_KEY, REGION, SECRET_KEY, AwsMarket, aws_market
from spillway.testing.backend_suite import Behaviour
from spillway.testing.certificates import Certificate
from spillway.testing.eks_tokens import why_refused
from spillway.testing.google_machines import permission_denied
from spillway.testing.google_server import GoogleServer, google_server
from spillway.testing.kubernetes_cluster import FakeCluster, fake_kubernetes
from spillway.testing.kubernetes_server import FakeApiServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


CLUSTER = "training"
OF_GKE = f"projects/our-project/locations/europe-west4/clusters/{CLUSTER}"


@dataclass
class Api:
    """An API server in TLS that asks somebody else who sends a token."""

    url: str
    authority: str
    server: FakeApiServer
    cluster: FakeCluster


class CloudWorld(KubernetesWorld):
    """A pool on a cluster that a cloud manages, by an Airflow connection of the name `cloud`."""

    def __init__(
        self, folder: Path, api: Api, kind: str, extra: dict[str, Any], **options: Any
    ) -> None:
        super().__init__(folder, api.url, api.server, api.cluster, **options)
        self.kind, self.extra = kind, extra

    def connection(self, token: str = "") -> Connection:
        assert not token
        return Connection(client=client_of(self.kind, "cloud"), extra=self.extra)

    def connect(self, token: str = "") -> KubernetesBackend:
        return KubernetesBackend(self.pool(), home=self.folder, connection=self.connection(token))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("cluster")
    certificate = Certificate(folder)
    with fake_kubernetes(folder, token=TOKEN, encryption=certificate.context()) as found:
        yield Api(found[0], certificate.authority, found[1], found[2])


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory, api: Api) -> Iterator[AwsMarket]:
    with aws_market(tmp_path_factory.mktemp("aws")) as market:
        market.add_cluster(CLUSTER, api.url, api.authority)
        yield market


@pytest.fixture
def eks(
    aws: AwsMarket, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., CloudWorld]]:
    extra = {"region_name": REGION, "endpoint_url": aws.url}
    told = {"conn_type": "aws", "login": ACCESS_KEY, "password": SECRET_KEY, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_CLOUD", json.dumps(told))
    api.server.authenticate = lambda token: TOKEN if is_of_eks(token) else ""
    aws.calls.clear()
    yield lambda **options: CloudWorld(
        tmp_path, api, "aws", extra, eks={"cluster": CLUSTER} | options
    )
    aws.allow_all()


def is_of_eks(token: str, cluster: str = CLUSTER, **after: float) -> bool:
    now = datetime.now(UTC) + timedelta(**after)
    keys = {ACCESS_KEY: SECRET_KEY}
    return not why_refused(token, cluster=cluster, keys=keys, region=REGION, now=now)


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleServer]:
    with google_server(tmp_path_factory.mktemp("google")) as server:
        yield server


@pytest.fixture
def gke(
    google: GoogleServer, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., CloudWorld]]:
    key = google.accounts.add("spillway", f"{google.rest_url}/token")
    told = {"conn_type": "google_cloud_platform", "extra": {"keyfile_dict": json.dumps(key)}}
    monkeypatch.setenv("AIRFLOW_CONN_CLOUD", json.dumps(told))
    api.server.authenticate = lambda token: TOKEN if google.accounts.knows(token) else ""
    google.clusters[OF_GKE] = container_v1.Cluster(
        status="RUNNING",
        endpoint=api.url.removeprefix("https://"),
        master_auth={"cluster_ca_certificate": api.authority},
        private_cluster_config={"private_endpoint": "10.0.0.2"},
        control_plane_endpoints_config={"dns_endpoint_config": {"endpoint": "gke-1.gke.goog"}},
    )
    google.calls.clear()
    own = {"cluster": CLUSTER, "location": "europe-west4", "service_endpoint": google.grpc_url}
    yield lambda **options: CloudWorld(
        tmp_path, api, "google_cloud_platform", {}, gke=own | options
    )
    google.refusals.clear()


def lives_and_dies(world: CloudWorld) -> KubernetesBackend:
    """Run one job to its end, and stop another; return the backend that did it all."""
    backend = world.connect()
    done, other = (
        backend.submit(world.submission(what)) for what in (Behaviour.PRINTS, Behaviour.RUNS_ON)
    )
    assert backend.submit(world.submission(Behaviour.PRINTS, done.key)) == done
    assert world.wait(backend, done).event is JobEvent.SUCCEEDED
    assert backend.read_log(done, 0).text
    assert {job.key for job in backend.list_jobs()} == {other.key}
    backend.release(other)
    assert backend.observe([other])[other.key].event in {JobEvent.CANCELLED, JobEvent.VANISHED}
    return backend


def test_a_pool_on_eks_needs_a_connection_to_aws_only(
    eks: Callable[..., CloudWorld], aws: AwsMarket, api: Api
) -> None:
    api.server.requests.clear()
    lives_and_dies(eks())
    assert aws.calls == ["eks:DescribeCluster"]
    tokens = {request.token for request in api.server.requests}
    assert len(tokens) == 1
    assert all(map(is_of_eks, tokens))


def test_a_pool_on_gke_needs_a_connection_to_google_only(
    gke: Callable[..., CloudWorld], google: GoogleServer, api: Api
) -> None:
    api.server.requests.clear()
    lives_and_dies(gke())
    assert google.calls == ["GetCluster"]
    assert len({request.token for request in api.server.requests}) == 1


def test_a_token_of_eks_is_for_one_cluster_and_minutes(aws: AwsMarket) -> None:
    now = [0.0]
    session = Aws("it", Connection(client=aws.session()), backend="kubernetes", region=REGION)
    tokens = Tokens(session, CLUSTER, clock=lambda: now[0])
    first = tokens()
    assert tokens() == first
    assert is_of_eks(first)
    assert is_of_eks(first, seconds=TOKEN_SECONDS)  # still good when the next is made
    assert not is_of_eks(first, minutes=16)
    assert not is_of_eks(first, "another")
    now[0] = TOKEN_SECONDS + 1
    made: list[str] = []
    session.signed_url = lambda *_, **__: made.append("x") or "https://x"  # type: ignore[method-assign,func-returns-value]
    assert tokens() != first
    assert made == ["x"]


def test_a_token_of_google_that_is_over_is_renewed(
    gke: Callable[..., CloudWorld], google: GoogleServer
) -> None:
    world = gke()
    connection = world.connection()
    backend = KubernetesBackend(world.pool(), home=world.folder, connection=connection)
    assert backend.list_jobs() == []
    google.accounts.forget_tokens()
    with pytest.raises(AccessError, match="401"):
        backend.list_jobs()
    credentials, _ = connection.client  # type: ignore[misc]  # what Google's hook makes
    credentials.expiry = datetime.now(UTC).replace(tzinfo=None)
    assert backend.list_jobs() == []
    google.accounts.remove("spillway")
    credentials.expiry = datetime.now(UTC).replace(tzinfo=None)
    with pytest.raises(AccessError, match="invalid_grant"):
        backend.list_jobs()


def test_where_a_cluster_is_is_asked_anew_after_a_while(
    gke: Callable[..., CloudWorld],
    google: GoogleServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(managed, "LOCATED_FOR_SECONDS", -1.0)
    backend = gke().connect()
    assert backend.list_jobs() == []
    google.clusters[OF_GKE].master_auth.cluster_ca_certificate = Certificate(tmp_path).authority
    with pytest.raises(AccessError, match="certificate authority"):
        backend.list_jobs()


@pytest.mark.parametrize(
    ("endpoint", "url", "has_authority"),
    [("private", "https://10.0.0.2", True), ("dns", "https://gke-1.gke.goog", False)],
)
def test_an_api_server_of_gke_has_several_addresses(
    gke: Callable[..., CloudWorld],
    google: GoogleServer,
    endpoint: Any,
    url: str,
    *,
    has_authority: bool,
) -> None:
    options = Gke(
        cluster=CLUSTER,
        location="europe-west4",
        endpoint=endpoint,
        service_endpoint=google.grpc_url,
    )
    there = gke_cluster("it", options, gke().connection())._locate()
    assert (there.url, there.authority is not None) == (url, has_authority)


def test_refusals_of_aws_are_errors_by_what_to_do(
    eks: Callable[..., CloudWorld], aws: AwsMarket, api: Api
) -> None:
    with pytest.raises(RejectedError, match="unheard"):
        eks(cluster="unheard").connect().list_jobs()
    aws.deny("eks:DescribeCluster")
    backend = eks().connect()
    with pytest.raises(AccessError, match="permission eks:DescribeCluster is missing"):
        backend.list_jobs()
    aws.allow_all()
    assert backend.list_jobs() == []
    api.server.authenticate = lambda _: ""
    with pytest.raises(AccessError, match="access entry"):
        backend.list_jobs()


def test_refusals_of_google_are_errors_by_what_to_do(
    gke: Callable[..., CloudWorld], google: GoogleServer
) -> None:
    with pytest.raises(RejectedError, match=r"correct the option gke"):
        gke(cluster="unheard").connect().list_jobs()
    google.refusals["GetCluster"] = permission_denied("container.clusters.get")
    with pytest.raises(AccessError, match=r"container\.clusters\.get"):
        gke().connect().list_jobs()
    google.refusals.clear()
    del google.clusters[OF_GKE].private_cluster_config
    for status, kind in (("PROVISIONING", TransientError), ("RUNNING", RejectedError)):
        google.clusters[OF_GKE].status = status
        with pytest.raises(kind, match=f"is {status} and has no private endpoint"):
            gke(endpoint="private").connect().list_jobs()


def test_a_connection_of_another_kind_is_named(
    eks: Callable[..., CloudWorld], gke: Callable[..., CloudWorld]
) -> None:
    stranger = Connection(client=object())
    for world, kind in ((eks(), "type aws"), (gke(), "google_cloud_platform")):
        with pytest.raises(SpecError, match=kind):
            KubernetesBackend(world.pool(), home=world.folder, connection=stranger)
