"""The fake of an API server: what the real one refuses, it refuses."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from spillway.testing.kubernetes_objects import Refusal, Request
from spillway.testing.kubernetes_server import FakeApiServer

TOKEN = "a token"
METADATA = {"name": "a", "namespace": "default", "labels": {"team": "vision"}}
POD = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "x"}]}


def job(**metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**METADATA, **metadata},
        "spec": {"template": {"spec": POD}},
    }


def ask(server: FakeApiServer, method: str, body: Any = None, **changes: Any) -> tuple[int, Any]:
    asked = {"plural": "jobs", "namespace": "default", "name": "a", "part": "", "query": {}}
    return server.answer(
        Request(**{**asked, **changes}, method=method, body=body or {}, token=TOKEN)
    )


def apply(server: FakeApiServer, body: Any, manager: str = "us", **query: str) -> tuple[int, Any]:
    return ask(server, "PATCH", body, query={"fieldManager": manager, **query})


@pytest.fixture
def server() -> FakeApiServer:
    """One that has a Job of ours."""
    server = FakeApiServer(token=TOKEN)
    assert apply(server, job())[0] == HTTPStatus.CREATED
    return server


def version(server: FakeApiServer) -> str:
    return str(ask(server, "GET")[1]["metadata"]["resourceVersion"])


def test_a_write_about_a_version_that_is_over_is_refused(server: FakeApiServer) -> None:
    old = version(server)
    apply(server, job(labels={"team": "audio"}))
    writes: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("PATCH", job(resourceVersion=old), {"query": {"fieldManager": "us"}}),
        ("PATCH", {"metadata": {"resourceVersion": old}, "status": {}}, {"part": "status"}),
        ("DELETE", {"preconditions": {"resourceVersion": old}}, {}),
    ]
    before = version(server)
    for method, body, changes in writes:
        with pytest.raises(Refusal, match="the object has been modified") as refusal:
            ask(server, method, body, **changes)
        assert refusal.value.status == HTTPStatus.CONFLICT
    assert version(server) == before
    apply(server, job(resourceVersion=before, labels={"team": "video"}))
    ask(server, "DELETE", {"preconditions": {"resourceVersion": version(server)}})
    assert server.one("jobs", "a") is None


def test_what_belongs_to_another_is_changed_only_by_force(server: FakeApiServer) -> None:
    theirs = job(labels={"team": "audio"})
    with pytest.raises(Refusal, match=r'conflict with "us": \.metadata\.labels\.team') as refusal:
        apply(server, theirs, "them")
    assert refusal.value.status == HTTPStatus.CONFLICT
    apply(server, theirs, "them", force="true")
    with pytest.raises(Refusal, match='conflict with "them"'):
        apply(server, job())


def test_what_is_there_is_not_created_again(server: FakeApiServer) -> None:
    with pytest.raises(Refusal, match="already exists") as refusal:
        ask(server, "POST", job(), name="")
    assert refusal.value.status == HTTPStatus.CONFLICT


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"template": {"spec": {**POD, "priorityClassName": "low"}}}, 422, "field is immutable"),
        ({"template": {"spec": {**POD, "restartPolicy": "Always"}}}, 422, "restartPolicy"),
        ({"template": {"spec": {**POD, "nope": 1}}}, 400, "field not declared in schema"),
    ],
    ids=["immutable", "invalid", "unknown"],
)
def test_a_body_with_a_mistake_is_refused(
    server: FakeApiServer, change: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(Refusal, match=words) as refusal:
        apply(server, {**job(), "spec": change})
    assert refusal.value.status == status


def test_whoever_may_only_change_makes_nothing_new(server: FakeApiServer) -> None:
    server.allowed[TOKEN] = frozenset({("patch", "jobs")})
    apply(server, job())
    with pytest.raises(Refusal, match="cannot create") as refusal:
        ask(server, "PATCH", job(name="b"), name="b", query={"fieldManager": "us"})
    assert refusal.value.status == HTTPStatus.FORBIDDEN


def test_an_eviction_says_so_and_gives_the_pod_its_time(server: FakeApiServer) -> None:
    evict: dict[str, Any] = {"plural": "pods", "name": "p", "part": "eviction"}
    with pytest.raises(Refusal, match="not found"):
        ask(server, "POST", **evict)
    server.add("pods", {"metadata": {"name": "p"}, "spec": {}, "status": {}})
    assert ask(server, "POST", **evict)[0] == HTTPStatus.CREATED
    pod = server.one("pods", "p")
    assert pod is not None
    assert pod["status"]["conditions"][0]["reason"] == "EvictionByEvictionAPI"
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 30


def test_a_watch_from_before_what_is_remembered_is_told_so(server: FakeApiServer) -> None:
    query = {"watch": "true", "resourceVersion": version(server), "timeoutSeconds": "1"}
    request = Request(
        method="GET",
        plural="jobs",
        namespace="default",
        name="",
        part="",
        query=query,
        token=TOKEN,
    )
    server.forget_history()
    (told,) = server.watch(request)
    assert (told["type"], told["object"]["code"]) == ("ERROR", HTTPStatus.GONE)
