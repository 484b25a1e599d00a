"""Queued resources of Cloud TPU over REST, as far as Google documents them, and the metadata of their hosts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from spillway.testing.google_discovery import check_message
from spillway.testing.google_machines import Machine, Refusal, page_of

if TYPE_CHECKING:
    from pathlib import Path

ZONES: Final = frozenset({"us-east5-a"})

# Stands for Docker on a host: reads the environment, drops its own options and the image, and runs the command.
_DOCKER: Final = """\
#!/bin/bash
shift
while [[ "$1" == --* ]]; do
  case "$1" in --env-file=*) set -a; while IFS= read -r line; do export "$line"; done < "${1#*=}"; set +a ;; esac
  shift
done
shift
unset GCE_METADATA_HOST
exec "$@"
"""


@dataclass
class Slice:
    """One queued resource, its hosts, and what they have left in their guest attributes."""

    resource: dict[str, Any]
    hosts: list[Machine] = field(default_factory=list[Machine])
    left: dict[int, dict[str, str]] = field(default_factory=dict[int, dict[str, str]])

    @property
    def node(self) -> dict[str, Any]:
        """What the node is asked to be."""
        found: dict[str, Any] = self.resource["tpu"]["nodeSpec"][0]["node"]
        return found


class TpuService:
    """The service's state.

    Attributes:
        url: Where this service is, for its hosts.
        hosts_of: How many hosts a slice of each type has.
        queues: Whether new requests wait for TPUs.
        refusal: What every creation is answered with.
        page_size: Queued resources on a page, at most.
        calls: Methods that were called, in order.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._slices: dict[str, Slice] = {}
        self._requests: set[str] = set()
        self.url = ""
        self.hosts_of = {"v5p-8": 1, "v5p-16": 2, "v6e-4": 1, "v6e-16": 4}
        self.queues = False
        self.refusal: Refusal | None = None
        self.page_size = 1000
        self.calls: list[str] = []

    def answer(self, method: str, path: str, query: dict[str, str], body: str) -> str:
        """Answer one request.

        Raises:
            Refusal: What Google would say no with.
        """
        if path.startswith("host/"):
            return self._metadata(method, path, body)
        found = re.fullmatch(
            r"(v2|v2alpha1)/projects/[^/]+/locations/([^/]+)/(queuedResources|nodes)/?([^:]*)(:\w+)?",
            path,
        )
        if found is None or found[2] not in ZONES:
            raise Refusal("NOT_FOUND", f"Location {path} is not found.")
        match method, found[3], found[4]:
            case "POST", "queuedResources", "":
                self.calls.append("CreateQueuedResource")
                wanted = json.loads(body)
                check_message("tpu", found[1], "QueuedResource", wanted)
                return self._create(path, query, wanted)
            case "GET", "queuedResources", "":
                self.calls.append("ListQueuedResources")
                return self._list(query)
            case "GET", _, name:
                self.calls.append("GetQueuedResource")
                return json.dumps(self._known(name).resource)
            case "POST", "nodes", name:
                self.calls.append("GetGuestAttributes")
                return json.dumps(self._guest_attributes(self._known(name)))
            case "DELETE", _, name:
                self.calls.append("DeleteQueuedResource")
                self._known(name)
                self.forget(name)
        return json.dumps({"name": "operations/1"})

    def suspend_all(self, initiator: str = "SERVICE") -> None:
        """Take every TPU back."""
        for one in self._slices.values():
            for host in one.hosts:
                host.kill()
            one.resource["state"] = {"state": "SUSPENDED", "stateInitiator": initiator}

    def fail_all(self, message: str) -> None:
        """Refuse every request that waits."""
        for one in self._slices.values():
            error = {"code": 8, "message": message}
            one.resource["state"] = {"state": "FAILED", "failedData": {"error": error}}

    def forget(self, name: str) -> None:
        """Have a slice be gone."""
        for host in self._slices.pop(name).hosts:
            host.kill()

    def leave(self, name: str, *, exit_code: int) -> None:
        """Have the first host of a slice tell an exit code, whatever it does."""
        self._slices[name].left[0] = {"exit": str(exit_code)}

    def close(self) -> None:
        """End all hosts."""
        for one in self._slices.values():
            for host in one.hosts:
                host.kill()

    def resources(self) -> list[dict[str, Any]]:
        """Return all queued resources, as they are."""
        return [one.resource for one in self._slices.values()]

    def _create(self, path: str, query: dict[str, str], resource: dict[str, Any]) -> str:
        if self.refusal is not None:
            raise self.refusal
        name = query["queuedResourceId"]
        if name in self._slices:
            if query["requestId"] in self._requests:
                return json.dumps({"name": "operations/1"})
            raise Refusal("ALREADY_EXISTS", f"Resource '{name}' already exists")
        self._requests.add(query["requestId"])
        state = {"state": "WAITING_FOR_RESOURCES" if self.queues else "ACTIVE"}
        resource |= {
            "name": f"{path.partition('/')[2]}/{name}",
            "createTime": datetime.now(UTC).isoformat(),
            "state": state,
        }
        self._slices[name] = Slice(resource=resource)
        if not self.queues:
            self._start(name, self._slices[name])
        return json.dumps({"name": "operations/1"})

    def _list(self, query: dict[str, str]) -> str:
        page, more = page_of(
            self.resources(),
            size=int(query.get("pageSize", 0)),
            most=self.page_size,
            token=query.get("pageToken", ""),
        )
        return json.dumps({"queuedResources": page, "nextPageToken": more})

    def _known(self, name: str) -> Slice:
        if name not in self._slices:
            raise Refusal("NOT_FOUND", f"Resource '{name}' was not found")
        return self._slices[name]

    def _start(self, name: str, one: Slice) -> None:
        for worker in range(self.hosts_of[one.node["acceleratorType"]]):
            folder = self._folder / f"{name}-{worker}"
            (folder / "bin").mkdir(parents=True)
            docker = folder / "bin" / "docker"
            docker.write_text(_DOCKER)
            docker.chmod(0o755)
            script = f'PATH="{folder}/bin:$PATH"\n{one.node["metadata"]["startup-script"]}'
            variables = {
                "GCE_METADATA_HOST": f"{self.url.removeprefix('http://')}/host/{name}/{worker}",
                "SPILLWAY_FOLDER": str(folder / "spillway"),
                "no_proxy": "127.0.0.1",
            }
            one.hosts.append(
                Machine(["bash", "-c", script], variables, output=folder / "startup.log")
            )

    def _metadata(self, method: str, path: str, body: str) -> str:
        _, name, worker, rest = path.split("/", 3)
        one = self._known(name)
        key = rest.rpartition("/")[2]
        if method == "PUT":
            one.left.setdefault(int(worker), {})[key] = body
            return ""
        hosts = self.hosts_of[one.node["acceleratorType"]]
        given = {
            **one.node["metadata"],
            "agent-worker-number": worker,
            "worker-network-endpoints": ",".join(
                ["unknown:unknown:localhost"] + ["unknown:unknown:nowhere"] * (hosts - 1)
            ),
        }
        return str(given[key])

    def _guest_attributes(self, one: Slice) -> dict[str, Any]:
        return {
            "guestAttributes": [
                {
                    "queryPath": "spillway/",
                    "queryValue": {
                        "items": [
                            {"namespace": "spillway", "key": key, "value": value}
                            for key, value in left.items()
                        ]
                    },
                }
                for left in one.left.values()
            ]
        }
