"""The Kubernetes backend: Jobs, JobSets or RayJobs of one pool in one namespace, found again by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from spillway.backends.kubernetes import naming, parse
from spillway.backends.kubernetes import pods as pods_of
from spillway.backends.kubernetes.capacity import pods_that_fit, quota_left
from spillway.backends.kubernetes.client import Client, client_of
from spillway.backends.kubernetes.failures import NAME, ConflictError, MissingError
from spillway.backends.kubernetes.kinds import (
    EVENTS,
    KINDS,
    PODS,
    RAY_CLUSTERS,
    SERVICES,
    WORKLOADS,
)
from spillway.backends.kubernetes.logs import Cursor, lines_after
from spillway.backends.kubernetes.manifests import Manifest
from spillway.backends.kubernetes.options import read_options
from spillway.backends.kubernetes.pod_template import CONTAINER, requests
from spillway.backends.kubernetes.render import needs_service, render, render_service
from spillway.backends.kubernetes.watch import Mirror
from spillway.backends.protocol import Connection, Job, LogChunk
from spillway.backends.room import FreeSlots, Kept, Room
from spillway.backends.slots import check_slots
from spillway.errors import AccessError, BackendError, RejectedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from spillway.model import Observation, Pool, Submission

MAX_LOG_BYTES: Final = 8 << 20
"""Most output that is asked for at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What the namespace holds of the pool's jobs, by their names; evictions by Kueue by uid.

    Attributes:
        departed: Pods that are gone, as they were last seen.
    """

    workloads: Mapping[str, Manifest]
    pods: Mapping[str, Sequence[Manifest]]
    departed: Mapping[str, Sequence[Manifest]]
    evictions: Mapping[str, str]


class KubernetesBackend:
    """Jobs of one pool, each one object of the pool's `kind`."""

    def __init__(
        self,
        pool: Pool,
        *,
        home: Path,  # noqa: ARG002  # nothing is kept on this machine
        connection: Connection | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pool = pool
        self._options = read_options(pool, connection)
        self._kind = KINDS[self._options.kind]
        self._client: Client = client_of(connection, self._options, pool=pool.name)
        self._clock = clock
        self._selector = f"{naming.POOL}={naming.pool_label(pool.name)}"
        self._workloads = Mirror(self._client, self._kind, selector=self._selector)
        self._pods = Mirror(self._client, PODS, selector=self._selector)
        self._admissions = Mirror(self._client, WORKLOADS)
        self._room = Kept(self._count_room)
        self._minor: tuple[int | None] | None = None
        self._cursors: dict[str, Cursor] = {}

    def submit(self, submission: Submission) -> Job:
        """Have the object be there, unless it has been there before.

        Two that do this at once apply the same object by the same name, so there is one.

        Raises:
            CapacityError: Every slot of the pool is taken, or the namespace's quota is used up.
            RejectedError: The cluster does not know the kind, or a policy or its schema refuses the object.
            AccessError: A permission is missing, which the message names, or the credentials are refused.
            TransientError: The cluster could not be asked; call again with the same key.
        """
        try:
            self._submit(submission)
        except BackendError as error:
            error.key = submission.key
            raise
        finally:
            self._room.forget()
        return Job(key=submission.key, provider_id=self._name(submission.key))

    def observe(self, jobs: Sequence[Job]) -> Mapping[str, Observation]:
        """Return what the cluster says of each job, by key: from memory while they go on, asked for when one has ended."""
        if not jobs:
            return {}
        observations = self._observations(jobs, self._look(Mirror.objects))
        if any(map(parse.is_end, observations.values())):
            observations = self._observations(jobs, self._look(Mirror.refresh))
        return observations

    def release(self, job: Job) -> None:
        """Delete the object, and with it its pods; one that has finished is left to its time to live.

        The cluster gives pods their grace period, and goes on with it whether we are there or not.

        Raises:
            TransientError: The cluster could not be asked.
        """
        name = self._name(job.key)
        workload = self._client.get(self._kind, name)
        lives_on = (
            self._options.kind == "rayjob"
        )  # KubeRay removes the cluster of one, and not itself
        if workload is not None and (parse.is_live(workload) or lives_on):
            self._client.delete(self._kind, name)
        self._workloads.forget()
        self._room.forget()

    def free_slots(self) -> int:
        """Return how many more jobs would start now, counted within the last few seconds."""
        return self._room.get().count

    def room_said_at(self) -> datetime | None:
        """Return when the cluster said so; None where only the pool's own jobs are counted."""
        return self._room.get().said_at

    def list_jobs(self) -> Sequence[Job]:
        """Return every live job of the pool."""
        return [
            Job(key=key, provider_id=workload["metadata"]["name"])
            for workload in self._live()
            if (key := parse.key_of(workload)) is not None
        ]

    def read_log(self, job: Job, offset: int) -> LogChunk:
        """Return the job's output from byte `offset` on, whole lines only: of a gang, that of its first member."""
        name = self._name(job.key)
        pods = pods_of.by_job(self._pods.objects().values()).get(name, [])
        if not pods or pods_of.phase(pods[0]) == "Pending":
            return LogChunk(text="", next_offset=offset)
        cursor = self._cursors.get(job.key)
        known = cursor if cursor is not None and cursor.offset == offset else None
        query = {"container": CONTAINER, "timestamps": "true"}
        if known is not None:
            query["sinceTime"] = known.since
        if known is not None or offset == 0:
            query["limitBytes"] = str(MAX_LOG_BYTES)
        raw = self._client.read_log(pods[0]["metadata"]["name"], **query)
        is_over = pods_of.is_over(pods[0]) and len(raw) < MAX_LOG_BYTES
        data, stamp = lines_after(raw, known.stamp if known else "", is_over=is_over)
        if known is None:
            data = data[offset:]
        if is_over and not data:
            self._cursors.pop(job.key, None)
        elif stamp:
            self._cursors[job.key] = Cursor(offset=offset + len(data), stamp=stamp)
        return LogChunk(text=data.decode(errors="replace"), next_offset=offset + len(data))

    def _name(self, key: str) -> str:
        return naming.object_name(self._pool.name, key)

    def _submit(self, submission: Submission) -> None:
        name = self._name(submission.key)
        workload = self._client.get(self._kind, name)
        if workload is None:
            manifest = render(submission, self._options, minor=self._minor_version())
            check_slots(self._pool, submission, taken=_slots_taken(self._live()))
            self._check_queue()
            self._check_ray_cluster()
            workload = self._apply(name, manifest)
        if needs_service(submission, self._options) and parse.is_live(workload):
            uid = str(workload["metadata"]["uid"])
            self._client.apply(SERVICES, render_service(submission, self._options, uid))

    def _minor_version(self) -> int | None:
        """Return which Kubernetes 1 the cluster is, asked for once; None for one that does not say."""
        if self._minor is None:
            self._minor = (self._client.minor_version(),)
        return self._minor[0]

    def _apply(self, name: str, manifest: Manifest) -> Manifest:
        try:
            return self._client.apply(self._kind, manifest)
        except ConflictError:  # somebody else was first, and Kueue has changed it since
            workload = self._client.get(self._kind, name)
            if workload is None:
                raise
            return workload

    def _check_queue(self) -> None:
        """Refuse a queue that is not there: Kueue would let the job wait for it for ever."""
        if self._options.queue is None:
            return
        try:
            self._local_queue()
        except MissingError as error:
            raise RejectedError(
                f"namespace {self._client.namespace!r} has no LocalQueue {self._options.queue!r}: make it, or correct the"
                " option queue",
                backend=NAME,
            ) from error
        except AccessError:  # it is for people only
            return

    def _check_ray_cluster(self) -> None:
        """Refuse a RayCluster that is not there: KubeRay would let the job wait for it for ever."""
        name = self._options.ray_cluster
        if name is None:
            return
        try:
            there = self._client.get(RAY_CLUSTERS, name)
        except AccessError:  # it is for people only
            return
        if there is None:
            raise RejectedError(
                f"namespace {self._client.namespace!r} has no RayCluster {name!r}: make it, or correct the option"
                " ray_cluster",
                backend=NAME,
            )

    def _live(self) -> list[Manifest]:
        """Return the pool's live objects, as the server has them now."""
        found, _ = self._client.list_all(self._kind, labelSelector=self._selector)
        # What a list holds does not repeat its kind.
        return [one for each in found if parse.is_live(one := {**each, "kind": self._kind.name})]

    def _look(self, read: Callable[[Mirror], Mapping[str, Manifest]]) -> _Seen:
        """Return what is there; objects before their pods, so that an end finds its pods ended."""
        kind = {"kind": self._kind.name}
        workloads = {name: {**one, **kind} for name, one in read(self._workloads).items()}
        return _Seen(
            workloads=workloads,
            pods=pods_of.by_job(read(self._pods).values()),
            departed=pods_of.by_job(self._pods.departed().values()),
            evictions=self._evictions(read) if self._options.queue is not None else {},
        )

    def _evictions(self, read: Callable[[Mirror], Mapping[str, Manifest]]) -> Mapping[str, str]:
        try:
            return parse.evictions(read(self._admissions).values())
        except MissingError:  # Kueue of another version: its evictions are seen as waiting
            return {}

    def _observations(self, jobs: Iterable[Job], seen: _Seen) -> dict[str, Observation]:
        now = self._clock()
        there = now + self._client.ahead
        names = {job.key: self._name(job.key) for job in jobs}
        stuck = self._why_no_pods(names.values(), seen)
        found: dict[str, Observation] = {}
        for key, name in names.items():
            workload = seen.workloads.get(name)
            uid = str(workload["metadata"]["uid"]) if workload is not None else ""
            observed = parse.observation(
                workload,
                seen.pods.get(name, ()),
                there,
                departed=seen.departed.get(name, ()),
                start_within=self._options.start_within,
                evicted=seen.evictions.get(uid, ""),
                stuck=stuck.get(name, ""),
            )
            found[key] = replace(observed, seen_at=now)
        return found

    def _why_no_pods(self, names: Iterable[str], seen: _Seen) -> Mapping[str, str]:
        """Return what the cluster says of jobs that get no pods, such as that a quota is used up; one call, if any."""
        waiting = [
            name
            for name in names
            if name not in seen.pods
            and (workload := seen.workloads.get(name)) is not None
            and parse.state_of(workload)[0] is None
        ]
        if not waiting:
            return {}
        try:
            events, _ = self._client.list_all(EVENTS, fieldSelector="reason=FailedCreate")
        except AccessError:  # it is for people only
            return {}
        return {str(one["involvedObject"].get("name")): str(one.get("message")) for one in events}

    def _count_room(self) -> FreeSlots:
        now = self._clock()
        live = self._live()
        free = max(self._pool.slots - _slots_taken(live), 0)
        if self._options.room == "slots" or free == 0:
            return FreeSlots(count=free)
        wanted = requests(self._pool.shape, self._options)
        if self._options.queue is not None:
            left = quota_left(self._cluster_queue(), wanted)
            return Room(instances=left, asked_at=now).within(free)
        pods = list(self._client.list_of_cluster("/api/v1/pods"))
        fits = pods_that_fit(
            self._client.list_of_cluster("/api/v1/nodes"),
            pods,
            wanted,
            node_labels=self._options.node_labels(self._pool.shape),
            tolerations=self._options.tolerations,
        )
        to_come = _pods_to_come(live, pods)
        return Room(instances=fits - to_come, asked_at=now).within(free)

    def _cluster_queue(self) -> Manifest:
        name = self._local_queue()["spec"]["clusterQueue"]
        return self._client.get_of_cluster(f"{WORKLOADS.prefix}/clusterqueues/{name}")

    def _local_queue(self) -> Manifest:
        place = f"{WORKLOADS.prefix}/namespaces/{self._client.namespace}"
        return self._client.get_of_cluster(f"{place}/localqueues/{self._options.queue}")


def _slots_taken(workloads: Iterable[Manifest]) -> int:
    return sum(map(parse.nodes_of, workloads))


def _pods_to_come(live: Iterable[Manifest], pods: Iterable[Manifest]) -> int:
    """Return how many pods of live jobs have no node yet, and will take the room that is idle now."""
    placed = pods_of.by_job(pod for pod in pods if pod["spec"].get("nodeName"))
    return sum(
        max(parse.nodes_of(one) - len(placed.get(one["metadata"]["name"], ())), 0) for one in live
    )
