"""Clusters that a cloud manages: it says where the API server is, and its own credentials make tokens of minutes for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kubernetes.config import (  # pyright: ignore[reportMissingTypeStubs]  # it has no types
    new_client_from_config_dict,  # pyright: ignore[reportUnknownVariableType]
)

if TYPE_CHECKING:
    from collections.abc import Callable

LOCATED_FOR_SECONDS: Final = 3600.0
"""How long it is believed where the API server is and what its certificate is."""

_NAME: Final = "cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """Where an API server is.

    Attributes:
        authority: Who signs its certificate, in PEM and that in base64; None for anybody whom this machine trusts.
    """

    url: str
    authority: str | None


class ManagedCluster:
    """What is used of an API client, for a cluster that is looked up at the first request.

    Both are asked of the cloud when they are needed, so a pool can be made while the cloud does not answer; what they raise
    is what a request raises.
    """

    def __init__(self, locate: Callable[[], ApiServer], token: Callable[[], str]) -> None:
        """Make it without asking anything.

        Args:
            locate: Says where the API server is.
            token: Returns a token that is good for a few minutes more. Called at every request, by one thread at a time.
        """
        self._locate = locate
        self._token = token
        self._lock = threading.Lock()
        self._located: tuple[float, ApiServer] | None = None
        self._client: Any = None

    def call_api(self, resource_path: str, method: str, **arguments: Any) -> Any:
        """Make a request of the API server."""
        return self._api().call_api(resource_path, method, **arguments)

    def _api(self) -> Any:
        with self._lock:
            now = time.monotonic()
            if self._located is None or now - self._located[0] > LOCATED_FOR_SECONDS:
                before, there = self._located, self._locate()
                self._located = (now, there)
                if before is None or before[1] != there:
                    self._client = self._client_of(there)
            return self._client

    def _client_of(self, there: ApiServer) -> Any:
        cluster = {"server": there.url}
        if there.authority is not None:
            cluster["certificate-authority-data"] = there.authority
        config: dict[str, Any] = {
            "current-context": _NAME,
            "contexts": [{"name": _NAME, "context": {"cluster": _NAME, "user": _NAME}}],
            "clusters": [{"name": _NAME, "cluster": cluster}],
            "users": [{"name": _NAME, "user": {}}],
        }
        client: Any = new_client_from_config_dict(config, persist_config=False)
        client.configuration.api_key["authorization"] = ""  # for the client to ask the hook
        client.configuration.refresh_api_key_hook = self._refresh
        return client

    def _refresh(self, configuration: Any) -> None:
        with self._lock:
            configuration.api_key["authorization"] = f"Bearer {self._token()}"
