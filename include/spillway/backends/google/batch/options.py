"""What a pool of Google Cloud Batch may say under `options`."""

from __future__ import annotations

from datetime import timedelta  # noqa: TC003  # pydantic reads it
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from spillway.backends.google.options import GoogleOptions, Secrets, Word, read_options
from spillway.errors import SpecError
from spillway.model import Market

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spillway.model import Pool

# Source: Google Cloud, Batch API, AllocationPolicy.ProvisioningModel.
Provisioning = Literal["STANDARD", "SPOT", "FLEX_START", "RESERVATION_BOUND"]

_OF_MARKET: Final[Mapping[Market, Provisioning]] = MappingProxyType(
    {
        Market.SPOT: "SPOT",
        Market.ON_DEMAND: "STANDARD",
        Market.RESERVED: "STANDARD",
        Market.PARTNER: "STANDARD",
    }
)


class BatchOptions(GoogleOptions):
    """Options of a pool of Google Cloud Batch.

    Attributes:
        zones: Where in the region machines may be; empty for all its zones.
        machine_type: Such as `a3-highgpu-8g`; None to let Batch choose one by the task's resources.
        provisioning: How the machines are bought, where the pool's market does not say it.
        reservation: The reservation that the machines are taken from; `NO_RESERVATION` for none.
        accelerator_type: Accelerators to attach, of machine types that do not come with them, such as `nvidia-tesla-t4`.
        install_gpu_drivers: None for when the pool's shape has accelerators.
        boot_image: Image of the machines' system, such as `batch-debian`; None for Batch's own.
        subnetwork: In `network`.
        external_ip: Whether machines get an address of the internet.
        secrets: Environment variables out of Secret Manager, by `projects/*/secrets/*/versions/*`.
        container_options: More arguments of the `docker run` that starts the runtime.
        volumes: Folders of the machine to mount into the container, as in `docker run --volume`.
        max_run: Longest a job may run; past it the task goes on in another.
        quotas: How much one slot takes of the region's quotas, such as `{PREEMPTIBLE_NVIDIA_H100_GPUS: 8}`; what is left of
            them is then known before a job is started.
    """

    zones: tuple[Word, ...] = ()
    machine_type: Word | None = None
    provisioning: Provisioning | None = None
    reservation: Word | None = None
    accelerator_type: Word | None = None
    install_gpu_drivers: bool | None = None
    boot_disk_gib: PositiveInt | None = None
    boot_disk_type: Word | None = None
    boot_image: Word | None = None
    subnetwork: Word | None = None
    external_ip: bool = True
    secrets: Secrets = Field(default_factory=dict)
    container_options: str = ""
    volumes: tuple[str, ...] = ()
    max_run: timedelta | None = None
    quotas: dict[Word, PositiveFloat] = Field(default_factory=dict)


def read_batch_options(pool: Pool) -> BatchOptions:
    """Return the pool's options, with `provisioning` settled.

    Raises:
        SpecError: They have a mistake, or do not go with the pool's market; the message names pool and option.
    """
    options = read_options(pool, BatchOptions)
    settled = options.provisioning or _OF_MARKET[pool.market]
    problem = _problem(pool, options, settled)
    if problem:
        raise SpecError(f"pool {pool.name!r} has a mistake: {problem}")
    return options.model_copy(update={"provisioning": settled})


def _problem(pool: Pool, options: BatchOptions, provisioning: Provisioning) -> str | None:
    reservation = options.reservation not in {None, "NO_RESERVATION"}
    if (provisioning == "SPOT") != (pool.market is Market.SPOT):
        return f"option provisioning: {provisioning} does not go with the market {pool.market}"
    if pool.market is Market.RESERVED and not reservation:
        return "option reservation: name the reservation that this reserved pool stands for"
    if provisioning in {"SPOT", "FLEX_START"} and reservation:
        return f"option reservation: {provisioning} machines are not taken from a reservation"
    if provisioning == "FLEX_START" and options.max_run is None:
        return "option max_run: flex-start needs it, P7D at most"
    return None
