"""AWS Batch as its documentation words it, which runs what it is asked to; what moto has of it runs in Docker or not at all."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from spillway.backends.aws import shapes
from spillway.testing.aws_processes import Container, LogWriter
from spillway.testing.aws_words import AwsError, check

if TYPE_CHECKING:
    from collections.abc import Callable

ACCOUNT: Final = "123456789012"
DEVICES: Final = "SPILLWAY_TEST_DEVICES"
"""Variable that stands for the device files that a container sees."""

TOO_LARGE: Final = (
    "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher than that can be"
    " met by the CE(s) attached to the job queue."
)
"""Source: AWS Batch, "Jobs stuck in RUNNABLE status", docs.aws.amazon.com/batch/latest/userguide/job_stuck_in_runnable.html."""

EXITED: Final = "Essential container in task exited"


@dataclass(kw_only=True, eq=False)
class BatchJob:
    """One job, or one node of one; `detail` is what `DescribeJobs` says of it."""

    detail: dict[str, Any]
    settings: Mapping[str, Any]
    container: Container | None = None
    nodes: list[BatchJob] = field(default_factory=list)
    why: str = ""
    container_reason: str = ""
    code_is_lost: bool = False

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.detail["status"] in ("SUCCEEDED", "FAILED")


class BatchService:
    """Queues, job definitions and jobs.

    Attributes:
        queues: Names of the queues there are, and how many instances each has for jobs.
        instance_types: What the instances of a queue are, where that matters: jobs have to fit on one then, and to find the
            devices there that they are given.
        missing_images: Images that cannot be pulled.
        waiting_reason: What is said of jobs that wait, if anything is.
    """

    def __init__(self, region: str, folder: str, client: Callable[[str], Any]) -> None:
        self.queues: dict[str, int] = {}
        self.instance_types: dict[str, str] = {}
        self.missing_images: set[str] = set()
        self.waiting_reason = ""
        self.jobs: dict[str, BatchJob] = {}
        self.definitions: list[dict[str, Any]] = []
        self._region = region
        self._folder = folder
        self._client = client
        self._lock = threading.RLock()

    def answer(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to an operation of the interface.

        Raises:
            AwsError: It is refused.
        """
        check("batch", operation, parameters, code="ClientException")
        with self._lock:
            answer: dict[str, Any] = getattr(self, f"_{operation}")(parameters)
            return answer

    def interrupt(self, job_id: str, *, notice_seconds: float) -> None:
        """Take the instance of a job back, after a notice."""
        job = self.jobs[job_id]
        job.why = f"Host EC2 (instance i-{uuid.uuid4().hex[:17]}) terminated."
        job.code_is_lost = notice_seconds == 0
        self._stop(job, notice_seconds)

    def run_out_of_memory(self, job_id: str) -> None:
        """Have the kernel kill a job."""
        job = self.jobs[job_id]
        job.container_reason = "OutOfMemoryError: Container killed due to memory usage"
        self._stop(job, 0)

    def forget(self, job_id: str) -> None:
        """Forget a job, as Batch does some days after its end."""
        with self._lock:
            del self.jobs[job_id]

    def stop_all(self) -> None:
        """Kill whatever still runs."""
        for job in list(self.jobs.values()):
            for one in job.nodes or [job]:
                if one.container is not None:
                    one.container.kill()
                    one.container.join()

    # ---- operations --------------------------------------------------------------------------------------------

    def _RegisterJobDefinition(self, asked: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802  # the operation's name
        name = asked["jobDefinitionName"]
        revision = sum(one["jobDefinitionName"] == name for one in self.definitions) + 1
        arn = f"arn:aws:batch:{self._region}:{ACCOUNT}:job-definition/{name}:{revision}"
        made = {
            **asked,
            "jobDefinitionArn": arn,
            "revision": revision,
            "status": "ACTIVE",
        }
        self.definitions.append(made)
        return {"jobDefinitionName": name, "jobDefinitionArn": arn, "revision": revision}

    def _DescribeJobDefinitions(self, asked: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        found = [
            one
            for one in self.definitions
            if one["jobDefinitionName"] == asked.get("jobDefinitionName")
            and one["status"] == asked.get("status", one["status"])
        ]
        return {"jobDefinitions": found}

    def _SubmitJob(self, asked: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        queue = self._queue(asked["jobQueue"])
        settings = next(
            (one for one in self.definitions if one["jobDefinitionArn"] == asked["jobDefinition"]),
            None,
        )
        if settings is None:
            raise AwsError(
                code="ClientException",
                message=f"Job definition {asked['jobDefinition']} not found",
                status=404,
            )
        job = self._make(asked, queue, settings)
        self.jobs[job.detail["jobId"]] = job
        self._schedule()
        arn = f"arn:aws:batch:{self._region}:{ACCOUNT}:job/{job.detail['jobId']}"
        return {"jobName": asked["jobName"], "jobId": job.detail["jobId"], "jobArn": arn}

    def _DescribeJobs(self, asked: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        if len(asked["jobs"]) > 100:
            raise AwsError(code="ClientException", message="Too many jobs: at most 100")
        everything = {
            **self.jobs,
            **{node.detail["jobId"]: node for job in self.jobs.values() for node in job.nodes},
        }
        return {"jobs": [everything[one].detail for one in asked["jobs"] if one in everything]}

    def _ListJobs(self, asked: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        queue = self._queue(asked["jobQueue"])
        found = [
            job.detail
            for job in self.jobs.values()
            if job.detail["jobQueue"] == queue and _is_asked_for(job.detail, asked)
        ]
        found.sort(key=lambda detail: -int(detail["createdAt"]))
        start = int(asked.get("nextToken", 0))
        end = start + min(int(asked.get("maxResults", 100)), 100)
        names = [
            "jobArn",
            "jobId",
            "jobName",
            "createdAt",
            "status",
            "statusReason",
            "startedAt",
            "stoppedAt",
            "nodeProperties",
            "jobDefinition",
            "isCancelled",
            "isTerminated",
        ]
        page = [{name: one[name] for name in names if name in one} for one in found[start:end]]
        more = {"nextToken": str(end)} if end < len(found) else {}
        return {"jobSummaryList": page, **more}

    def _TerminateJob(self, asked: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        job = self.jobs.get(asked["jobId"])
        if job is None or job.is_over:
            return {}
        if job.detail["status"] == "RUNNING":
            job.detail["isTerminated"] = True
            job.why = asked["reason"]
            self._stop(job)
        else:
            job.detail["isCancelled"] = True
            _end(job, status="FAILED", reason=asked["reason"])
        self._schedule()
        return {}

    # ---- what happens to jobs ----------------------------------------------------------------------------------

    def _queue(self, name: str) -> str:
        found = name.rpartition("/")[2]
        if found not in self.queues:
            raise AwsError(
                code="ClientException",
                message=f"Job queue arn:aws:batch:{self._region}:{ACCOUNT}:job-queue/{found} does not exist.",
            )
        return found

    def _make(self, asked: Mapping[str, Any], queue: str, settings: Mapping[str, Any]) -> BatchJob:
        properties = settings.get("nodeProperties")
        detail = {
            "jobId": str(uuid.uuid4()),
            "jobName": asked["jobName"],
            "jobQueue": queue,
            "jobDefinition": asked["jobDefinition"],
            "status": "RUNNABLE",
            "createdAt": int(time.time() * 1000),
            "startedAt": 0,
            "attempts": [],
            "tags": {**settings.get("tags", {}), **asked.get("tags", {})},
            "isCancelled": False,
            "isTerminated": False,
            "retryStrategy": settings.get("retryStrategy", {"attempts": 1}),
        }
        if self.waiting_reason:
            detail["statusReason"] = self.waiting_reason
        if properties is None:
            overrides = asked.get("containerOverrides", {})
            return BatchJob(
                detail={**detail, "container": _merged(settings["containerProperties"], overrides)},
                settings=settings,
            )
        job = BatchJob(detail={**detail, "nodeProperties": properties}, settings=settings)
        container = properties["nodeRangeProperties"][0]["container"]
        overrides = asked["nodeOverrides"]["nodePropertyOverrides"][0]["containerOverrides"]
        for number in range(properties["numNodes"]):
            node = {
                **detail,
                "jobId": f"{detail['jobId']}#{number}",
                "attempts": [],
                "container": _merged(container, overrides),
                "nodeDetails": {
                    "nodeIndex": number,
                    "isMainNode": number == properties["mainNode"],
                },
            }
            job.nodes.append(BatchJob(detail=node, settings=settings))
        return job

    def _schedule(self) -> None:
        """Start what there are instances for, in the order of submission."""
        for job in self.jobs.values():
            running = [one for one in self.jobs.values() if one.detail["status"] == "RUNNING"]
            queue = job.detail["jobQueue"]
            used = sum(len(one.nodes) or 1 for one in running if one.detail["jobQueue"] == queue)
            free = self.queues[queue] - used
            if not self._fits(job):
                job.detail["statusReason"] = TOO_LARGE
                continue
            if job.detail["status"] == "RUNNABLE" and (len(job.nodes) or 1) <= free:
                self._start(job)

    def _start(self, job: BatchJob) -> None:
        parts = job.nodes or [job]
        image = parts[0].detail["container"]["image"]
        if image in self.missing_images:
            container = parts[0].detail["container"]
            container["reason"] = (
                f"CannotPullContainerError: Error response from daemon: manifest for {image} not found"
            )
            _end(job, status="FAILED", reason="Task failed to start")
            return
        for path in _devices(parts[0]) - self._devices_of(job.detail["jobQueue"]):
            parts[0].detail["container"]["reason"] = (
                "CannotStartContainerError: Error response from daemon: error gathering device information while adding"
                f' custom device "{path}": no such file or directory'
            )
            _end(job, status="FAILED", reason="Task failed to start")
            return
        now = int(time.time() * 1000)
        for one in {id(part): part for part in (job, *parts)}.values():
            one.detail |= {"status": "RUNNING", "startedAt": now}
            one.detail.pop("statusReason", None)
        for number, part in enumerate(parts):
            self._run(job, part, number)
        seconds = job.settings.get("timeout", {}).get("attemptDurationSeconds")
        if seconds is not None:
            timer = threading.Timer(seconds, self._time_out, args=(job,))
            timer.daemon = True
            timer.start()

    def _run(self, job: BatchJob, part: BatchJob, number: int) -> None:
        container = part.detail["container"]
        container["logStreamName"] = f"{job.detail['jobName']}/default/{uuid.uuid4().hex}"
        group = container.get("logConfiguration", {}).get("options", {}).get("awslogs-group")
        output = LogWriter(
            self._client("logs"), group or "/aws/batch/job", container["logStreamName"]
        )
        part.container = Container(
            container["command"],
            {
                "AWS_BATCH_JOB_ID": part.detail["jobId"],
                "AWS_BATCH_JOB_ATTEMPT": "1",
                **_node_variables(job, number),
                DEVICES: " ".join(sorted(_devices(part))),
                **{one["name"]: one["value"] for one in container["environment"]},
            },
            folder=self._folder,
            printed=output.write,
            ended=lambda code: self._ended(job, part, code),
        )

    def _instance(self, queue: str) -> dict[str, Any] | None:
        kind = self.instance_types.get(queue)
        if kind is None:
            return None
        ec2 = self._client("ec2")
        (found,) = ec2.describe_instance_types(InstanceTypes=[kind])["InstanceTypes"]
        return dict(found)

    def _fits(self, job: BatchJob) -> bool:
        instance = self._instance(job.detail["jobQueue"])
        if instance is None:
            return True
        gpus = instance.get("GpuInfo", {}).get("Gpus", [])
        has = {
            "VCPU": instance["VCpuInfo"]["DefaultVCpus"],
            "MEMORY": instance["MemoryInfo"]["SizeInMiB"],
            "GPU": sum(one["Count"] for one in gpus),
        }
        container = (job.nodes or [job])[0].detail["container"]
        asked = container.get("resourceRequirements", [])
        return all(int(one["value"]) <= has[one["type"]] for one in asked)

    def _devices_of(self, queue: str) -> set[str]:
        """Return the device files of a queue's instances, as EC2 describes these; of instances that are not known, none is missing."""
        instance = self._instance(queue)
        if instance is None:
            return {*shapes.neuron_devices(64), *shapes.efa_devices(64)}
        neuron = instance.get("NeuronInfo", {}).get("NeuronDevices", [])
        efa = instance.get("NetworkInfo", {}).get("EfaInfo", {}).get("MaximumEfaInterfaces", 0)
        chips = sum(one["Count"] for one in neuron)
        return {*shapes.neuron_devices(chips), *shapes.efa_devices(efa)}

    def _stop(self, job: BatchJob, grace_seconds: float | None = None) -> None:
        for part in job.nodes or [job]:
            if part.container is not None and grace_seconds == 0:
                part.container.kill()
            elif part.container is not None:
                part.container.stop(*([] if grace_seconds is None else [grace_seconds]))

    def _time_out(self, job: BatchJob) -> None:
        if not job.is_over:
            job.why = "Job attempt duration exceeded timeout"
            self._stop(job)

    def _ended(self, job: BatchJob, part: BatchJob, code: int) -> None:
        with self._lock:
            container = part.detail["container"]
            if not job.code_is_lost:
                container["exitCode"] = code
            if job.container_reason:
                container["reason"] = job.container_reason
            if part is not job:
                _end(part, status="SUCCEEDED" if code == 0 else "FAILED", reason=EXITED)
            if part is (job.nodes or [job])[0]:  # the main node's end is the gang's
                status = "SUCCEEDED" if code == 0 and not job.why else "FAILED"
                _end(job, status=status, reason=job.why or EXITED)
                for node in job.nodes[1:]:
                    if node.container is not None:
                        node.container.stop()
                self._schedule()


def _devices(part: BatchJob) -> set[str]:
    """Return the host's device files that a container is given."""
    parameters = part.detail["container"].get("linuxParameters", {})
    return {one["hostPath"] for one in parameters.get("devices", [])}


def _end(job: BatchJob, *, status: str, reason: str) -> None:
    if not job.is_over:
        now = int(time.time() * 1000)
        job.detail |= {"status": status, "statusReason": reason, "stoppedAt": now}


def _merged(container: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    added = {one["name"]: one for one in overrides.get("environment", [])}
    kept = [one for one in container.get("environment", []) if one["name"] not in added]
    return {**container, "environment": [*kept, *added.values()]}


def _node_variables(job: BatchJob, number: int) -> dict[str, str]:
    """Source: AWS Batch, "AWS Batch job environment variables", docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html."""
    if not job.nodes:
        return {}
    variables = {
        "AWS_BATCH_JOB_NODE_INDEX": str(number),
        "AWS_BATCH_JOB_NUM_NODES": str(len(job.nodes)),
        "AWS_BATCH_JOB_MAIN_NODE_INDEX": "0",
    }
    return variables | (
        {"AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "127.0.0.1"} if number else {}
    )


def _is_asked_for(detail: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    for one in asked.get("filters", []):
        if one["name"] == "JOB_NAME":
            wanted = one["values"][0].lower()
            name = detail["jobName"].lower()
            return bool(name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted)
    return bool(detail["status"] == asked.get("jobStatus", "RUNNING"))
