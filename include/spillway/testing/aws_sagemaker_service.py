"""SageMaker training as its documentation words it, which runs what it is asked to; moto's jobs are complete at once."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from spillway.testing.aws_processes import Container, LogWriter
from spillway.testing.aws_words import AwsError, check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ACCOUNT: Final = "123456789012"
LOG_GROUP: Final = "/aws/sagemaker/TrainingJobs"
HOSTS: Final = ("127.0.0.1", "localhost")
"""Instances are this machine by two names; at AWS they are `algo-1` and so on."""


@dataclass(kw_only=True, eq=False)
class TrainingJob:
    """One training job; `detail` is what `DescribeTrainingJob` says of it."""

    detail: dict[str, Any]
    folder: Path
    containers: list[Container] = field(default_factory=list)
    codes: dict[int, int] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.detail["TrainingJobStatus"] in ("Completed", "Failed", "Stopped")


class SageMakerService:
    """Training jobs.

    Attributes:
        quotas: How many instances of a type there may be, where that is limited.
        lacking: Instance types that there is no capacity of.
        missing_images: Images that SageMaker cannot find.
        roles: Roles that it may take; any while there are none.
        plans: Training plans by name, as `DescribeTrainingPlan` has them.
    """

    def __init__(self, region: str, folder: str, client: Callable[[str], Any]) -> None:
        self.quotas: dict[str, int] = {}
        self.lacking: set[str] = set()
        self.missing_images: set[str] = set()
        self.roles: set[str] = set()
        self.plans: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, TrainingJob] = {}
        self._region = region
        self._folder = Path(folder)
        self._client = client
        self._lock = threading.RLock()

    def answer(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to an operation of the interface.

        Raises:
            AwsError: It is refused.
        """
        check("sagemaker", operation, parameters, code="ValidationException")
        with self._lock:
            answer: dict[str, Any] = getattr(self, f"_{operation}")(parameters)
            return answer

    def interrupt(self, name: str) -> None:
        """Take the instances of a managed spot job back; it waits for others then."""
        job = self.jobs[name]
        job.detail["SecondaryStatus"] = "Interrupted"
        self._save(job)
        for container in job.containers:
            container.kill()

    def stop_all(self) -> None:
        """Kill whatever still runs."""
        for job in list(self.jobs.values()):
            for container in job.containers:
                container.kill()
                container.join()

    # ---- operations --------------------------------------------------------------------------------------------

    def _CreateTrainingJob(self, asked: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802  # the operation's name
        name = asked["TrainingJobName"]
        arn = f"arn:aws:sagemaker:{self._region}:{ACCOUNT}:training-job/{name}"
        if name in self.jobs:
            raise AwsError(
                code="ResourceInUse",
                message=f"Training job names must be unique within an AWS account and region, but a training job with the"
                f" name {arn} already exists.",
            )
        self._refuse(asked)
        now = time.time()
        detail = {
            **{field: value for field, value in asked.items() if field != "Tags"},
            "TrainingJobArn": arn,
            "ModelArtifacts": {"S3ModelArtifacts": ""},
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
            "CreationTime": now,
            "LastModifiedTime": now,
        }
        folder = Path(tempfile.mkdtemp(prefix="sagemaker-", dir=self._folder))
        job = self.jobs[name] = TrainingJob(detail=detail, folder=folder)
        kind = asked["ResourceConfig"]["InstanceType"]
        if kind in self.lacking:
            _end(
                job,
                "Failed",
                reason="CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML"
                " instance type.",
            )
        else:
            self._start(job)
        return {"TrainingJobArn": arn}

    def _DescribeTrainingPlan(self, asked: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = asked["TrainingPlanName"]
        if name not in self.plans:
            raise AwsError(code="ResourceNotFound", message=f"Training plan {name} not found")
        return {"TrainingPlanName": name, **self.plans[name]}

    def _DescribeTrainingJob(self, asked: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        return self._job(asked["TrainingJobName"]).detail

    def _ListTrainingJobs(self, asked: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        found = [
            job.detail
            for name, job in self.jobs.items()
            if asked.get("NameContains", "") in name
            and job.detail["TrainingJobStatus"]
            == asked.get("StatusEquals", job.detail["TrainingJobStatus"])
        ]
        found.sort(key=lambda detail: -float(detail["CreationTime"]))
        start = int(asked.get("NextToken", 0))
        end = start + min(int(asked.get("MaxResults", 10)), 100)
        names = (
            "TrainingJobName",
            "TrainingJobArn",
            "CreationTime",
            "LastModifiedTime",
            "TrainingJobStatus",
            "SecondaryStatus",
        )
        page = [{name: one[name] for name in names} for one in found[start:end]]
        more = {"NextToken": str(end)} if end < len(found) else {}
        return {"TrainingJobSummaries": page, **more}

    def _StopTrainingJob(self, asked: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        job = self._job(asked["TrainingJobName"])
        if job.is_over:
            status = job.detail["TrainingJobStatus"]
            raise AwsError(
                code="ValidationException",
                message=f"The request was rejected because the training job is in status {status}.",
            )
        if len(job.codes) == len(job.containers):
            _end(job, "Stopped")
            return {}
        job.detail |= {"TrainingJobStatus": "Stopping", "SecondaryStatus": "Stopping"}
        for container in job.containers:
            container.stop()
        return {}

    # ---- what happens to jobs ----------------------------------------------------------------------------------

    def _job(self, name: str) -> TrainingJob:
        if name not in self.jobs:
            raise AwsError(code="ValidationException", message="Requested resource not found.")
        return self.jobs[name]

    def _refuse(self, asked: Mapping[str, Any]) -> None:
        machines, image = asked["ResourceConfig"], asked["AlgorithmSpecification"]["TrainingImage"]
        kind, count = machines["InstanceType"], machines["InstanceCount"]
        if self.roles and asked["RoleArn"] not in self.roles:
            raise AwsError(
                code="ValidationException",
                message=f"Could not assume role {asked['RoleArn']}. Please ensure that the role exists and allows principal"
                " 'sagemaker.amazonaws.com' to assume the role.",
            )
        if image in self.missing_images:
            raise AwsError(
                code="ValidationException", message=f"Cannot find repository or image: {image}"
            )
        if count > self.quotas.get(kind, count):
            raise AwsError(
                code="ResourceLimitExceeded",
                message=f"The account-level service limit '{kind} for training job usage' is {self.quotas[kind]} Instances,"
                f" with current utilization of 0 Instances and a request delta of {count} Instances.",
            )

    def _start(self, job: TrainingJob) -> None:
        job.detail |= {"SecondaryStatus": "Training", "TrainingStartTime": time.time()}
        count = job.detail["ResourceConfig"]["InstanceCount"]
        hosts = HOSTS[:count]
        for number, host in enumerate(hosts):
            job.containers.append(self._run(job, number, host, hosts))

    def _run(self, job: TrainingJob, number: int, host: str, hosts: tuple[str, ...]) -> Container:
        """Source: "How Amazon SageMaker Provides Training Information", of SageMaker's developer guide."""
        folder = job.folder / str(number)
        config = folder / "input" / "config"
        config.mkdir(parents=True)
        (config / "hyperparameters.json").write_text(json.dumps(job.detail["HyperParameters"]))
        self._restore(job, folder / "checkpoints")
        machines = {"current_host": host, "hosts": list(hosts)}
        (config / "resourceconfig.json").write_text(json.dumps(machines))
        name = job.detail["TrainingJobName"]
        output = LogWriter(
            self._client("logs"), LOG_GROUP, f"{name}/algo-{number + 1}-{int(time.time())}"
        )
        return Container(
            job.detail["AlgorithmSpecification"]["ContainerEntrypoint"],
            {
                "TRAINING_JOB_NAME": name,
                "SPILLWAY_SAGEMAKER_FOLDER": str(folder),
                **job.detail.get("Environment", {}),
            },
            folder=str(self._folder),
            printed=output.write,
            ended=lambda code: self._ended(job, number, code),
        )

    # Source: "Checkpoints in Amazon SageMaker AI", of the developer guide: what is at S3Uri is in LocalPath, by default
    # /opt/ml/checkpoints, when a container begins, and what the container writes there is copied back.

    def _restore(self, job: TrainingJob, folder: Path) -> None:
        for bucket, prefix in _kept_in(job):
            folder.mkdir()
            s3 = self._client("s3")
            for found in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ()):
                path = folder / found["Key"].removeprefix(prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                s3.download_file(bucket, found["Key"], str(path))

    def _save(self, job: TrainingJob) -> None:
        """Copy back what is there now; SageMaker does so all the time."""
        for bucket, prefix in _kept_in(job):
            for folder in job.folder.glob("*/checkpoints"):
                for path in (one for one in folder.rglob("*") if one.is_file()):
                    name = path.relative_to(folder).as_posix()
                    self._client("s3").upload_file(str(path), bucket, f"{prefix}{name}")

    def _ended(self, job: TrainingJob, number: int, code: int) -> None:
        with self._lock:
            job.codes[number] = code
            if job.detail["SecondaryStatus"] != "Interrupted":
                self._save(job)
            count = job.detail["ResourceConfig"]["InstanceCount"]
            if code != 0:  # one instance that fails ends them all
                for other, container in enumerate(job.containers):
                    if other not in job.codes:
                        container.stop()
            if len(job.codes) < count or job.detail["SecondaryStatus"] == "Interrupted":
                return
            failed = next((one for one in job.codes.values() if one != 0), 0)
            if job.detail["TrainingJobStatus"] == "Stopping":
                _end(job, "Stopped")
            elif failed == 0:
                _end(job, "Completed")
            else:
                _end(job, "Failed", reason=_reason(job, failed))


def _kept_in(job: TrainingJob) -> Iterator[tuple[str, str]]:
    """Yield bucket and prefix of the job's checkpoints, if it has any."""
    if "CheckpointConfig" in job.detail:
        parts = urlsplit(job.detail["CheckpointConfig"]["S3Uri"])
        yield parts.netloc, f"{parts.path.strip('/')}/"


def _reason(job: TrainingJob, code: int) -> str:
    told = [path.read_text() for path in sorted(job.folder.glob("*/output/failure"))]
    return f"AlgorithmError: {' '.join(told)[:1024]}, exit code: {code}"


def _end(job: TrainingJob, status: str, *, reason: str = "") -> None:
    job.detail |= {
        "TrainingJobStatus": status,
        "SecondaryStatus": status,
        "TrainingEndTime": time.time(),
    }
    if reason:
        job.detail["FailureReason"] = reason
