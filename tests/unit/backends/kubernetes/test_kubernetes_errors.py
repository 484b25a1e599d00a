"""Every way in which an API server, or the road to it, can say no."""

from __future__ import annotations

import json
import socket
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import urllib3.exceptions
from kubernetes import client as kubernetes_client
from kubernetes.client import exceptions as client_exceptions
from kubernetes.config import config_exception

from spillway.backends.kubernetes.client import Client
from spillway.backends.kubernetes.failures import (
    CLIENT_ERRORS,
    ConflictError,
    GoneError,
    MissingError,
    by_status,
    explain,
)
from spillway.backends.kubernetes.kinds import KINDS
from spillway.errors import (
    AccessError,
    BackendError,
    CapacityError,
    RejectedError,
    TransientError,
)
from vendors import exceptions_of

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    "kind",
    [
        *exceptions_of(client_exceptions),
        *exceptions_of(config_exception),
        *exceptions_of(urllib3.exceptions),
    ],
    ids=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
def test_every_exception_of_the_client_is_translated(kind: type[Exception]) -> None:
    assert issubclass(kind, CLIENT_ERRORS)


@pytest.mark.parametrize(
    ("status", "message", "kind", "words"),
    [
        (400, "strict decoding error: unknown field", RejectedError, "options"),
        (401, "Unauthorized", AccessError, "renew the credentials"),
        (403, 'User "x" cannot list resource "jobs"', AccessError, "list jobs in ml"),
        (403, "exceeded quota: compute, requested: pods=1", CapacityError, "ResourceQuota"),
        (403, 'pods "x" is forbidden: violates PodSecurity', RejectedError, "policy"),
        (404, 'namespaces "ml" not found', MissingError, "make it"),
        (409, "Apply failed with 1 conflict", ConflictError, "later"),
        (410, "too old resource version", GoneError, "later"),
        (413, "too large", RejectedError, "store"),
        (422, "is invalid: spec", RejectedError, "options"),
        (429, "too many requests", TransientError, "later"),
        (418, "I am a teapot", RejectedError, "teapot"),
        (500, "failed to create typed patch object: .spec.x", RejectedError, "too old"),
        (500, "etcdserver: request timed out", TransientError, "later"),
        (503, "apiserver is shutting down", TransientError, "later"),
    ],
    ids=str,
)
def test_an_answer_is_sorted_by_what_to_do(
    status: int, message: str, kind: type[BackendError], words: str
) -> None:
    error = by_status(status, {"message": message}, "list jobs in ml", key="a key")
    assert type(error) is kind
    assert words in str(error)
    assert message in str(error)
    assert (error.backend, error.key) == ("kubernetes", "a key")


def test_a_certificate_that_nobody_vouches_for_is_for_a_person() -> None:
    said = "SSLError\n[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"
    error = explain(client_exceptions.ApiException(status=0, reason=said), "list jobs")
    assert type(error) is AccessError


def test_credentials_that_a_plugin_does_not_give_are_for_a_person() -> None:
    error = explain(config_exception.ConfigException("exec: process returned 1"), "list jobs")
    assert type(error) is AccessError
    assert "process returned 1" in str(error)


def client_at(url: str) -> Client:
    configuration = kubernetes_client.Configuration(host=url)
    configuration.retries = False
    return Client(kubernetes_client.ApiClient(configuration), "ml")


def test_a_server_that_is_not_there_may_come_back() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TransientError, match="could not be asked"):
        client_at(f"http://127.0.0.1:{port}").list_all(KINDS["job"])
    with pytest.raises(TransientError, match="could not be asked"):
        next(client_at(f"http://127.0.0.1:{port}").watch(KINDS["job"], "1"))


class Answering:
    """A client whose server answers as was written down."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def call_api(self, resource_path: str, method: str, **arguments: Any) -> Any:  # noqa: ARG002
        return self.answer()


def test_a_page_of_a_proxy_is_no_answer() -> None:
    def proxy() -> Any:
        error = client_exceptions.ApiException(status=502, reason="Bad Gateway")
        error.body = "<html>Bad Gateway"
        raise error

    with pytest.raises(TransientError, match="<html>Bad Gateway"):
        Client(Answering(proxy), "ml").list_all(KINDS["job"])
    with pytest.raises(TransientError, match="not JSON"):
        Client(Answering(lambda: ("<html>a login page", 200, {})), "ml").list_all(KINDS["job"])


def test_a_server_that_throttles_says_for_how_long() -> None:
    error = client_exceptions.ApiException(status=429, reason="Too Many Requests")
    error.headers = {"Retry-After": "7"}
    problem = explain(error, "list jobs")
    assert isinstance(problem, TransientError)
    assert problem.retry_after == timedelta(seconds=7)


def test_a_status_that_is_json_gives_its_message() -> None:
    error = client_exceptions.ApiException(status=403, reason="Forbidden")
    error.body = json.dumps({"kind": "Status", "message": "jobs is forbidden", "code": 403})
    assert "jobs is forbidden" in str(explain(error, "list jobs"))
