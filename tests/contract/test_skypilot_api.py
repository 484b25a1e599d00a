"""What SkyPilot's real API server answers, as far as it goes without a cloud account; and its own models, held against ours.

Its targets of one's own, `kubernetes` and `ssh`, are there up to pods that wait for a node.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import uuid
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kubernetes.utils import parse_quantity

from conftest import require
from contract.skypilot_world import SkyPilotWorld
from patience import PATIENCE_SECONDS
from spillway.backends.protocol import Connection, Job
from spillway.backends.skypilot import inventory, parse
from spillway.backends.skypilot.backend import SkyPilotBackend
from spillway.backends.skypilot.client import ApiServer
from spillway.backends.skypilot.failures import ERRORS
from spillway.backends.skypilot.options import CLOUDS
from spillway.catalog.price_list import read_price_list
from spillway.errors import AccessError, CapacityError, RejectedError
from spillway.model import JobEvent, Market, Resources
from spillway.testing.backend_suite import Behaviour
from spillway.testing.kubernetes_cluster import FakeCluster
from spillway.testing.kubernetes_objects import KINDS, Refusal
from spillway.testing.kubernetes_server import FakeApiServer, api_server
from spillway.testing.skypilot_api import kubeconfig, real_skypilot
from spillway.testing.skypilot_server import fake_skypilot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[2]
TOKEN = "a token of the tests"
OWN: dict[str, Any] = {
    "market": Market.PARTNER,
    "instance_type": None,
    "image": "docker:example.org/trainer:1",
}

ASK_THE_VENDOR = """
import inspect, json, sys
from sky import exceptions
from sky.backends import task_codegen
from sky.schemas.api import responses
from sky.server.requests import payloads, requests
from sky.server.requests.serializers import encoders
from sky.skylet import job_lib
from sky.utils import registry, status_lib

told = json.load(sys.stdin)
for name, body in told["bodies"]:
    model = getattr(payloads, name)
    unknown = set(body) - set(model.model_fields)
    assert not unknown, f"{name} has no {unknown}"
    model(**body)
payloads.LaunchBody(**told["bodies"][0][1]).to_kwargs()
for row in told["rows"]:
    responses.StatusResponse.model_validate(row)
    assert set(row) <= set(responses.StatusResponse.model_fields), row
json.dump({
    "clusters": [one.value for one in status_lib.ClusterStatus],
    "jobs": [one.value for one in job_lib.JobStatus],
    "active": [one.value for one in requests.RequestStatus.active_statuses()],
    "over": [one.value for one in job_lib.JobStatus if one.is_terminal()],
    "clouds": sorted(registry.CLOUD_REGISTRY.keys()),
    "job_status": encoders.get_encoder("sky.job_status")({1: job_lib.JobStatus.RUNNING}),
    "writes_exit_codes": "return code list:" in inspect.getsource(task_codegen),
    "errors": [name for name, one in vars(exceptions).items() if inspect.isclass(one) and issubclass(one, Exception)],
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def python() -> Path:
    setup = REPOSITORY / ".ci" / "skypilot" / "setup"
    done = subprocess.run([setup], capture_output=True, text=True, check=False)
    require(done.returncode == 0, f"{setup} could not install SkyPilot: {done.stderr}")
    return REPOSITORY / "build" / "skypilot" / "venv" / "bin" / "python"


QUOTA = Refusal(
    403,
    "Forbidden",
    'pods "trainer-head" is forbidden: exceeded quota: team, requested: pods=1, used: pods=4, limited: pods=4',
)


class Kubernetes:
    """A cluster with one node, whose pods nobody runs: what SkyPilot does in them would be done to this machine."""

    def __init__(self, folder: Path) -> None:
        self.server = FakeApiServer(token=TOKEN)
        FakeCluster(self.server, folder).add_node("node-1")

    def pods(self) -> list[Any]:
        return self.server.all("pods")

    @contextmanager
    def without(self, right: tuple[str, str] | Refusal | None) -> Iterator[None]:
        """Take a right away, or answer the making of pods with a refusal."""
        if isinstance(right, Refusal):
            makes = ("create", "pods")
            self.server.refuse = lambda one: right if (one.verb, one.plural) == makes else None
            yield
            self.server.refuse = lambda _: None
            return
        verbs = ("get", "list", "watch", "create", "patch", "delete")
        everything = {(verb, plural) for plural in KINDS for verb in verbs}
        self.server.allowed[TOKEN] = frozenset(everything - {right})
        yield
        self.server.allowed[TOKEN] = None


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Kubernetes:
    for tool in ("nc", "socat"):
        require(shutil.which(tool), f"without {tool} SkyPilot uses no Kubernetes: apt-get install")
    return Kubernetes(tmp_path_factory.mktemp("kubernetes"))


@pytest.fixture(scope="module")
def url(
    python: Path, kubernetes: Kubernetes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    # A node pool of SSH hosts that is up is a Kubernetes to SkyPilot, in a context of such a name.
    tokens = {"lab": TOKEN, "ssh-hosts": TOKEN}
    home = tmp_path_factory.mktemp("skypilot")
    with (
        api_server(kubernetes.server) as cluster,
        real_skypilot(python, home, kubernetes=kubeconfig(cluster, tokens)) as url,
    ):
        yield url


def until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not look():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.1)


class RealWorld(SkyPilotWorld):
    def __init__(self, url: str, folder: Path, **options: Any) -> None:
        self.url = url
        super().__init__(None, folder, **options)  # type: ignore[arg-type]  # the real one instead

    def connect(
        self, *, patience_seconds: float = PATIENCE_SECONDS, **facts: Any
    ) -> SkyPilotBackend:
        server = ApiServer(Connection(host=self.url, **facts), timeout_seconds=PATIENCE_SECONDS)
        return SkyPilotBackend(
            self.pool(), home=self.folder, server=server, submit_seconds=patience_seconds
        )


def test_nothing_is_known_of_what_was_never_asked_for(url: str, tmp_path: Path) -> None:
    backend = RealWorld(url, tmp_path).connect()
    job = Job(key="dag/run/never submitted/-1/1")
    assert backend.observe([job])[job.key].event is JobEvent.VANISHED
    assert list(backend.list_jobs()) == []
    assert backend.read_log(job, 0).text == ""
    assert dict(backend.costs([job])) == {}
    backend.release(job)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({}, AccessError, "sky check"),
        ({"instance_type": "gpu_9x_h900"}, RejectedError, "gpu_9x_h900"),
        ({"region": "moon-1"}, RejectedError, "moon-1"),
        (
            {"cloud": "slurm", "region": "nowhere", "instance_type": None, "idle": None},
            RejectedError,
            "nowhere",
        ),
        (
            {**OWN, "cloud": "kubernetes", "region": "no-such-context"},
            RejectedError,
            "no-such-context",
        ),
        ({**OWN, "cloud": "ssh", "region": "no-such-pool"}, RejectedError, "no-such-pool"),
    ],
)
def test_what_cannot_be_launched_is_a_named_error_and_leaves_nothing(
    url: str, tmp_path: Path, options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    world = RealWorld(url, tmp_path, **options)
    backend = world.connect()
    submission = world.submission(Behaviour.RUNS_ON)
    with pytest.raises(kind, match=words) as refusal:
        backend.submit(submission)
    assert refusal.value.key == submission.key  # type: ignore[attr-defined]  # all of ours have it
    job = Job(key=submission.key)
    seen = backend.observe([job])[job.key]
    assert (seen.event, words in seen.detail) == (JobEvent.FAILED, True)
    backend.release(job)
    assert list(backend.list_jobs()) == []


@pytest.mark.parametrize(("cloud", "region"), [("kubernetes", "lab"), ("ssh", "hosts")])
def test_machines_of_ones_own_are_pods_with_our_tags_until_they_are_released(
    url: str, kubernetes: Kubernetes, tmp_path: Path, cloud: str, region: str
) -> None:
    options = {**OWN, "cloud": cloud, "region": region, "start_within": "PT1H"}
    world = RealWorld(url, tmp_path, labels={"team": "vision"}, **options)
    backend = world.connect(patience_seconds=0)
    asked = Resources(cpus=2, memory_gib=3)
    submission = replace(world.submission(Behaviour.RUNS_ON), nodes=2, resources=asked)
    job = backend.submit(submission)
    name = str(job.provider_id)
    until(lambda: len(kubernetes.pods()) == submission.nodes)
    assert backend.submit(submission) == job
    for pod in kubernetes.pods():
        labels, notes = pod["metadata"]["labels"], pod["metadata"]["annotations"]
        assert (labels["spillway-job"], labels["team"]) == (job.provider_id, "vision")
        assert notes["skypilot-cluster-name"] == job.provider_id
        (container,) = pod["spec"]["containers"]
        assert container["image"] == "example.org/trainer:1"
        requested = container["resources"]["requests"]
        assert parse_quantity(requested["cpu"]) == asked.cpus
        assert parse_quantity(requested["memory"]) == 3 * 10**9
    assert list(backend.list_jobs()) == [job]
    assert backend.observe([job])[job.key].event is JobEvent.SUBMITTED
    assert len(kubernetes.pods()) == submission.nodes
    if cloud == "kubernetes":  # once will do: it takes seconds
        with kubernetes.without(("delete", "pods")):
            backend.release(job)
            until(lambda: not any(one.is_active for one in backend._server.requests(name)))
            assert backend.submit(submission) == job  # and launches nothing beside what is left
            assert list(backend.list_jobs()) == [job]
            assert backend.observe([job])[job.key].event is JobEvent.CANCELLED
    backend.release(job)
    until(lambda: not kubernetes.pods() and not kubernetes.server.all("services"))
    until(lambda: not backend.list_jobs())
    assert backend.observe([job])[job.key].event is JobEvent.CANCELLED
    backend.release(job)


@pytest.mark.parametrize(
    ("missing", "kind", "words"),
    [
        (None, CapacityError, "context lab"),
        (("create", "pods"), AccessError, 'cannot create resource "pods"'),
        (QUOTA, CapacityError, "exceeded quota: team, .*ResourceQuota is used up"),
    ],
)
def test_pods_that_find_no_node_are_told_from_those_that_may_not_be(
    url: str,
    kubernetes: Kubernetes,
    tmp_path: Path,
    missing: tuple[str, str] | Refusal | None,
    kind: type[Exception],
    words: str,
) -> None:
    options = {**OWN, "cloud": "kubernetes", "region": "lab", "start_within": "PT1S"}
    world = RealWorld(url, tmp_path, **options)
    backend = world.connect()
    submission = world.submission(Behaviour.RUNS_ON)
    with kubernetes.without(missing), pytest.raises(kind, match=words):
        backend.submit(submission)
    assert kubernetes.pods() == []
    assert list(backend.list_jobs()) == []
    seen = backend.observe([Job(key=submission.key)])[submission.key]
    assert seen.event is (JobEvent.PREEMPTED if kind is CapacityError else JobEvent.FAILED)


def test_a_token_that_is_none_is_named(url: str, tmp_path: Path) -> None:
    backend = RealWorld(url, tmp_path).connect(password=f"sky_{uuid.uuid4().hex}")
    with pytest.raises(AccessError, match="service account"):
        backend.observe([Job(key="a")])


def test_what_a_cloud_offers_becomes_a_price_list(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lambda.csv"
    for _ in range(2):  # it takes seconds the first time, when SkyPilot reads its catalogue
        if inventory.main([url, str(out), "--cloud", "lambda"]) == 0:
            break
    prices = read_price_list(out, "lambda")
    assert list(prices.instance) == ["gpu_1x_a10", "gpu_8x_h100_sxm5"]
    assert list(prices.on_demand) == [0.75, 23.92]
    assert "2 machines" in capsys.readouterr().out
    assert inventory.main([url, str(tmp_path / "moon.csv"), "--cloud", "moon"]) == 2
    assert not (tmp_path / "moon.csv").exists()


def test_requests_and_answers_are_of_the_vendors_own_models(python: Path, tmp_path: Path) -> None:
    with fake_skypilot(tmp_path / "fake") as sky:
        world = SkyPilotWorld(sky, tmp_path, labels={"team": "vision"})
        backend = world.connect()
        jobs = [
            backend.submit(replace(world.submission(Behaviour.RUNS_ON), nodes=nodes))
            for nodes in (1, 1)
        ]
        sky.break_up(str(jobs[0].provider_id))
        told = {
            "bodies": [
                ["LaunchBody", {**sky.launches[0], "env_vars": {}}],
                ["StopOrDownBody", {"cluster_name": "a"}],
                ["JobStatusBody", {"cluster_name": "a", "job_ids": [1]}],
                ["ClusterJobBody", {"cluster_name": "a", "job_id": 1, "follow": False, "tail": 5}],
                ["RequestCancelBody", {"request_ids": ["a"]}],
                ["CostReportBody", {"days": 30, "cluster_names": ["a"]}],
            ],
            "rows": sky.rows(),
        }
    done = subprocess.run(
        [python, "-c", ASK_THE_VENDOR],
        input=json.dumps(told),
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    vendor = json.loads(done.stdout.splitlines()[-1])
    assert set(vendor["clusters"]) == set(parse.CLUSTERS)
    assert set(vendor["jobs"]) == set(parse.JOBS)
    assert set(vendor["active"]) == parse.ACTIVE
    assert set(vendor["over"]) == parse.OVER
    assert set(vendor["errors"]) - set(ERRORS) == set()
    assert set(vendor["clouds"]) == CLOUDS
    assert parse.job_state(vendor["job_status"]) == "RUNNING"
    assert vendor["writes_exit_codes"]
