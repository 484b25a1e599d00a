"""What is sent to Google Cloud Batch for a submission. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from google.cloud import batch_v1
from google.protobuf.duration_pb2 import Duration

from spillway.backends.google import naming
from spillway.backends.google.environment import variables

if TYPE_CHECKING:
    from spillway.backends.google.batch.options import BatchOptions
    from spillway.model import Submission

NAME: Final = "google_batch"

HOSTS_FILE: Final = "/etc/cloudbatch-taskgroup-hosts"
"""Where Batch puts the list of a gang's machines, by `requireHostsFile`."""


def create_request(
    submission: Submission, options: BatchOptions, parent: str
) -> batch_v1.CreateJobRequest:
    """Return the request for the submission; it holds no secret, only names of secrets.

    Raises:
        RejectedError: The submission is too large for an environment variable.
    """
    pool, key = submission.pool, submission.key
    return batch_v1.CreateJobRequest(
        parent=parent,
        job_id=naming.job_id(pool, key),
        request_id=naming.request_id(pool, key),
        job=batch_v1.Job(
            labels=(labels := {**options.labels, **naming.labels(pool, key)}),
            task_groups=[_task_group(submission, options)],
            allocation_policy=_allocation(submission, options, labels),
            logs_policy=batch_v1.LogsPolicy(
                destination=batch_v1.LogsPolicy.Destination.CLOUD_LOGGING
            ),
        ),
    )


def _task_group(submission: Submission, options: BatchOptions) -> batch_v1.TaskGroup:
    is_gang = submission.nodes > 1
    return batch_v1.TaskGroup(
        task_spec=_task(submission, options),
        task_count=submission.nodes,
        parallelism=submission.nodes,
        task_count_per_node=1,
        require_hosts_file=is_gang,
        permissive_ssh=is_gang,
    )


def _task(submission: Submission, options: BatchOptions) -> batch_v1.TaskSpec:
    """Return one node's task; it is not tried again, since Spillway resumes by itself, wherever it is the cheapest."""
    resources = submission.resources
    task = batch_v1.TaskSpec(
        runnables=[batch_v1.Runnable(container=_container(submission, options))],
        compute_resource=batch_v1.ComputeResource(
            cpu_milli=max(math.ceil(resources.cpus * 1000), 1),
            memory_mib=max(math.ceil(resources.memory_gib * 1024), 1),
        ),
        environment=batch_v1.Environment(
            variables=variables(submission, options, backend=NAME), secret_variables=options.secrets
        ),
        max_retry_count=0,
    )
    if options.max_run is not None:
        task.max_run_duration = Duration(seconds=int(options.max_run.total_seconds()))
    return task


def _container(submission: Submission, options: BatchOptions) -> batch_v1.Runnable.Container:
    is_gang = submission.nodes > 1
    # Members meet at the machines' own addresses, and a member knows itself by them.
    said = [options.container_options, "--network=host" if is_gang else ""]
    mounted = [f"{HOSTS_FILE}:{HOSTS_FILE}:ro"] if is_gang else []
    return batch_v1.Runnable.Container(
        image_uri=options.image,
        entrypoint=options.python,
        commands=["-m", "spillway.runtime"],
        options=" ".join(part for part in said if part),
        volumes=[*options.volumes, *mounted],
    )


def _allocation(
    submission: Submission, options: BatchOptions, labels: dict[str, str]
) -> batch_v1.AllocationPolicy:
    zones = [f"zones/{zone}" for zone in options.zones]
    policy = batch_v1.AllocationPolicy(
        location=batch_v1.AllocationPolicy.LocationPolicy(
            allowed_locations=zones or [f"regions/{options.region}"]
        ),
        instances=[_instances(submission, options)],
        labels=labels,
    )
    if options.service_account:
        policy.service_account = batch_v1.ServiceAccount(email=options.service_account)
    if options.network or options.subnetwork or not options.external_ip:
        interface = batch_v1.AllocationPolicy.NetworkInterface(
            network=options.network or "",
            subnetwork=options.subnetwork or "",
            no_external_ip_address=not options.external_ip,
        )
        policy.network = batch_v1.AllocationPolicy.NetworkPolicy(network_interfaces=[interface])
    return policy


def _instances(
    submission: Submission, options: BatchOptions
) -> batch_v1.AllocationPolicy.InstancePolicyOrTemplate:
    resources = submission.resources
    policy = batch_v1.AllocationPolicy.InstancePolicy(
        machine_type=options.machine_type or "",
        provisioning_model=options.provisioning,
        reservation=options.reservation or "",
    )
    if options.accelerator_type and resources.accelerator_count:
        policy.accelerators = [
            batch_v1.AllocationPolicy.Accelerator(
                type_=options.accelerator_type, count=resources.accelerator_count
            )
        ]
    if options.boot_disk_gib or options.boot_disk_type or options.boot_image:
        policy.boot_disk = batch_v1.AllocationPolicy.Disk(
            size_gb=options.boot_disk_gib or 0,
            type_=options.boot_disk_type or "",
            image=options.boot_image or "",
        )
    drivers = options.install_gpu_drivers
    return batch_v1.AllocationPolicy.InstancePolicyOrTemplate(
        policy=policy,
        install_gpu_drivers=resources.accelerator_count > 0 if drivers is None else drivers,
    )
