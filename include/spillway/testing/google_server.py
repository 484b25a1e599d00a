"""A made-up Google Cloud on free ports of this machine, over gRPC and REST, in the client libraries' own messages."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import grpc
from google.cloud import aiplatform_v1, batch_v1, container_v1
from google.cloud.logging_v2.types import ListLogEntriesRequest
from google.protobuf import duration_pb2, json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from spillway.testing.google_accounts import ServiceAccounts
from spillway.testing.google_batch_service import BatchService
from spillway.testing.google_compute_service import ComputeService
from spillway.testing.google_machines import Refusal
from spillway.testing.google_tpu_service import TpuService
from spillway.testing.google_vertex_service import VertexService
from spillway.testing.http_server import QuietHandler, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Source: google.rpc.Code, github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_HTTP: Final = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
}


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service: what takes the request, and its class."""

    answer: Callable[[Any], Any]
    request: Any


@dataclass
class GoogleServer:
    """The services, and where they are.

    Attributes:
        accounts: Who may have tokens, at `/token` of `rest_url`.
        clusters: Clusters of GKE, by their whole names.
        refusals: By method, what every call of it is answered with.
        lose_answer_of: Method whose next call is done, and then not answered.
        calls: Methods that were called, in order.
        ahead: How far its clock is ahead of ours, over REST.
        received: All that came over the wire, in text.
    """

    batch: BatchService
    vertex: VertexService
    tpu: TpuService
    compute: ComputeService = field(default_factory=ComputeService)
    accounts: ServiceAccounts = field(default_factory=ServiceAccounts)
    clusters: dict[str, Any] = field(default_factory=dict[str, Any])
    grpc_url: str = ""
    rest_url: str = ""
    refusals: dict[str, Refusal] = field(default_factory=dict[str, Refusal])
    lose_answer_of: str | None = None
    calls: list[str] = field(default_factory=list[str])
    ahead: timedelta = timedelta(0)
    received: list[str] = field(default_factory=list[str])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def services(self) -> dict[str, dict[str, Method]]:
        """Return the methods of each gRPC service."""
        return {
            "google.cloud.batch.v1.BatchService": {
                "CreateJob": Method(self.batch.create, batch_v1.CreateJobRequest),
                "GetJob": Method(self.batch.get, batch_v1.GetJobRequest),
                "ListJobs": Method(self.batch.list_jobs, batch_v1.ListJobsRequest),
                "ListTasks": Method(self.batch.tasks, batch_v1.ListTasksRequest),
                "CancelJob": Method(self.batch.cancel, batch_v1.CancelJobRequest),
                "DeleteJob": Method(self.batch.delete, batch_v1.DeleteJobRequest),
            },
            "google.container.v1.ClusterManager": {
                "GetCluster": Method(self._cluster, container_v1.GetClusterRequest),
            },
            "google.logging.v2.LoggingServiceV2": {
                "ListLogEntries": Method(self._log_entries, ListLogEntriesRequest),
            },
            "google.cloud.aiplatform.v1.JobService": {
                "CreateCustomJob": Method(self.vertex.create, aiplatform_v1.CreateCustomJobRequest),
                "ListCustomJobs": Method(
                    self.vertex.list_jobs, aiplatform_v1.ListCustomJobsRequest
                ),
                "CancelCustomJob": Method(self.vertex.cancel, aiplatform_v1.CancelCustomJobRequest),
            },
        }

    def _cluster(self, request: Any) -> Any:
        if request.name not in self.clusters:
            raise Refusal("NOT_FOUND", f"Not found: {request.name}.")
        return self.clusters[request.name]

    def _log_entries(self, request: Any) -> Any:
        service = self.vertex if "ml_job" in request.filter else self.batch
        return service.log_entries(request)

    def call(self, name: str, method: Method, request: Any) -> Any:
        """Answer one call.

        Raises:
            Refusal: What Google would say no with.
        """
        with self.lock:
            self.calls.append(name)
            if name in self.refusals:
                raise self.refusals[name]
            answer = method.answer(request)
            if self.lose_answer_of == name:
                self.lose_answer_of = None
                raise Refusal("UNAVAILABLE", "Connection reset by peer")
            return answer


@contextmanager
def google_server(folder: Path) -> Iterator[GoogleServer]:
    """Serve until the block ends; jobs leave their output in `folder`."""
    server = GoogleServer(
        batch=BatchService(folder), vertex=VertexService(folder), tpu=TpuService(folder)
    )
    services = server.services()
    pool = ThreadPoolExecutor(4)
    wire = grpc.server(pool)
    wire.add_generic_rpc_handlers(
        [_grpc_service(server, name, methods) for name, methods in services.items()]
    )
    server.grpc_url = f"http://127.0.0.1:{wire.add_insecure_port('127.0.0.1:0')}"
    wire.start()

    batch = services["google.cloud.batch.v1.BatchService"]
    vertex = services["google.cloud.aiplatform.v1.JobService"]

    class Handler(_RestHandler):
        cloud = server
        methods = batch | vertex

    try:
        with serving(Handler) as server.rest_url:
            server.tpu.url = server.rest_url
            yield server
    finally:
        wire.stop(None).wait(10)
        pool.shutdown()
        server.batch.close()
        server.vertex.close()
        server.tpu.close()


def _grpc_service(server: GoogleServer, service: str, methods: dict[str, Method]) -> Any:
    return grpc.method_handlers_generic_handler(
        service, {name: _grpc_method(server, name, method) for name, method in methods.items()}
    )


def _grpc_method(server: GoogleServer, name: str, method: Method) -> Any:
    def handle(request: Any, context: Any) -> Any:
        server.received.append(f"{context.invocation_metadata()}\n{request}")
        try:
            return server.call(name, method, request)
        except Refusal as refusal:
            context.abort_with_status(rpc_status.to_status(_status(refusal)))

    return grpc.unary_unary_rpc_method_handler(
        handle, request_deserializer=method.request.deserialize, response_serializer=_to_bytes
    )


def _status(refusal: Refusal) -> status_pb2.Status:
    status = status_pb2.Status(code=code_pb2.Code.Value(refusal.status), message=refusal.message)
    for detail in _details(refusal):
        status.details.add().Pack(detail)
    return status


def _details(refusal: Refusal) -> list[Any]:
    details: list[Any] = []
    if refusal.reason:
        facts = {"domain": refusal.domain, "metadata": refusal.metadata}
        details.append(error_details_pb2.ErrorInfo(reason=refusal.reason, **facts))
    if refusal.retry_seconds is not None:
        delay = duration_pb2.Duration(seconds=refusal.retry_seconds)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _to_bytes(message: Any) -> bytes:
    if hasattr(message, "SerializeToString"):
        return bytes(message.SerializeToString())
    return bytes(type(message).serialize(message))


class _RestHandler(QuietHandler):
    """Batch, Vertex AI and Cloud TPU over REST: paths and queries as the API's HTTP annotations have them."""

    cloud: GoogleServer
    methods: dict[str, Method]

    def clock_ahead(self) -> timedelta:
        """Return how far the server's clock is ahead, by which answers are dated."""
        return self.cloud.ahead

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        body = self.body().decode()
        self.cloud.received.append(f"{self.path}\n{self.headers}\n{body}")
        try:
            if parts.path == "/token":
                with self.cloud.lock:
                    status, answer = self.cloud.accounts.answer(body)
                return self._answer(status, answer)
            if parts.path.startswith(("/v2/", "/v2alpha1/", "/host/")):
                with self.cloud.lock:
                    answer = self.cloud.tpu.answer(self.command, parts.path[1:], query, body)
                return self._answer(200, answer)
            if parts.path.startswith("/compute/v1/"):
                with self.cloud.lock:
                    answer = self.cloud.compute.answer(parts.path[1:], query)
                return self._answer(200, answer)
            asked = _vertex_request if "/customJobs" in parts.path else _rest_request
            name, request = asked(self.command, parts.path.removeprefix("/v1/"), query, body)
            self._answer(200, _to_json(self.cloud.call(name, self.methods[name], request)))
        except Refusal as refusal:
            self._answer(_HTTP[refusal.status], _rest_error(refusal))

    do_GET = do_POST = do_DELETE = do_PUT = _serve  # noqa: N815  # the base class names them

    def _answer(self, status: int, body: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _rest_request(method: str, path: str, query: dict[str, str], body: str) -> tuple[str, Any]:
    if method == "POST" and path.endswith(":cancel"):
        given = json.loads(body or "{}")
        name = path.removesuffix(":cancel")
        return "CancelJob", batch_v1.CancelJobRequest(
            name=name, request_id=given.get("requestId", "")
        )
    if method == "POST":
        return "CreateJob", batch_v1.CreateJobRequest(
            parent=path.removesuffix("/jobs"),
            job=batch_v1.Job.from_json(body),
            job_id=query.get("jobId", ""),
            request_id=query.get("requestId", ""),
        )
    if path.endswith("/tasks"):
        return "ListTasks", batch_v1.ListTasksRequest(parent=path.removesuffix("/tasks"))
    if path.endswith("/jobs"):
        return "ListJobs", batch_v1.ListJobsRequest(
            parent=path.removesuffix("/jobs"),
            filter=query.get("filter", ""),
            order_by=query.get("orderBy", ""),
            page_size=int(query.get("pageSize", 0)),
            page_token=query.get("pageToken", ""),
        )
    return "GetJob", batch_v1.GetJobRequest(name=path)


def _vertex_request(method: str, path: str, query: dict[str, str], body: str) -> tuple[str, Any]:
    if path.endswith(":cancel"):
        name = path.removesuffix(":cancel")
        return "CancelCustomJob", aiplatform_v1.CancelCustomJobRequest(name=name)
    parent = path.removesuffix("/customJobs")
    if method == "POST":
        job = aiplatform_v1.CustomJob.from_json(body)
        return "CreateCustomJob", aiplatform_v1.CreateCustomJobRequest(
            parent=parent, custom_job=job
        )
    return "ListCustomJobs", aiplatform_v1.ListCustomJobsRequest(
        parent=parent,
        filter=query.get("filter", ""),
        page_size=int(query.get("pageSize", 0)),
        page_token=query.get("pageToken", ""),
    )


def _to_json(message: Any) -> str:
    if hasattr(message, "DESCRIPTOR"):
        return str(json_format.MessageToJson(message))
    return str(type(message).to_json(message))


def _rest_error(refusal: Refusal) -> str:
    packed = _status(refusal).details
    error = {
        "code": _HTTP[refusal.status],
        "message": refusal.message,
        "status": refusal.status,
        "details": [json_format.MessageToDict(detail) for detail in packed],
    }
    return json.dumps({"error": error})
