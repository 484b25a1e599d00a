"""Instance types with accelerators: what a container on one has to be given to see them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One instance type.

    Attributes:
        gpus: Of NVIDIA's, asked for as the resource `GPU`.
        neuron_devices: Trainium or Inferentia chips, each a device file of the host.
        efa_interfaces: Elastic Fabric Adapters, each a device file of the host.
    """

    cpus: int
    memory_gib: int
    accelerator: str
    gpus: int = 0
    neuron_devices: int = 0
    efa_interfaces: int = 0


# Sources: Amazon EC2, "Specifications for Amazon EC2 accelerated computing instances",
# docs.aws.amazon.com/ec2/latest/instancetypes/ac.html; "Elastic Fabric Adapter", "Maximize network bandwidth",
# docs.aws.amazon.com/AWSEC2/latest/UserGuide/efa-acc-inst-types.html. A test compares it with `DescribeInstanceTypes`.
SHAPES: Final[Mapping[str, Shape]] = MappingProxyType(
    {
        "p5.4xlarge": Shape(cpus=16, memory_gib=256, accelerator="H100", gpus=1, efa_interfaces=1),
        "p5.48xlarge": Shape(
            cpus=192, memory_gib=2048, accelerator="H100", gpus=8, efa_interfaces=32
        ),
        "p5e.48xlarge": Shape(
            cpus=192, memory_gib=2048, accelerator="H200", gpus=8, efa_interfaces=32
        ),
        "p5en.48xlarge": Shape(
            cpus=192, memory_gib=2048, accelerator="H200", gpus=8, efa_interfaces=16
        ),
        "trn1.2xlarge": Shape(cpus=8, memory_gib=32, accelerator="Trainium", neuron_devices=1),
        "trn1.32xlarge": Shape(
            cpus=128, memory_gib=512, accelerator="Trainium", neuron_devices=16, efa_interfaces=8
        ),
        "trn1n.32xlarge": Shape(
            cpus=128, memory_gib=512, accelerator="Trainium", neuron_devices=16, efa_interfaces=16
        ),
        "trn2.48xlarge": Shape(
            cpus=192, memory_gib=2048, accelerator="Trainium2", neuron_devices=16, efa_interfaces=16
        ),
        "inf2.xlarge": Shape(cpus=4, memory_gib=16, accelerator="Inferentia2", neuron_devices=1),
        "inf2.8xlarge": Shape(cpus=32, memory_gib=128, accelerator="Inferentia2", neuron_devices=1),
        "inf2.24xlarge": Shape(
            cpus=96, memory_gib=384, accelerator="Inferentia2", neuron_devices=6
        ),
        "inf2.48xlarge": Shape(
            cpus=192, memory_gib=768, accelerator="Inferentia2", neuron_devices=12
        ),
    }
)

NEURON_ACCELERATORS: Final = frozenset(
    shape.accelerator for shape in SHAPES.values() if shape.neuron_devices
)


def neuron_devices(count: int) -> list[str]:
    """Return the device files of `count` Neuron devices.

    Source: AWS Neuron, "Containers", `--device=/dev/neuron0`, awsdocs-neuron.readthedocs-hosted.com/en/latest/containers.
    """
    return [f"/dev/neuron{number}" for number in range(count)]


def efa_devices(count: int) -> list[str]:
    """Return the device files of `count` Elastic Fabric Adapters.

    Source: AWS Batch, "Elastic Fabric Adapter", docs.aws.amazon.com/batch/latest/userguide/efa.html.
    """
    return [f"/dev/infiniband/uverbs{number}" for number in range(count)]
