"""What a namespace holds of one kind, kept up to date by one list and one watch, however many jobs there are."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from spillway.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from spillway.backends.kubernetes.client import Client
    from spillway.backends.kubernetes.kinds import Kind
    from spillway.backends.kubernetes.manifests import Manifest

MAX_SILENCE_SECONDS: Final = 90.0
"""How old the last word of the server may be. Bookmarks come about once a minute, and a watch is renewed as often."""

IDLE_SECONDS: Final = 60.0
"""How long it is kept up to date for nobody."""

LAST_WORDS_SECONDS: Final = 3.0
"""How long to wait for how something was that is not in a list any more; the watch tells it, most often at once."""

MAX_DEPARTED: Final = 1000
"""How many objects that are gone are remembered."""


class Mirror:
    """The objects of one kind that carry a label; safe to use from several threads.

    Reading makes a thread follow the server, which ends when nobody has read for a while, or at the first trouble: the next
    reader then lists anew, and trouble that lasts is that reader's. What is read may be a moment old, so an end or an
    absence that is seen here is to be asked for with `refresh`.

    The order of resource versions is used, as integers, to drop news older than the last list.
    Source: Kubernetes, "Resource versions", kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions.
    """

    def __init__(
        self,
        client: Client,
        kind: Kind,
        *,
        selector: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._kind = kind
        self._query = {"labelSelector": selector} if selector else {}
        self._clock = clock
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._objects: dict[str, Manifest] = {}
        self._departed: dict[str, Manifest] = {}
        self._unheard: set[str] = set()
        self._version = ""
        self._listed = 0
        self._heard_at: float | None = None
        self._read_at = 0.0
        self._follower: threading.Thread | None = None

    def objects(self) -> Mapping[str, Manifest]:
        """Return the objects by name, from memory while the server is heard of, else as `refresh` does."""
        with self._lock:
            self._read_at = self._clock()
            if self._is_fresh():
                return dict(self._objects)
        return self.refresh()

    def departed(self) -> Mapping[str, Manifest]:
        """Return those that are gone as they were at their end, by name; another process has seen others.

        A list that lacks something does not say how it ended. The watch does, and is waited for, for a moment.
        """
        with self._news:
            self._news.wait_for(lambda: not self._unheard, timeout=LAST_WORDS_SECONDS)
            self._unheard.clear()
            return dict(self._departed)

    def refresh(self) -> Mapping[str, Manifest]:
        """Ask the server for all objects, and return them by name.

        Raises:
            TransientError: It could not be asked, which says nothing of the objects.
        """
        items, version = self._client.list_all(self._kind, **self._query)
        with self._lock:
            before = self._objects
            self._objects = {item["metadata"]["name"]: item for item in items}
            for name in before.keys() - self._objects.keys():
                self._remember(name, before[name])
                if self._follower is not None:
                    self._unheard.add(name)
            self._version, self._listed = version, _number(version)
            self._read_at = self._heard_at = self._clock()
            if self._follower is None:
                self._follower = threading.Thread(
                    target=self._follow, name=f"watch {self._kind.plural}", daemon=True
                )
                self._follower.start()
            return dict(self._objects)

    def forget(self) -> None:
        """Have the next reader ask the server."""
        with self._lock:
            self._heard_at = None

    def _is_fresh(self) -> bool:
        silence = None if self._heard_at is None else self._clock() - self._heard_at
        return silence is not None and silence <= MAX_SILENCE_SECONDS

    def _follow(self) -> None:
        try:
            while self._is_wanted():
                for event in self._client.watch(self._kind, self._version, **self._query):
                    self._take(event)
                    if not self._is_wanted():
                        break
        except BackendError:
            pass  # whoever reads next asks the server, and is told what is wrong
        finally:
            with self._news:
                self._heard_at, self._follower = None, None
                self._unheard.clear()
                self._news.notify_all()

    def _is_wanted(self) -> bool:
        with self._lock:
            return self._clock() - self._read_at <= IDLE_SECONDS

    def _take(self, event: Manifest) -> None:
        seen, metadata = event["object"], event["object"]["metadata"]
        version = str(metadata["resourceVersion"])
        with self._news:
            if self._heard_at is not None:
                self._heard_at = self._clock()
            if event["type"] == "DELETED" and metadata["name"] in self._unheard:
                self._unheard.discard(metadata["name"])
                self._remember(metadata["name"], seen)
                self._news.notify_all()
            if _number(version) <= self._listed:
                return  # the list was asked for later
            self._version = version
            if event["type"] == "DELETED":
                self._objects.pop(metadata["name"], None)
                self._remember(metadata["name"], seen)
            elif event["type"] != "BOOKMARK":
                self._objects[metadata["name"]] = seen

    def _remember(self, name: str, last: Manifest) -> None:
        self._departed.pop(name, None)
        self._departed[name] = last
        if len(self._departed) > MAX_DEPARTED:
            del self._departed[next(iter(self._departed))]


def _number(version: str) -> int:
    return int(version) if version.isdigit() else 0
