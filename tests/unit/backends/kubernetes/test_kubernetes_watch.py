"""What a mirror keeps of objects that are gone, on a server that says things in the order that a test chooses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from spillway.backends.kubernetes import watch
from spillway.backends.kubernetes.kinds import PODS
from spillway.backends.kubernetes.watch import Mirror
from spillway.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pytest


def pod(version: int, phase: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "a", "resourceVersion": str(version)},
        "status": {"phase": phase},
    }


class Server:
    """Lists what `objects` holds, and says to watches what is put into `news`; None breaks the watch off."""

    def __init__(self, *objects: dict[str, Any]) -> None:
        self.objects = list(objects)
        self.version = 1
        self.news: SimpleQueue[tuple[str, dict[str, Any]] | None] = SimpleQueue()
        self.lists: SimpleQueue[int] = SimpleQueue()

    def list_all(self, _kind: object, **_: str) -> tuple[list[dict[str, Any]], str]:
        self.lists.put(self.version)
        return list(self.objects), str(self.version)

    def watch(self, _kind: object, _version: str, **_: str) -> Iterator[dict[str, Any]]:
        while (event := self.news.get()) is not None:
            yield {"type": event[0], "object": event[1]}
        raise TransientError("the connection was reset", backend="kubernetes")


def departed_after_a_list(mirror: Mirror) -> Mapping[str, Any]:
    mirror.refresh()
    return mirror.departed()


def a_list_that_lacks_it(server: Server) -> Mirror:
    """Return a mirror that has seen the pod run, of a server where it has ended and is deleted, of which no watch told yet."""
    mirror = Mirror(server, PODS)  # type: ignore[arg-type]  # no real client
    mirror.refresh()
    server.lists.get()
    server.objects.clear()
    server.version = 5
    return mirror


def test_how_it_ended_is_waited_for_where_a_list_is_ahead_of_the_watch() -> None:
    server = Server(pod(1, "Running"))
    mirror = a_list_that_lacks_it(server)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(departed_after_a_list, mirror)
        server.lists.get()
        server.news.put(("MODIFIED", pod(3, "Failed")))
        server.news.put(("DELETED", pod(4, "Failed")))
        assert asked.result()["a"] == pod(4, "Failed")
    server.news.put(None)


def test_a_watch_that_breaks_off_is_not_waited_for() -> None:
    server = Server(pod(1, "Running"))
    mirror = a_list_that_lacks_it(server)
    server.news.put(None)
    assert departed_after_a_list(mirror)["a"] == pod(1, "Running")


def test_a_watch_that_is_silent_is_waited_for_only_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "LAST_WORDS_SECONDS", 0.01)
    server = Server(pod(1, "Running"))
    mirror = a_list_that_lacks_it(server)
    assert departed_after_a_list(mirror)["a"] == pod(1, "Running")
    assert mirror.objects() == {}
    server.news.put(None)
