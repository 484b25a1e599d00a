"""Objects of Kubernetes' API as plain JSON, for the fake of it: which kinds there are, what is wrong with one, who may have it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import kubernetes.client

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

Object = dict[str, Any]
_Json = TypeVar("_Json")

_RIGHTS: Final = "/apis/rbac.authorization.k8s.io/v1"

# Which kinds there are, by plural: the path of group and version, and the client's model that says which fields it has.
KINDS: Final[Mapping[str, tuple[str, str, str | None]]] = {
    "jobs": ("/apis/batch/v1", "Job", "V1Job"),
    "pods": ("/api/v1", "Pod", "V1Pod"),
    "services": ("/api/v1", "Service", "V1Service"),
    "events": ("/api/v1", "Event", None),
    "secrets": ("/api/v1", "Secret", "V1Secret"),
    "nodes": ("/api/v1", "Node", "V1Node"),
    "namespaces": ("/api/v1", "Namespace", "V1Namespace"),
    "serviceaccounts": ("/api/v1", "ServiceAccount", "V1ServiceAccount"),
    "deployments": ("/apis/apps/v1", "Deployment", "V1Deployment"),
    "runtimeclasses": ("/apis/node.k8s.io/v1", "RuntimeClass", "V1RuntimeClass"),
    "roles": (_RIGHTS, "Role", "V1Role"),
    "rolebindings": (_RIGHTS, "RoleBinding", "V1RoleBinding"),
    "clusterroles": (_RIGHTS, "ClusterRole", "V1ClusterRole"),
    "clusterrolebindings": (_RIGHTS, "ClusterRoleBinding", "V1ClusterRoleBinding"),
    "jobsets": ("/apis/jobset.x-k8s.io/v1alpha2", "JobSet", None),
    "rayjobs": ("/apis/ray.io/v1", "RayJob", None),
    "rayclusters": ("/apis/ray.io/v1", "RayCluster", None),
    "workloads": ("/apis/kueue.x-k8s.io/v1beta1", "Workload", None),
    "localqueues": ("/apis/kueue.x-k8s.io/v1beta1", "LocalQueue", None),
    "clusterqueues": ("/apis/kueue.x-k8s.io/v1beta1", "ClusterQueue", None),
}
OF_THE_CLUSTER: Final = frozenset(
    {
        "nodes",
        "clusterqueues",
        "namespaces",
        "runtimeclasses",
        "clusterroles",
        "clusterrolebindings",
    }
)
_SINCE: Final = {"completionMode": 22, "suspend": 22, "podFailurePolicy": 26}
"""Which Kubernetes 1 has a field of Jobs; the client's models are of the newest."""
_VERBS: Final = {"GET": "get", "PATCH": "patch", "DELETE": "delete", "POST": "create"}
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """The answer is that it cannot be done: a `Status` of failure."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.body: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": status,
        }
        super().__init__(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked, taken apart; `name` is empty for a collection, `namespace` for the whole cluster."""

    method: str
    plural: str
    namespace: str
    name: str
    part: str
    query: Mapping[str, str]
    body: Object = field(default_factory=dict)
    token: str = ""

    @property
    def verb(self) -> str:
        """What a Role calls it."""
        if self.method == "GET" and not self.name:
            return "watch" if self.query.get("watch") == "true" else "list"
        return _VERBS[self.method]

    @property
    def resource(self) -> str:
        """What a Role calls it: `pods`, or `pods/log` for a part."""
        return f"{self.plural}/{self.part}" if self.part else self.plural


class Objects(Protocol):
    """What controllers and kubelets use of an API server, a fake or a real one.

    Attributes:
        logs: What pods printed, each line with its time; by the pod's name.
    """

    logs: dict[str, bytearray]

    @property
    def lock(self) -> AbstractContextManager[object]:
        """To hold during a step."""
        ...

    @property
    def troubles(self) -> tuple[type[Exception], ...]:
        """What a step may raise, after which the next one tries again."""
        ...

    def look_anew(self) -> None:
        """Begin a step."""
        ...

    def all(self, plural: str) -> list[Object]:
        """Return all objects of the kind, which may be of the step's beginning."""
        ...

    def one(self, plural: str, name: str, namespace: str = ...) -> Object | None:
        """Return the object, or None."""
        ...

    def add(self, plural: str, made: Object, namespace: str = ...) -> Object:
        """Make an object."""
        ...

    def update(
        self,
        plural: str,
        name: str,
        change: Callable[[Object], object],
        *,
        namespace: str = ...,
        manager: str = ...,
    ) -> None:
        """Change the object, if there is one."""
        ...

    def remove(self, plural: str, name: str, namespace: str = ...) -> None:
        """Have the object be gone at once."""
        ...

    def delete(
        self, plural: str, name: str, namespace: str = ..., grace: float | None = ...
    ) -> None:
        """Delete the object; a pod goes when its kubelet has ended it."""
        ...


def now_of_server() -> datetime:
    """Return the time by the server's clock, which a test may put in the place of the true one."""
    return datetime.now(UTC)


def copied(value: _Json) -> _Json:
    """Return a copy of what JSON can hold, in less than half the time that `copy.deepcopy` takes."""
    whole: Any = value
    if isinstance(whole, dict):
        whole = {key: copied(one) for key, one in whole.items()}
    elif isinstance(whole, list):
        whole = [copied(one) for one in whole]
    return whole  # type: ignore[no-any-return]  # of the kind that it was


def stamp(seconds_from_now: float = 0) -> str:
    """Return a time as the API writes it, to the second."""
    when = now_of_server() + timedelta(seconds=seconds_from_now)
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


def owner_of(made: Object) -> str | None:
    """Return the uid of what the object belongs to."""
    owners = made["metadata"].get("ownerReferences") or [{}]
    uid: str | None = owners[0].get("uid")
    return uid


def set_condition(made: Object, condition: Object) -> None:
    """Put the condition in the place of the one of its type."""
    conditions: list[Object] = made.setdefault("status", {}).setdefault("conditions", [])
    old = next((one for one in conditions if one["type"] == condition["type"]), None)
    if old is None:
        conditions.append({"lastTransitionTime": stamp(), **condition})
    elif {**old, **condition} != old:
        old.update(condition, lastTransitionTime=stamp())


def unknown_fields(made: Any, model: str, place: str = "") -> list[str]:
    """Return which fields the client's model of the API does not have."""
    kind = getattr(kubernetes.client, model, None)
    if kind is None or not isinstance(made, dict):
        return []
    types = {kind.attribute_map[name]: text for name, text in kind.openapi_types.items()}
    found: list[str] = []
    for name, value in made.items():
        if name not in types:
            found.append(f"{place}.{name}")
            continue
        inner = re.fullmatch(r"list\[(\w+)\]", types[name])
        for one in value if inner else [value]:
            found += unknown_fields(one, inner[1] if inner else types[name], f"{place}.{name}")
    return found


def validate(request: Request, body: Object, *, minor: int) -> None:
    """Check what is to be there against the schema of Kubernetes 1.`minor`, and against what the API server checks beside it.

    Raises:
        Refusal: It has mistakes.
    """
    kind = KINDS[request.plural][1]
    unknown = unknown_fields(body, KINDS[request.plural][2] or "")
    if kind == "Job":
        unknown += [f".spec.{name}" for name in body["spec"] if minor < _SINCE.get(name, 0)]
    if unknown:
        raise Refusal(
            400,
            "BadRequest",
            f"failed to create typed patch object: {unknown[0]}: field not declared in schema",
        )
    problems = [
        f"metadata.labels: Invalid value: {value!r}"
        for value in (body["metadata"].get("labels") or {}).values()
        if not _LABEL.fullmatch(value)
    ]
    if not _NAME.fullmatch(request.name):
        problems.append(
            f"metadata.name: Invalid value: {request.name!r}: a lowercase RFC 1123 label"
        )
    if kind == "Job":
        problems += _problems_of_job(body["spec"])
    if kind == "RayJob" and not body["spec"].get("entrypoint"):
        problems.append("spec.entrypoint: Required value")
    if problems:
        raise Refusal(422, "Invalid", f'{kind} "{request.name}" is invalid: {"; ".join(problems)}')


def check_version(request: Request, there: Object) -> None:
    """Check that what is there is still the version that the request is about, where it names one.

    Raises:
        Refusal: Somebody has changed it since.
    """
    body, now = request.body, there["metadata"]["resourceVersion"]
    about = {**(body.get("metadata") or {}), **(body.get("preconditions") or {})}
    if about.get("resourceVersion", now) != now:
        raise Refusal(
            409,
            "Conflict",
            f'Operation cannot be fulfilled on {request.plural} "{request.name}": the object has been modified; please'
            " apply your changes to the latest version and try again",
        )


def _problems_of_job(spec: Object) -> list[str]:
    pod = spec["template"]["spec"]
    problems = []
    if pod.get("restartPolicy") not in {"Never", "OnFailure"}:
        problems.append(
            'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
        )
    if spec.get("completionMode") == "Indexed" and "completions" not in spec:
        problems.append("spec.completions: Required value: when completion mode is Indexed")
    for name, quantity in pod["containers"][0].get("resources", {}).get("requests", {}).items():
        limit = pod["containers"][0]["resources"].get("limits", {}).get(name)
        if "/" in name and limit != quantity:
            problems.append(f"{name}: limit must be set for non overcommitable resources")
    return problems


def fits(seen: Object, request: Request) -> bool:
    """Return whether namespace and selectors of the request let the object through."""
    if request.namespace and seen["metadata"].get("namespace") != request.namespace:
        return False
    labels = seen["metadata"].get("labels") or {}
    return _agrees(labels, request.query.get("labelSelector", "")) and _agrees(
        leaves(seen), request.query.get("fieldSelector", "")
    )


def _agrees(facts: Mapping[str, Any], selector: str) -> bool:
    """Return whether each of `name=value`, `name==value` and `name!=value` is so."""
    for one in selector.split(","):
        name, unequal, value = one.partition("!=")
        if not unequal:
            name, _, value = one.partition("=")
        if one and (facts.get(name) == value.lstrip("=")) is bool(unequal):
            return False
    return True


def leaves(made: Any, place: str = "") -> dict[str, Any]:
    """Return the values by their paths; a list is a value."""
    if not isinstance(made, dict):
        return {place: made}
    found: dict[str, Any] = {}
    for name, value in made.items():
        found |= leaves(value, f"{place}.{name}" if place else name)
    return found


def lines_since(output: bytes, query: Mapping[str, str]) -> bytes:
    """Return lines, each with its time before it, as the query of a pod's log asks for: `sinceTime`, `limitBytes`."""
    since, lines = query.get("sinceTime", ""), output.split(b"\n")
    first = next((n for n, line in enumerate(lines) if line[:20].decode() >= since), len(lines))
    return b"\n".join(lines[first:])[: int(query.get("limitBytes", 1 << 30))]


def merge(there: Any, body: Any) -> Any:
    """Return what is there with what `body` says in its place; a list is replaced as a whole."""
    if not isinstance(there, dict) or not isinstance(body, dict):
        return copied(body)
    return {
        **copied(there),
        **{name: merge(there.get(name), value) for name, value in body.items()},
    }
