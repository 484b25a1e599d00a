"""What a pool of Cloud TPU may say under `options`."""

from __future__ import annotations

from datetime import timedelta  # noqa: TC003  # pydantic reads it
from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt  # pydantic reads it

from spillway.backends.google.options import GoogleOptions, Word, read_options
from spillway.errors import SpecError
from spillway.model import Market

if TYPE_CHECKING:
    from spillway.model import Pool


class TpuOptions(GoogleOptions):
    """Options of a pool of Cloud TPU.

    Attributes:
        zone: Where the TPUs are, such as `us-east5-a`.
        slices: What Google calls a slice of so many hosts, such as `{1: v5p-8, 4: v5p-32}`.
        runtime_version: Software of the hosts, such as `v2-alpha-tpuv5` or `v2-alpha-tpuv6e`.
        reservation: The reservation that the TPUs are taken from, as `projects/*/locations/*/reservations/*`.
        provisioning: `RESERVATION_BOUND` for a reservation of calendar mode, at whose end its TPUs are taken away.
        subnetwork: In `network`.
        external_ip: Whether hosts get an address of the internet.
        container_options: More arguments of the `docker run` that starts the runtime.
        wait_at_most: How long Google keeps a request in its queue; None for as long as it likes.
        look_at: How many of the active slices one observation asks whether their job has ended, in turn.
    """

    zone: Word
    slices: dict[PositiveInt, Word] = Field(min_length=1)
    runtime_version: Word
    reservation: Word | None = None
    provisioning: Literal["RESERVATION_BOUND"] | None = None
    subnetwork: Word | None = None
    external_ip: bool = True
    container_options: str = ""
    wait_at_most: timedelta | None = None
    look_at: PositiveInt = 8

    def hosts_of(self, accelerator_type: str) -> int:
        """Return how many hosts a slice of this type has; 1 for one that the pool does not name."""
        return next((hosts for hosts, name in self.slices.items() if name == accelerator_type), 1)


def read_tpu_options(pool: Pool) -> TpuOptions:
    """Return the pool's options.

    Raises:
        SpecError: They have a mistake, or do not go with the pool's market; the message names pool and option.
    """
    options = read_options(pool, TpuOptions)
    problem = None
    if pool.market is Market.SPOT and options.reservation:
        problem = "option reservation: spot TPUs are not taken from a reservation"
    elif pool.market is Market.RESERVED and not options.reservation:
        problem = "option reservation: name the reservation that this reserved pool stands for"
    elif options.provisioning and not options.reservation:
        problem = f"option reservation: {options.provisioning} needs the name of one"
    elif any("\n" in value for value in options.environment.values()):
        problem = "option environment: a value may not have several lines"
    if problem:
        raise SpecError(f"pool {pool.name!r} has a mistake: {problem}")
    return options
