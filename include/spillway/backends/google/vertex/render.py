"""What is sent to Vertex AI for a submission. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.cloud import aiplatform_v1
from google.protobuf.duration_pb2 import Duration

from spillway.backends.google import naming
from spillway.backends.google.environment import variables

if TYPE_CHECKING:
    from spillway.backends.google.vertex.options import VertexOptions
    from spillway.model import Submission

NAME: Final = "google_vertex"

_RESERVATION_KEY: Final = "compute.googleapis.com/reservation-name"


def custom_job(submission: Submission, options: VertexOptions) -> aiplatform_v1.CustomJob:
    """Return the job for the submission; it holds no secret.

    Raises:
        RejectedError: The submission is too large for an environment variable.
    """
    pool, key = submission.pool, submission.key
    # The first machine is a pool of its own: Vertex allows that pool no second one.
    sizes = [1, submission.nodes - 1] if submission.nodes > 1 else [1]
    spec = aiplatform_v1.CustomJobSpec(
        worker_pool_specs=[_workers(submission, options, size) for size in sizes],
        scheduling=_scheduling(options),
        service_account=options.service_account or "",
        network=options.network or "",
    )
    return aiplatform_v1.CustomJob(
        display_name=naming.job_id(pool, key),
        labels={**options.labels, **naming.labels(pool, key)},
        job_spec=spec,
    )


def _workers(
    submission: Submission, options: VertexOptions, size: int
) -> aiplatform_v1.WorkerPoolSpec:
    said = variables(submission, options, backend=NAME)
    spec = aiplatform_v1.WorkerPoolSpec(
        machine_spec=_machine(submission, options),
        replica_count=size,
        container_spec=aiplatform_v1.ContainerSpec(
            image_uri=options.image,
            command=[options.python],
            args=["-m", "spillway.runtime"],
            env=[aiplatform_v1.EnvVar(name=name, value=value) for name, value in said.items()],
        ),
    )
    if options.boot_disk_gib is not None:
        spec.disk_spec = aiplatform_v1.DiskSpec(
            boot_disk_type=options.boot_disk_type, boot_disk_size_gb=options.boot_disk_gib
        )
    return spec


def _machine(submission: Submission, options: VertexOptions) -> aiplatform_v1.MachineSpec:
    count = submission.resources.accelerator_count if options.accelerator_type else 0
    machine = aiplatform_v1.MachineSpec(
        machine_type=options.machine_type,
        accelerator_type=options.accelerator_type if count else None,
        accelerator_count=count,
        tpu_topology=options.tpu_topology or "",
    )
    if options.reservation:
        machine.reservation_affinity = aiplatform_v1.ReservationAffinity(
            reservation_affinity_type=aiplatform_v1.ReservationAffinity.Type.SPECIFIC_RESERVATION,
            key=_RESERVATION_KEY,
            values=[options.reservation],
        )
    return machine


def _scheduling(options: VertexOptions) -> aiplatform_v1.Scheduling:
    """Return how it is scheduled; not tried again, since Spillway resumes by itself, wherever it is the cheapest."""
    scheduling = aiplatform_v1.Scheduling(
        strategy=options.strategy,
        disable_retries=True,
        restart_job_on_worker_restart=False,
    )
    if options.max_run is not None:
        scheduling.timeout = Duration(seconds=int(options.max_run.total_seconds()))
    if options.max_wait is not None:
        scheduling.max_wait_duration = Duration(seconds=int(options.max_wait.total_seconds()))
    return scheduling
