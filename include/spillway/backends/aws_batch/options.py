"""What a pool of AWS Batch may say under `options`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from spillway.backends.aws.options import Arn, AwsOptions, Word, read
from spillway.backends.aws.shapes import NEURON_ACCELERATORS, SHAPES, Shape
from spillway.errors import SpecError
from spillway.model import Market  # pydantic reads it

if TYPE_CHECKING:
    from spillway.model import Pool, Resources


class BatchOptions(AwsOptions):
    """Options of a pool of AWS Batch.

    Attributes:
        queue: Job queue, by name or ARN; `queues` has one for each market instead.
        instance_type: What the queue's instances are, for the devices of accelerators; None for plain ones.
        job_role: Role that the job itself has, for the checkpoint store.
        execution_role: Role that pulls the image, writes the log and reads `secrets`.
        secrets: Environment variables by the ARN of what holds them, in Secrets Manager or Parameter Store.
        log_group: Where the output goes, in CloudWatch Logs.
        share_identifier: Of a queue with a scheduling policy.
        shared_memory_mib: Size of `/dev/shm`, which data loaders need; None for Docker's 64 MiB.
        capacity_reservations: Reservations or capacity blocks that count the pool's room.
        efa: Whether jobs get the instance's Elastic Fabric Adapters; None for gangs only.
    """

    queue: Word | None = None
    queues: dict[Market, Word] = Field(default_factory=dict[Market, str])
    instance_type: Word | None = None
    job_role: Arn | None = None
    execution_role: Arn | None = None
    secrets: dict[str, Arn] = Field(default_factory=dict)
    log_group: Word = "/aws/batch/job"
    share_identifier: Word | None = None
    scheduling_priority: Annotated[int, Field(ge=0, le=9999)] = 0
    shared_memory_mib: Annotated[int, Field(gt=0)] | None = None
    capacity_reservations: tuple[Word, ...] = ()
    efa: bool | None = None

    @property
    def shape(self) -> Shape | None:
        """The instance's accelerators; None where they are not known."""
        return SHAPES.get(self.instance_type or "")

    def queue_of(self, market: Market) -> str:
        """Return the queue of a market, which `read_options` has made sure of."""
        queue = self.queues.get(market, self.queue)
        assert queue is not None
        return queue

    def neuron_devices(self, resources: Resources) -> int:
        """Return how many Neuron devices a job of these resources is given."""
        if self.shape is not None and self.shape.neuron_devices:
            return resources.accelerator_count or self.shape.neuron_devices
        return resources.accelerator_count if resources.accelerator in NEURON_ACCELERATORS else 0

    def gpus(self, resources: Resources) -> int:
        """Return how many GPUs a job of these resources is given."""
        is_neuron = resources.accelerator in NEURON_ACCELERATORS
        return 0 if is_neuron or self.neuron_devices(resources) else resources.accelerator_count


def read_options(pool: Pool) -> BatchOptions:
    """Return the pool's options.

    Raises:
        SpecError: They have a mistake; the message names pool and option.
    """
    options = read(BatchOptions, pool)
    if options.queues.get(pool.market, options.queue) is None:
        raise SpecError(
            f"pool {pool.name!r} needs the option queue: the job queue of its market {pool.market.value},"
            f" or `queues: {{{pool.market.value}: ...}}`"
        )
    if options.secrets and options.execution_role is None:
        raise SpecError(
            f"pool {pool.name!r} has the option secrets and no execution_role, which reads them"
        )
    if options.min_placement_score is not None and options.instance_type is None:
        raise SpecError(
            f"pool {pool.name!r} has the option min_placement_score and no instance_type, which is scored"
        )
    return options
