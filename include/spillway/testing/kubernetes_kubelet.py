"""Scheduler and kubelet of the fake cluster: pods get a node, and their containers are processes of this machine.

No image, no volumes, no network of their own. What ends a pod, and what is then written into its status, is as "Pod Lifecycle"
and "Disruptions" of the Kubernetes documentation have it.
"""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kubernetes.utils import parse_quantity

from spillway.testing.kubernetes_objects import Object, set_condition, stamp
from spillway.testing.process_groups import ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from spillway.testing.kubernetes_objects import Objects

FINISHED: Final = frozenset({"Succeeded", "Failed"})

_REFERENCE: Final = re.compile(r"\$\$|\$\((\w+)\)")


@dataclass(slots=True, kw_only=True)
class _Container:
    """A process that is a pod's container."""

    group: ProcessGroup
    started_at: str
    told_at: float | None = None
    reason: str = ""


class FakeKubelet:
    """Runs the pods of `server`; every call under the server's lock.

    Attributes:
        missing_images: Images that no registry has.
    """

    def __init__(self, server: Objects, folder: Path) -> None:
        self.missing_images: set[str] = set()
        self._server = server
        self._folder = folder
        self._containers: dict[str, _Container] = {}

    def stop(self) -> None:
        """End all containers."""
        for container in self._containers.values():
            container.group.signal(signal.SIGKILL)
            container.group.wait()

    def sync(self) -> None:
        """Give every pod a node, begin what has one, and write down how the others are."""
        for pod in self._server.all("pods"):
            self._sync(pod)

    def reap(self) -> None:
        """Let go of deleted pods that have ended."""
        for pod in self._server.all("pods"):
            if "deletionTimestamp" in pod["metadata"] and phase_of(pod) in FINISHED:
                self._server.remove("pods", pod["metadata"]["name"], pod["metadata"]["namespace"])

    def terminate(self, pod: str, *, reason: str, message: str) -> None:
        """End a pod as the kubelet does for its node's sake: it fails, and is not deleted."""
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}

        def change(one: Object) -> None:
            set_condition(one, {**condition, "message": message})
            one["status"].update(reason=reason, message=message)

        with self._server.lock:
            self._server.update("pods", pod, change)
            self._containers[pod].told_at = time.monotonic()
            self._containers[pod].group.signal(signal.SIGTERM)

    def run_out_of_memory(self, pod: str) -> None:
        """Have the kernel end a pod's container for its own use of memory."""
        with self._server.lock:
            self._containers[pod].reason = "OOMKilled"
            self._containers[pod].group.signal(signal.SIGKILL)

    def lose_node(self, pod: str) -> None:
        """Have a pod's node be gone: the pod garbage collector fails what was on it, and nobody saw how it ended."""
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists",
        }

        def change(one: Object) -> None:
            set_condition(one, condition)
            one["status"]["phase"] = "Failed"

        with self._server.lock:
            container = self._containers.pop(pod)
            container.group.signal(signal.SIGKILL)
            container.group.wait()
            self._server.update("pods", pod, change)
            self._server.delete("pods", pod, grace=0)

    def _sync(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        if phase_of(pod) in FINISHED:
            return
        if name in self._containers:
            self._watch_over(pod, self._containers[name])
        elif "deletionTimestamp" in pod["metadata"]:
            self._change(pod, lambda one: one["status"].update(phase="Failed"))
        elif "nodeName" not in pod["spec"]:
            self._schedule(pod)
        else:
            self._begin(pod)

    def _schedule(self, pod: Object) -> None:
        nodes = self._server.all("nodes")
        fitting = [node for node in nodes if self._has_room(node, pod)]
        if not fitting:
            said = f"0/{len(nodes)} nodes are available"
            scheduled = condition("PodScheduled", "Unschedulable", said, status="False")
            self._change(pod, lambda one: set_condition(one, scheduled))
            return

        def bind(one: Object) -> None:
            one["spec"]["nodeName"] = fitting[0]["metadata"]["name"]
            set_condition(one, condition("PodScheduled", ""))

        self._change(pod, bind)

    def _has_room(self, node: Object, pod: Object) -> bool:
        labels = node["metadata"]["labels"]
        wanted = pod["spec"].get("nodeSelector") or {}
        if any(labels.get(key) != value for key, value in wanted.items()):
            return False
        others = [
            one["spec"]
            for one in self._server.all("pods")
            if one["spec"].get("nodeName") == node["metadata"]["name"]
            and phase_of(one) not in FINISHED
        ]
        for resource, asked in _requests(pod["spec"]).items():
            used = sum(_requests(one).get(resource, 0) for one in others)
            if used + asked > parse_quantity(node["status"]["allocatable"].get(resource, "0")):
                return False
        return True

    def _begin(self, pod: Object) -> None:
        container, name = pod["spec"]["containers"][0], pod["metadata"]["name"]
        if container["image"] in self.missing_images:
            self._wait(pod, "ImagePullBackOff", f'Back-off pulling image "{container["image"]}"')
            return
        try:
            environment = self._environment(pod)
        except KeyError as error:
            self._wait(pod, "CreateContainerConfigError", f'secret "{error.args[0]}" not found')
            return
        group = ProcessGroup(
            container["command"],
            cwd=self._folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._containers[name] = _Container(group=group, started_at=stamp())
        self._server.logs[name] = bytearray()
        threading.Thread(target=self._copy_output, args=(name, group.process), daemon=True).start()
        running = {"running": {"startedAt": stamp()}}
        self._change(pod, lambda one: one["status"].update(phase="Running", **_statuses(running)))

    def _watch_over(self, pod: Object, container: _Container) -> None:
        if "deletionTimestamp" in pod["metadata"] and container.told_at is None:
            container.told_at = time.monotonic()
            container.group.signal(signal.SIGTERM)
        grace = pod["metadata"].get("deletionGracePeriodSeconds", 30)
        if container.told_at is not None and time.monotonic() - container.told_at > grace:
            container.group.signal(signal.SIGKILL)
        code = container.group.exit_code()
        if code is None:
            return
        ended = {
            "exitCode": code,
            "reason": container.reason or ("Error" if code else "Completed"),
            "startedAt": container.started_at,
            "finishedAt": stamp(),
        }
        del self._containers[pod["metadata"]["name"]]
        phase = "Failed" if code else "Succeeded"
        self._change(
            pod,
            lambda one: one["status"].update(phase=phase, **_statuses({"terminated": ended})),
        )

    def _wait(self, pod: Object, reason: str, message: str) -> None:
        waiting = {"waiting": {"reason": reason, "message": message}}
        self._change(pod, lambda one: one["status"].update(**_statuses(waiting)))

    def _environment(self, pod: Object) -> dict[str, str]:
        found = {"PATH": os.environ["PATH"], "HOME": str(self._folder)}
        for one in pod["spec"]["containers"][0].get("env", []):
            source = one.get("valueFrom") or {}
            if "fieldRef" in source:
                found[one["name"]] = _field(pod, source["fieldRef"]["fieldPath"])
                continue
            if not source:
                found[one["name"]] = expand(one.get("value", ""), found)
                continue
            wanted = source["secretKeyRef"]
            secret = self._server.one("secrets", wanted["name"], pod["metadata"]["namespace"])
            if secret is None:
                raise KeyError(wanted["name"])
            found[one["name"]] = base64.b64decode(secret["data"][wanted["key"]]).decode()
        return found

    def _copy_output(self, pod: str, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            now = time.time_ns()
            when = datetime.fromtimestamp(now // 10**9, UTC)
            text = f"{when:%Y-%m-%dT%H:%M:%S}.{now % 10**9:09d}".rstrip("0") + "Z "
            with self._server.lock:
                self._server.logs[pod] += text.encode() + line
        process.stdout.close()

    def _change(self, pod: Object, change: Callable[[Object], object]) -> None:
        metadata = pod["metadata"]
        self._server.update("pods", metadata["name"], change, namespace=metadata["namespace"])


def condition(name: str, reason: str, message: str = "", *, status: str = "True") -> Object:
    """Return a condition of an object's status."""
    return {"type": name, "status": status, "reason": reason, "message": message}


def phase_of(pod: Object) -> str:
    """Return the pod's phase."""
    return str(pod["status"]["phase"])


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Return the value of a variable as a container sees it: references to others put in, `$$` made one dollar."""
    return _REFERENCE.sub(
        lambda match: "$" if match[0] == "$$" else variables.get(match[1], match[0]), text
    )


def _field(pod: Object, path: str) -> str:
    """Return a label or an annotation, of `metadata.annotations['name']`."""
    kind, _, rest = path.removeprefix("metadata.").partition("['")
    return str((pod["metadata"].get(kind) or {}).get(rest.removesuffix("']"), ""))


def _statuses(state: Object) -> Object:
    about = {"name": "main", "image": "", "imageID": "", "ready": False, "restartCount": 0}
    return {"containerStatuses": [{**about, "state": state}]}


def _requests(spec: Object) -> dict[str, Any]:
    asked = spec["containers"][0].get("resources", {}).get("requests", {})
    return {name: parse_quantity(text) for name, text in asked.items()}
